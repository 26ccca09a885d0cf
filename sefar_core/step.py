"""One step of the method on one screen.

Source: SeFAR (arXiv:2501.01245). A step owns no optimizer, no files and no clock: networks and a
batch in, losses out. docs/paper_map.md, row 9.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefar_core.loss import Losses, pseudo_label_loss
from sefar_core.mixing import MixPlan, mix_elements
from sefar_core.shapes import Logits, PerClip, Probs
from sefar_core.teacher import EmaTeacher, PseudoLabel


class SslBatch(NamedTuple):
    """What one device sees in one micro-step."""

    labeled: list[Tensor]
    labels: Tensor
    weak: list[Tensor]
    strong: list[Tensor]


class Method(NamedTuple):
    """The interchangeable parts of the step, chosen by name in the settings."""

    perturb: Callable[[Sequence[Tensor]], list[Tensor]]
    drop_colors: Callable[[Sequence[Tensor]], list[Tensor]]
    regulate: Callable[[PerClip, PerClip], PerClip]
    mix_targets: Callable[[Probs, PerClip], Probs]
    mix_loss: Callable[[Logits, Probs, PerClip], Tensor]


class SslOutcome(NamedTuple):
    """The losses of a step, and what the teacher said of its unlabeled clips."""

    losses: Losses
    pseudo: PseudoLabel
    trust: PerClip
    labeled_logits: Logits


def supervised_step(
    student: nn.Module, labeled: list[Tensor], labels: Tensor
) -> tuple[Losses, Logits]:
    """Cross-entropy on labels alone: the warm-up, and the supervised-only baseline."""
    logits = student(labeled).float()
    supervised = F.cross_entropy(logits, labels)
    zero = torch.zeros_like(supervised)
    return Losses(supervised, zero, zero), logits


def ssl_step(
    student: nn.Module,
    teacher: EmaTeacher,
    batch: SslBatch,
    method: Method,
    mix: MixPlan | None,
) -> SslOutcome:
    """The paper on one screen. The caller owns backward, optimizer and teacher.update().

    Args:
        student: elements to logits, in training mode.
        teacher: labels the weak view.
        batch: labeled clips, and two views of the unlabeled ones.
        method: the parts by name.
        mix: whom to mix with whom; none leaves the mixing loss out.
    """
    pseudo = teacher.predict(batch.weak)
    trust = method.regulate(pseudo.confidence, pseudo.spread)

    perturbed = method.perturb(batch.strong)
    strong = method.drop_colors(perturbed)
    views = [batch.labeled, strong]
    if mix is not None:
        patch = teacher.network.backbone.patch_size
        views.append(mix_elements(strong, perturbed, mix, patch=patch))
    labeled_logits, strong_logits, *mixed_logits = in_one_pass(student, views)

    mix_loss = torch.zeros_like(trust[0])
    if mix is not None:
        targets = mix.blend(method.mix_targets(pseudo.probs, trust))
        mix_loss = method.mix_loss(mixed_logits[0], targets, mix.blend(trust))
    losses = Losses(
        supervised=F.cross_entropy(labeled_logits, batch.labels),
        unsupervised=pseudo_label_loss(strong_logits, pseudo.label, trust),
        mix=mix_loss,
    )
    return SslOutcome(losses, pseudo, trust, labeled_logits)


def in_one_pass(student: nn.Module, views: Sequence[Sequence[Tensor]]) -> list[Logits]:
    """The logits of each view; a network without batch statistics may see all views together."""
    together = [torch.cat(element) for element in zip(*views, strict=True)]
    logits = student(together).float()
    return list(logits.split([len(view[0]) for view in views]))
