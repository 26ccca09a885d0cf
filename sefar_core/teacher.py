"""The teacher: an exponential moving average of the student, and its pseudo-labels.

Source: SeFAR (arXiv:2501.01245); constants of its public code (train_net_emamix.py, d0435a9), which
runs the whole network for each of R stochastic predictions. The dropout before the class scores is
the only thing that differs between them, so one pass of the backbone serves all R here; the
condition is checked. docs/paper_map.md, row 5.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import repeat
from torch import Tensor, nn

from sefar_core.model import SefarModel
from sefar_core.shapes import Labels, PerClip, Probs


class PseudoLabel(NamedTuple):
    """The teacher's prediction for each clip. Carries no gradient."""

    probs: Probs
    """Mean over the stochastic predictions; each row sums to 1."""
    label: Labels
    """The most probable class."""
    confidence: PerClip
    """Mean probability of that class, in [0, 1]."""
    spread: PerClip
    """Standard deviation (unbiased) of that class's probability over the predictions, >= 0; NaN if
    there is only one."""


class EmaTeacher(nn.Module):
    """A copy of the student, as it is at this moment, that follows it slowly.

    `decay` is the part of the old teacher kept at each update, in [0, 1). `dropout_passes`
    stochastic predictions are averaged into one pseudo-label; 0 makes a single one without dropout,
    as in FixMatch and SVFormer. ValueError for a setting out of range, or a live dropout elsewhere
    than before the class scores.
    """

    def __init__(self, student: SefarModel, *, decay: float, dropout_passes: int):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if dropout_passes < 0:
            raise ValueError(f"dropout_passes must be at least 0, got {dropout_passes}")
        self.network = copy.deepcopy(student).requires_grad_(False).eval()
        refuse_hidden_dropout(self.network)
        self.decay = decay
        self.dropout_passes = dropout_passes

    def train(self, mode: bool = True) -> "EmaTeacher":
        """Stays in evaluation mode: its one live dropout is applied by `predict` itself."""
        return super().train(False)

    @torch.no_grad()
    def predict(self, weak: Sequence[Tensor]) -> PseudoLabel:
        """Label weakly augmented clips by the mean of the stochastic predictions."""
        feature = self.network.features(weak)
        num_passes = max(self.dropout_passes, 1)
        copies = repeat(feature, "batch dim -> passes batch dim", passes=num_passes)
        live = self.dropout_passes > 0
        dropped = nn.functional.dropout(copies, self.network.dropout.p, training=live)
        return summarize(self.network.classifier(dropped).float().softmax(dim=-1))

    @torch.no_grad()
    def update(self, student: SefarModel) -> None:
        """Move toward the student: teacher <- decay * teacher + (1 - decay) * student."""
        mine = list(self.network.state_dict().values())
        theirs = [tensor.to(mine[0].device) for tensor in student.state_dict().values()]
        torch._foreach_lerp_(mine, theirs, 1 - self.decay)


def summarize(probs: Tensor) -> PseudoLabel:
    """Mean, winner, its confidence and its spread of `probs` (passes, batch, class)."""
    mean = probs.mean(dim=0)
    confidence, label = mean.max(dim=-1)
    if len(probs) == 1:
        return PseudoLabel(mean, label, confidence, torch.full_like(confidence, torch.nan))
    spread = probs.std(dim=0).gather(-1, label[:, None])[:, 0]
    return PseudoLabel(mean, label, confidence, spread)


def refuse_hidden_dropout(network: SefarModel) -> None:
    """One backbone pass may serve all predictions only if nothing in it is random. ValueError for a
    dropout other than the head's.
    """
    for name, module in network.named_modules():
        hidden = type(module).__name__.startswith("Dropout") and module is not network.dropout
        if hidden and getattr(module, "p", 0) > 0:
            raise ValueError(
                f"{name} drops with probability {module.p}: the stochastic predictions would "
                f"differ inside the backbone, and one pass cannot serve them all; set it to 0"
            )
