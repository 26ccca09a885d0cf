"""Settings of the GPU benchmark of the language model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.random_vlm import Size


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
