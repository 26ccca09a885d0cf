"""SeFAR's encoder in Vicuna: encode, cache, prompt, project, adapt, score, chat."""

from typing import Any

__all__ = ["from_pretrained"]


def __getattr__(name: str) -> Any:
    # Lazy, so that reading settings for a `--help` does not wait for torch.
    if name == "from_pretrained":
        from sefar_mllm.chat.assistant import from_pretrained

        return from_pretrained
    raise AttributeError(f"module 'sefar_mllm' has no attribute {name!r}")
