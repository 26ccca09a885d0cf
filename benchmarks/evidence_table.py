"""The results file of the evidence, and its table.

An arm's differences to another one are taken seed by seed, since a seed moves all arms alike.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.arms import ARMS

RESULTS = Path("runs/evidence/evidence.jsonl")
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % points of Student's t with 1, 2, ... degrees of freedom."""


class OtherCode(ValueError):
    """Results of different code stand side by side."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Print the table of the results file."""

    arms: tuple[str, ...] = ()
    """Which; by default all that the file holds."""
    baseline: str = "sefar"
    """The arm that is subtracted from each, seed by seed."""
    results: Path = RESULTS
    """What `run` wrote."""


def read_results(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def refuse_other_code(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Raise OtherCode if results of different code stand side by side."""
    found = sorted({line["code"] for line in lines})
    if len(found) > 1:
        raise OtherCode(
            f"{path} and this code make results of {len(found)} versions of the code "
            f"({', '.join(found)}), which cannot be compared; give another file by --results, or "
            f"check out the commit that the lines of this one name"
        )


def show(settings: Table) -> None:
    """Mean and 95 % interval over the seeds of each arm, and of its difference to the baseline."""
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
        gains = [
            seeds[s]["student test"]["top1"] - baseline[s]["student test"]["top1"] for s in shared
        ]
        cells = [
            f"`{arm}`",
            str(len(seeds)),
            interval([s["student test"]["top1"] for s in seeds.values()]),
            interval(gains, sign="+") if arm != settings.baseline else "-",
            interval([s["student test"]["direction"] for s in seeds.values()]),
            interval([s["teacher test"]["top1"] for s in seeds.values() if "teacher test" in s]),
            interval([s["student val"]["top1"] for s in seeds.values()]),
        ]
        print("| " + " | ".join(cells) + " |")


def interval(values: Sequence[float], *, sign: str = "") -> str:
    """Mean and 95 % interval of Student's t, in percent."""
    from statistics import fmean, stdev

    if not values:
        return "-"
    mean = 100 * fmean(values)
    if len(values) == 1:
        return f"{mean:{sign}.1f}"
    half = 100 * stdev(values) / len(values) ** 0.5 * T_975[len(values) - 2]
    return f"{mean:{sign}.1f} ± {half:.1f}"
