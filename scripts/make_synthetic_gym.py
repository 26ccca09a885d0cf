"""Render a synthetic gymnastics set: real H.264 clips with annotations in FineGym's formats.

    python scripts/make_synthetic_gym.py --out data/synthetic
    python scripts/make_synthetic_gym.py --out data/synthetic-all --classes all --num-train 6000
    python scripts/make_synthetic_gym.py --out data/background --without figure_and_apparatus \
        --only-test

`demo` has twelve classes in six pairs that differ in direction alone; `all` has every class of
four events. The last line renders a control: the same clips and lists, with nobody in the picture.
The same settings give the same clips; a folder that holds them already is left as it is.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

from qa_data.synthetic.dataset import SyntheticSetError, make_set
from qa_data.synthetic.settings import SettingsError, SyntheticSettings


def main(
    settings: Annotated[SyntheticSettings, tyro.conf.arg(name="")],
    out: Path,
    workers: int = os.cpu_count() or 1,
) -> None:
    """Render a synthetic gymnastics set in FineGym's formats.

    Args:
        settings: what to render.
        out: folder of the set; it appears when everything in it is complete.
        workers: processes that render; the files do not depend on their number.
    """
    rendered = make_set(out, settings, workers=workers)
    classes, sources = (
        len(settings.elements),
        settings.num_train_sources + settings.num_test_sources,
    )
    print(
        f"{out}: {'rendered' if rendered else 'already there, left as it is'}: {classes} classes, "
        f"{settings.num_train} training and {settings.num_test} test clips of {sources} sources"
    )


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (SettingsError, SyntheticSetError) as refusal:
        sys.exit(f"make_synthetic_gym: {refusal}")
