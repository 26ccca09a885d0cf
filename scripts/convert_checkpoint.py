"""Turn a checkpoint of the public SeFAR code into an encoder.

    scripts/convert_checkpoint.py from-public checkpoint_epoch_00030.pyth runs/released/student

Public checkpoints are pickles: only their tensors, numbers and text are read, and a file that holds
anything else, which could run a program, is refused. An encoder is config.json and
model.safetensors, which evaluate_ssl.py, extract_features.py and sefar_core.load_encoder read.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sefar_core.cli import refuse_unwritable, start

import tyro
from tyro.conf import Positional


@dataclass(frozen=True)
class ConvertCheckpoint:
    source: Positional[Literal["from-public"]]
    """Form of the checkpoint: that of the public SeFAR code."""
    checkpoint: Positional[Path]
    """Checkpoint that the public code wrote (.pyth)."""
    encoder: Positional[Path]
    """Folder for the encoder, which must not exist yet."""


def main(settings: ConvertCheckpoint) -> None:
    from sefar_core.checkpoint import save_encoder
    from sefar_core.pretrained import read_sefar_release

    encoder = settings.encoder
    if encoder.exists():
        raise FileExistsError(f"{encoder} exists already; give another name or remove it")
    refuse_unwritable(files=[encoder])
    model, config = read_sefar_release(settings.checkpoint)
    save_encoder(model, config, encoder)
    elements = "-".join(map(str, model.sizes))
    print(f"{encoder}: {model.classifier.out_features} classes, elements of {elements} frames")


def parse() -> ConvertCheckpoint:
    """The command line, on which the form may be written with an underscore, too."""
    words = sys.argv[1:]
    if words[:1] == ["from_public"]:
        words[0] = "from-public"
    return tyro.cli(ConvertCheckpoint, args=words, description=__doc__)


if __name__ == "__main__":
    start(main, parse)
