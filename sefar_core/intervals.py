"""The clustered bootstrap: intervals of accuracies that resample whole source videos.

Clips of one video share athlete, arena and camera, so their questions are right or wrong together,
and an interval that resamples questions is too narrow. Every accuracy here is a sum over questions
divided by their number; in a resample both are sums over sources. So questions are added up by
source once, and all resamples are one matrix product with how often each drew each source.
Percentile intervals: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

A clip or question of unknown source (an empty name) is a source by itself: nothing shows that two
of them belong together. One source alone has no interval, since the variation of sources is
unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

BLOCK = 256  # resamples drawn at a time
Limits: TypeAlias = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number and its 95 % interval; no interval (both limits None) for a single source."""

    value: float
    low: float | None
    high: float | None

    @property
    def limits(self) -> Limits | None:
        """Low and high; None without an interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def is_above_zero(self) -> bool | None:
        """Whether the whole interval is above 0; None without an interval."""
        return None if self.low is None else self.low > 0

    @property
    def contains_zero(self) -> bool | None:
        """Whether 0 is within the interval; None without an interval."""
        return None if self.limits is None else self.limits[0] <= 0 <= self.limits[1]

    def __str__(self) -> str:
        return in_percent(self.value, self.limits)


def in_percent(value: float, limits: Sequence[float] | None, *, sign: str = "") -> str:
    """A share in percent with its interval: `58.9 [44.8, 72.1]`, or `58.9 (no interval)`.

    With `+` as `sign` every number has its sign; a value is a share or a difference of shares.
    """
    number, *ends = (f"{100 * one:{sign}.1f}" for one in (value, *(limits or ())))
    return f"{number} [{', '.join(ends)}]" if ends else f"{number} (no interval)"


@dataclass(frozen=True, kw_only=True, eq=False)
class Resamples:
    """Resamples of the source videos of some questions."""

    times: Float[np.ndarray, "resample source"]
    """How often each resample drew each source, as many in all as the whole set has."""
    source: Int[np.ndarray, "question"]
    """Column of each question's source."""

    def among(self, chosen: Bool[np.ndarray, "question"]) -> "Resamples":
        """The same resamples of the whole set, for some of its questions."""
        kept, source = np.unique(self.source[chosen], return_inverse=True)
        return Resamples(times=self.times[:, kept], source=source)


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """A number on the questions as they are, and on each resample of them."""

    value: float
    draws: Float[np.ndarray, "resample"]
    """Not a number where a resample holds no question that counts, and throughout if all questions
    come from one source."""

    @property
    def interval(self) -> Interval:
        """Percentiles 2.5 and 97.5 of the resamples that have a number; none if no resample has."""
        if np.isnan(self.draws).all():
            return Interval(value=self.value, low=None, high=None)
        low, high = np.nanpercentile(self.draws, [2.5, 97.5])
        return Interval(value=self.value, low=float(low), high=float(high))


def sources_of(names: Sequence[str]) -> tuple[int, Int[np.ndarray, "question"]]:
    """How many sources there are, and the number of each question's.

    An empty name is unknown and a source of its own.
    """
    known, source = np.unique(np.asarray(names), return_inverse=True)
    if "" not in known:
        return len(known), source
    unknown = source == 0  # the empty name sorts first
    source = source - 1
    source[unknown] = len(known) - 1 + np.arange(unknown.sum())
    return len(known) - 1 + int(unknown.sum()), source


def resample_sources(
    sources: Sequence[str], *, resamples: int, rng: np.random.Generator
) -> Resamples:
    """Draw as many sources as there are, with replacement, many times.

    The draws depend on the set of sources alone, not on the order or number of their questions. A
    source is empty where it is not known. Memory is 8 bytes for each resample and source.
    """
    count, source = sources_of(sources)
    times = np.empty((resamples, count))
    for start in range(0, resamples, BLOCK):
        rows = times[start : start + BLOCK]
        rows[:] = rng.multinomial(count, np.full(count, 1 / count), size=len(rows))
    return Resamples(times=times, source=source)


def clustered_interval(
    values: Float[np.ndarray, "clip"], sources: Sequence[str], *, draws: int = 2000, seed: int = 0
) -> Limits | None:
    """95 % interval of the mean over clips; None if all clips come from one source.

    Sources are drawn one by one, not by `resample_sources`, so that the published intervals of
    recognizers stay what they are. A source is empty where it is not known. Memory is 8 bytes for
    each draw and source.
    """
    count, source = sources_of(sources)
    rng = np.random.default_rng(seed)
    times = np.empty((draws, count))
    for start in range(0, draws, BLOCK):
        rows = times[start : start + BLOCK]
        picks = rng.integers(count, size=rows.shape) + count * np.arange(len(rows))[:, None]
        rows[:] = np.bincount(picks.ravel(), minlength=rows.size).reshape(rows.shape)
    return mean(values, Resamples(times=times, source=source)).interval.limits


def mean(values: Float[np.ndarray, "question"], draws: Resamples) -> Estimate:
    """Mean over the questions, one number each, on the draws of their sources. ValueError for no
    question.
    """
    return class_mean(values, np.zeros(len(values), dtype=int), draws)


def class_mean(
    values: Float[np.ndarray, "question"], labels: Int[np.ndarray, "question"], draws: Resamples
) -> Estimate:
    """Mean over classes of the means within them; classes that a resample misses are left out.

    Questions of one source alone get no interval. ValueError for no question.
    """
    if len(values) == 0:
        raise ValueError("a mean over no question; leave the part out")
    names, column = np.unique(labels, return_inverse=True)
    shape = (draws.times.shape[1], len(names))
    cell = draws.source * len(names) + column
    sums = np.bincount(cell, weights=values, minlength=shape[0] * shape[1]).reshape(shape)
    sizes = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(float)
    value = (sums.sum(axis=0) / sizes.sum(axis=0)).mean()
    if shape[0] == 1:
        return Estimate(value=float(value), draws=np.full(len(draws.times), np.nan))
    sums, sizes = draws.times @ sums, draws.times @ sizes
    means = np.divide(sums, sizes, out=np.zeros_like(sums), where=sizes > 0)
    seen = (sizes > 0).sum(axis=1)
    lost = np.full(len(seen), np.nan)
    return Estimate(
        value=float(value), draws=np.divide(means.sum(axis=1), seen, out=lost, where=seen > 0)
    )
