"""The clustered bootstrap: intervals of accuracies that resample whole source videos.

Clips of one video share athlete, arena and camera, so their questions are right or wrong together,
and an interval that resamples questions is too narrow. Every accuracy here is a sum over questions
divided by their number; in a resample both are sums over sources. So questions are added up by
source once, and all resamples are one matrix product with how often each drew each source.
Percentile intervals: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

BLOCK = 256  # resamples drawn at a time


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number, and its 95 % interval of a bootstrap. A single source gives one of no width."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """Resamples of the source videos of some questions."""

    times: Float[np.ndarray, "resample source"]
    """How often each resample drew each source, as many in all as the whole set has."""
    source: Int[np.ndarray, "question"]
    """Column of each question's source."""

    def among(self, chosen: Bool[np.ndarray, "question"]) -> "Draws":
        """The same resamples of the whole set, for some of its questions."""
        kept, source = np.unique(self.source[chosen], return_inverse=True)
        return Draws(times=self.times[:, kept], source=source)


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """A number on the questions as they are, and on each resample of them."""

    value: float
    draws: Float[np.ndarray, "resample"]
    """Not a number where a resample holds no question that counts."""

    @property
    def interval(self) -> Interval:
        """Percentiles 2.5 and 97.5 of the resamples that have a number."""
        low, high = np.nanpercentile(self.draws, [2.5, 97.5])
        return Interval(value=self.value, low=float(low), high=float(high))


def draw_sources(sources: Sequence[str], *, resamples: int, rng: np.random.Generator) -> Draws:
    """Draw as many sources as there are, with replacement, many times.

    The draws depend on the set of sources alone, not on the order or number of their questions.

    Args:
        sources: the video that each question's clip was cut from.
        resamples: how often; memory is 8 bytes for each resample and source.
        rng: what draws.
    """
    names, source = np.unique(np.asarray(sources), return_inverse=True)
    count = len(names)
    times = np.empty((resamples, count))
    for start in range(0, resamples, BLOCK):
        rows = times[start : start + BLOCK]
        rows[:] = rng.multinomial(count, np.full(count, 1 / count), size=len(rows))
    return Draws(times=times, source=source)


def mean(values: Float[np.ndarray, "question"], draws: Draws) -> Estimate:
    """Mean over the questions.

    Args:
        values: one number a question.
        draws: of their sources.

    Raises:
        ValueError: there is no question.
    """
    return class_mean(values, np.zeros(len(values), dtype=int), draws)


def class_mean(
    values: Float[np.ndarray, "question"], labels: Int[np.ndarray, "question"], draws: Draws
) -> Estimate:
    """Mean over classes of the means within them; classes that a resample misses are left out.

    Args:
        values: one number a question.
        labels: the class of each.
        draws: of their sources.

    Raises:
        ValueError: there is no question.
    """
    if len(values) == 0:
        raise ValueError("a mean over no question; leave the part out")
    names, column = np.unique(labels, return_inverse=True)
    shape = (draws.times.shape[1], len(names))
    cell = draws.source * len(names) + column
    sums = np.bincount(cell, weights=values, minlength=shape[0] * shape[1]).reshape(shape)
    sizes = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(float)
    value = (sums.sum(axis=0) / sizes.sum(axis=0)).mean()
    sums, sizes = draws.times @ sums, draws.times @ sizes
    means = np.divide(sums, sizes, out=np.zeros_like(sums), where=sizes > 0)
    seen = (sizes > 0).sum(axis=1)
    lost = np.full(len(seen), np.nan)
    return Estimate(
        value=float(value), draws=np.divide(means.sum(axis=1), seen, out=lost, where=seen > 0)
    )
