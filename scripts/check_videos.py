"""Open every video of a manifest and report everything that is wrong, all at once.

    python scripts/check_videos.py --manifest data/manifest.csv --video-root data/videos

By default every clip is decoded and nothing is written. A file that crashes or hangs the decoder is
reported like any other. docs/damage.md lists what is found and what is not. The report also names
files under two names, frames that training and test both show, and class names that do not fit the
labels; they break no clip.

Exit code: 0 if every clip is sound, 1 if any is broken, 2 if the check could not be made, 130 if it
was stopped by Ctrl-C, which reports what was found until then and writes nothing.
"""

import os
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sefar_core.cli import REFUSED, refuse_unwritable, start

import tyro


@dataclass(frozen=True, kw_only=True)
class CheckVideos:
    manifest: Path
    """Manifest to check, the CSV that scripts/make_splits.py writes."""
    video_root: Path
    """Folder that the manifest's video paths are relative to."""
    quick: bool = False
    """Read packets only. It takes milliseconds a file and finds what is missing, empty, cut short
    or listed too long, but no damage inside a picture."""
    workers: int = os.cpu_count() or 1
    """Number of decoding processes. With 0, a damaged file can crash or hang the check itself."""
    patience_s: float = 120.0
    """Seconds without a frame after which a file counts as hung."""
    table: Path | None = None
    """CSV file to write, with one line for each clip: what was found and every fault."""
    write_clean: Path | None = None
    """Manifest to write, with the sound clips alone and their probe columns filled in."""

    def __post_init__(self):
        files = [path for path in (self.manifest, self.table, self.write_clean) if path is not None]
        if len({path.resolve() for path in files}) < len(files):
            raise ValueError("--manifest, --table and --write-clean must be different files")
        if not self.video_root.is_dir():
            raise ValueError(f"--video-root: there is no folder {self.video_root}")
        if self.workers < 0 or not self.patience_s > 0:
            raise ValueError(
                f"workers must be at least 0 and patience_s above 0, got {self.workers} and "
                f"{self.patience_s}"
            )


def main(settings: CheckVideos) -> None:
    from qa_data.files import write_text
    from qa_data.manifest import read_manifest, write_manifest

    refuse_unwritable(files=[settings.table, settings.write_clean])
    clips = read_manifest(settings.manifest)

    from sefar_core.data import check_videos
    from sefar_core.data.leaks import manifest_lines

    check = check_videos.check_clips(
        clips,
        settings.video_root,
        quick=settings.quick,
        workers=settings.workers,
        patience_s=settings.patience_s,
    )
    found = gathered(check, len(clips))
    report = [found[clip.id] for clip in clips if clip.id in found]
    report = check_videos.with_odd_sizes(report)
    lines = [*check_videos.fault_lines(report), *manifest_lines(clips, settings.video_root)]
    print("\n".join([*lines, check_videos.summary(report)]))
    if len(report) < len(clips):
        print(f"check_videos: stopped after {len(report)} of {len(clips)} clips", file=sys.stderr)
        sys.exit(130)
    sound = [check_videos.with_probe(health) for health in report if not health.faults]
    if settings.table is not None:
        write_text(settings.table, check_videos.report_table(report))
    if settings.write_clean is not None and sound:
        write_manifest(sound, settings.write_clean)
    elif settings.write_clean is not None:
        print(f"{settings.write_clean} is not written: no clip is sound", file=sys.stderr)
    sys.exit(1 if len(sound) < len(report) else 0)


def gathered(check: Generator[list], num_clips: int) -> dict:
    """The health of each clip by its id; Ctrl-C ends the check with what it has."""
    from tqdm import tqdm

    found = {}
    try:
        with closing(check), tqdm(total=num_clips, desc="check", unit="clip") as bar:
            for file in check:
                found |= {health.clip.id: health for health in file}
                bar.update(len(file))
    except KeyboardInterrupt:
        pass  # main reports it when it sees that clips are missing
    return found


if __name__ == "__main__":
    start(main, partial(tyro.cli, CheckVideos, description=__doc__), failure=REFUSED)
