"""Variants of the method by name: rivals, rows of the paper's tables, single decisions.

Each is a function from settings to settings, a word of a preset (presets.py).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import get_args

from sefar_core.config import PerturbationName, TrainConfig

PresetModifier = Callable[[TrainConfig], TrainConfig]


def by_name(*words: PresetModifier) -> dict[str, PresetModifier]:
    """Words of a preset: the names of the functions."""
    return {word.__name__: word for word in words}


def supervised(config: TrainConfig) -> TrainConfig:
    """Labels alone: as many steps on them, the same network and dropout."""
    return replace(config, warmup_epochs=config.epochs)


def fixmatch(config: TrainConfig) -> TrainConfig:
    """FixMatch on SeFAR's network and loop: the student is its own teacher, threshold 0.95."""
    return replace(
        config,
        teacher=replace(config.teacher, ema_decay=0.0, dropout_passes=0),
        loss=replace(
            config.loss,
            regulation="fixed",
            threshold=0.95,
            gamma_un=1.0,
            gamma_mix=0.0,
            ramp="none",
        ),
    )


def svformer(config: TrainConfig) -> TrainConfig:
    """SVFormer on SeFAR's network and loop: one clip of 8 frames, warped; threshold 0.3."""
    return replace(
        config,
        model=replace(config.model, sizes=(8,)),
        teacher=replace(config.teacher, dropout_passes=0),
        loss=replace(
            config.loss,
            perturbation="warp",
            color_dropout=0.2,
            regulation="fixed",
            threshold=0.3,
            mix_on="logits",
            mix_targets="sharp",
            gamma_un=2.0,
            gamma_mix=2.0,
            ramp="none",
        ),
    )


RIVALS = by_name(supervised, fixmatch, svformer)


def without_dual_elements(config: TrainConfig) -> TrainConfig:
    """Table 3 without dual-level elements: the 8 frames are one element.

    Reversal of the fine elements then has nothing to reverse.
    """
    return replace(config, model=replace(config.model, sizes=(8,)))


def without_perturbation(config: TrainConfig) -> TrainConfig:
    """Table 3 without moderate perturbation: SVFormer's warping takes its place."""
    return replace(config, loss=replace(config.loss, perturbation="warp"))


def without_regulation(config: TrainConfig) -> TrainConfig:
    """Tables 3 and 6 without adaptive regulation: a fixed threshold of 0.3."""
    return replace(config, loss=replace(config.loss, regulation="fixed", threshold=0.3))


COMPONENTS = by_name(without_dual_elements, without_perturbation, without_regulation)


def with_elements(config: TrainConfig, *, sizes: tuple[int, ...]) -> TrainConfig:
    """A sampling combination of Figure 4: frames of the fine elements, then of the context."""
    return replace(config, model=replace(config.model, sizes=sizes))


COMBINATIONS = ((2, 4), (2, 2, 4), (2, 2, 2, 4), (2, 2, 2, 2), (4, 4), (2, 6), (8,))
ELEMENTS: dict[str, PresetModifier] = {
    "elements_" + "_".join(map(str, sizes)): partial(with_elements, sizes=sizes)
    for sizes in COMBINATIONS
}


def with_perturbation(config: TrainConfig, *, name: PerturbationName) -> TrainConfig:
    """A row of Table 4: the temporal perturbation of the strong view."""
    return replace(config, loss=replace(config.loss, perturbation=name))


PERTURBED: dict[str, PresetModifier] = {
    f"perturb_{name}": partial(with_perturbation, name=name) for name in get_args(PerturbationName)
}


def with_passes(config: TrainConfig, *, passes: int) -> TrainConfig:
    """A column of Table 8: number of stochastic predictions for a pseudo-label."""
    regulation = "confidence_only" if passes == 1 else config.loss.regulation
    return replace(
        config,
        teacher=replace(config.teacher, dropout_passes=passes),
        loss=replace(config.loss, regulation=regulation),
    )


PASSES: dict[str, PresetModifier] = {
    f"passes_{passes}": partial(with_passes, passes=passes)
    for passes in (1, 2, 5, 10, 15, 20, 100, 1000)
}


def local_window(config: TrainConfig) -> TrainConfig:
    """Fine elements are short dense windows, not interleaved frames."""
    return replace(config, model=replace(config.model, sampling="local_window"))


def shared_moments(config: TrainConfig) -> TrainConfig:
    """The student's strong view shows the moments that the teacher saw."""
    return replace(config, data=replace(config.data, moments="shared"))


def mix_on_probs(config: TrainConfig) -> TrainConfig:
    """The mixing loss compares probabilities with probabilities."""
    return replace(config, loss=replace(config.loss, mix_on="probs"))


def mix_on_logits(config: TrainConfig) -> TrainConfig:
    """The mixing loss compares raw logits with probabilities, as published."""
    return replace(config, loss=replace(config.loss, mix_on="logits"))


def without_mixing(config: TrainConfig) -> TrainConfig:
    """No clips are mixed."""
    return replace(config, loss=replace(config.loss, gamma_mix=0.0))


def ema_every_micro_batch(config: TrainConfig) -> TrainConfig:
    """The teacher is updated after every micro-batch, as published.

    Unless teacher.ema_decay is set, it moves as far for each clip as with one update a step.
    """
    return replace(config, teacher=replace(config.teacher, ema_every="micro_batch"))


DECISIONS = by_name(local_window, shared_moments, mix_on_probs, mix_on_logits)
DECISIONS |= by_name(without_mixing, ema_every_micro_batch)
