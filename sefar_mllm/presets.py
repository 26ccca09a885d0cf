"""Named settings for fine-tuning; `PRESETS` are the choices of the command line."""

from collections.abc import Sequence
from typing import NamedTuple

from sefar_mllm.config import FinetuneConfig, LoraSettings


def demo() -> FinetuneConfig:
    """The toy language model of the demo, on two CPU cores in a minute."""
    return FinetuneConfig(
        language_model="demo:llm",
        lora=LoraSettings(rank=8, alpha=16.0, dropout=0.0, lr=1e-3),
        projector_lr=2e-3,
        epochs=10,
        batch_size=16,
        micro_batch_size=16,
        warmup=0.1,
    )


def vicuna_7b() -> FinetuneConfig:
    """Vicuna-7B v1.5: the projector alone first, then LoRA with it. Proposed, not tuned."""
    return FinetuneConfig(projector_epochs=2, epochs=5, answer_style="mixed")


PRESETS = {preset.__name__: preset() for preset in (demo, vicuna_7b)}


class PresetChoice(NamedTuple):
    """A preset from a command line, and the rest of the line for tyro."""

    config: FinetuneConfig
    prog: str
    changes: list[str]


def choose_preset(arguments: Sequence[str], script: str) -> PresetChoice:
    """The preset that the first argument names; with --help alone, vicuna_7b for its values.

    Args:
        arguments: the command line without the script.
        script: path of the script, for its usage line.

    Raises:
        ValueError: the first argument is not a preset.
    """
    name, *changes = arguments or ("",)
    if name in ("-h", "--help"):
        return PresetChoice(PRESETS["vicuna_7b"], f"{script} {{{','.join(PRESETS)}}}", ["--help"])
    if name not in PRESETS:
        raise ValueError(
            f"the first argument is a preset, {' or '.join(PRESETS)}, got {name!r}; "
            f"{script} --help lists every setting"
        )
    return PresetChoice(PRESETS[name], f"{script} {name}", changes)
