"""Several ways of doing one thing, timed in turns in one run: a busy machine slows them all.

CPU seconds count this process and its live children; wall seconds stand beside them.
"""

import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from tqdm import tqdm

from sefar_core.runs.folder import surroundings, write_text


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
        path = write(name, lines, figures, out, surroundings())
        print(f"written: {path}.md and .json")


def write(
    name: str, lines: Sequence[str], figures: object, out: Path, facts: Mapping[str, object]
) -> Path:
    """Write a table, its figures and surroundings to a folder; their dated path without suffix.

    Each file is whole at any moment, so that a table can be written anew with every line.
    """
    out.mkdir(parents=True, exist_ok=True)
    told = "\n".join(f"- {key}: {json.dumps(value)}" for key, value in facts.items())
    path = out / f"{date.today()}-{name}"
    write_text(path.with_suffix(".md"), "\n".join([*lines, "", told, ""]))
    record = {"figures": figures, **facts}
    write_text(path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    return path


def name_of(stem: str, settings: Any) -> str:
    """Name of a result: a part, made with other settings than by default, says which these are,
    so as not to replace the whole.
    """
    words = [stem]
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value == field.default or field.name == "out":
            continue
        words += map(str, value) if isinstance(value, tuple) else [field.name, str(value)]
    return re.sub(r"\W+", "-", "-".join(words))
