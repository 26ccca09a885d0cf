"""The results file of the evidence, and its table.

The difference of two arms is taken seed by seed, since a seed affects all arms alike.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.arms import ARMS

RESULTS = Path("runs/evidence/evidence.jsonl")
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % points of Student's t with 1, 2, ... degrees of freedom."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Print the table of the results file."""

    arms: tuple[str, ...] = ()
    """Arms to show; by default all in the file."""
    baseline: str = "sefar"
    """Arm that is subtracted from each arm, seed by seed."""
    results: Path = RESULTS
    """Results file that `run` wrote."""


def read_results(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def refuse_other_code(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """End with an error if the results are of different versions of the code."""
    versions = sorted({line["code"] for line in lines})
    if len(versions) > 1:
        raise SystemExit(
            f"error: {path} and this code have results of {len(versions)} versions of the code "
            f"({', '.join(versions)}), which cannot be compared; give another file with --results, "
            f"or check out the commit that the lines of this file name"
        )


def show(settings: Table) -> None:
    """Print mean and 95 % interval of each arm and of its gain over the baseline."""
    lines = read_results(settings.results)
    refuse_other_code(lines, settings.results)
    by_arm = {arm: {ln["seed"]: ln["scores"] for ln in lines if ln["arm"] == arm} for arm in ARMS}
    baseline = by_arm[settings.baseline]
    minus = f"minus `{settings.baseline}`"
    print(f"| arm | seeds | test top-1 | {minus} | direction | teacher, top-1 | val top-1 |")
    print("|---|---|---|---|---|---|---|")
    for arm in settings.arms or [arm for arm, seeds in by_arm.items() if seeds]:
        seeds = by_arm[arm]
        if not seeds:
            print(f"| `{arm}` | 0 | not measured | | | | |")
            continue
        shared = seeds.keys() & baseline.keys()
        top1 = {seed: scores["student test"]["top1"] for seed, scores in seeds.items()}
        gains = [top1[seed] - baseline[seed]["student test"]["top1"] for seed in shared]
        cells = [
            f"`{arm}`",
            str(len(seeds)),
            interval([*top1.values()]),
            interval(gains, sign="+") if arm != settings.baseline else "-",
            interval([s["student test"]["direction"] for s in seeds.values()]),
            interval([s["teacher test"]["top1"] for s in seeds.values() if "teacher test" in s]),
            interval([s["student val"]["top1"] for s in seeds.values()]),
        ]
        print("| " + " | ".join(cells) + " |")


def interval(values: Sequence[float], *, sign: str = "") -> str:
    """Mean and 95 % interval of Student's t, in percent."""
    if not values:
        return "-"
    mean = 100 * fmean(values)
    if len(values) == 1:
        return f"{mean:{sign}.1f}"
    half = 100 * stdev(values) / len(values) ** 0.5 * T_975[len(values) - 2]
    return f"{mean:{sign}.1f} ± {half:.1f}"
