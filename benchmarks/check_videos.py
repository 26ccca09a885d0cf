"""Time the check of videos against a bare decoding loop over the same files.

    python -m benchmarks.check_videos --out benchmarks/results

Files of 320x256 pixels and 2 s are written first. The loop opens each file with PyAV and decodes it
in order by one thread, which is the least that a check of every picture can do. The check runs in
this process and in as many as there are cores (their start left out of neither side), and reads
packets only with `--quick`. The ways take turns; figures are medians.
"""

import os
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
import tyro

from benchmarks.moving_clips import write_clip
from benchmarks.timing import alternate, report
from qa_data.manifest import Clip
from sefar_core.data.check_videos import check_clips


@dataclass(frozen=True, kw_only=True)
class CheckSpeed:
    files: int = 100
    """How many files a turn checks."""
    turns: int = 5
    """Turns of each way."""
    out: Path | None = None
    """Folder for a dated result."""


def bare_loop(paths: list[Path]) -> int:
    """Frames of all files, each decoded in order and thrown away."""
    num_frames = 0
    for path in paths:
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            num_frames += sum(1 for _ in container.decode(video=0))
    return num_frames


def main(settings: CheckSpeed) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ten = [write_clip(root / f"{n}.mp4", num_frames=50, gop=25, seed=n) for n in range(10)]
        paths = [root / f"{n:05}.mp4" for n in range(settings.files)]
        for number, path in enumerate(paths):
            path.hardlink_to(ten[number % len(ten)])
        clips = [Clip(id=path.stem, path=path.name, split="unlabeled") for path in paths]

        def check(*, quick: bool, workers: int) -> None:
            for file in check_clips(clips, root, quick=quick, workers=workers):
                if file[0].faults:
                    raise SystemExit(f"error: {file[0].faults}")

        cores = os.cpu_count() or 1
        ways = {
            "bare loop": partial(bare_loop, paths),
            "check, in one process": partial(check, quick=False, workers=0),
            f"check, {cores} processes": partial(check, quick=False, workers=cores),
            "check --quick, in one process": partial(check, quick=True, workers=0),
        }
        timings = alternate(ways, turns=settings.turns)
    lines = [f"{settings.files} files of 320x256 pixels and 50 frames", ""]
    lines += ["| way | CPU s | wall s | wall ms a file | CPU of this / of the loop | wall |"]
    lines += ["|---|---|---|---|---|---|"]
    bare = timings["bare loop"]
    for name, timing in timings.items():
        cpu = np.median(np.divide(timing.cpu_s, bare.cpu_s))
        wall = np.median(np.divide(timing.wall_s, bare.wall_s))
        # The processes are gone when a turn ends, and their CPU seconds with them.
        known = "processes" not in name
        lines.append(
            f"| {name} | {f'{timing.cpu:.2f}' if known else 'not measured'} | {timing.wall:.2f} | "
            f"{1000 * timing.wall / settings.files:.1f} | "
            f"{f'{cpu:.2f}' if known else 'not measured'} | {wall:.2f} |"
        )
    figures = {name: timing._asdict() for name, timing in timings.items()}
    report("check-videos", lines, figures, settings.out)


if __name__ == "__main__":
    main(tyro.cli(CheckSpeed, description=__doc__))
