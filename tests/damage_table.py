"""Print the tables of docs/damage.md, measured on the spot.

    SEFAR_VIDEOS_DIR=... python -m tests.damage_table

The second table takes `--copies` damaged copies of a file, one flipped bit in each.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import av
import tyro

from qa_data.manifest import Clip
from sefar_core.data.check_videos import Health, check_clips
from sefar_core.data.video import VideoReadError, read_clip
from tests.oracles import damage
from tests.oracles.damage_cases import FLIPPED, FLIPPED_REAL, MADE, REAL

CASES = MADE | (REAL if "SEFAR_VIDEOS_DIR" in os.environ else {})
COLUMNS = ("refused", "unchanged", "patched", "named", "named quick", "lost", "missed", "other")


def checked(paths: Sequence[Path], *, quick: bool) -> list[Health]:
    """What the check reports for each file, two processes working."""
    clips = [Clip(id=str(path), path=str(path), split="unlabeled") for path in paths]
    files = check_clips(clips, Path("/"), quick=quick, workers=2, patience_s=30)
    found = {health.clip.id: health for file in files for health in file}
    return [found[str(path)] for path in paths]


def reading(path: Path, reference: damage.Decoded) -> str:
    """`refused`, `equal` to what the bare decoder gives, or `other`, which must not happen."""
    try:
        frames = read_clip(path).frames
    except VideoReadError:
        return "refused"
    equal = not reference.failed and damage.same(list(frames.numpy()), reference.frames)
    return "equal" if equal else "other"


def kinds(health: Health) -> str:
    return ", ".join(fault.kind for fault in health.faults) or "sound"


def print_kinds(folder: Path) -> None:
    """One line a file: what reading gives, what the check reports."""
    print("| file | reading | check_videos | with `--quick` | oddities |\n|---|---|---|---|---|")
    paths = []
    for number, case in enumerate(CASES.values()):
        (folder / str(number)).mkdir()
        paths.append(case.write(folder / str(number)))
    full, quick = checked(paths, quick=False), checked(paths, quick=True)
    for name, path, long, short in zip(CASES, paths, full, quick, strict=True):
        reference = damage.bare_decode(path)
        got = reading(path, reference)
        got = f"the decoder's {len(reference.frames)} frames" if got == "equal" else got
        oddities = " ".join(long.oddities)
        print(f"| {name} | {got} | {kinds(long)} | {kinds(short)} | {oddities} |")


def print_flips(folder: Path, name: str, copies: int) -> None:
    """One line: what becomes of the copies of a file in each of which one bit is flipped."""
    clean = CASES[name].write(folder)
    paths = [
        damage.flipped(clean, folder / f"copy_{seed}{clean.suffix}", seed=seed)
        for seed in range(copies)
    ]
    full, quick = checked(paths, quick=False), checked(paths, quick=True)
    whole = damage.bare_decode(clean).frames
    count: Counter = Counter()
    for path, long, short in zip(paths, full, quick, strict=True):
        reference = damage.bare_decode(path)
        got = reading(path, reference)
        if got == "equal":
            got = "unchanged" if damage.same(reference.frames, whole) else "patched"
        count[got] += 1
        count["named"] += got == "patched" and bool(long.faults)
        count["named quick"] += got == "patched" and bool(short.faults)
        count["lost"] += any(fault.kind in ("crashed", "hung") for fault in long.faults)
        count["missed"] += got == "refused" and not long.faults
    print(f"| {name} | {copies} | {' | '.join(str(count[column]) for column in COLUMNS)} |")


def main(copies: int = 100) -> None:
    """Measure and print, with so many damaged copies of each file of the second table."""
    av.logging.set_level(av.logging.PANIC)
    with tempfile.TemporaryDirectory() as folder:
        print_kinds(Path(folder))
    print()
    for name in [name for name in FLIPPED + FLIPPED_REAL if name in CASES]:
        with tempfile.TemporaryDirectory() as folder:
            print_flips(Path(folder), name, copies)


if __name__ == "__main__":
    tyro.cli(main)
