"""The three losses, the ramp, and their total.

Source: SeFAR (arXiv:2501.01245), L = L_sup + ramp * (trust * L_un + mixed_trust * L_mix). The
public code (train_net_emamix.py, d0435a9) doubles both unsupervised terms, and takes the squared
error between raw logits and mixed probabilities; both are settings here. docs/paper_map.md, row 7.
"""

import math
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from sefar_core.shapes import Labels, Logits, PerClip, Probs


class Losses(NamedTuple):
    """The scalars of one step; `total` weighs them together."""

    supervised: Float[Tensor, ""]
    unsupervised: Float[Tensor, ""]
    mix: Float[Tensor, ""]

    def total(self, *, ramp: float, gamma_un: float, gamma_mix: float) -> Float[Tensor, ""]:
        """L_sup + ramp * (gamma_un * L_un + gamma_mix * L_mix)."""
        return self.supervised + ramp * (gamma_un * self.unsupervised + gamma_mix * self.mix)


def pseudo_label_loss(logits: Logits, label: Labels, trust: PerClip) -> Float[Tensor, ""]:
    """L_un: mean over clips of trust times cross-entropy with the teacher's hard label."""
    return (trust * F.cross_entropy(logits, label, reduction="none")).mean()


def mix_loss_on_logits(logits: Logits, probs: Probs, trust: PerClip) -> Float[Tensor, ""]:
    """L_mix as released: squared error of raw logits to mixed probabilities, mean over classes."""
    return (trust * (logits - probs).square().mean(dim=-1)).mean()


def mix_loss_on_probs(logits: Logits, probs: Probs, trust: PerClip) -> Float[Tensor, ""]:
    """L_mix between probabilities: squared error of softmax(logits), summed over classes.

    The sum over classes (the Brier score), not the mean: a mean would shrink with the number of
    classes until nothing is left of it.
    """
    return (trust * (logits.softmax(dim=-1) - probs).square().sum(dim=-1)).mean()


MIX_LOSSES = {"logits": mix_loss_on_logits, "probs": mix_loss_on_probs}


def ramp(progress: float) -> float:
    """Weight of the unsupervised losses: a quarter sine from 0 to 1.

    `progress` is the part of the semi-supervised stage that is over, in [0, 1], else ValueError;
    the public code has (epoch + 1 - warm_up) / (epochs - warm_up), constant within an epoch.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress is a part of the stage, in [0, 1], got {progress}")
    return math.sin(math.pi / 2 * progress)
