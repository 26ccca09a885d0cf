"""Open every video of a manifest and report everything that is wrong, all at once.

    python scripts/check_videos.py --manifest data/manifest.csv --video-root data/videos

Every clip is decoded; `--quick` reads packets only, which takes milliseconds a file and finds what
is missing, empty, cut short or listed too long, but no damage inside a picture. Nothing is written
unless asked for: `--table` gets one line a clip, `--write-clean` a manifest without the broken
clips. The exit code is 1 if any clip is broken.
"""

import os
import sys
from collections import Counter
from pathlib import Path

import tyro


def main(
    manifest: Path,
    video_root: Path,
    *,
    quick: bool = False,
    workers: int = os.cpu_count() or 1,
    table: Path | None = None,
    write_clean: Path | None = None,
) -> None:
    """Check the videos of a manifest.

    Args:
        manifest: CSV written by scripts/make_splits.py.
        video_root: folder that the manifest's paths start from.
        quick: read packets only, decode no pictures.
        workers: processes; 0 works in this one.
        table: where to write what was found about each clip, as CSV.
        write_clean: where to write the manifest of the sound clips, probe columns filled in.
    """
    from tqdm import tqdm

    from qa_data.atomic import write_text
    from qa_data.manifest import ManifestError, read_manifest, write_manifest
    from sefar_core.data.health import check_clips, report_table, with_probe

    try:
        clips = read_manifest(manifest)
    except ManifestError as fault:
        sys.exit(f"check_videos: {fault}")
    report = {}
    with tqdm(total=len(clips), desc="check", unit="clip") as bar:
        for file in check_clips(clips, video_root, quick=quick, workers=workers):
            report |= {health.clip.id: health for health in file}
            bar.update(len(file))
    in_order = [report[clip.id] for clip in clips]
    broken = [health for health in in_order if health.faults]
    for health in broken:
        print(f"{health.clip.id}: {'; '.join(health.faults)}")
    oddities = Counter(flag for health in in_order if health.info for flag in health.info.flags)
    for flag, count in oddities.most_common():
        print(f"{count} clips: {flag} (read right)")
    print(f"{len(clips)} clips: {len(clips) - len(broken)} sound, {len(broken)} broken")
    if table is not None:
        write_text(table, report_table(in_order))
    if write_clean is not None:
        write_manifest(
            [with_probe(health) for health in in_order if not health.faults], write_clean
        )
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    tyro.cli(main)
