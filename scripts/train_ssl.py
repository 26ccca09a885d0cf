"""Train SeFAR, or its supervised-only baseline, from a manifest of clips.

    scripts/train_ssl.py demo --manifest data/splits/manifest.csv \\
        --video-root data/gym/videos --run-dir runs/sefar
    accelerate launch scripts/train_ssl.py gym99_5+vit_b ...       # several GPUs

The first argument is a preset: one word, or several joined by `+`, applied in turn to the paper's
settings. Options override single settings of it, for example `--loss.perturbation unchanged`.

The run folder gets config.json, run.json, metrics.jsonl, the encoders student/ and teacher/, and
states to resume from: run the same command again.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Annotated

from sefar_core.cli import start

import tyro

from sefar_core.ablations import PresetModifier
from sefar_core.config import TrainConfig
from sefar_core.presets import GROUPS, preset


@dataclass(frozen=True, kw_only=True)
class TrainSsl:
    manifest: Path
    """CSV of clips, written by make_splits.py."""
    video_root: Path
    """Folder that the paths in the manifest start from."""
    run_dir: Path
    """Folder of the run. An interrupted run in it is resumed."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]


def main(settings: TrainSsl) -> None:
    from sefar_core.train import fit

    fit(
        settings.config,
        manifest=settings.manifest,
        video_root=settings.video_root,
        run_dir=settings.run_dir,
    )


def parse(arguments: Sequence[str]) -> TrainSsl:
    """The command line: a preset, then options that change it."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{__doc__}\n{catalogue()}\n\ntrain_ssl.py PRESET --help lists every setting.")
        raise SystemExit(0 if arguments else 2)
    name, *changes = arguments
    with_preset = partial(TrainSsl, config=preset(name))
    return tyro.cli(with_preset, args=changes, prog=f"train_ssl.py {name}", description=__doc__)


def catalogue() -> str:
    """The words of presets, group by group, with what they do."""
    lines = ["Presets (join several with +):"]
    for title, words in GROUPS.items():
        lines.append(f"\n  {title}")
        for meaning, names in groupby(words, key=lambda name: summary(words[name])):
            together = ", ".join(names)
            if "," in together or len(together) > 22:
                lines += [
                    f"    {meaning}",
                    *wrap(together, 92, initial_indent=8 * " ", subsequent_indent=8 * " "),
                ]
            else:
                lines.append(f"    {together:24}{meaning}")
    return "\n".join(lines)


def summary(word: PresetModifier) -> str:
    """The first line of the docstring of a word's function."""
    return ((word.func if isinstance(word, partial) else word).__doc__ or "").splitlines()[0]


if __name__ == "__main__":
    start(main, partial(parse, sys.argv[1:]))
