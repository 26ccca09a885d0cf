"""Several training seeds of each model on the same questions.

Two things vary: which videos were filmed, and how training went. A resample draws both: the source
videos, alike for all runs, which moves the mean of the runs; and, of the S runs of a model, S - 1
with replacement, by whose accuracies on the set as it is the mean moves further. S - 1 draws, not
S, because their mean varies as much as the mean of S runs does (Rao and Wu, Resampling Inference
With Complex Survey Data, JASA 83, 1988); that of S draws varies by (S - 1) / S of it.

How often such an interval held the true difference of two models in simulations (40 videos, 3 seeds
each): 98 % where training did not vary beyond the noise of single answers, which is counted twice;
94 % where it moved the difference one and a half times as much as the videos did; 90 % where three
times as much, since three runs tell little about how much training varies (94 % with 6 seeds).
Without the draw of runs it was 94, 70 and 47 %.

What trained models lose when they are shown something else than the right videos.

Both sides of such a difference are one and the same trained model, so that it is taken run by run,
and a draw of runs (see `seeds`) serves both sides.

Two models on the same questions: the difference, its interval, and McNemar's test.

The interval is what counts. Both models are scored on every resample of the source videos, so that
what makes a video hard for both cancels. McNemar's test takes the questions for independent of one
another, which those of one video are not: its p-value is too small, and stands beside for readers
who expect it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from qa_data.files import composed
from sefar_core.intervals import Estimate, Interval, class_mean, draw_sources, mean
from sefar_mllm.evaluation.metrics import answered_right, class_labels
from sefar_mllm.scoring import Prediction, PredictionError


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Accuracy of the first model minus that of the second, on the same questions."""

    micro: Interval
    """Covers the draw of the source videos; the two trained models are taken as they are."""
    macro: Interval | None
    only_first_right: int
    only_second_right: int
    mcnemar_p: float
    """Two-sided, exact, from the two counts above; questions taken for independent."""


def compare(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    *,
    resamples: int,
    rng: np.random.Generator,
) -> Comparison:
    """The difference of two models on the same questions, with paired intervals.

    Args:
        first: predictions of one model.
        second: of the other, in any order.
        resamples: draws of the bootstrap.
        rng: source of its draws.

    Raises:
        PredictionError: the two did not answer the same questions, or there are none.
    """
    right, other = line_up([first, second])
    labels = class_labels(first)
    draws = draw_sources([p.source for p in first], resamples=resamples, rng=rng)
    only_first, only_second = int((right > other).sum()), int((right < other).sum())
    return Comparison(
        micro=mean(right - other, draws).interval,
        macro=None if labels is None else class_mean(right - other, labels, draws).interval,
        only_first_right=only_first,
        only_second_right=only_second,
        mcnemar_p=mcnemar(only_first, only_second),
    )


def line_up(runs: Sequence[Sequence[Prediction]]) -> Float[np.ndarray, "run question"]:
    """Which answers of each run are right, 1.0 or 0.0, in the order of the first run's questions.

    Raises:
        PredictionError: the runs did not answer the same questions about the same clips, or there
            are none.
    """
    if not runs or not runs[0]:
        raise PredictionError("there are no predictions to compare; check the question file")
    first = runs[0]
    rows = []
    for run in runs:
        by_id = {p.question_id: p for p in run}
        strays = [
            p.question_id
            for p in first
            if p.question_id not in by_id
            or composed(by_id[p.question_id].video) != composed(p.video)
        ]
        if strays or len(run) != len(first):
            raise PredictionError(
                f"the two sets of predictions differ in their questions ({len(first)} and "
                f"{len(run)}, unmatched for example {strays[:3]}); score both on the same file"
            )
        rows.append(answered_right([by_id[p.question_id] for p in first]))
    return np.stack(rows)


def mcnemar_of(first: Sequence[Prediction], second: Sequence[Prediction]) -> float:
    """McNemar's p-value of two runs over the same questions.

    Raises:
        PredictionError: they did not answer the same questions, or there are none.
    """
    right, other = line_up([first, second])
    return mcnemar(int((right > other).sum()), int((right < other).sum()))


def mcnemar(only_first: int, only_second: int) -> float:
    """Chance that a fair coin hands out the discordant questions at least as unevenly.

    Exact: two-sided binomial test with probability 1/2 (McNemar, Psychometrika 12, 1947), in whole
    numbers up to the last division. 1 if no question is discordant.

    Args:
        only_first: questions that the first model alone has right.
        only_second: that the second one alone has right.

    Raises:
        ValueError: a negative count.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"counts cannot be negative, got {only_first} and {only_second}")
    count = only_first + only_second
    ways = tail = 1
    for few in range(min(only_first, only_second)):
        ways = ways * (count - few) // (few + 1)  # binomial coefficient (count, few + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**count)


Runs: TypeAlias = Sequence[Sequence[Prediction]]
"""Predictions of each run of one model."""
Estimates: TypeAlias = Sequence[Estimate]
"""Of each run."""


@dataclass(frozen=True, kw_only=True)
class SeedMean:
    """An accuracy averaged over training seeds, in [0, 1]."""

    mean: Interval
    """Covers the draw of the source videos and, from two seeds on, that of the seeds."""
    spread: float | None
    """Standard deviation of single runs (S - 1 in the denominator); none for one seed."""


@dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """One model, trained several times."""

    num_seeds: int
    micro: SeedMean
    macro: SeedMean | None
    """None if the questions carry no class."""


@dataclass(frozen=True, kw_only=True)
class SeedComparison:
    """Mean accuracy of the first model's runs minus that of the second one's."""

    num_first: int
    num_second: int
    micro: Interval
    """Covers the draw of the source videos and, of a model with two seeds or more, that of its
    seeds. With one seed on both sides it is the interval of `paired.compare`."""
    macro: Interval | None


def over_seeds(runs: Runs, *, resamples: int, rng: np.random.Generator) -> OverSeeds:
    """Mean and spread of one model's runs.

    Args:
        runs: predictions of each training seed, of the same questions.
        resamples: draws of the bootstrap.
        rng: source of its draws.

    Raises:
        PredictionError: the runs did not answer the same questions, or there are none.
    """
    micro, macro = _of_each_run(runs, resamples=resamples, rng=rng)
    drawn = draw_runs(len(runs), resamples=resamples, rng=rng)
    return OverSeeds(
        num_seeds=len(runs),
        micro=_seed_mean(micro, drawn),
        macro=None if macro is None else _seed_mean(macro, drawn),
    )


def compare_seeds(
    firsts: Runs, seconds: Runs, *, resamples: int, rng: np.random.Generator
) -> SeedComparison:
    """The difference of two models, each trained several times.

    The runs of the two are drawn apart: that two runs have a seed in common means little where
    their models differ.

    Args:
        firsts: predictions of each training seed of one model.
        seconds: of the other one, of the same questions; the numbers of seeds may differ.
        resamples: draws of the bootstrap.
        rng: source of its draws.

    Raises:
        PredictionError: the runs did not answer the same questions, or there are none.
    """
    if not firsts or not seconds:
        raise PredictionError(
            f"a comparison needs runs of both models, got {len(firsts)} and {len(seconds)}"
        )
    kinds = of_each_side([firsts, seconds], resamples=resamples, rng=rng)
    drawn = draw_runs(len(firsts), resamples=resamples, rng=rng)
    other = draw_runs(len(seconds), resamples=resamples, rng=rng)

    def gap(first: Estimates, second: Estimates) -> Interval:
        return minus(average(first, drawn), average(second, other)).interval

    return comparison([gap(*kind) for kind in kinds], len(firsts), len(seconds))


def share_over_seeds(
    credits: Sequence[Float[np.ndarray, "question"]],
    sources: Sequence[str],
    *,
    resamples: int,
    rng: np.random.Generator,
) -> SeedMean:
    """Mean over runs of a share of the questions.

    Args:
        credits: for each run, 1.0 or 0.0 for each question.
        sources: the questions' source videos.
        resamples: draws of the bootstrap.
        rng: source of its draws.
    """
    draws = draw_sources(sources, resamples=resamples, rng=rng)
    estimates = [mean(one, draws) for one in credits]
    return _seed_mean(estimates, draw_runs(len(credits), resamples=resamples, rng=rng))


def of_each_side(
    sides: Sequence[Runs], *, resamples: int, rng: np.random.Generator
) -> list[list[Estimates]]:
    """Micro accuracies of each run of each side, and class means where there are classes."""
    runs = [run for side in sides for run in side]
    found: list[list[Estimates]] = []
    for estimates in _of_each_run(runs, resamples=resamples, rng=rng):
        if estimates is not None:
            left = iter(estimates)
            found.append([list(islice(left, len(side))) for side in sides])
    return found


def comparison(intervals: Sequence[Interval], num_first: int, num_second: int) -> SeedComparison:
    """The intervals of `of_each_side`'s kinds, micro first."""
    micro, *macro = intervals
    return SeedComparison(
        num_first=num_first,
        num_second=num_second,
        micro=micro,
        macro=macro[0] if macro else None,
    )


def minus(first: Estimate, second: Estimate) -> Estimate:
    """The difference on the same resamples."""
    return Estimate(value=first.value - second.value, draws=first.draws - second.draws)


def _of_each_run(
    runs: Runs, *, resamples: int, rng: np.random.Generator
) -> tuple[list[Estimate], list[Estimate] | None]:
    """Micro and macro accuracy of each run, all on the same resamples of the sources."""
    right = line_up(runs)
    labels = class_labels(runs[0])
    draws = draw_sources([p.source for p in runs[0]], resamples=resamples, rng=rng)
    micro = [mean(row, draws) for row in right]
    return micro, None if labels is None else [class_mean(row, labels, draws) for row in right]


def draw_runs(
    count: int, *, resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "resample run"]:
    """Weight of each run in each resample: S - 1 draws with replacement; one run stays itself."""
    if count == 1:
        return np.ones((resamples, 1))
    return rng.multinomial(count - 1, np.full(count, 1 / count), size=resamples) / (count - 1)


def average(estimates: Sequence[Estimate], weights: Float[np.ndarray, "resample run"]) -> Estimate:
    """Mean of the runs: on each resample of the sources, and moved by the runs that were drawn."""
    values = np.array([one.value for one in estimates])
    of_sources = np.mean([one.draws for one in estimates], axis=0)
    moved = weights @ values - values.mean()
    return Estimate(value=float(values.mean()), draws=of_sources + moved)


def _seed_mean(
    estimates: Sequence[Estimate], weights: Float[np.ndarray, "resample run"]
) -> SeedMean:
    values = [one.value for one in estimates]
    return SeedMean(
        mean=average(estimates, weights).interval,
        spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
    )


def compare_showings(
    own: Runs, shown: Runs, *, resamples: int, rng: np.random.Generator
) -> SeedComparison:
    """What trained models lose when they are shown something else: their own test minus that.

    Both sides of a run are one trained model: the difference is taken run by run, and one draw of
    runs serves both sides.

    Args:
        own: predictions of each trained model, shown the right videos.
        shown: of the same models in the same order, shown something else.
        resamples: draws of the bootstrap.
        rng: source of its draws.

    Raises:
        PredictionError: the runs did not answer the same questions, or are not as many.
    """
    _refuse_unpaired(own, shown)
    kinds = of_each_side([own, shown], resamples=resamples, rng=rng)
    drawn = draw_runs(len(own), resamples=resamples, rng=rng)
    losses = [average(_losses(*kind), drawn).interval for kind in kinds]
    return comparison(losses, len(own), len(shown))


def compare_losses(
    first: tuple[Runs, Runs],
    second: tuple[Runs, Runs],
    *,
    resamples: int,
    rng: np.random.Generator,
) -> SeedComparison:
    """Does one model lose more than another when both are shown something else?

    Args:
        first: of one model, its runs shown the right videos, and shown something else.
        second: of the other model.
        resamples: draws of the bootstrap.
        rng: source of its draws.

    Returns:
        Loss of the first model (`compare_showings`) minus that of the second one. Runs of the two
        models are drawn apart, those of one model together.

    Raises:
        PredictionError: as in `compare_showings`.
    """
    for own, shown in (first, second):
        _refuse_unpaired(own, shown)
    kinds = of_each_side([*first, *second], resamples=resamples, rng=rng)
    drawn = draw_runs(len(first[0]), resamples=resamples, rng=rng)
    other = draw_runs(len(second[0]), resamples=resamples, rng=rng)
    gaps = [
        minus(
            average(_losses(own, shown), drawn), average(_losses(its_own, its_shown), other)
        ).interval
        for own, shown, its_own, its_shown in kinds
    ]
    return comparison(gaps, len(first[0]), len(second[0]))


def _refuse_unpaired(own: Runs, shown: Runs) -> None:
    if len(own) != len(shown) or not own:
        raise PredictionError(
            f"a loss is taken run by run, but there are {len(own)} runs with the right videos and "
            f"{len(shown)} with others; score the same trained models both ways"
        )


def _losses(own: Estimates, shown: Estimates) -> list[Estimate]:
    return [minus(one, other) for one, other in zip(own, shown, strict=True)]
