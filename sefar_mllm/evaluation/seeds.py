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
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from sefar_core.intervals import Estimate, Interval, class_mean, draw_sources, mean
from sefar_mllm.evaluation.paired import line_up
from sefar_mllm.evaluation.summary import class_labels
from sefar_mllm.scoring.predict import Prediction, PredictionError

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
