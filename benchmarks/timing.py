"""Several ways of doing one thing, timed in turns in one run: a busy machine slows them all.

CPU seconds count this process and its live children; wall seconds stand beside them.
"""

import json
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from tqdm import tqdm

from qa_data.files import write_text
from sefar_core.run_dir import surroundings

Row = tuple[str, dict[str, object]]
"""A line of a table, and its figures by name."""


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
    path = dated(name, out)
    if path is not None:
        write(path, lines, figures, surroundings())
        print(f"written: {path}.md and .json")


def report_as_it_comes(name: str, rows: Iterable[Row], out: Path | None) -> None:
    """Print a table line by line; a file of it is whole at any moment, so that a stopped run
    leaves what it measured.

    Args:
        name: of the result.
        rows: lines and the figures in each, by name.
        out: folder of the result, if it is to be kept.
    """
    path, facts = dated(name, out), surroundings()
    lines: list[str] = []
    figures: dict[str, object] = {}
    for line, more in rows:
        print(line, flush=True)
        lines.append(line)
        figures |= more
        if path is not None:
            write(path, lines, figures, facts)


def dated(name: str, out: Path | None) -> Path | None:
    """Where a result of today goes, without suffix."""
    return None if out is None else out / f"{date.today()}-{name}"


def write(path: Path, lines: Sequence[str], figures: object, facts: Mapping[str, object]) -> None:
    """Write a table, its figures and surroundings, each file all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = "\n".join(f"- {key}: {json.dumps(value)}" for key, value in facts.items())
    write_text(path.with_suffix(".md"), "\n".join([*lines, "", told, ""]))
    record = {"figures": figures, **facts}
    write_text(path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")


def name_of(stem: str, settings: Any) -> str:
    """Name of a result: a part, made with other settings than by default, says which these are,
    so as not to replace the whole.
    """
    words = [stem]
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value == field.default or field.name == "out":
            continue
        if not isinstance(value, tuple):
            words += [field.name, str(value)]
        else:
            words += map(str, value or (f"no-{field.name}",))
    return re.sub(r"\W+", "-", "-".join(words))
