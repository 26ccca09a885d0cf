"""Render a synthetic gymnastics set: real H.264 clips with annotations in FineGym's formats.

    python scripts/make_synthetic_gym.py --out data/synthetic
    python scripts/make_synthetic_gym.py --out data/synthetic-all --classes all --num-train 6000
    python scripts/make_synthetic_gym.py --out data/background --without figure_and_apparatus \
        --only-test

`demo` has twelve classes in six pairs that differ in direction alone; `all` has every class of
four events. The last command renders a control: the same clips and lists with nobody in it. The
same settings give the same clips; a folder that holds them already is left as it is.
"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from sefar_core.cli import refuse_unwritable, start

import tyro

from qa_data.synthetic.dataset import make_set
from qa_data.synthetic.plan import SyntheticSettings


@dataclass(frozen=True, kw_only=True)
class MakeSyntheticGym:
    """Which set to render, and where to."""

    settings: Annotated[SyntheticSettings, tyro.conf.arg(name="")]
    out: Path
    """Folder for the set; it appears once everything in it is complete."""
    workers: int = os.cpu_count() or 1
    """Number of rendering processes; the files do not depend on it."""

    def __post_init__(self):
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")


def main(command: MakeSyntheticGym) -> None:
    """Render the set, or report that it is there."""
    refuse_unwritable(folders=[command.out])
    settings = command.settings
    rendered = make_set(command.out, settings, workers=command.workers)
    state = "rendered" if rendered else "already there, left as it is"
    sources = settings.num_train_sources + settings.num_test_sources
    print(
        f"{command.out}: {state}: {len(settings.elements)} classes, {settings.num_train} training "
        f"and {settings.num_test} test clips of {sources} sources"
    )


if __name__ == "__main__":
    start(main, partial(tyro.cli, MakeSyntheticGym, description=__doc__))
