"""The decision rule, as a pure function of numbers: may one encoder be called better than another?

A claim is made only if, on the public and on the hard questions alike, the paired 95 % interval of
the difference in class-mean accuracy lies above 0; if both models beat the blind one and fall to
it when they are shown wrong videos; and if the label-matched rows stand in the same table. A
condition that was not measured is neither true nor false, and no claim is made without it. Against
the controls `random` and `constant`, which are meant to be blind, these conditions are asked of
the first model alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sefar_mllm.comparison.plan import BLIND
from sefar_mllm.evaluation.bootstrap import Interval

RULES = ("public", "hard")
LABEL_MATCHED = {
    "clip": ("supervised", "clip_probe"),
    "eva": ("supervised", "eva_probe"),
    "clip_probe": ("supervised", "clip_probe"),
    "eva_probe": ("supervised", "eva_probe"),
}
"""Rows that tell what the labels alone bring; `supervised` wherever nothing else is named."""
MEANT_TO_BE_BLIND = ("random", BLIND)
Gaps = Mapping[tuple[str, str, str], Interval | None]
"""(rule, first row, second row) -> class-mean accuracy of the first minus that of the second."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One line of the rule."""

    name: str
    holds: bool | None
    """None: not measured."""
    words: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What may be said of two rows."""

    first: str
    second: str
    claimed: bool | None
    """None: the two were not compared, or something was not measured and nothing that was speaks
    against it."""
    conditions: tuple[Condition, ...]
    words: str


def decide(first: str, second: str, gaps: Gaps, *, num_seeds: int) -> Verdict:
    """Apply the rule to two rows of the table.

    Args:
        first: the row that is to be called better.
        second: the other.
        gaps: paired differences; one that is missing or None was not measured.
        num_seeds: trainings behind each row, told in the words.
    """
    models = (first,) if second in MEANT_TO_BE_BLIND else (first, second)
    conditions = [_above(gaps, rule, first, second) for rule in RULES]
    for model in models:
        conditions += [
            _sees(gaps, rule, model) for rule in RULES if (model, second) != (first, BLIND)
        ]
        conditions += [_falls(gaps, rule, model) for rule in RULES]
    conditions.append(_label_matched(gaps, LABEL_MATCHED.get(second, ("supervised",))))
    found = [condition.holds for condition in conditions]
    unmeasured = all(holds is None for holds in found[: len(RULES)])
    claimed = None if unmeasured else False if False in found else None if None in found else True
    return Verdict(
        first=first,
        second=second,
        claimed=claimed,
        conditions=tuple(conditions),
        words=_words(first, second, conditions, num_seeds),
    )


def _above(gaps: Gaps, rule: str, first: str, second: str) -> Condition:
    gap = gaps.get((rule, first, second))
    name = f"{first} above {second} on {rule} questions"
    if gap is None:
        return Condition(name=name, holds=None, words="not measured")
    return Condition(name=name, holds=gap.low > 0, words=f"difference {signed(gap)}")


def _sees(gaps: Gaps, rule: str, model: str) -> Condition:
    found = _above(gaps, rule, model, BLIND)
    return Condition(
        name=f"{model} beats the blind model on {rule} questions",
        holds=found.holds,
        words=found.words,
    )


def _falls(gaps: Gaps, rule: str, model: str) -> Condition:
    """Shown wrong videos, the model is no longer above the blind one. It may fall below it."""
    gap = gaps.get((rule, f"{model}-wrong_videos", BLIND))
    name = f"{model} falls to the blind model when shown wrong videos, {rule} questions"
    if gap is None:
        return Condition(name=name, holds=None, words="not measured")
    return Condition(name=name, holds=gap.low <= 0, words=f"difference {signed(gap)}")


def _label_matched(gaps: Gaps, rows: Sequence[str]) -> Condition:
    missing = [
        f"{row} on {rule} questions"
        for row in rows
        for rule in RULES
        if gaps.get((rule, row, BLIND)) is None
    ]
    return Condition(
        name=f"label-matched rows in the same table: {', '.join(rows)}",
        holds=None if missing else True,
        words=f"not measured: {', '.join(missing)}" if missing else "they are",
    )


def _words(first: str, second: str, conditions: Sequence[Condition], num_seeds: int) -> str:
    if all(one.holds is None for one in conditions[: len(RULES)]):
        return f"{first} against {second}: not measured."
    failed = [f"{one.name} ({one.words})" for one in conditions if one.holds is False]
    unknown = [one.name for one in conditions if one.holds is None]
    if failed:
        tail = f" Not measured: {'; '.join(unknown)}." if unknown else ""
        return (
            f"That {first} beats {second} is not claimed. It fails on: {'; '.join(failed)}.{tail}"
        )
    if unknown:
        return f"{first} against {second}: not decided. Not measured: {'; '.join(unknown)}."
    seeds = "one training seed, which says nothing of how training varies"
    if num_seeds > 1:
        seeds = f"{num_seeds} training seeds"
    return (
        f"{first} beats {second}: every condition of the decision rule holds, on these questions, "
        f"with this language model, this budget and {seeds}."
    )


def signed(gap: Interval) -> str:
    """A difference in points with its 95 % interval."""
    return f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
