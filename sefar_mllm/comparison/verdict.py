"""The decision rule, as a pure function of numbers: may one encoder be called better than another?

A claim is made only if, on the public and on the hard questions alike, the paired 95 % interval of
the difference in class-mean accuracy lies above 0; if both models beat the blind one; if both,
shown wrong videos, lose to themselves and are no longer above the blind one; and if the
label-matched rows stand in the same table. A
condition that was not measured is neither true nor false, and no claim is made without it. Against
the controls `random` and `constant`, which are meant to be blind, these conditions are asked of
the first model alone.

Hard questions are not proof against guessing in the class mean: who always takes the option that
was the rarest answer gains there. So the same difference over all questions stands beside each
condition, and the row "rarest answer" on the page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sefar_core.intervals import Interval, in_percent
from sefar_mllm.comparison.plan import BLIND

RULES = ("public", "hard")
LABEL_MATCHED = {
    "clip": ("supervised", "clip_probe"),
    "eva": ("supervised", "eva_probe"),
    "clip_probe": ("supervised", "clip_probe"),
    "eva_probe": ("supervised", "eva_probe"),
}
"""Rows that tell what the labels alone bring; `supervised` wherever nothing else is named."""
MEANT_TO_BE_BLIND = ("random", BLIND)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Accuracy of one row minus that of another, paired."""

    macro: Interval
    """Of the class means, which the rule reads."""
    micro: Interval
    """Over all questions, told beside it."""


Gaps = Mapping[tuple[str, str, str], Gap | None]
"""(rule, first row, second row) -> the first minus the second."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One line of the rule."""

    name: str
    holds: bool | None
    """None: not measured."""
    words: str
    over_all_questions: str = "-"
    """The same difference, not averaged over classes; the rule does not read it."""


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


def decide(first: str, second: str, gaps: Gaps, *, trained: str) -> Verdict:
    """Apply the rule to two rows of the table.

    Args:
        first: the row that is to be called better.
        second: the other.
        gaps: paired differences; one that is missing or None was not measured.
        trained: how often what was trained, told in the words (`times_trained`).
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
        words=_words(first, second, conditions, trained),
    )


def _above(gaps: Gaps, rule: str, first: str, second: str) -> Condition:
    gap = gaps.get((rule, first, second))
    name = f"{first} above {second} on {rule} questions"
    if gap is None:
        return Condition(name=name, holds=None, words="not measured")
    return Condition(
        name=name,
        holds=gap.macro.lies_above_zero,
        words=f"difference {signed(gap.macro)}",
        over_all_questions=signed(gap.micro),
    )


def _sees(gaps: Gaps, rule: str, model: str) -> Condition:
    return replace(
        _above(gaps, rule, model, BLIND), name=f"{model} beats the blind model on {rule} questions"
    )


def _falls(gaps: Gaps, rule: str, model: str) -> Condition:
    """Shown wrong videos, the model loses to itself and is no longer above the blind one.

    It may fall below. Without the loss, few questions would do for "not above", which needs no
    more than a wide interval.
    """
    wrong = f"{model}-wrong_videos"
    left, lost = gaps.get((rule, wrong, BLIND)), gaps.get((rule, model, wrong))
    name = f"{model} falls to the blind model when shown wrong videos, {rule} questions"
    found = [
        None if left is None or left.macro.low is None else left.macro.low <= 0,
        None if lost is None else lost.macro.lies_above_zero,
    ]
    if left is None and lost is None:
        return Condition(name=name, holds=None, words="not measured")
    return Condition(
        name=name,
        holds=False if False in found else None if None in found else True,
        words=f"to the blind model {_left(left)}; own minus wrong videos "
        f"{'not measured' if lost is None else signed(lost.macro)}",
        over_all_questions=f"{'-' if left is None else signed(left.micro)}; "
        f"{'-' if lost is None else signed(lost.micro)}",
    )


def _left(gap: Gap | None) -> str:
    """What may be left above the blind model: the upper limit is what a claim must bear."""
    if gap is None or gap.macro.high is None:
        return "not measured"
    return f"{signed(gap.macro)}, up to {100 * gap.macro.high:+.1f} may be left"


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


def _words(first: str, second: str, conditions: Sequence[Condition], trained: str) -> str:
    if all(one.holds is None for one in conditions[: len(RULES)]):
        return f"{first} against {second}: not measured."
    failed = [f"{one.name} ({one.words})" for one in conditions if one.holds is False]
    unknown = [one.name for one in conditions if one.holds is None]
    if failed:
        tail = f" Not measured: {'; '.join(unknown)}." if unknown else ""
        return (
            f"That {first} beats {second} is not claimed, with {trained}. It fails on: "
            f"{'; '.join(failed)}.{tail}"
        )
    if unknown:
        return f"{first} against {second}: not decided. Not measured: {'; '.join(unknown)}."
    return (
        f"{first} beats {second}: every condition of the decision rule holds, on these questions, "
        f"with this language model, this budget and {trained}."
    )


def times_trained(rows: Sequence[str], num_seeds: int, recognizers: Mapping[str, int]) -> str:
    """How often what was trained behind some rows, in words.

    Args:
        rows: by name.
        num_seeds: fine-tunings of each.
        recognizers: how often the recognizer of a row was trained, for rows that have one.
    """
    if num_seeds == 1:
        return "one training seed, which says nothing of how training varies"
    counts = {row: recognizers[row] for row in rows if row in recognizers}
    if set(counts.values()) == {num_seeds}:
        return f"{num_seeds} seeds, recognizer and fine-tuning"
    if set(counts.values()) == {1}:
        each = "of one recognizer" if len(counts) == 1 else "of one recognizer each"
        return f"{num_seeds} fine-tuning seeds {each}"
    told = ", ".join(f"{row} {count}" for row, count in counts.items())
    return f"{num_seeds} fine-tuning seeds (recognizers trained: {told or 'none'})"


def signed(gap: Interval) -> str:
    """A difference in points with its 95 % interval."""
    return in_percent(gap.value, gap.limits, sign="+")
