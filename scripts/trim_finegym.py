"""Cut FineGym's sub-actions out of full videos, one file a clip, with the ffmpeg program.

    python scripts/trim_finegym.py --video-root data/full --out data/videos \\
        --lists data/gym99_train_element_v1.1.txt data/gym99_val_element.txt \\
        --annotations data/finegym_annotation_info_v1.1.json

Each clip is encoded anew from its exact start to its exact end, and its length is checked before
the file is named `<clip id>.mp4`. Run the command again to resume: files that are there are kept.
Clips that could not be cut are listed at the end; the exit code is then 1.

Training does not need this step, since it reads clips out of full videos as well; cut clips take
less disk and no seeking.
"""

import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sefar_core.cli import refuse_unwritable, start

import tyro


@dataclass(frozen=True, kw_only=True)
class TrimFineGym:
    video_root: Path
    """Folder of the full videos, named `<YouTube id>.mp4` (or .mkv, .webm, .mov)."""
    out: Path
    """Folder to write the clips to."""
    lists: tuple[Path, ...]
    """FineGym element lists, one or more."""
    annotations: tuple[Path, ...]
    """Annotation JSON or CSV files with the times, one or more, of the lists' version."""
    audio: bool = False
    """Copy the sound as well; without it the clips are silent."""
    workers: int = os.cpu_count() or 1
    """Number of clips to cut at a time."""

    def __post_init__(self):
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")


def main(settings: TrimFineGym) -> None:
    """Cut the clips of element lists."""
    from tqdm import tqdm

    from sefar_core.data.trim import find_ffmpeg, plan_cuts, trim

    refuse_unwritable(folders=[settings.out])
    program = find_ffmpeg()
    cuts = plan_cuts(settings.lists, settings.annotations, settings.video_root)
    cutting = trim(
        cuts, settings.out, program=program, workers=settings.workers, audio=settings.audio
    )
    outcomes = list(tqdm(cutting, total=len(cuts), desc="trim", unit="clip"))
    for outcome in sorted(outcomes, key=lambda one: one.cut.id):
        if outcome.problem:
            print(f"{outcome.cut.id}: {outcome.problem}")
        elif outcome.remark:
            print(f"{outcome.cut.id}: cut, but ffmpeg said: {outcome.remark}")
    made = sum(outcome.made for outcome in outcomes)
    failed = sum(outcome.problem is not None for outcome in outcomes)
    print(f"{len(cuts)} clips: {made} cut, {len(cuts) - made - failed} kept, {failed} failed")
    if failed:
        sys.exit(
            "error: fix what is named above and run the same command, or take these clips "
            "out of the lists"
        )


if __name__ == "__main__":
    start(main, partial(tyro.cli, TrimFineGym, description=__doc__))
