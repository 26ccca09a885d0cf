"""The numbers of the comparison and the decision rule: may one encoder be called better?

`compute_numbers` gives every row's accuracies over seeds and every paired difference. `decide`
applies the rule, as a pure function of these numbers. A claim that one encoder is better requires,
on the public and on the hard questions alike:
- the paired 95 % interval of the difference in class-mean accuracy is above 0;
- both models are above the blind model;
- with wrong videos both models lose accuracy and are no longer above the blind model;
and the label-matched rows must be in the same table. A condition that was not measured is neither
true nor false, and nothing is claimed without it. The controls `random` and `constant` are blind by
design: against them these conditions apply to the first model alone.

The class mean on hard questions can still be guessed: a rule that always takes the rarest answer
gains there. So each condition also reports the difference over all questions, and the page has the
row "rarest answer".

`compute_diagnostics` scores the trained rows in two other answer formats: generated answers, and
the likelihood of the options' texts. They check the measure and are not part of it: a row that
generates no letter, or whose generated answers are far below its letter likelihoods, has an
unsuitable prompt. docs/paper_map.md, row "letter scoring".
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from qa_data.questions import Question
from sefar_core.intervals import Interval, in_percent
from sefar_mllm.answer_text import OtherFormats, failure_rate, pointwise_information
from sefar_mllm.comparison.config import BLIND
from sefar_mllm.comparison.rows import CONDITION_ROWS, ROWS, ConditionRow, QuestionFolder
from sefar_mllm.evaluation.diagnostics import best_options, credits
from sefar_mllm.evaluation.evaluate import JSON_NAMES
from sefar_mllm.evaluation.metrics import compute_metrics
from sefar_mllm.evaluation.significance import (
    Runs,
    SeedComparison,
    SeedMean,
    ablation_drop,
    compare_drops,
    compare_seeds,
    mcnemar_of,
    over_seeds,
    share_over_seeds,
)

Estimated = TypeVar("Estimated")
FIRST = "sefar"
OPPONENTS = ("clip", "eva", "supervised", "clip_probe", "eva_probe", "random", BLIND)
COMPARED_RULES = ("public", "hard")
NOT_MEASURED = "not measured"
LABEL_MATCHED = {
    "clip": ("supervised", "clip_probe"),
    "eva": ("supervised", "eva_probe"),
    "clip_probe": ("supervised", "clip_probe"),
    "eva_probe": ("supervised", "eva_probe"),
}
"""Rows that show the effect of the labels alone; `supervised` for every row not listed."""
BLIND_CONTROLS = ("random", BLIND)
COMPARISON_NAMES: Mapping[str, str] = {
    **JSON_NAMES,
    "drops": "losses",
    "extra_drops": "more_lost",
    "diagnostics": "told",
}
"""Fields whose names in comparison.json are older; the format is kept."""


@dataclass(frozen=True, kw_only=True)
class RowNumbers:
    """One row on one question folder; accuracies in [0, 1]."""

    num_seeds: int
    micro: SeedMean
    macro: SeedMean | None
    strict: float
    """Share of questions that are right in every rotation, mean over seeds."""
    per_event: dict[str, SeedMean]
    subsets: dict[str, SeedMean | None]
    """Micro accuracy on each subset; None for a subset without questions."""
    per_class: dict[int, float]
    letters: dict[str, float]
    """Share of the questions, in the order of the file, in which each letter was the likeliest."""
    letter_spread: float
    """Standard deviation over the letters of the recall of the letter."""
    calibration_error: float


@dataclass(frozen=True, kw_only=True)
class RowDiagnostics:
    """Other answer formats of one row on one question folder; shares of questions, in [0, 1]."""

    unreadable: float
    """Generated answers that name no option, which count as wrong; mean over seeds."""
    generated: SeedMean
    """Accuracy of the generated answers, greedy, with the options in the order of the file."""
    text_sum: SeedMean
    """Accuracy of the option whose text has the highest log-likelihood, summed over its tokens."""
    text_mean: SeedMean
    """The same with the mean over the text's tokens."""
    text_information: SeedMean | None
    """The same with the pointwise mutual information: the sum minus that of the blind model of the
    same seed. None for the blind model itself, or without one."""


@dataclass(frozen=True, kw_only=True)
class FolderNumbers:
    """All rows on one question folder."""

    rule: str
    num_questions: int
    num_sources: int
    rows: dict[str, RowNumbers | None]
    """None: not measured."""
    differences: dict[str, SeedComparison]
    """`sefar` minus each other measured row that is tested as it was trained, paired."""
    mcnemar_p: dict[str, tuple[float, ...]]
    """p-values of the same pairs, seed by seed; they treat questions as independent."""
    above_blind: dict[str, SeedComparison]
    """Each measured row minus the blind model, paired."""
    drops: dict[str, SeedComparison]
    """Ablation drop: a model's own test minus its test under another condition, run by run."""
    extra_drops: dict[str, SeedComparison]
    """The drop of `sefar` under the same condition, minus that drop."""
    diagnostics: dict[str, RowDiagnostics]
    """The trained rows in other answer formats."""


def compute_numbers(
    questions: QuestionFolder,
    runs: Mapping[str, Runs],
    diagnostics: Mapping[str, RowDiagnostics],
    *,
    resamples: int,
) -> FolderNumbers:
    """All numbers of one question folder, from the predictions of every measured row. SefarError if
    two rows did not answer the same questions.
    """

    def minus(name: str, other: str) -> SeedComparison:
        return _resampled(compare_seeds, runs[name], runs[other], resamples=resamples)

    def pair(row: ConditionRow) -> tuple[Runs, Runs]:
        return runs[row.base], runs[row.name]

    changed = [row for row in CONDITION_ROWS if row.name in runs]
    same = {row.condition: row for row in changed if row.base == FIRST}
    others = [name for name in runs if name not in {FIRST, *(row.name for row in changed)}]
    others = others if FIRST in runs else []
    return FolderNumbers(
        rule=questions.rule,
        num_questions=len(questions.test),
        num_sources=len({question.source or question.video for question in questions.test}),
        rows={
            row.name: row_numbers(runs[row.name], questions, resamples=resamples)
            if row.name in runs
            else None
            for row in ROWS
        },
        differences={name: minus(FIRST, name) for name in others},
        mcnemar_p={name: mcnemar_per_seed(runs[FIRST], runs[name]) for name in others},
        above_blind={name: minus(name, BLIND) for name in runs if name != BLIND and BLIND in runs},
        drops={
            row.name: _resampled(ablation_drop, *pair(row), resamples=resamples) for row in changed
        },
        extra_drops={
            row.name: _resampled(
                compare_drops, pair(same[row.condition]), pair(row), resamples=resamples
            )
            for row in changed
            if row.base != FIRST and row.condition in same
        },
        diagnostics=dict(diagnostics),
    )


def _resampled(estimate: Callable[..., Estimated], *values: Any, resamples: int) -> Estimated:
    """An estimate with its own generator: one seed, so that all resample the same sources."""
    return estimate(*values, resamples=resamples, rng=np.random.default_rng(0))


def row_numbers(runs: Runs, questions: QuestionFolder, *, resamples: int) -> RowNumbers:
    """The numbers of one row over its seeds."""

    def among(ids: Collection[str]) -> SeedMean:
        found = [[one for one in run if one.question_id in ids] for run in runs]
        return _resampled(over_seeds, found, resamples=resamples).micro

    whole = _resampled(over_seeds, runs, resamples=resamples)
    singles = [_resampled(compute_metrics, run, resamples=resamples) for run in runs]
    return RowNumbers(
        num_seeds=whole.num_seeds,
        micro=whole.micro,
        macro=whole.macro,
        strict=_mean(one.strict for one in singles),
        per_event={
            event: among({one.question_id for one in runs[0] if one.event == event})
            for event in singles[0].per_event
        },
        subsets={name: among(ids) if ids else None for name, ids in questions.subsets.items()},
        per_class={
            label: _mean(p.choice == p.answer for run in runs for p in run if p.label == label)
            for label in singles[0].per_class
        },
        letters={
            letter: _mean(one.letters.get(letter, 0) / one.num_questions for one in singles)
            for letter in singles[0].answer_letters
        },
        letter_spread=_mean(one.letter_spread for one in singles),
        calibration_error=_mean(one.calibration.error for one in singles),
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def mcnemar_per_seed(firsts: Runs, seconds: Runs) -> tuple[float, ...]:
    """McNemar's p-value of each run against the run of the same seed, or against the only run."""
    if len(seconds) == 1:
        seconds = [*seconds] * len(firsts)
    return tuple(mcnemar_of(one, other) for one, other in zip(firsts, seconds, strict=True))


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Accuracy of one row minus that of another, paired."""

    macro: Interval
    """Difference of the class means, which the rule uses."""
    micro: Interval
    """Difference over all questions, reported beside it."""


Gaps = Mapping[tuple[str, str, str], Gap | None]
"""(rule, first row, second row) -> the first minus the second."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition of the rule."""

    name: str
    holds: bool | None
    """None: not measured."""
    words: str
    over_all_questions: str = "-"
    """The same difference without averaging over classes; the rule does not use it."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What may be claimed about two rows."""

    first: str
    second: str
    claimed: bool | None
    """None: the two were not compared, or something was not measured and no measured condition
    fails."""
    conditions: tuple[Condition, ...]
    words: str


def decisions(
    sets: Mapping[str, FolderNumbers], *, num_seeds: int, recognizers: Mapping[str, int]
) -> list[Decision]:
    """The decision rule for `sefar` against every other encoder.

    `num_seeds` counts the fine-tunings of each row, `recognizers` by row the trainings of its
    recognizer.
    """
    gaps = collect_gaps(sets)
    return [
        decide(FIRST, other, gaps, trained=times_trained((FIRST, other), num_seeds, recognizers))
        for other in OPPONENTS
    ]


def collect_gaps(sets: Mapping[str, FolderNumbers]) -> Gaps:
    """The differences on all question folders that the decision rule uses.

    Questions about a single source video have no interval; they count as not measured.
    """
    gaps: dict[tuple[str, str, str], Gap | None] = {}
    for one in sets.values():
        rule = "hard" if one.rule == "event_prior" else one.rule
        pairs = {(FIRST, name): gap for name, gap in one.differences.items()}
        pairs |= {(name, BLIND): gap for name, gap in one.above_blind.items()}
        pairs |= {
            (row.base, row.name): one.drops[row.name]
            for row in CONDITION_ROWS
            if row.name in one.drops
        }
        for pair, gap in pairs.items():
            macro = gap.macro
            measured = Gap(macro=macro, micro=gap.micro) if macro and macro.limits else None
            gaps[(rule, *pair)] = measured
    return gaps


def decide(first: str, second: str, gaps: Gaps, *, trained: str) -> Decision:
    """Apply the rule to two rows of the table.

    A gap that is missing or None was not measured. `trained` says in words how many trainings there
    are (`times_trained`).
    """
    conditions = [
        _above(f"{first} above {second} on {rule} questions", gaps.get((rule, first, second)))
        for rule in COMPARED_RULES
    ]
    for model in (first,) if second in BLIND_CONTROLS else (first, second):
        wrong = f"{model}-wrong_videos"
        if (model, second) != (first, BLIND):
            name = f"{model} is above the blind model on {{}} questions"
            conditions += [
                _above(name.format(rule), gaps.get((rule, model, BLIND))) for rule in COMPARED_RULES
            ]
        name = f"{model} falls to the blind model with wrong videos, {{}} questions"
        conditions += [
            _falls(
                name.format(rule), gaps.get((rule, wrong, BLIND)), gaps.get((rule, model, wrong))
            )
            for rule in COMPARED_RULES
        ]
    conditions.append(_label_matched(gaps, LABEL_MATCHED.get(second, ("supervised",))))
    compared = any(one.holds is not None for one in conditions[: len(COMPARED_RULES)])
    return Decision(
        first=first,
        second=second,
        claimed=_all_hold([one.holds for one in conditions]) if compared else None,
        conditions=tuple(conditions),
        words=_sentence(first, second, conditions, trained)
        if compared
        else f"{first} against {second}: not measured.",
    )


def _all_hold(holds: Sequence[bool | None]) -> bool | None:
    """One that fails decides; without one, what was not measured leaves it open."""
    return False if False in holds else None if None in holds else True


def _above(name: str, gap: Gap | None) -> Condition:
    if gap is None:
        return Condition(name=name, holds=None, words=NOT_MEASURED)
    return Condition(
        name=name,
        holds=gap.macro.is_above_zero,
        words=f"difference {signed(gap.macro)}",
        over_all_questions=signed(gap.micro),
    )


def _falls(name: str, left: Gap | None, drop: Gap | None) -> Condition:
    """With wrong videos the model loses accuracy and is no longer above the blind model.

    It may be below. The loss is required because "not above" alone holds whenever there are too few
    questions for a narrow interval.
    """
    if left is None and drop is None:
        return Condition(name=name, holds=None, words=NOT_MEASURED)
    above = None if left is None else left.macro.is_above_zero
    loses = None if drop is None else drop.macro.is_above_zero
    remains, lost = (NOT_MEASURED if gap is None else signed(gap.macro) for gap in (left, drop))
    if left is not None and left.macro.high is not None:
        remains += f", up to {100 * left.macro.high:+.1f} may remain"
    return Condition(
        name=name,
        holds=_all_hold([None if above is None else not above, loses]),
        words=f"wrong videos minus the blind model {remains}; own minus wrong videos {lost}",
        over_all_questions="; ".join(
            "-" if gap is None else signed(gap.micro) for gap in (left, drop)
        ),
    )


def _label_matched(gaps: Gaps, rows: Sequence[str]) -> Condition:
    missing = [
        f"{row} on {rule} questions"
        for row in rows
        for rule in COMPARED_RULES
        if gaps.get((rule, row, BLIND)) is None
    ]
    return Condition(
        name=f"label-matched rows in the same table: {', '.join(rows)}",
        holds=None if missing else True,
        words=f"{NOT_MEASURED}: {', '.join(missing)}" if missing else "measured",
    )


def _sentence(first: str, second: str, conditions: Sequence[Condition], trained: str) -> str:
    failed = [f"{one.name} ({one.words})" for one in conditions if one.holds is False]
    unknown = [one.name for one in conditions if one.holds is None]
    if failed:
        tail = f" Not measured: {'; '.join(unknown)}." if unknown else ""
        return (
            f"{first} is not claimed to be better than {second}, with {trained}. These conditions "
            f"fail: {'; '.join(failed)}.{tail}"
        )
    if unknown:
        return f"{first} against {second}: not decided. Not measured: {'; '.join(unknown)}."
    return (
        f"{first} is better than {second}: every condition of the decision rule holds, on these "
        f"questions, with this language model, this budget and {trained}."
    )


def times_trained(rows: Sequence[str], num_seeds: int, recognizers: Mapping[str, int]) -> str:
    """The number of trainings behind some rows, in words; arguments as in `decisions`."""
    if num_seeds == 1:
        return "one training seed, which does not measure the variation of training"
    counts = {row: recognizers[row] for row in rows if row in recognizers}
    if set(counts.values()) == {num_seeds}:
        return f"{num_seeds} seeds, recognizer and fine-tuning"
    if set(counts.values()) == {1}:
        each = "of one recognizer" if len(counts) == 1 else "of one recognizer each"
        return f"{num_seeds} fine-tuning seeds {each}"
    trainings = ", ".join(f"{row} {count}" for row, count in counts.items())
    return f"{num_seeds} fine-tuning seeds (recognizers trained: {trainings or 'none'})"


def signed(gap: Interval) -> str:
    """A difference in points with its 95 % interval."""
    return in_percent(gap.value, gap.limits, sign="+")


Answers = Mapping[str, Sequence[OtherFormats]]
"""Answers in other formats, of each seed, by row."""


def compute_diagnostics(
    questions: Sequence[Question], answers: Answers, *, resamples: int
) -> dict[str, RowDiagnostics]:
    """The diagnostics of all rows, which answered the test questions with the same seeds.
    ValueError if a row and the blind row did not score the same questions.
    """
    sources = [question.source or question.video for question in questions]

    def share(choices: Sequence[Sequence[int | None]]) -> SeedMean:
        right = [credits(questions, one) for one in choices]
        return _resampled(share_over_seeds, right, sources, resamples=resamples)

    def best(runs: Sequence[Mapping[str, Sequence[float]]]) -> SeedMean:
        return share([best_options(questions, scores) for scores in runs])

    def row(name: str, runs: Sequence[OtherFormats]) -> RowDiagnostics:
        blind = answers.get(BLIND) if name != BLIND else None
        return RowDiagnostics(
            unreadable=_mean(failure_rate(run.generated) for run in runs),
            generated=share([generated_choices(questions, run) for run in runs]),
            text_sum=best([{key: one.sums for key, one in run.texts.items()} for run in runs]),
            text_mean=best([{key: one.means for key, one in run.texts.items()} for run in runs]),
            text_information=None
            if blind is None
            else best(
                [
                    pointwise_information(run.texts, other.texts)
                    for run, other in zip(runs, blind, strict=True)
                ]
            ),
        )

    return {name: row(name, runs) for name, runs in answers.items()}


def generated_choices(questions: Sequence[Question], run: OtherFormats) -> list[int | None]:
    """The option that each generated answer names, in the order of the questions."""
    choice = {one.question_id: one.choice for one in run.generated}
    return [choice[question.question_id] for question in questions]
