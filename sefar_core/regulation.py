"""Adaptive regulation: how far each of the teacher's pseudo-labels is trusted.

Source: SeFAR (arXiv:2501.01245), "adaptive regulation"; the formula and its constants are those of
the public code (train_net_emamix.py:229, d0435a9). `fixed_threshold` is FixMatch's rule, the row
"without adaptive regulation" of the paper's Tables 3 and 6; `confidence_only` is what is left of
the weight where a single prediction gives no spread. A teacher that has diverged has a confidence
of NaN, and so has the weight then: the loss becomes NaN, and training stops with a message.
docs/paper_map.md, row 6.
"""

import math
from collections.abc import Callable

import torch

from sefar_core.shapes import PerClip

SPREAD_SCALE = 20.0  # the 20 in 1 / (20 * std)


def adaptive_weight(confidence: PerClip, spread: PerClip) -> PerClip:
    """Weight of each clip's unsupervised loss, in [0, 1].

    A confident teacher (`confidence` near 1) that keeps its opinion under dropout (`spread` near
    0) gives 1; doubt on either side gives less. The published formula has a floor: at spread
    0, a confidence of 0 still gives 0.304.

    Args:
        confidence: the teacher's mean probability of the pseudo-label, in [0, 1].
        spread: standard deviation of that probability over the dropout passes, >= 0.

    Returns:
        One weight a clip. It carries no gradient: the teacher is not trained by it.

    Raises:
        ValueError: a confidence outside [0, 1] (logits passed in place of probabilities), or a
            spread that is negative, or NaN where the confidence is not (fewer than two passes).
    """
    if not ((spread >= 0) | confidence.isnan()).all():
        raise ValueError(
            f"spread must be a standard deviation >= 0, got {spread.min():.3g}; "
            f"it takes at least two dropout passes"
        )
    steady = 2 * torch.sigmoid(1 / (SPREAD_SCALE * spread + 1e-9)) - 1
    return (confidence_only(confidence, spread) * steady).detach()


def confidence_only(confidence: PerClip, spread: PerClip) -> PerClip:
    """The part of the paper's weight that a single prediction gives; ignores the spread. ValueError
    for a confidence outside [0, 1].
    """
    check(confidence)
    return (2 * torch.sigmoid(confidence.exp() - math.e)).detach()


def fixed_threshold(confidence: PerClip, spread: PerClip, *, threshold: float) -> PerClip:
    """1 where the confidence reaches `threshold`, else 0; ignores the spread. ValueError for a
    confidence outside [0, 1].
    """
    check(confidence)
    reached = (confidence >= threshold).to(confidence.dtype)
    return torch.where(confidence.isnan(), confidence, reached).detach()


def choose_regulation(name: str, *, threshold: float) -> Callable[[PerClip, PerClip], PerClip]:
    """The rule that `loss.regulation` names: trust, as a function of confidence and spread.

    The fixed regulation requires the confidence `threshold`; the others ignore it. ValueError for
    an unknown name.
    """
    regulations: dict[str, Callable[[PerClip, PerClip], PerClip]] = {
        "adaptive": adaptive_weight,
        "confidence_only": confidence_only,
        "fixed": lambda confidence, spread: fixed_threshold(
            confidence, spread, threshold=threshold
        ),
    }
    if name not in regulations:
        raise ValueError(f"loss.regulation must be one of {', '.join(regulations)}, got {name!r}")
    return regulations[name]


def check(confidence: PerClip) -> None:
    """Refuse numbers that are not probabilities."""
    # Forces a device sync; reading the loss for metrics.jsonl forces one anyway.
    if ((confidence < 0) | (confidence > 1 + 1e-5)).any():
        numbers = confidence[~confidence.isnan()]
        raise ValueError(
            f"confidence must be a probability in [0, 1], got values in "
            f"[{numbers.min():.3g}, {numbers.max():.3g}]; were logits passed?"
        )
