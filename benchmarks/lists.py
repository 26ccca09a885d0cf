"""Time and memory of lists of clips: read as published, written, cut into splits, searched.

    python -m benchmarks.lists --out benchmarks/results

Two invented data sets: one of FineGym's size and make (an element list and an annotation file, 180
full videos, long names of classes), one of Kinetics-400's (its CSV lists, a video a clip, few of
them of one source). Each step runs in a process of its own, whose peak memory (VmHWM) is read at
its end; it holds the interpreter, the modules and the clips.
"""

import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import tyro

from benchmarks.timing import report
from qa_data import manifest
from sefar_core.data.datasets.finegym import read_finegym
from sefar_core.data.datasets.kinetics import read_kinetics
from sefar_core.data.datasets.records import Listing
from sefar_core.data.group_split import split_test
from sefar_core.data.leaks import leak_report
from sefar_core.data.splits import SplitConfig, split_pool
from tests.oracles.finegym_lists import Routine, write_files

NUM_CLIPS = {"FineGym": 35_000, "Kinetics-400": 240_000}
NUM_SOURCES = {"FineGym": 180, "Kinetics-400": 236_000}
NUM_CLASSES = {"FineGym": 288, "Kinetics-400": 400}
TEST_EVERY = {"FineGym": 4, "Kinetics-400": 12}  # every n-th routine or clip is for testing
CLIPS_OF_ROUTINE = 35


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Which data sets to time."""

    sets: tuple[str, ...] = tuple(NUM_CLIPS)
    """Data sets to time."""
    out: Path | None = None
    """Folder for a dated result file."""


class Cost(NamedTuple):
    """What a step took."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def write_finegym_lists(folder: Path) -> None:
    """Categories, element lists and an annotation file, as FineGym has them."""
    num_classes, every = NUM_CLASSES["FineGym"], TEST_EVERY["FineGym"]
    rows = [(label, 21, "FX", f"jump {label}, in several words") for label in range(num_classes)]
    routines = [
        Routine(
            source=f"video{number // 3 % NUM_SOURCES['FineGym']:06d}",
            event=2,
            start_s=100.0 * number,
            end_s=100.0 * number + 99,
            actions=[
                ([(2 * clip + 0.1, 2 * clip + 1.4)], (number + clip * clip) % num_classes)
                for clip in range(CLIPS_OF_ROUTINE)
            ],
        )
        for number in range(NUM_CLIPS["FineGym"] // CLIPS_OF_ROUTINE)
    ]
    train = [routine for number, routine in enumerate(routines) if number % every]
    write_files(folder, rows, train, routines[::every])


def write_kinetics_lists(folder: Path) -> None:
    """The two CSV lists, as Kinetics-400 has them."""
    header = "label,youtube_id,time_start,time_end,split\n"
    lines = {True: [header], False: [header]}
    num_classes = NUM_CLASSES["Kinetics-400"]
    for number in range(NUM_CLIPS["Kinetics-400"]):
        is_val = number % TEST_EVERY["Kinetics-400"] == 0
        source = f"video{number * 7919 % NUM_SOURCES['Kinetics-400']:06d}"
        label = f"doing thing {(number + number // 12) % num_classes}"
        split = "validate" if is_val else "train"
        lines[is_val].append(f"{label},{source},{number % 290},{number % 290 + 10},{split}\n")
    (folder / "train.csv").write_text("".join(lines[False]), encoding="utf-8")
    (folder / "val.csv").write_text("".join(lines[True]), encoding="utf-8")


def listing_of(name: str, folder: Path) -> Listing:
    """What the reader of the data set makes of its lists."""
    if name == "FineGym":
        return read_finegym(
            folder / "gym_categories.txt",
            folder / "gym_train_element_v1.1.txt",
            folder / "gym_val_element.txt",
            videos="full",
            annotations=(folder / "finegym_annotation_info_v1.1.json",),
        )
    return read_kinetics(folder / "train.csv", folder / "val.csv")


def read_lists(name: str, folder: Path) -> Callable[[], object]:
    return lambda: listing_of(name, folder)


def write_manifest(name: str, folder: Path) -> Callable[[], object]:
    listing = listing_of(name, folder)
    clips = [*listing.pool, *listing.settled]
    return lambda: manifest.write_manifest(clips, folder / "manifest.csv")


def read_manifest(name: str, folder: Path) -> Callable[[], object]:
    return lambda: manifest.read_manifest(folder / "manifest.csv")


def cut_test(name: str, folder: Path) -> Callable[[], object]:
    listing = listing_of(name, folder)
    return lambda: split_test(listing.pool, listing.settled)


def draw_labels(name: str, folder: Path) -> Callable[[], object]:
    listing = listing_of(name, folder)
    return lambda: split_pool(listing.pool, SplitConfig(val_rate=0.1))


def report_leaks(name: str, folder: Path) -> Callable[[], object]:
    listing = listing_of(name, folder)
    return lambda: leak_report([*listing.pool, *listing.settled])


# Each prepares, untimed, and returns what is timed.
STEPS = (read_lists, write_manifest, read_manifest, cut_test, draw_labels, report_leaks)


def measured(step: Callable, name: str, folder: Path) -> Cost:
    """What a step takes, in the process that this runs in."""
    work = step(name, folder)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return Cost(wall, cpu, int(found[1]) / 1024)


def main(settings: Lists) -> None:
    """Every step of every data set, each in a process of its own."""
    lines = ["| data set | clips | step | wall s | CPU s | peak MB |", "|---|---|---|---|---|---|"]
    figures = {}
    for name in settings.sets:
        with tempfile.TemporaryDirectory() as folder:
            write = write_finegym_lists if name == "FineGym" else write_kinetics_lists
            write(Path(folder))
            for step in STEPS:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
                    cost = child.submit(measured, step, name, Path(folder)).result()
                title = step.__name__.replace("_", " ")
                figures[f"{name}: {title}"] = cost._asdict()
                lines.append(
                    f"| {name} | {NUM_CLIPS[name]:,} | {title} | {cost.wall_s:.2f} | "
                    f"{cost.cpu_s:.2f} | {cost.peak_mb:.0f} |"
                )
    report("lists", lines, figures, settings.out)


if __name__ == "__main__":
    main(tyro.cli(Lists, description=__doc__))
