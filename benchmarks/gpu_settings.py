"""Settings of the measurement of the language model on a GPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.random_vlm import Size


@dataclass(frozen=True, kw_only=True)
class GpuMllm:
    """The settings of the measurement."""

    size: Size = "vicuna_7b"
    """Of the language model."""
    device: Literal["cuda", "cpu"] = "cuda"
    """cpu is for trying the benchmark out."""
    tokenizer: str = "demo/llm"
    """Folder of a tokenizer."""
    rows: int = 4
    """Rows of a LoRA step."""
    row_tokens: int = 1024
    """Tokens of a row."""
    batch_size: int = 64
    """Questions scored at a time, in four rotations each."""
    new_tokens: int = 128
    """Tokens of a chat's answer."""
    turns: int = 10
    """Calls that are timed, after two that are not; the median counts."""
    out: Path | None = None
    """Folder for a dated result."""
