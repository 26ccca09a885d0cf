"""Turn a checkpoint of the public SeFAR code into an encoder of ours, or the other way round.

    scripts/convert_checkpoint.py from-public checkpoint_epoch_00030.pyth runs/released/student
    scripts/convert_checkpoint.py to-public runs/gym99-5 checkpoint_epoch_00030.pyth

Public checkpoints are pickles: only their tensors, numbers and text are read, and whatever could
run a program is refused. An encoder is config.json and model.safetensors, which evaluate_ssl.py,
extract_features.py and sefar_core.load_encoder read. The way back writes a pickle, for the public
code alone, to be tested or fine-tuned there; no run is resumed from it.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sefar_core.cli import refuse_unwritable, start

import tyro
from tyro.conf import Positional


@dataclass(frozen=True)
class FromPublic:
    """Read a checkpoint of the public code and write an encoder."""

    checkpoint: Positional[Path]
    """What the public code wrote (.pyth)."""
    encoder: Positional[Path]
    """Folder that is made."""


@dataclass(frozen=True)
class ToPublic:
    """Read an encoder and write a checkpoint of the public code."""

    encoder: Positional[Path]
    """Encoder, or the folder of a training run, of which the student is taken."""
    checkpoint: Positional[Path]
    """File that is made."""


def main(settings: FromPublic | ToPublic) -> None:
    from sefar_core.checkpoint import load_encoder, save_encoder
    from sefar_core.pretrained import export_released_checkpoint, read_released_checkpoint

    made = settings.encoder if isinstance(settings, FromPublic) else settings.checkpoint
    if made.exists():
        raise FileExistsError(f"{made} exists already; give another name or remove it")
    refuse_unwritable(files=[made])
    if isinstance(settings, FromPublic):
        model, config = read_released_checkpoint(settings.checkpoint)
        save_encoder(model, config, made)
    else:
        model = load_encoder(settings.encoder)
        export_released_checkpoint(model, made)
    elements = "-".join(map(str, model.sizes))
    print(f"{made}: {model.classifier.out_features} classes, elements of {elements} frames")


if __name__ == "__main__":
    start(main, partial(tyro.cli, FromPublic | ToPublic, description=__doc__))
