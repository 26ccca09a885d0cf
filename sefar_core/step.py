"""One step of the method on one screen.

Source: SeFAR (arXiv:2501.01245). A step owns no optimizer, no files and no clock: networks and a
batch in, losses out. docs/paper_map.md, row 9.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefar_core.loss import Losses, mix_targets, pseudo_label_loss
from sefar_core.perturbation import MixPlan, tube_mix
from sefar_core.teacher import EmaTeacher


class SslBatch(NamedTuple):
    """What one device sees in one micro-step."""

    labeled: list[Tensor]
    labels: Tensor
    weak: list[Tensor]
    strong: list[Tensor]


class Method(NamedTuple):
    """The interchangeable parts of the step, chosen by name in the settings."""

    perturb: Callable[[Sequence[Tensor]], list[Tensor]]
    regulate: Callable[[Tensor, Tensor], Tensor]
    mix_loss: Callable[[Tensor, Tensor, Tensor], Tensor]


class SslOutcome(NamedTuple):
    losses: Losses
    trust: Tensor
    confidence: Tensor


def supervised_step(student: nn.Module, labeled: list[Tensor], labels: Tensor) -> Losses:
    """Cross-entropy on labels alone: the warm-up, and the supervised-only baseline."""
    supervised = F.cross_entropy(student(labeled), labels)
    zero = torch.zeros_like(supervised)
    return Losses(supervised, zero, zero)


def ssl_step(
    student: nn.Module, teacher: EmaTeacher, batch: SslBatch, method: Method, mix: MixPlan
) -> SslOutcome:
    """The paper on one screen. The caller owns backward, optimizer and teacher.update()."""
    pseudo = teacher.predict(batch.weak)
    trust = method.regulate(pseudo.confidence, pseudo.spread)

    strong = method.perturb(batch.strong)
    patch = teacher.network.backbone.patch_size
    mixed = [
        tube_mix(clip, clip[mix.partner], keep, patch=patch)
        for clip, keep in zip(strong, mix.keep, strict=True)
    ]
    mixed_probs = mix_targets(pseudo.probs, mix.partner, mix.share)
    mixed_trust = mix_targets(trust, mix.partner, mix.share)

    losses = Losses(
        supervised=F.cross_entropy(student(batch.labeled), batch.labels),
        unsupervised=pseudo_label_loss(student(strong), pseudo.label, trust),
        mix=method.mix_loss(student(mixed), mixed_probs, mixed_trust),
    )
    return SslOutcome(losses, trust, pseudo.confidence)
