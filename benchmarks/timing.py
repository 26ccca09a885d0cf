"""Several ways of doing one thing, timed in turns in one run: a busy machine slows them all.

CPU seconds count this process and its live children; wall seconds stand beside them.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import psutil
from tqdm import tqdm

from sefar_core.runs.folder import surroundings


class Timing(NamedTuple):
    """Seconds of each turn."""

    cpu_s: list[float]
    wall_s: list[float]

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpu_s)

    @property
    def wall(self) -> float:
        return statistics.median(self.wall_s)


def cpu_seconds() -> float:
    """CPU seconds that this process and its live children have used."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    # Children are known to a hundredth of a second, this process far better.
    return time.process_time() + sum(spent.user + spent.system for spent in times)


def alternate(
    ways: Mapping[str, Callable[[], object]], *, turns: int, calls: int = 1
) -> dict[str, Timing]:
    """Each way once untimed, then in turns; a turn makes `calls` calls of a way."""
    for way in tqdm(ways.values(), desc="warm up", leave=False):
        way()
    timings = {name: Timing([], []) for name in ways}
    for _ in tqdm(range(turns), desc="turns", leave=False):
        for name, way in ways.items():
            cpu, wall = cpu_seconds(), time.perf_counter()
            for _ in range(calls):
                way()
            timings[name].cpu_s.append((cpu_seconds() - cpu) / calls)
            timings[name].wall_s.append((time.perf_counter() - wall) / calls)
    return timings


def seconds(call: Callable[[], object], turns: int, device: str) -> float:
    """Median wall seconds of a call, the device's work included, after two that are not timed."""
    import torch

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    took = []
    for turn in range(turns + 2):
        finish()
        began = time.perf_counter()
        call()
        finish()
        if turn >= 2:
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def report(name: str, lines: Sequence[str], figures: object, out: Path | None) -> None:
    """Print a table and, if a folder is given, write it there with its figures and surroundings."""
    print("\n".join(lines))
    if out is not None:
        path = write(name, lines, figures, out)
        print(f"written: {path}.md and .json")


def write(name: str, lines: Sequence[str], figures: object, out: Path) -> Path:
    """Write a table, its figures and surroundings to a folder; their dated path without suffix."""
    out.mkdir(parents=True, exist_ok=True)
    facts = surroundings()
    told = "\n".join(f"- {key}: {json.dumps(value)}" for key, value in facts.items())
    path = out / f"{date.today()}-{name}"
    path.with_suffix(".md").write_text("\n".join([*lines, "", told, ""]), encoding="utf-8")
    path.with_suffix(".json").write_text(
        json.dumps({"figures": figures, **facts}, indent=1) + "\n", encoding="utf-8"
    )
    return path
