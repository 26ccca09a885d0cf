"""Which pools of clips can be asked about at chance, and what becomes of those that cannot."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qa_data.distractors import POOLS, ClassPool, TooFewOptions
from qa_data.manifest import Clip

Common = Literal["leave_out", "keep", "widen"]
"""What becomes of a pool that cannot be asked about at chance: its clips are left out, or kept at
the bound that its report states, or such pools become one, joined by as many others as it takes."""


@dataclass(frozen=True, kw_only=True)
class PoolReport:
    """What became of the clips of one pool."""

    pool: str
    clips: int
    asked: bool
    """Whether questions were made of them."""
    bound: float | None
    """Share that the best blind rule gets right; none if the pool has too few texts."""


def pool_name(pool: ClassPool, clip: Clip, rule: str) -> str:
    """The pool of a clip under an exchangeable rule."""
    assert clip.label is not None  # questions are built of labeled clips
    return pool.name(clip.label, POOLS[rule])


def pool_reports(
    pool: ClassPool, clips: Sequence[Clip], rule: str, num_options: int, *, keep: bool
) -> list[PoolReport]:
    """One report for each pool that the clips are in, ascending by name.

    Args:
        pool: the classes, and how many clips of each there are.
        clips: the clips to ask about.
        rule: a key of POOLS.
        num_options: options of a question.
        keep: ask about pools that cannot be at chance too.
    """
    counts: Counter[str] = Counter()
    member = {}
    for clip in clips:
        name = pool_name(pool, clip, rule)
        counts[name] += 1
        member[name] = clip.label
    reports = []
    for name, label in sorted(member.items()):
        bound = _bound(pool, label or 0, rule, num_options)
        asked = bound is not None and (keep or bound < 1 / num_options + 1e-9)
        reports.append(PoolReport(pool=name, clips=counts[name], asked=asked, bound=bound))
    return reports


def widened(pool: ClassPool, clips: Sequence[Clip], rule: str, num_options: int) -> ClassPool:
    """The pools that cannot be at chance made one, with the smallest others until it can."""
    reports = pool_reports(pool, clips, rule, num_options, keep=False)
    joined = [report.pool for report in reports if not report.asked]
    spare = sorted((report.clips, report.pool) for report in reports if report.asked)
    if not joined:
        return pool
    wide = pool.merge(joined)
    while spare and not all(
        report.asked for report in pool_reports(wide, clips, rule, num_options, keep=False)
    ):
        joined.append(spare.pop(0)[1])
        wide = pool.merge(joined)
    return wide


def _bound(pool: ClassPool, label: int, rule: str, num_options: int) -> float | None:
    try:
        return pool.design(label, num_options, POOLS[rule]).bound
    except TooFewOptions:
        return None
