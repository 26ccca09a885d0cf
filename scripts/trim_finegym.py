"""Cut FineGym's sub-actions out of full videos, one file a clip, with the ffmpeg program.

    python scripts/trim_finegym.py --video-root data/full --out data/videos \
        --lists data/gym99_train_element_v1.1.txt data/gym99_val_element.txt \
        --annotations data/finegym_annotation_info_v1.1.json

Several clips are cut at a time, each is encoded anew from its exact start to its exact end, and
measured before it gets its name `<clip id>.mp4`. Run again, the command goes on where it stopped.
All clips that could not be cut are named at the end; the exit code is 1 if there are any.

Cutting is not needed for training, which reads clips out of full videos as well; it saves disk and
seeking.
"""

import os
import sys
from pathlib import Path

import tyro


def main(
    video_root: Path,
    out: Path,
    *,
    lists: tuple[Path, ...],
    annotations: tuple[Path, ...],
    audio: bool = False,
    workers: int = os.cpu_count() or 1,
) -> None:
    """Cut the clips of element lists.

    Args:
        video_root: folder of the full videos, `<YouTube id>.mp4` or another ending.
        out: folder of the clips.
        lists: element lists of FineGym, one or several.
        annotations: annotation JSON or CSV of times, one or several, of the lists' version.
        audio: copy the sound as well.
        workers: clips cut at a time.
    """
    from tqdm import tqdm

    from qa_data.annotations import AnnotationError
    from sefar_core.data.trimming import TrimError, find_ffmpeg, plan_cuts, trim

    try:
        program = find_ffmpeg()
        cuts = plan_cuts(lists, annotations, video_root)
        cutting = trim(cuts, out, program=program, workers=workers, audio=audio)
        outcomes = list(tqdm(cutting, total=len(cuts), desc="trim", unit="clip"))
    except (AnnotationError, TrimError, FileExistsError, NotADirectoryError) as fault:
        sys.exit(f"trim_finegym: {fault}")
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
            "trim_finegym: mend what is named above and run the same command, or take these clips "
            "out of the lists"
        )


if __name__ == "__main__":
    tyro.cli(main)
