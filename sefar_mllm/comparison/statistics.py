"""The numbers of the table: every row's accuracies over seeds, and every paired difference.

The trained rows asked in two other ways: let speak, and by the likelihood of the options' texts.

Diagnostics, not the measure: a row that says no letter, or whose spoken answers fall far behind
its likelihoods, was asked by a template that does not fit. docs/paper_map.md, row "letter scoring".

The decision rule, as a pure function of numbers: may one encoder be called better than another?

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

import numpy as np

from qa_data.questions import Question
from sefar_core.intervals import Interval, in_percent
from sefar_mllm.answer_text import OtherFormats, failure_rate, pointwise_information
from sefar_mllm.comparison.rows import BLIND, ROWS, SHOWINGS, QuestionSet, Showing
from sefar_mllm.evaluation.diagnostics import best_options, credits
from sefar_mllm.evaluation.metrics import summarize
from sefar_mllm.evaluation.significance import (
    OverSeeds,
    Runs,
    SeedComparison,
    SeedMean,
    compare_losses,
    compare_seeds,
    compare_showings,
    mcnemar_of,
    over_seeds,
    share_over_seeds,
)
from sefar_mllm.scoring import Prediction

Answers = Mapping[str, Sequence[OtherFormats]]
"""By row, of each seed."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """One row on one question set; shares of the questions, in [0, 1]."""

    unreadable: float
    """Spoken answers that name no option and count as wrong; mean over seeds."""
    spoken: SeedMean
    """Accuracy of the spoken answers, greedy, in the order of the file."""
    text_sum: SeedMean
    """Accuracy of the option whose text is the likeliest."""
    text_mean: SeedMean
    """The same by the mean over the text's tokens."""
    text_information: SeedMean | None
    """The same by what the video adds: the blind model's log-likelihood of the same seed taken
    off (pointwise mutual information). None for the blind model itself, or without one."""


def told_of(questions: Sequence[Question], answers: Answers, *, resamples: int) -> dict[str, Told]:
    """All rows' numbers.

    Args:
        questions: the set.
        answers: of the same questions; every row has as many seeds.
        resamples: draws of the bootstrap over source videos.

    Raises:
        ValueError: a row and the blind one did not score the same questions.
    """
    sources = [question.source or question.video for question in questions]

    def share(choices: Sequence[Sequence[int | None]]) -> SeedMean:
        rows = [credits(questions, one) for one in choices]
        rng = np.random.default_rng(0)
        return share_over_seeds(rows, sources, resamples=resamples, rng=rng)

    def row(name: str, runs: Sequence[OtherFormats]) -> Told:
        blind = answers.get(BLIND) if name != BLIND else None
        sums, means = (
            [{key: getattr(one, kind) for key, one in run.texts.items()} for run in runs]
            for kind in ("sums", "means")
        )
        return Told(
            unreadable=float(np.mean([failure_rate(run.generated) for run in runs])),
            spoken=share([said(questions, run) for run in runs]),
            text_sum=share([best_options(questions, one) for one in sums]),
            text_mean=share([best_options(questions, one) for one in means]),
            text_information=None
            if blind is None
            else share(
                [
                    best_options(questions, pointwise_information(run.texts, other.texts))
                    for run, other in zip(runs, blind, strict=True)
                ]
            ),
        )

    return {name: row(name, runs) for name, runs in answers.items()}


def said(questions: Sequence[Question], run: OtherFormats) -> list[int | None]:
    """The option that each spoken answer names, in the questions' order."""
    choice = {one.question_id: one.choice for one in run.generated}
    return [choice[question.question_id] for question in questions]


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


FIRST = "sefar"
RIVALS = ("clip", "eva", "supervised", "clip_probe", "eva_probe", "random", BLIND)


@dataclass(frozen=True, kw_only=True)
class RowNumbers:
    """One row on one question set; accuracies in [0, 1]."""

    num_seeds: int
    micro: SeedMean
    macro: SeedMean | None
    strict: float
    """Share of questions that are right in every rotation, mean over seeds."""
    per_event: dict[str, SeedMean]
    parts: dict[str, SeedMean | None]
    """Micro accuracy on each part; None for a part without questions."""
    per_class: dict[int, float]
    letters: dict[str, float]
    """Share of the questions, as they are written, in which each letter came first."""
    letter_spread: float
    """Standard deviation over the letters of the share that is right where the letter is."""
    calibration_error: float


@dataclass(frozen=True, kw_only=True)
class SetNumbers:
    """All rows on one question set."""

    rule: str
    num_questions: int
    num_sources: int
    rows: dict[str, RowNumbers | None]
    """None: not measured."""
    differences: dict[str, SeedComparison]
    """`sefar` minus each other measured row that is asked as it was taught, paired."""
    mcnemar_p: dict[str, tuple[float, ...]]
    """Of the same pairs, seed by seed; questions taken for independent."""
    above_blind: dict[str, SeedComparison]
    """Each measured row minus the blind model, paired."""
    losses: dict[str, SeedComparison]
    """What a model loses when it is shown something else: its own test minus that, run by run."""
    more_lost: dict[str, SeedComparison]
    """What `sefar` loses when it is shown the same, minus that loss."""
    told: dict[str, Told]
    """The trained rows asked in other ways."""


def numbers(
    questions: QuestionSet, runs: Mapping[str, Runs], told: Mapping[str, Told], *, resamples: int
) -> SetNumbers:
    """All numbers of one question set.

    Every estimate draws from a generator of its own with the same seed: the same source videos
    are resampled throughout.

    Args:
        questions: the set.
        runs: predictions of every measured row.
        told: what the trained rows answer when they are asked in other ways.
        resamples: draws of the bootstrap over source videos.

    Raises:
        PredictionError: two rows did not answer the same questions.
    """

    def minus(name: str, other: str) -> SeedComparison:
        rng = np.random.default_rng(0)
        return compare_seeds(runs[name], runs[other], resamples=resamples, rng=rng)

    shown = {row.name for row in SHOWINGS}
    rivals = [name for name in runs if name not in {FIRST, *shown} and FIRST in runs]
    return SetNumbers(
        rule=questions.rule,
        num_questions=len(questions.test),
        num_sources=len({question.source or question.video for question in questions.test}),
        rows={
            row.name: row_numbers(runs[row.name], questions, resamples=resamples)
            if row.name in runs
            else None
            for row in ROWS
        },
        differences={name: minus(FIRST, name) for name in rivals},
        mcnemar_p={name: seed_by_seed(runs[FIRST], runs[name]) for name in rivals},
        above_blind={name: minus(name, BLIND) for name in runs if name != BLIND and BLIND in runs},
        losses=losses_of(runs, resamples),
        more_lost=more_lost_of(runs, resamples),
        told=dict(told),
    )


def seed_by_seed(firsts: Runs, seconds: Runs) -> tuple[float, ...]:
    """McNemar's p-value of each run and the other side's of the same seed, or its only one."""
    if len(seconds) == 1:
        seconds = [*seconds] * len(firsts)
    return tuple(mcnemar_of(one, other) for one, other in zip(firsts, seconds, strict=True))


def losses_of(runs: Mapping[str, Runs], resamples: int) -> dict[str, SeedComparison]:
    """What each model loses under each showing that was measured."""
    return {
        row.name: compare_showings(
            runs[row.of], runs[row.name], resamples=resamples, rng=np.random.default_rng(0)
        )
        for row in SHOWINGS
        if row.name in runs
    }


def more_lost_of(runs: Mapping[str, Runs], resamples: int) -> dict[str, SeedComparison]:
    """How much more `sefar` loses under the same showing than another model."""

    def pair(row: Showing) -> tuple[Runs, Runs]:
        return runs[row.of], runs[row.name]

    same = {row.shown: row for row in SHOWINGS if row.of == FIRST and row.name in runs}
    return {
        row.name: compare_losses(
            pair(same[row.shown]), pair(row), resamples=resamples, rng=np.random.default_rng(0)
        )
        for row in SHOWINGS
        if row.name in runs and row.of != FIRST and row.shown in same
    }


def row_numbers(runs: Runs, questions: QuestionSet, *, resamples: int) -> RowNumbers:
    """One row's numbers, over its seeds."""
    whole = _over_seeds(runs, resamples)
    singles = [summarize(run, resamples=resamples, rng=np.random.default_rng(0)) for run in runs]
    events = {event: _ids(runs[0], event) for event in singles[0].per_event}
    return RowNumbers(
        num_seeds=whole.num_seeds,
        micro=whole.micro,
        macro=whole.macro,
        strict=_mean([one.strict for one in singles]),
        per_event={
            event: _over_seeds(_among(runs, ids), resamples).micro for event, ids in events.items()
        },
        parts={
            name: _over_seeds(_among(runs, ids), resamples).micro if ids else None
            for name, ids in questions.parts.items()
        },
        per_class={label: _class_accuracy(runs, label) for label in singles[0].per_class},
        letters={
            letter: _mean([one.letters.get(letter, 0) / one.num_questions for one in singles])
            for letter in singles[0].answer_letters
        },
        letter_spread=_mean([one.letter_spread for one in singles]),
        calibration_error=_mean([one.calibration.error for one in singles]),
    )


def gaps_of(sets: Mapping[str, SetNumbers]) -> Gaps:
    """Differences of all sets, as the decision rule reads them.

    Questions about one source video have no interval between videos: they count as not measured.
    """
    gaps: dict[tuple[str, str, str], Gap | None] = {}
    for one in sets.values():
        rule = "hard" if one.rule == "event_prior" else one.rule
        pairs = {(FIRST, name): gap for name, gap in one.differences.items()}
        pairs |= {(name, BLIND): gap for name, gap in one.above_blind.items()}
        pairs |= {
            (row.of, row.name): one.losses[row.name] for row in SHOWINGS if row.name in one.losses
        }
        for pair, gap in pairs.items():
            gaps[(rule, *pair)] = (
                None
                if gap.macro is None or gap.macro.limits is None
                else Gap(macro=gap.macro, micro=gap.micro)
            )
    return gaps


def verdicts(
    sets: Mapping[str, SetNumbers], *, num_seeds: int, recognizers: Mapping[str, int]
) -> list[Verdict]:
    """The decision rule for sefar against every rival.

    Args:
        sets: all numbers.
        num_seeds: fine-tunings of each row.
        recognizers: how often the recognizer of a row was trained.
    """
    gaps = gaps_of(sets)
    return [
        decide(FIRST, rival, gaps, trained=times_trained((FIRST, rival), num_seeds, recognizers))
        for rival in RIVALS
    ]


def _over_seeds(runs: Runs, resamples: int) -> OverSeeds:
    return over_seeds(runs, resamples=resamples, rng=np.random.default_rng(0))


def _among(runs: Runs, ids: frozenset[str]) -> Runs:
    return [[one for one in run if one.question_id in ids] for run in runs]


def _ids(run: Sequence[Prediction], event: str) -> frozenset[str]:
    return frozenset(one.question_id for one in run if one.event == event)


def _class_accuracy(runs: Runs, label: int) -> float:
    return _mean([float(p.choice == p.answer) for run in runs for p in run if p.label == label])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
