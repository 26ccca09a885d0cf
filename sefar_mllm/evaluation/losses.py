"""What trained models lose when they are shown something else than the right videos.

Both sides of such a difference are one and the same trained model, so that it is taken run by run,
and a draw of runs (see `seeds`) serves both sides.
"""

import numpy as np

from sefar_core.intervals import Estimate
from sefar_mllm.evaluation.seeds import (
    Estimates,
    Runs,
    SeedComparison,
    average,
    comparison,
    draw_runs,
    minus,
    of_each_side,
)
from sefar_mllm.scoring.predict import PredictionError


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
