"""SeFAR: semi-supervised recognition of fine-grained actions (arXiv:2501.01245)."""

from typing import Any

__all__ = ["load_encoder", "load_sefar_release"]


def __getattr__(name: str) -> Any:
    # Lazy, so that reading settings for a `--help` does not wait for torch.
    if name == "load_encoder":
        from sefar_core.checkpoint import load_encoder

        return load_encoder
    if name == "load_sefar_release":
        from sefar_core.pretrained import load_sefar_release

        return load_sefar_release
    raise AttributeError(f"module 'sefar_core' has no attribute {name!r}")
