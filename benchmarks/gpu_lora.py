"""Time LoRA steps on a GPU: plain, with recomputed activations, in 4 bits; speed and memory."""

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.mllm_arithmetic import DATA_SHEET_FLOPS, MEASURED_FLOPS, Figures, weights_of
from benchmarks.random_vlm import TOKEN_DIM, TOKEN_SHAPE, Size, language_model, video_tokens
from benchmarks.timing import seconds
from sefar_mllm.adapters import add_adapters, composite, optimizer_groups
from sefar_mllm.build import build_vlm


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
    with training_mode(model, recompute=recompute):
        took = seconds(step, settings.turns, settings.device)
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
def training_mode(model: Any, *, recompute: bool) -> Iterator[None]:
    """Training mode, with recomputed activations if requested; evaluation mode afterwards."""
    model.train()
    with recomputing(composite(model).model.language_model) if recompute else nullcontext():
        yield
    model.eval()


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
