"""The settings' names -> the parts of a step, and one micro-batch through them.

The step itself (step.py) is pure; here stand the dictionaries of its interchangeable parts.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sefar_core.config import LossConfig
from sefar_core.loss import MIX_LOSSES, Losses
from sefar_core.mixing import MIX_TARGETS, PARTNERS, MixPlan, draw_mix_plan
from sefar_core.model import SefarModel
from sefar_core.perturbation import PERTURBATIONS, drop_color_planes
from sefar_core.regulation import adaptive_weight, confidence_only, fixed_threshold
from sefar_core.shapes import Labels, Logits, PerClip
from sefar_core.step import Method, SslBatch, ssl_step, supervised_step
from sefar_core.teacher import EmaTeacher


class Draws(NamedTuple):
    """Where a micro-batch's random draws come from."""

    tensors: torch.Generator
    numbers: random.Random


def choose_regulation(name: str, *, threshold: float) -> Callable[[PerClip, PerClip], PerClip]:
    """The trust in a pseudo-label, as a function of its confidence and spread.

    Args:
        name: a value of the setting `loss.regulation`.
        threshold: confidence that the fixed regulation asks for; the others do not look at it.

    Raises:
        ValueError: there is none of that name.
    """
    regulations: dict[str, Callable[[PerClip, PerClip], PerClip]] = {
        "adaptive": adaptive_weight,
        "confidence_only": confidence_only,
        "fixed": partial(fixed_threshold, threshold=threshold),
    }
    if name not in regulations:
        raise ValueError(f"loss.regulation must be one of {', '.join(regulations)}, got {name!r}")
    return regulations[name]


def choose_method(config: LossConfig, generator: torch.Generator) -> Method:
    """The parts that the settings name, drawing from `generator`."""
    perturbation = PERTURBATIONS[config.perturbation]
    return Method(
        perturb=lambda elements: perturbation(elements, generator),
        drop_colors=partial(drop_color_planes, generator=generator, drop=config.color_dropout),
        regulate=choose_regulation(config.regulation, threshold=config.threshold),
        mix_targets=MIX_TARGETS[config.mix_targets],
        mix_loss=MIX_LOSSES[config.mix_on],
    )


def plan_mixing(
    network: SefarModel, num_clips: int, config: LossConfig, draws: Draws
) -> MixPlan | None:
    """The mixing of one micro-batch; none if its loss has no weight."""
    if config.gamma_mix == 0:
        return None
    concentration = config.mix_concentration
    return draw_mix_plan(
        num_clips,
        network.backbone.grid,
        len(network.sizes),
        draws.numbers.betavariate(concentration, concentration),
        draws.tensors,
        partners=PARTNERS[config.mix_partners],
    )


def micro_step(
    student: nn.Module,
    teacher: EmaTeacher | None,
    batch: SslBatch,
    config: LossConfig,
    draws: Draws,
) -> tuple[Losses, dict[str, float]]:
    """The losses of one micro-batch, and what metrics.jsonl says of it.

    Args:
        student: in training mode; may be wrapped for distributed training.
        teacher: none during the warm-up, when only labels are learned from.
        batch: on the student's device.
        config: names of the parts.
        draws: consumed.
    """
    if teacher is None:
        losses, logits = supervised_step(student, batch.labeled, batch.labels)
        told = {"supervised": losses.supervised, "accuracy": accuracy(logits, batch.labels)}
        return losses, as_numbers(told)
    mix = plan_mixing(teacher.network, len(batch.strong[0]), config, draws)
    method = choose_method(config, draws.tensors)
    losses, pseudo, trust, logits = ssl_step(student, teacher, batch, method, mix)
    told = {
        **losses._asdict(),
        "accuracy": accuracy(logits, batch.labels),
        "trust": trust.mean(),
        "utilization": effective_share(trust),
        "confidence": pseudo.confidence.mean(),
    }
    return losses, as_numbers(told)


def accuracy(logits: Logits, labels: Labels) -> Tensor:
    """Share of the labeled clips that the student, as it trains, takes for what they are."""
    return (logits.argmax(dim=-1) == labels).float().mean()


def effective_share(trust: PerClip) -> Tensor:
    """Share of the unlabeled clips that weigh in: (sum t)^2 / (n sum t^2), Kish's effective size.

    For weights of 0 and 1 it is the share of ones, known as utilization; 0 if all weigh nothing.
    """
    return trust.sum().square() / (len(trust) * trust.square().sum()).clamp_min(1e-12)


def as_numbers(told: dict[str, Tensor]) -> dict[str, float]:
    """The values of scalar tensors, in one copy from their device."""
    values = torch.stack([value.detach().float() for value in told.values()])
    return dict(zip(told, values.tolist(), strict=True))
