"""Splits and what they share, by trying everything: plain tuples, nothing of ours imported."""

from fractions import Fraction
from itertools import combinations, product


def same_moments(intervals):
    """Pairs of places whose (source, start, end) overlap above 0.9, by looking at every pair.

    Exact: times are whole numbers, and intersection / union > 9 / 10 is asked of products.
    """
    found = set()
    for (i, one), (j, other) in combinations(enumerate(intervals), 2):
        if one[0] != other[0]:
            continue
        intersection = min(one[2], other[2]) - max(one[1], other[1])
        union = (one[2] - one[1]) + (other[2] - other[1]) - max(intersection, 0)
        if 10 * intersection > 9 * union:
            found.add(frozenset((i, j)))
    return found


def fewest_lacking(clips):
    """How few classes a cut of (source, label) clips lacks, if what remains has all of them.

    Of all 2^sources cuts.
    """
    sources = sorted({source for source, _ in clips})
    every = {label for _, label in clips}
    lacking = []
    for sides in product((False, True), repeat=len(sources)):
        cut = dict(zip(sources, sides, strict=True))
        if {label for source, label in clips if not cut[source]} == every:
            lacking.append(len(every - {label for source, label in clips if cut[source]}))
    return min(lacking)


def seats(sizes, num):
    """How many of `num` seats each class gets in proportion to its size (Webster).

    One at a time, to the class with the largest size / (2 seats + 1), with exact fractions.
    """
    given = dict.fromkeys(sizes, 0)
    for _ in range(num):
        claim = {c: Fraction(n, 2 * given[c] + 1) for c, n in sizes.items() if given[c] < n}
        given[max(claim, key=claim.__getitem__)] += 1
    return given
