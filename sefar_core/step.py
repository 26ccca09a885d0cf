"""One step of the method on one screen, and the micro-batch around it.

Source: SeFAR (arXiv:2501.01245). A step owns no optimizer, no files and no clock: networks, a batch
and generators in, losses out. docs/paper_map.md, row 9.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefar_core.loss import Losses, pseudo_label_loss
from sefar_core.mixing import MixPlan, Partners, draw_mix_plan, mix_elements
from sefar_core.model import SefarModel
from sefar_core.perturbation import Perturbation
from sefar_core.shapes import Labels, Logits, PerClip, Probs
from sefar_core.teacher import EmaTeacher, PseudoLabel


class SslBatch(NamedTuple):
    """What one device sees in one micro-step; `weak` and `strong` are empty in the warm-up."""

    labeled: list[Tensor]
    labels: Tensor
    weak: list[Tensor]
    strong: list[Tensor]
    clip_ids: Sequence[str] = ()
    """Of the labeled clips, then of the unlabeled ones: error messages name them."""


class Generators(NamedTuple):
    """Where the random draws of a step come from."""

    tensors: torch.Generator
    beta: Callable[[float, float], float]
    """Draws from a Beta distribution, as `random.Random(seed).betavariate` does."""


class Method(NamedTuple):
    """The interchangeable parts of the step, chosen once for a run by the names in its settings."""

    perturb: Perturbation
    drop_colors: Perturbation
    regulate: Callable[[PerClip, PerClip], PerClip]
    mix_concentration: float | None
    """Both parameters of the Beta distribution of the mixing share; None mixes nothing."""
    mix_partners: Callable[[Callable[[], Partners], int], list[Partners]]
    mix_targets: Callable[[Probs, PerClip], Probs]
    mix_loss: Callable[[Logits, Probs, PerClip], Tensor]


class SslOutcome(NamedTuple):
    """The losses of a step, and what the teacher made of its unlabeled clips."""

    losses: Losses
    pseudo: PseudoLabel
    trust: PerClip
    labeled_logits: Logits


def ssl_step(  # noqa: PLR0913 - two networks, a batch, and how it is used
    student: nn.Module,
    teacher: EmaTeacher,
    batch: SslBatch,
    method: Method,
    mix: MixPlan | None,
    generator: torch.Generator,
) -> SslOutcome:
    """The paper on one screen. The caller owns backward, optimizer and teacher.update().

    The student is in training mode. Without `mix` the mixing loss is left out.
    """
    pseudo = teacher.predict(batch.weak)
    trust = method.regulate(pseudo.confidence, pseudo.spread)

    perturbed = method.perturb(batch.strong, generator)
    strong = method.drop_colors(perturbed, generator)
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


def supervised_step(
    student: nn.Module, labeled: list[Tensor], labels: Tensor
) -> tuple[Losses, Logits]:
    """Cross-entropy on labels alone: the warm-up, and the supervised-only baseline."""
    logits = student(labeled).float()
    supervised = F.cross_entropy(logits, labels)
    zero = torch.zeros_like(supervised)
    return Losses(supervised, zero, zero), logits


def micro_step(
    student: nn.Module,
    teacher: EmaTeacher | None,
    batch: SslBatch,
    method: Method,
    generators: Generators,
) -> tuple[Losses, dict[str, float]]:
    """The losses of one micro-batch, and its numbers for metrics.jsonl.

    The student is in training mode and may be wrapped for distributed training. Without a teacher,
    in the warm-up, it trains on labels alone.
    """
    if teacher is None:
        losses, logits = supervised_step(student, batch.labeled, batch.labels)
        metrics = {"supervised": losses.supervised, "accuracy": accuracy(logits, batch.labels)}
        return losses, as_numbers(metrics)
    mix = plan_mixing(teacher.network, len(batch.strong[0]), method, generators)
    losses, pseudo, trust, logits = ssl_step(
        student, teacher, batch, method, mix, generators.tensors
    )
    metrics = {
        **losses._asdict(),
        "accuracy": accuracy(logits, batch.labels),
        "trust": trust.mean(),
        "utilization": effective_share(trust),
        "confidence": pseudo.confidence.mean(),
    }
    return losses, as_numbers(metrics)


def plan_mixing(
    network: SefarModel, num_clips: int, method: Method, generators: Generators
) -> MixPlan | None:
    """The mixing of one micro-batch; None for a method that mixes nothing."""
    if method.mix_concentration is None:
        return None
    return draw_mix_plan(
        num_clips,
        network.backbone.grid,
        len(network.sizes),
        generators.beta(method.mix_concentration, method.mix_concentration),
        generators.tensors,
        partners=method.mix_partners,
    )


def accuracy(logits: Logits, labels: Labels) -> Tensor:
    """Share of the labeled clips that the student, in training mode, recognizes."""
    return (logits.argmax(dim=-1) == labels).float().mean()


def effective_share(trust: PerClip) -> Tensor:
    """Share of the unlabeled clips that count: (sum t)^2 / (n sum t^2), Kish's effective size.

    For weights of 0 and 1 it is the share of ones, known as utilization; 0 if all weights are 0.
    """
    return trust.sum().square() / (len(trust) * trust.square().sum()).clamp_min(1e-12)


def as_numbers(metrics: dict[str, Tensor]) -> dict[str, float]:
    """The values of scalar tensors, in one copy from their device."""
    values = torch.stack([value.detach().float() for value in metrics.values()])
    return dict(zip(metrics, values.tolist(), strict=True))
