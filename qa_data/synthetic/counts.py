"""Long-tailed class frequencies in which no class rules its event."""

from collections.abc import Sequence

import numpy as np

MAX_SHARE = 0.2
"""Largest share of a class in the clips of its event, where at least five classes share them."""

TAIL = 1.0
"""Exponent of the tail before the cap: the k-th class is as frequent as k ** -TAIL."""


def even_parts(total: int, num_parts: int) -> list[int]:
    """`total` in parts as equal as can be, the larger ones first."""
    return [total // num_parts + (part < total % num_parts) for part in range(num_parts)]


def class_counts(total: int, ranks: Sequence[int]) -> list[int]:
    """Clips of each class of one event: long-tailed by rank, capped, at least one each.

    Args:
        total: clips of the event, at least as many as classes.
        ranks: popularity of each class, a permutation of 0, 1, ...; 0 is the most frequent.

    Returns:
        Counts in the order of `ranks`, with sum `total`. None is above `MAX_SHARE` of the total
        unless there are fewer than five classes or the total is too small to be divided so.
    """
    num_classes = len(ranks)
    cap = max(int(MAX_SHARE * total), -(-total // num_classes))
    weights = (np.arange(num_classes) + 1.0) ** -TAIL
    counts = np.ones(num_classes, int)
    for _ in range(total - num_classes):
        lag = np.where(counts < cap, weights / counts, -1)
        counts[int(np.argmax(lag))] += 1
    return [int(counts[rank]) for rank in ranks]
