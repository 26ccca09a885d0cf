"""Whether adaptive regulation trusts the right pseudo-labels, seen on clips whose class is known.

docs/paper_map.md, row 6.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from sefar_core.shapes import PerClip
from sefar_core.teacher import PseudoLabel


@dataclass(frozen=True, kw_only=True)
class TrustScores:
    """Whether the trust in pseudo-labels goes to the right ones."""

    pseudo_labels_right: float
    """Share of the pseudo-labels that are the true class."""
    trust_of_right: float | None
    """Mean trust in these; none if there are none."""
    trust_of_wrong: float | None
    """Mean trust in the others; none if there are none."""


def weigh_pseudo_labels(
    pseudo_label: Callable[[list[Tensor]], PseudoLabel],
    regulate: Callable[[PerClip, PerClip], PerClip],
    views: Iterable,
    device: torch.device,
) -> tuple[PerClip, Bool[Tensor, "batch"]]:
    """Trust in the pseudo-label of every view, and whether it is the true class.

    Args:
        pseudo_label: elements to what they are taken for.
        regulate: (confidence, spread) to trust.
        views: batches (elements, labels, clip positions).
        device: where the elements are wanted.
    """
    trust, right = [], []
    for elements, labels, _ in views:
        pseudo = pseudo_label([clip.to(device) for clip in elements])
        trust.append(regulate(pseudo.confidence, pseudo.spread).cpu())
        right.append(pseudo.label.cpu() == labels)
    return torch.cat(trust), torch.cat(right)


def score_trust(trust: PerClip, right: Bool[Tensor, "batch"]) -> TrustScores:
    """Mean trust in right and in wrong pseudo-labels, of at least one."""
    return TrustScores(
        pseudo_labels_right=right.double().mean().item(),
        trust_of_right=trust[right].mean().item() if right.any() else None,
        trust_of_wrong=trust[~right].mean().item() if not right.all() else None,
    )
