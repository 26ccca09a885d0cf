"""Train SeFAR, or its supervised-only baseline, from a manifest of clips.

    scripts/train_ssl.py demo --manifest data/splits/manifest.csv \\
        --video-root data/gym/videos --run-dir runs/sefar
    accelerate launch scripts/train_ssl.py gym99_5+vit_b ...       # several GPUs

First comes a preset: one word, or several joined by `+`, applied in turn to the paper's settings.
Every setting of it can be overridden, for example `--loss.perturbation unchanged`.

The run folder gets config.json, run.json, metrics.jsonl, states to resume from (run the same
command again) and the encoders student/ and teacher/.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Annotated

import tyro

from sefar_core.config import TrainConfig
from sefar_core.presets import GROUPS, preset
from sefar_core.variants import Word


@dataclass(frozen=True, kw_only=True)
class TrainSsl:
    manifest: Path
    """CSV of clips, written by make_splits.py."""
    video_root: Path
    """Folder that the manifest's paths start from."""
    run_dir: Path
    """Folder of this run; one that was interrupted is gone on with."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]


def main(settings: TrainSsl) -> None:
    from sefar_core.checkpoint import CheckpointError
    from sefar_core.data.frame_store import FrameStoreError
    from sefar_core.data.video import VideoReadError
    from sefar_core.fit import fit
    from sefar_core.runs.folder import WriteError
    from sefar_core.runs.interruption import Interrupted
    from sefar_core.runs.lock import RunFolderBusy
    from sefar_core.runs.ranks import StoppedByAnother
    from sefar_core.runs.watch import LoaderDied

    known = (CheckpointError, FrameStoreError, LoaderDied, RunFolderBusy, WriteError)
    try:
        fit(
            settings.config,
            manifest=settings.manifest,
            video_root=settings.video_root,
            run_dir=settings.run_dir,
        )
    except Interrupted as wish:
        print(wish, file=sys.stderr)
        raise SystemExit(wish.exit_code) from wish
    except StoppedByAnother as cause:  # one process speaks for all
        raise SystemExit(1) from cause
    except VideoReadError as cause:  # a loader process sends its traceback before the message
        raise SystemExit(f"error: {str(cause).strip().splitlines()[-1]}") from cause
    except (*known, FloatingPointError, ValueError, OSError) as cause:
        raise SystemExit(f"error: {cause}") from cause


def parse(arguments: Sequence[str]) -> TrainSsl:
    """The command line: a preset, then what is changed in it."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{__doc__}\n{catalogue()}\n\ntrain_ssl.py PRESET --help lists every setting.")
        raise SystemExit(0 if arguments else 2)
    name, *changes = arguments
    try:
        config = preset(name)
    except ValueError as cause:
        raise SystemExit(f"error: {cause}") from cause
    asked = tyro.MISSING
    default = TrainSsl(manifest=asked, video_root=asked, run_dir=asked, config=config)
    return tyro.cli(
        TrainSsl, args=changes, default=default, prog=f"train_ssl.py {name}", description=__doc__
    )


def catalogue() -> str:
    """The words of a preset, group by group, with what they do."""
    lines = ["words of a preset:"]
    for title, words in GROUPS.items():
        lines.append(f"\n  {title}")
        for told, names in groupby(words, key=lambda name: summary(words[name])):
            together = ", ".join(names)
            if "," in together or len(together) > 22:
                lines += [
                    f"    {told}",
                    *wrap(together, 92, initial_indent=8 * " ", subsequent_indent=8 * " "),
                ]
            else:
                lines.append(f"    {together:24}{told}")
    return "\n".join(lines)


def summary(word: Word) -> str:
    """The first line of what a word's function says of itself."""
    return ((word.func if isinstance(word, partial) else word).__doc__ or "").splitlines()[0]


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
