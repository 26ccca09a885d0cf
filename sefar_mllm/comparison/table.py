"""The numbers of the table: every row's accuracies over seeds, and every paired difference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sefar_mllm.comparison.plan import BLIND, ROWS, Showing
from sefar_mllm.comparison.question_sets import QuestionSet
from sefar_mllm.comparison.verdict import Gaps, Verdict, decide
from sefar_mllm.evaluation.bootstrap import Interval
from sefar_mllm.evaluation.seeds import (
    OverSeeds,
    SeedComparison,
    SeedMean,
    compare_seeds,
    over_seeds,
)
from sefar_mllm.evaluation.summary import summarize
from sefar_mllm.scoring.predict import Prediction

FIRST = "sefar"
RIVALS = ("clip", "eva", "supervised", "clip_probe", "eva_probe", "random", BLIND)
Runs = Sequence[Sequence[Prediction]]
"""Predictions of each seed; one run for a row that draws nothing."""


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
    """`sefar` minus each other measured row, paired."""
    above_blind: dict[str, SeedComparison]
    """Each measured row minus the blind model, paired."""
    from_own_video: dict[str, SeedComparison]
    """A model that is shown something else, minus the same model shown the right video."""


def numbers(questions: QuestionSet, runs: Mapping[str, Runs], *, resamples: int) -> SetNumbers:
    """All numbers of one question set.

    Every estimate draws from a generator of its own with the same seed: the same source videos
    are resampled throughout.

    Args:
        questions: the set.
        runs: predictions of every measured row.
        resamples: draws of the bootstrap over source videos.

    Raises:
        PredictionError: two rows did not answer the same questions.
    """

    def against(rivals: Mapping[str, str]) -> dict[str, SeedComparison]:
        return {
            name: compare_seeds(
                runs[name], runs[other], resamples=resamples, rng=np.random.default_rng(0)
            )
            for name, other in rivals.items()
            if name in runs and other in runs
        }

    others = [name for name in runs if name != FIRST]
    differences = {
        name: compare_seeds(
            runs[FIRST], runs[name], resamples=resamples, rng=np.random.default_rng(0)
        )
        for name in others
        if FIRST in runs
    }
    return SetNumbers(
        rule=questions.rule,
        num_questions=len(questions.test),
        num_sources=len({question.source for question in questions.test}),
        rows={
            row.name: row_numbers(runs[row.name], questions, resamples=resamples)
            if row.name in runs
            else None
            for row in ROWS
        },
        differences=differences,
        above_blind=against({name: BLIND for name in runs if name != BLIND}),
        from_own_video=against({row.name: row.of for row in ROWS if isinstance(row, Showing)}),
    )


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
    """Class-mean differences of all sets, as the decision rule reads them.

    Questions about one source video have no interval between videos: they count as not measured.
    """
    gaps: dict[tuple[str, str, str], Interval | None] = {}
    for one in sets.values():
        rule = "hard" if one.rule == "event_prior" else one.rule
        known = one.num_sources > 1
        for name, difference in one.differences.items():
            gaps[rule, FIRST, name] = difference.macro if known else None
        for name, difference in one.above_blind.items():
            gaps[rule, name, BLIND] = difference.macro if known else None
    return gaps


def verdicts(sets: Mapping[str, SetNumbers], *, num_seeds: int) -> list[Verdict]:
    """The decision rule for sefar against every rival."""
    gaps = gaps_of(sets)
    return [decide(FIRST, rival, gaps, num_seeds=num_seeds) for rival in RIVALS]


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
