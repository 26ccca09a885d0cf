"""The health of a manifest's videos, told: in a table, in a summary, and in the manifest itself."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from qa_data.manifest import Clip
from sefar_core.data.health import Health

COLUMNS = (
    "id",
    "path",
    "state",
    "num_frames",
    "fps",
    "width",
    "height",
    "rotation",
    "codec",
    "oddities",
    "faults",
)
MOST = 0.9
"""Share of the clips that have to be of one size for the others to be odd."""


def with_odd_sizes(report: Sequence[Health]) -> list[Health]:
    """The report with the oddity `other_size` for the few clips that are not as large as the rest.

    Where clips come in many sizes, none is odd.
    """
    sizes = Counter((h.info.width, h.info.height) for h in report if h.info)
    usual = [size for size, count in sizes.items() if count >= MOST * sizes.total()]
    return [
        replace(health, oddities=(*health.oddities, "other_size"))
        if usual and health.info and (health.info.width, health.info.height) not in usual
        else health
        for health in report
    ]


def with_probe(health: Health) -> Clip:
    """The clip with its probe columns filled in."""
    if health.info is None:
        return health.clip
    return replace(
        health.clip,
        num_frames=health.info.num_frames if health.clip.start_s is None else None,
        fps=round(health.info.fps, 4),
        rotation=health.info.rotation,
        flags=" ".join(health.oddities),
    )


def fault_lines(report: Iterable[Health]) -> list[str]:
    """Each fault with the clips that have it, in the order of the report."""
    clips: dict[str, list[str]] = {}
    for health in report:
        for fault in health.faults:
            clips.setdefault(fault.words, []).append(health.clip.id)
    return [f"{', '.join(ids)}: {words}" for words, ids in clips.items()]


def summary(report: Sequence[Health]) -> str:
    """How many clips have which fault and which oddity, as a table, and how many are sound."""
    faults = Counter(kind for h in report for kind in {fault.kind for fault in h.faults})
    oddities = Counter(name for health in report for name in health.oddities)
    lines = [f"  {count:7,}  {kind}" for kind, count in faults.most_common()]
    lines = ["broken:", *lines] if lines else []
    if oddities:
        lines += ["odd, but read right:"]
        lines += [f"  {count:7,}  {name}" for name, count in oddities.most_common()]
    broken = sum(1 for health in report if health.faults)
    files = len({health.clip.path for health in report})
    lines += [
        f"{len(report)} clips in {files} files: {len(report) - broken} sound, {broken} broken"
    ]
    return "\n".join(lines)


def report_table(report: Iterable[Health]) -> str:
    """CSV, one line a clip: what was found and every fault."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for health in report:
        info = health.info
        found: list[object] = [""] * 6
        if info is not None:
            found = [info.num_frames, round(info.fps, 4), info.width, info.height]
            found += [info.rotation, info.codec]
        state = "broken" if health.faults else "sound"
        words = "; ".join(fault.words for fault in health.faults)
        oddities = " ".join(health.oddities)
        table.writerow([health.clip.id, health.clip.path, state, *found, oddities, words])
    return text.getvalue()
