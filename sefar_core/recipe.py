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
from sefar_core.perturbation import PERTURBATIONS, draw_mix_plan
from sefar_core.regulation import adaptive_weight, fixed_threshold
from sefar_core.step import Method, SslBatch, ssl_step, supervised_step
from sefar_core.teacher import EmaTeacher


class Draws(NamedTuple):
    """Where a micro-batch's random draws come from."""

    tensors: torch.Generator
    numbers: random.Random


def choose_method(config: LossConfig, generator: torch.Generator) -> Method:
    """The parts that the settings name, drawing from `generator`."""
    perturbation = PERTURBATIONS[config.perturbation]
    regulations: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "adaptive": adaptive_weight,
        "fixed": partial(fixed_threshold, threshold=config.threshold),
    }
    return Method(
        perturb=lambda elements: perturbation(elements, generator),
        regulate=regulations[config.regulation],
        mix_loss=MIX_LOSSES[config.mix_on],
    )


def micro_step(
    student: nn.Module,
    teacher: EmaTeacher | None,
    batch: SslBatch,
    settings: LossConfig,
    draws: Draws,
) -> tuple[Losses, dict[str, float]]:
    """The losses of one micro-batch, and what metrics.jsonl says of it.

    Args:
        student: in training mode; may be wrapped for distributed training.
        teacher: none during the warm-up, when only labels are learned from.
        batch: on the student's device.
        settings: names of the parts.
        draws: consumed.
    """
    if teacher is None:
        losses = supervised_step(student, batch.labeled, batch.labels)
        return losses, {"supervised": losses.supervised.item()}
    mix = draw_mix_plan(
        len(batch.strong[0]),
        teacher.network.backbone.grid,
        len(batch.strong),
        draws.numbers.betavariate(settings.mix_concentration, settings.mix_concentration),
        draws.tensors,
    )
    method = choose_method(settings, draws.tensors)
    losses, trust, confidence = ssl_step(student, teacher, batch, method, mix)
    return losses, {
        "supervised": losses.supervised.item(),
        "unsupervised": losses.unsupervised.item(),
        "mix": losses.mix.item(),
        "trust": trust.mean().item(),
        "confidence": confidence.mean().item(),
    }
