"""Time the chat on a GPU: tokens per second, and seconds to the first token."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_lora import GpuMllm
from benchmarks.mllm_arithmetic import MEASURED_BYTES_A_S, Figures, weights_of
from benchmarks.moving_clips import write_clip
from benchmarks.random_vlm import GRID, TOKEN_DIM, like_llamas, video_tokens
from benchmarks.timing import seconds
from qa_data.questions import LETTERS, STEM
from sefar_core.checkpoint import build_model, save_encoder
from sefar_core.presets import preset
from sefar_mllm.adapters import composite
from sefar_mllm.chat.assistant import Assistant
from sefar_mllm.config import ChatLimits
from sefar_mllm.encoders import ENCODERS, Encoder, pool
from sefar_mllm.generate import generate_ids
from sefar_mllm.scoring import rotated_prompts


def decoding(model: Any, tokenizer: Any, settings: GpuMllm) -> Figures:
    """One answer at a time from cached tokens, with and without compiling, not streamed."""
    vlm = composite(model)
    ids = rotated_prompts(tokenizer, like_llamas(tokenizer, 1)[0], vlm.config, LETTERS)[:1]
    tokens = list(video_tokens(1))
    found: Figures = {}
    for name, static in (("dynamic", False), ("static, compiled", True)):

        def answer(count: int, static: bool = static) -> None:
            generate_ids(model, ids, tokens, max_new_tokens=count, static_cache=static)

        whole = seconds(lambda: answer(settings.new_tokens), settings.turns, settings.device)
        first = seconds(lambda: answer(1), settings.turns, settings.device)
        found[f"{name}: tokens_a_s"] = (settings.new_tokens - 1) / (whole - first)
        found[f"{name}: first_token_s"] = first
    read = weights_of(vlm.config.text_config).decoding_bytes(vlm.lm_head.weight.element_size())
    found["limit_tokens_a_s"] = MEASURED_BYTES_A_S / read
    return found


def cold_first_token(model: Any, tokenizer: Any, settings: GpuMllm) -> Figures:
    """Seconds from a file of 3 s, 320x256 pixels, to the first token of an answer about it.

    `cold_first_token_s` is that of scripts/chat.py, which decodes the file in an isolated process.
    The other figure is with the file decoded in this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "clip.mp4", num_frames=75, gop=25, seed=0)
        assistant = Assistant(
            model,
            tokenizer,
            encoder_of(Path(folder) / "encoder", settings),
            limits=ChatLimits(max_new_tokens=1),
        )

        def first_token(untrusted: bool) -> None:
            assistant.watch(clip, untrusted=untrusted).answer(STEM)

        turns, device = settings.turns, settings.device
        return {
            "cold_first_token_s": seconds(lambda: first_token(True), turns, device),
            "in this process: cold_first_token_s": seconds(
                lambda: first_token(False), turns, device
            ),
        }


def encoder_of(folder: Path, settings: GpuMllm) -> Encoder:
    """ViT-B with random weights, or the demo's network with its tokens padded with zeros."""
    network = preset("demo" if settings.size == "toy" else "vit_b").model
    torch.manual_seed(0)
    save_encoder(build_model(network, 99), network, folder)
    encoder = ENCODERS["sefar"](folder, device=settings.device)
    missing = (0, TOKEN_DIM - encoder.dim)

    def encode(frames):
        return torch.nn.functional.pad(pool(encoder.encode(frames), GRID), missing)

    return replace(encoder, encode=encode, dim=TOKEN_DIM)
