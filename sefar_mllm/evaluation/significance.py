"""Differences between models on the same questions: intervals, several seeds, McNemar's test.

Two models: both are scored on every resample of the source videos, so that a video that is hard for
both cancels out. The interval is the result. McNemar's test treats questions as independent, which
those of one video are not: its p-value is too small, and is reported for readers who expect it.

Several training seeds: a resample draws the source videos, the same for all runs, and the runs. Of
the S runs of a model S - 1 are drawn with replacement; the mean is shifted by their accuracies on
the whole set. S - 1 and not S, because the mean of S - 1 draws varies as much as the mean of S runs
(Rao and Wu, Resampling Inference With Complex Survey Data, JASA 83, 1988); that of S draws varies
by (S - 1) / S of it.

Coverage of the true difference of two models in simulations (40 videos, 3 seeds each): 98 % where
training varies no more than the noise of single answers, which is counted twice; 94 % where it
moves the difference 1.5 times as much as the videos; 90 % where 3 times as much, since three runs
say little about the variation of training (94 % with 6 seeds). Without drawing runs: 94, 70, 47 %.

Ablation drop: accuracy that trained models lose under a control, such as wrong videos. Both tests
of a run are of one trained model, so the drop is taken run by run, and one draw of runs serves both
sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from qa_data.files import SefarError, composed
from sefar_core.intervals import Estimate, Interval, class_mean, mean, resample_sources
from sefar_mllm.evaluation.metrics import answered_right, class_labels
from sefar_mllm.scoring import Prediction

Runs: TypeAlias = Sequence[Sequence[Prediction]]
"""Predictions of each run of one model."""


def align_runs(runs: Sequence[Sequence[Prediction]]) -> Float[np.ndarray, "run question"]:
    """1.0 for each right answer, else 0.0, with all runs in the order of the first run. SefarError
    if the runs did not answer the same questions about the same clips, or there are none.
    """
    if not runs or not runs[0]:
        raise SefarError("there are no predictions to compare; check the question file")
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
            raise SefarError(
                f"two sets of predictions differ in their questions ({len(first)} and {len(run)}, "
                f"unmatched for example {strays[:3]}); score both on the same file"
            )
        rows.append(answered_right([by_id[p.question_id] for p in first]))
    return np.stack(rows)


def mcnemar_of(first: Sequence[Prediction], second: Sequence[Prediction]) -> float:
    """McNemar's p-value of two runs over the same questions. SefarError if they did not answer the
    same questions, or there are none.
    """
    right, other = align_runs([first, second])
    return mcnemar(int((right > other).sum()), int((right < other).sum()))


def mcnemar(only_first: int, only_second: int) -> float:
    """Probability that a fair coin divides the discordant questions at least as unevenly.

    Exact two-sided binomial test with probability 1/2 (McNemar, Psychometrika 12, 1947), in
    integers up to the last division. 1 if no question is discordant. ValueError for a negative
    count.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"counts cannot be negative, got {only_first} and {only_second}")
    count = only_first + only_second
    ways = tail = 1
    for few in range(min(only_first, only_second)):
        ways = ways * (count - few) // (few + 1)  # binomial coefficient (count, few + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**count)


@dataclass(frozen=True, kw_only=True)
class SeedMean:
    """An accuracy averaged over training seeds, in [0, 1]."""

    mean: Interval
    """Covers the choice of source videos and, from two seeds on, that of the seeds."""
    spread: float | None
    """Standard deviation of single runs (S - 1 in the denominator); None for one seed."""


@dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """One model, trained several times."""

    num_seeds: int
    micro: SeedMean
    macro: SeedMean | None
    """None if the questions have no classes."""


@dataclass(frozen=True, kw_only=True)
class SeedComparison:
    """Mean accuracy of the first model's runs minus that of the second model's runs."""

    num_first: int
    num_second: int
    micro: Interval
    """Covers the choice of source videos and, for a model with several seeds, that of its seeds.
    With one seed on both sides it is that of the sources alone."""
    macro: Interval | None


def over_seeds(runs: Runs, *, resamples: int, rng: np.random.Generator) -> OverSeeds:
    """Mean and spread of one model's runs. SefarError if the runs did not answer the same
    questions, or there are none.
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

    The runs of the two models are drawn independently: a common seed number does not pair runs of
    different models. The numbers of seeds may differ. SefarError if the runs did not answer the
    same questions, or there are none.
    """
    if not firsts or not seconds:
        raise SefarError(
            f"a comparison needs runs of both models, got {len(firsts)} and {len(seconds)}"
        )
    return _differences([(firsts,), (seconds,)], resamples=resamples, rng=rng)


def share_over_seeds(
    credits: Sequence[Float[np.ndarray, "question"]],
    sources: Sequence[str],
    *,
    resamples: int,
    rng: np.random.Generator,
) -> SeedMean:
    """Mean over runs of a share of the questions.

    `credits` has, for each run, 1.0 or 0.0 for each question.
    """
    draws = resample_sources(sources, resamples=resamples, rng=rng)
    estimates = [mean(one, draws) for one in credits]
    return _seed_mean(estimates, draw_runs(len(credits), resamples=resamples, rng=rng))


def minus(first: Estimate, second: Estimate) -> Estimate:
    """The difference on the same resamples."""
    return Estimate(value=first.value - second.value, draws=first.draws - second.draws)


def _of_each_run(
    runs: Runs, *, resamples: int, rng: np.random.Generator
) -> tuple[list[Estimate], list[Estimate] | None]:
    """Micro and macro accuracy of each run, all on the same resamples of the sources."""
    right = align_runs(runs)
    labels = class_labels(runs[0])
    draws = resample_sources([p.source for p in runs[0]], resamples=resamples, rng=rng)
    micro = [mean(row, draws) for row in right]
    return micro, None if labels is None else [class_mean(row, labels, draws) for row in right]


def draw_runs(
    count: int, *, resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "resample run"]:
    """Weight of each run in each resample: S - 1 draws with replacement; 1 for a single run."""
    if count == 1:
        return np.ones((resamples, 1))
    return rng.multinomial(count - 1, np.full(count, 1 / count), size=resamples) / (count - 1)


def average(estimates: Sequence[Estimate], weights: Float[np.ndarray, "resample run"]) -> Estimate:
    """Mean of the runs on each resample of the sources, shifted by the runs that were drawn."""
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


def ablation_drop(
    own: Runs, control: Runs, *, resamples: int, rng: np.random.Generator
) -> SeedComparison:
    """Accuracy that trained models lose under a control: their own test minus the control.

    The models of both sides are the same, in the same order. SefarError if the runs did not answer
    the same questions, or their numbers differ.
    """
    return _differences([(own, control)], resamples=resamples, rng=rng)


def compare_drops(
    first: tuple[Runs, Runs],
    second: tuple[Runs, Runs],
    *,
    resamples: int,
    rng: np.random.Generator,
) -> SeedComparison:
    """Whether one model loses more accuracy under a control than another.

    Each model is its runs in its own test, and under the control. The result is the drop of the
    first (`ablation_drop`) minus that of the second. Runs of the two models are drawn
    independently, both tests of one run together. SefarError as in `ablation_drop`.
    """
    return _differences([first, second], resamples=resamples, rng=rng)


def _differences(
    models: Sequence[tuple[Runs, ...]], *, resamples: int, rng: np.random.Generator
) -> SeedComparison:
    """The first model's mean over its runs minus the second's, if there is a second.

    A model is its runs, or its runs in their own test and under a control: then its drops, run by
    run. The sources are drawn first, then the runs of each model.
    """
    for own, *controls in models:
        for control in controls:
            _refuse_unpaired(own, control)
    sides = [side for model in models for side in model]
    kinds = _of_each_run([run for side in sides for run in side], resamples=resamples, rng=rng)
    drawn = [draw_runs(len(model[0]), resamples=resamples, rng=rng) for model in models]

    def gap(estimates: Sequence[Estimate]) -> Interval:
        left = iter(estimates)
        means = []
        for model, weights in zip(models, drawn, strict=True):
            tests = [list(islice(left, len(side))) for side in model]
            means.append(average([reduce(minus, run) for run in zip(*tests, strict=True)], weights))
        return reduce(minus, means).interval

    micro, macro = (None if one is None else gap(one) for one in kinds)
    assert micro is not None
    return SeedComparison(
        num_first=len(sides[0]), num_second=len(sides[-1]), micro=micro, macro=macro
    )


def _refuse_unpaired(own: Runs, control: Runs) -> None:
    if len(own) != len(control) or not own:
        raise SefarError(
            f"an ablation drop is taken run by run, but there are {len(own)} runs of the own test "
            f"and {len(control)} of the control; score the same trained models both ways"
        )
