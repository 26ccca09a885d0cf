"""Sets of fixed size in which every member is there with a given probability.

Conditional Poisson sampling: a set S of k units is drawn with probability proportional to the
product of its units' weights. Of all designs of fixed size with the same inclusion probabilities
it has the most entropy, and what is left of it once one unit is known to be in the set is again
such a design, which is what makes it usable for options: the answer is known, the rest is drawn.

Source: Chen, Dempster and Liu, Biometrika 81 (1994) 457-469; Tille, Sampling Algorithms (2006),
chapter 5. The weights are found by the damped iteration on log-odds below in place of theirs,
which slows down where an inclusion probability is near one.
"""

import bisect
import random
from collections.abc import Sequence

import numpy as np

DAMPING = 0.7  # undamped, two units of which one is drawn would swing forever
PRECISION = 1e-12  # largest error of an inclusion probability
MAX_ITERATIONS = 10_000


def weights_for(inclusion: Sequence[float]) -> np.ndarray:
    """Weights whose design includes each unit with its given probability.

    Args:
        inclusion: one probability for each unit, in [0, 1); together they make the whole number
            of units in a set. A unit at 0 gets the weight 0.

    Raises:
        ValueError: a probability is out of range, or they do not sum to a whole number above 0.
    """
    wanted = np.asarray(inclusion, dtype=float)
    size = round(float(wanted.sum()))
    if size < 1 or abs(float(wanted.sum()) - size) > 1e-9 or wanted.min() < 0 or wanted.max() >= 1:
        raise ValueError(
            f"inclusion probabilities must be in [0, 1) and sum to a whole number, got values "
            f"in [{wanted.min():.6g}, {wanted.max():.6g}] that sum to {wanted.sum():.12g}"
        )
    possible = wanted > 0
    aim = _log_odds(wanted[possible])
    logs = aim.copy()
    for _ in range(MAX_ITERATIONS):
        found = inclusions(np.exp(logs), size)
        if np.abs(found - wanted[possible]).max() < PRECISION:
            weights = np.zeros(len(wanted))
            weights[possible] = np.exp(logs)
            return weights
        logs += DAMPING * (aim - _log_odds(found))
        logs -= logs.mean()  # only ratios count
    raise RuntimeError(f"no weights found for {wanted} in {MAX_ITERATIONS} iterations")


def inclusions(weights: np.ndarray, size: int) -> np.ndarray:
    """Probability of each unit to be in a set of `size` units."""
    after = set_weights(weights, size)
    before = set_weights(weights[::-1], size)[:, ::-1]
    # A unit's sets: some members before it, the others after it.
    without = sum(before[taken, :-1] * after[size - 1 - taken, 1:] for taken in range(size))
    return weights * without / after[size, 0]


def set_weights(weights: np.ndarray, size: int) -> np.ndarray:
    """Row r, column i: total weight of all sets of r of the units from i on (r = 0 .. size)."""
    total = np.zeros((size + 1, len(weights) + 1))
    total[0] = 1
    for taken in range(1, size + 1):
        ways = weights * total[taken - 1, 1:]
        total[taken, :-1] = np.cumsum(ways[::-1])[::-1]
    return total


def draw_table(weights: np.ndarray, size: int) -> list[list[float]]:
    """What `draw_set` reads: `set_weights`, each row turned so that it ascends."""
    return set_weights(weights, size)[:, ::-1].tolist()


def draw_set(table: Sequence[Sequence[float]], rng: random.Random) -> list[int]:
    """Positions of the units of one set, ascending, drawn by their weights.

    Args:
        table: from `draw_table`.
        rng: one number is drawn from it for each unit of the set.
    """
    num_units = len(table[0]) - 1
    start = 0
    drawn = []
    for missing in range(len(table) - 1, 0, -1):
        row = table[missing]
        # row[num_units - i] is the weight of all sets that begin at unit i or later.
        mark = rng.random() * row[num_units - start]
        position = num_units - bisect.bisect_right(row, mark, 0, num_units - start + 1)
        drawn.append(position)
        start = position + 1
    return drawn


def _log_odds(probs: np.ndarray) -> np.ndarray:
    return np.log(probs) - np.log1p(-probs)
