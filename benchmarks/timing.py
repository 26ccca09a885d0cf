"""Time several implementations in turns in one run, so that a busy machine slows all of them.

CPU seconds count this process and its live children; wall seconds are reported as well.
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
import torch
from tqdm import tqdm

from qa_data.files import write_text
from sefar_core.run_dir import surroundings

Row = tuple[str, dict[str, object]]
"""A line of a table and its figures, by name."""


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
    # The times of children have a resolution of 0.01 s, that of this process is far better.
    return time.process_time() + sum(spent.user + spent.system for spent in times)


def alternate(
    functions: Mapping[str, Callable[[], object]], *, turns: int, calls: int = 1
) -> dict[str, Timing]:
    """Call each function once untimed, then in turns; a turn makes `calls` calls of each."""
    for call in tqdm(functions.values(), desc="warm up", leave=False):
        call()
    timings = {name: Timing([], []) for name in functions}
    for _ in tqdm(range(turns), desc="turns", leave=False):
        for name, call in functions.items():
            cpu, wall = cpu_seconds(), time.perf_counter()
            for _ in range(calls):
                call()
            timings[name].cpu_s.append((cpu_seconds() - cpu) / calls)
            timings[name].wall_s.append((time.perf_counter() - wall) / calls)
    return timings


def seconds(call: Callable[[], object], turns: int, device: str) -> float:
    """Median wall seconds of a call, with the work of the device, after two untimed calls."""
    return statistics.median(wall_times(call, turns, device, untimed=2))


def wall_times(call: Callable[[], object], turns: int, device: str, *, untimed: int) -> list[float]:
    """Wall seconds of each call, with the work of the device, after some untimed calls."""

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    took = []
    for turn in range(untimed + turns):
        finish()
        began = time.perf_counter()
        call()
        finish()
        if turn >= untimed:
            took.append(time.perf_counter() - began)
    return took


def report(name: str, lines: Sequence[str], figures: object, out: Path | None) -> None:
    """Print a table and, if a folder is given, write it with its figures, versions and commit."""
    print("\n".join(lines))
    path = result_path(name, out)
    if path is not None:
        write(path, lines, figures, surroundings())
        print(f"written: {path}.md and .json")


def report_incrementally(name: str, rows: Iterable[Row], out: Path | None) -> None:
    """Print a table line by line; the file is complete after each line, so that an interrupted run
    keeps its measurements. Without a folder no file is written.
    """
    path, facts = result_path(name, out), surroundings()
    lines: list[str] = []
    figures: dict[str, object] = {}
    for line, more in rows:
        print(line, flush=True)
        lines.append(line)
        figures |= more
        if path is not None:
            write(path, lines, figures, facts)


def result_path(name: str, out: Path | None) -> Path | None:
    """The path of today's result, without suffix."""
    return None if out is None else out / f"{date.today()}-{name}"


def write(path: Path, lines: Sequence[str], figures: object, facts: Mapping[str, object]) -> None:
    """Write a table, its figures, versions and commit; each file all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    versions = "\n".join(f"- {key}: {json.dumps(value)}" for key, value in facts.items())
    write_text(path.with_suffix(".md"), "\n".join([*lines, "", versions, ""]))
    record = {"figures": figures, **facts}
    write_text(path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")


def result_name(stem: str, settings: Any) -> str:
    """The name of a result, with the settings that are not the default, so that a partial run does
    not replace the whole result.
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
