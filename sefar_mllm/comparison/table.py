"""The numbers of the table: every row's accuracies over seeds, and every paired difference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sefar_mllm.comparison.plan import BLIND, ROWS, SHOWINGS, Showing
from sefar_mllm.comparison.question_sets import QuestionSet
from sefar_mllm.comparison.told import Told
from sefar_mllm.comparison.verdict import Gap, Gaps, Verdict, decide, times_trained
from sefar_mllm.evaluation.losses import compare_losses, compare_showings
from sefar_mllm.evaluation.paired import mcnemar_of
from sefar_mllm.evaluation.seeds import (
    OverSeeds,
    Runs,
    SeedComparison,
    SeedMean,
    compare_seeds,
    over_seeds,
)
from sefar_mllm.evaluation.summary import summarize
from sefar_mllm.scoring.predict import Prediction

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
