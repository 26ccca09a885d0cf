"""Time Vicuna-7B's exact config with random weights on a GPU: LoRA steps, scoring, chat.

    python -m benchmarks.gpu_mllm --out benchmarks/results          # make bench-gpu
    python -m benchmarks.gpu_mllm --size toy --device cpu --turns 2     # a dry run

Without a GPU it writes the arithmetic alone (see `mllm_arithmetic`), and the rest reads "not
measured". Weights are random; questions are as long as Gym-QA's in Llama's vocabulary. The table
lists the goals of the project beside the figures.
"""

import gc
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from benchmarks.mllm_arithmetic import (
    DATA_SHEET_FLOPS,
    GOALS,
    MEASURED_BYTES_A_S,
    MEASURED_FLOPS,
    Figures,
    bounds,
    scoring_bounds,
    weights_of,
)
from benchmarks.moving_clips import write_clip
from benchmarks.option_forwards import last_logits
from benchmarks.random_vlm import (
    GRID,
    TOKEN_DIM,
    TOKEN_SHAPE,
    Size,
    adapted,
    language_model,
    lengths_of,
    like_llamas,
    llama_config,
    video_tokens,
)
from benchmarks.timing import report, seconds
from qa_data.questions import LETTERS, STEM
from sefar_core.checkpoint import build_model, save_encoder
from sefar_core.presets import preset
from sefar_mllm.adapters import add_adapters, composite, optimizer_groups
from sefar_mllm.build import build_vlm, load_tokenizer
from sefar_mllm.chat.assistant import Assistant
from sefar_mllm.config import ChatLimits
from sefar_mllm.encoders import ENCODERS, Encoder, pool
from sefar_mllm.generate import generate_ids
from sefar_mllm.scoring import letter_logits, rotated_prompts


@dataclass(frozen=True, kw_only=True)
class GpuMllm:
    """Settings of the measurement."""

    size: Size = "vicuna_7b"
    """Size of the language model."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Device; cpu is for a dry run."""
    tokenizer: str = "demo:llm"
    """Folder of the tokenizer."""
    rows: int = 4
    """Number of rows of a LoRA step."""
    row_tokens: int = 1024
    """Number of tokens of a row."""
    batch_size: int = 64
    """Number of questions scored at a time, in four rotations each."""
    new_tokens: int = 128
    """Number of tokens of a chat answer."""
    turns: int = 10
    """Number of timed calls, after two that are not timed; the median is reported."""
    out: Path | None = None
    """Folder for a dated result file."""


def memory_gb(device: str) -> float | None:
    """Peak memory since the last call, in units of 10^9 bytes; None without CUDA."""
    if device != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return peak


def train(model: Any, settings: GpuMllm, *, recompute: bool = False) -> Figures:
    """LoRA steps on full rows, with two labels in each, as for a letter and the end mark."""
    vlm = composite(model)
    batch = full_rows(vlm.config, settings)
    optimizer = torch.optim.AdamW(
        optimizer_groups(model, lora_lr=1e-4, projector_lr=1e-4), fused=settings.device == "cuda"
    )

    def step() -> None:
        with torch.autocast(settings.device, torch.bfloat16, enabled=settings.device == "cuda"):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    memory_gb(settings.device)
    model.train()
    with recomputing(vlm.model.language_model) if recompute else nullcontext():
        took = seconds(step, settings.turns, settings.device)
    model.eval()
    tokens, labels = batch["labels"].numel(), int((batch["labels"] >= 0).sum())
    flops = weights_of(vlm.config.text_config).step_flops(tokens, labels)
    return {
        "seconds": took,
        "tokens_a_s": tokens / took,
        "mfu_790": flops / took / MEASURED_FLOPS,
        "mfu_989": flops / took / DATA_SHEET_FLOPS,
        "memory_gb": memory_gb(settings.device),
    }


def full_rows(config: Any, settings: GpuMllm) -> dict[str, Any]:
    """A batch without padding: random ids after a video."""
    words, size = config.text_config.vocab_size, (settings.rows, settings.row_tokens)
    ids = torch.randint(3, words, size, device=settings.device)
    ids[:, 1 : 1 + config.num_video_tokens] = config.video_token_id
    labels = torch.full_like(ids, -100)
    labels[:, -2:] = ids[:, -2:]
    tokens = video_tokens(settings.rows).to(settings.device)
    return {"input_ids": ids, "video_tokens": tokens, "labels": labels}


@contextmanager
def recomputing(language: Any) -> Iterator[None]:
    """Recompute the activations of the language model in the backward pass."""
    name = "activation_checkpointing"
    if not hasattr(language, f"{name}_enable"):
        name = "gradient_checkpointing"  # its name in transformers 5.3
    getattr(language, f"{name}_enable")({"use_reentrant": False})
    yield
    getattr(language, f"{name}_disable")()


def train_in_four_bits(words: int, settings: GpuMllm) -> Figures:
    """LoRA steps on the quantized language model; all None without bitsandbytes."""
    if find_spec("bitsandbytes") is None:
        return dict.fromkeys(("seconds", "tokens_a_s", "memory_gb"))
    with tempfile.TemporaryDirectory() as folder:
        language_model(settings.size, words=words, device=settings.device).save_pretrained(folder)
        gc.collect()
        base = build_vlm(
            folder,
            token_dim=TOKEN_DIM,
            token_shape=TOKEN_SHAPE,
            encoder={},
            dtype=torch.bfloat16,
            device=settings.device,
            four_bit=True,
        )
    return train(add_adapters(base, rank=16, alpha=32.0, dropout=0.0), settings)


def score(model: Any, tokenizer: Any, settings: GpuMllm) -> Figures:
    """Letter likelihoods of one order of the options and of all orders, with their bounds."""
    vlm, count = composite(model), settings.batch_size
    items, tokens = like_llamas(tokenizer, count), list(video_tokens(count))
    lengths = lengths_of(tokenizer, items)
    first = [rotated_prompts(tokenizer, one, vlm.config, LETTERS)[0] for one in items]
    memory_gb(settings.device)
    prompts_a_s = count / seconds(
        lambda: last_logits(model, first, tokens, keep=1, at_once=count),
        settings.turns,
        settings.device,
    )
    items_a_s = count / seconds(
        lambda: letter_logits(model, tokenizer, items, tokens), settings.turns, settings.device
    )
    bound = scoring_bounds(weights_of(vlm.config.text_config), lengths)
    return {
        "prompts_a_s": prompts_a_s,
        "items_a_s": items_a_s,
        **bound,
        "share_of_bound": items_a_s / bound["bound_items_a_s"],
        "memory_gb": memory_gb(settings.device),
    }


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


def arithmetic(tokenizer: Any, settings: GpuMllm) -> Figures:
    """Bounds of the model and its questions; needs no device."""
    return bounds(
        weights_of(llama_config(settings.size, words=len(tokenizer))),
        lengths_of(tokenizer, like_llamas(tokenizer, settings.batch_size)),
        rows=settings.rows,
        row_tokens=settings.row_tokens,
    )


def measure(tokenizer: Any, settings: GpuMllm) -> dict[str, Figures]:
    """All parts on the device."""
    found = measure_whole(tokenizer, settings)
    gc.collect()  # the model refers to itself; its memory must not count in the next part
    return found | {"LoRA step, 4-bit": train_in_four_bits(len(tokenizer), settings)}


def measure_whole(tokenizer: Any, settings: GpuMllm) -> dict[str, Figures]:
    """The parts in which the language model is not quantized."""
    language = language_model(settings.size, words=len(tokenizer), device=settings.device)
    model = adapted(language, device=settings.device)
    return {
        "LoRA step": train(model, settings),
        "LoRA step, recompute": train(model, settings, recompute=True),
        "scoring": score(model, tokenizer, settings),
        "chat": decoding(model, tokenizer, settings) | cold_first_token(model, tokenizer, settings),
    }


def table(found: Mapping[str, Figures]) -> list[str]:
    """Rows of figures with their goals; a goal without a figure is listed as not measured."""
    figures = {(part, name): value for part, some in found.items() for name, value in some.items()}
    lines = ["| part | figure | value | goal |", "|---|---|---|---|"]
    for part, name in dict.fromkeys([*figures, *GOALS]):
        value = figures.get((part, name))
        text = "not measured" if value is None else f"{value:.4g}"
        lines.append(f"| {part} | {name} | {text} | {GOALS.get((part, name), '')} |")
    return lines


def main(settings: GpuMllm) -> None:
    tokenizer = load_tokenizer(settings.tokenizer)
    found = {"arithmetic": arithmetic(tokenizer, settings)}
    if settings.device == "cuda" and not torch.cuda.is_available():
        where = "a machine without CUDA: arithmetic alone, no measurement"
    else:
        found |= measure(tokenizer, settings)
        where = torch.cuda.get_device_name() if settings.device == "cuda" else "CPU"
    lines = [f"{settings.size} on {where}; {settings.rows} x {settings.row_tokens} tokens", ""]
    report("gpu-mllm", [*lines, *table(found)], found, settings.out)


if __name__ == "__main__":
    main(tyro.cli(GpuMllm, description=__doc__))
