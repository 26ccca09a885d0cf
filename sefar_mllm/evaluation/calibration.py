"""How far the model's confidence can be believed: reliability in bins of equal width.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

NUM_BINS = 15


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The questions whose confidence lies above `low` and at most at `high`."""

    low: float
    high: float
    num_questions: int
    confidence: float | None
    """Mean of the bin; none if the bin is empty."""
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Confidence beside accuracy; both in [0, 1]."""

    error: float
    """Expected calibration error (ECE): |accuracy - confidence| of each bin, weighted by its share
    of the questions. Noise alone makes it positive: few questions give a large one."""
    confidence: float
    """Mean over all questions; above the accuracy, the model is too sure of itself."""
    bins: tuple[Bin, ...]


def calibration(
    confidence: Float[np.ndarray, "question"], right: Bool[np.ndarray, "question"]
) -> Calibration:
    """Bin the questions by confidence in 15 bins of equal width over (0, 1].

    Args:
        confidence: probability of the chosen option, in (0, 1].
        right: whether it is the right one.

    Raises:
        ValueError: a confidence outside (0, 1], such as a log-probability.
    """
    if not ((confidence > 0) & (confidence <= 1 + 1e-6)).all():
        raise ValueError(
            f"confidence must be a probability in (0, 1], got values in [{confidence.min():.3g}, "
            f"{confidence.max():.3g}]; were log-probabilities passed?"
        )
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, NUM_BINS - 1)
    bins = tuple(
        _bin(edges[i], edges[i + 1], confidence[place == i], right[place == i])
        for i in range(NUM_BINS)
    )
    gaps = [
        one.num_questions * abs(one.accuracy - one.confidence)
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    ]
    return Calibration(
        error=float(sum(gaps) / len(confidence)), confidence=float(confidence.mean()), bins=bins
    )


def _bin(
    low: float,
    high: float,
    confidence: Float[np.ndarray, "question"],
    right: Bool[np.ndarray, "question"],
) -> Bin:
    filled = len(right) > 0
    return Bin(
        low=float(low),
        high=float(high),
        num_questions=len(right),
        confidence=float(confidence.mean()) if filled else None,
        accuracy=float(right.mean()) if filled else None,
    )
