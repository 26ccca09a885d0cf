import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from qa_data.manifest import Clip
from sefar_core import train
from sefar_core.config import LossConfig, ModelConfig, OptimConfig, TeacherConfig, TrainConfig
from sefar_core.data.dataloaders import TrainClips
from sefar_core.presets import preset
from sefar_core.step import SslBatch
from sefar_core.train import (
    Loop,
    build_optimizer,
    choose_method,
    choose_precision,
    choose_views,
    plan,
    refuse_other_data,
)


@pytest.mark.parametrize(
    ("flip", "weak_flip", "flipped"),
    [(True, True, (True, True)), (True, False, (False, True)), (False, True, (False, False))],
)
def test_the_weak_view_is_mirrored_only_if_both_settings_allow_it(flip, weak_flip, flipped):
    config = preset("vit_s")
    config = replace(config, data=replace(config.data, flip=flip, weak_flip=weak_flip))
    views = choose_views(config).views
    assert (views.weak.flip, views.strong.flip) == flipped


def test_sgd_is_the_published_one():
    optimizer = build_optimizer(OptimConfig(), nn.Linear(2, 2))
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 1e-3)


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        (ModelConfig, {"image_size": 100}, "multiple of model.patch_size"),
        (ModelConfig, {"dim": 100}, "multiple of model.num_heads"),
        (ModelConfig, {"sizes": (2, 0)}, "model.sizes"),
        (ModelConfig, {"std": (0.2, 0.0, 0.2)}, "model.std"),
        (ModelConfig, {"mean": (math.nan, 0.0, 0.2)}, "model.mean"),
        (TeacherConfig, {"ema_decay": 1.0}, "teacher.ema_decay"),
        (TeacherConfig, {"dropout_passes": -1}, "teacher.dropout_passes"),
        (LossConfig, {"threshold": 2.0}, "loss.threshold"),
        (LossConfig, {"mix_concentration": math.nan}, "loss.mix_concentration"),
        (LossConfig, {"gamma_un": math.nan}, "loss.gamma_un"),
        (OptimConfig, {"lr": 0.0}, "optim.lr"),
        (OptimConfig, {"lr": math.nan}, "optim.lr"),
        (OptimConfig, {"lr": math.inf}, "optim.lr"),
        (OptimConfig, {"weight_decay": -1.0}, "optim.weight_decay"),
        (OptimConfig, {"clip_norm": 0.0}, "optim.clip_norm"),
        (OptimConfig, {"clip_norm": math.nan}, "optim.clip_norm"),
        (OptimConfig, {"rate_warmup_steps": -1}, "optim.rate_warmup_steps"),
        (TrainConfig, {"seed": 10**20}, "seed must be in"),
        (TrainConfig, {"batch_size": 10, "micro_batch_size": 4}, "multiple of micro_batch_size"),
        (TrainConfig, {"warmup_epochs": 31}, "warmup_epochs"),
        (TrainConfig, {"steps": 0}, "steps must be at least 1"),
        (TrainConfig, {"keep_last": 0}, "keep_last"),
    ],
)
def test_nonsense_settings_are_refused_by_their_dotted_name(kind, changed, message):
    with pytest.raises(ValueError, match=message):
        kind(**changed)


class Slope:
    """A loss whose gradient is known: the sum of weights times numbers."""

    def __init__(self, network: nn.Module, numbers: list[torch.Tensor]):
        pairs = zip(network.parameters(), numbers, strict=True)
        self.loss = sum((weight * number).sum() for weight, number in pairs)

    def total(self, **_):
        return self.loss


class BareLoop(Loop):
    """A loop around a network of no clips, with two micro-batches a step."""

    def __init__(self, network: nn.Module, states: Path, clip_norm: float | None):
        optim = OptimConfig(lr=1.0, clip_norm=clip_norm)
        self.config = TrainConfig(optim=optim, batch_size=16, micro_batch_size=8)
        self.schedule = plan(self.config, 64)
        self.method = choose_method(self.config.loss)
        self.accelerator = Accelerator(cpu=True)
        self.student, self.teacher, self.step, self.states = network, None, 0, states
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1.0)

    network = property(lambda self: self.student)


def step_along(monkeypatch, tmp_path, slopes, *, clip_norm):
    """One step of SGD at a rate of 1 along known gradients of two micro-batches."""
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1, bias=False))
    before, coming = copy.deepcopy(network), iter(slopes)
    monkeypatch.setattr(
        train, "micro_step", lambda student, *_: (Slope(student, next(coming)), {"accuracy": 1.0})
    )
    loop = BareLoop(network, tmp_path / "states", clip_norm)
    batches = [SslBatch([], torch.tensor([]), [], [], clip_ids=[name]) for name in "ab"]
    metrics = train.optimizer_step(loop, iter(batches))
    moves = [old - new for old, new in zip(before.parameters(), network.parameters(), strict=True)]
    return metrics, [move.detach() for move in moves]


def known_slopes(scale: float) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, 3), (2,), (1, 2))
    return [[scale * torch.randn(s, generator=generator) for s in shapes] for _ in range(2)]


@pytest.mark.parametrize(
    ("clip_norm", "scale"), [(None, 1.0), (0.5, 0.01), (0.5, 1.0), (3.0, 1.0), (3.0, 478.0)]
)
def test_the_gradient_of_a_whole_step_is_scaled_down_to_the_clip_norm(
    monkeypatch, tmp_path, scale, clip_norm
):
    """The mean over micro-batches, whose own norms are longer, in plain Python."""
    slopes = known_slopes(scale)
    mean = [(first + second) / 2 for first, second in zip(*slopes, strict=True)]
    metrics, moves = step_along(monkeypatch, tmp_path, slopes, clip_norm=clip_norm)
    norm = math.sqrt(sum(number**2 for whole in mean for number in whole.flatten().tolist()))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)  # before clipping
    share = min(1.0, clip_norm / norm) if clip_norm is not None else 1.0
    for move, whole in zip(moves, mean, strict=True):
        torch.testing.assert_close(move, share * whole, rtol=1e-4, atol=1e-6 * scale)


def test_a_loss_that_is_not_a_number_before_any_state_is_saved_names_no_state(
    monkeypatch, tmp_path
):
    with pytest.raises(FloatingPointError, match="by it, and no state was saved before it. Lower"):
        step_along(monkeypatch, tmp_path, known_slopes(math.nan), clip_norm=1.0)
    assert not (tmp_path / "states").exists()


def clips(labeled: int, unlabeled: int, classes: int) -> TrainClips:
    one = Clip(id="a", path="a.mp4", split="labeled", label=0)
    return TrainClips([one] * labeled, [one] * unlabeled, (None,) * classes)


def test_the_public_lists_pass_as_their_data_sets_and_others_are_refused():
    refuse_other_data(preset("gym99_5"), clips(1316, 25004, 99))
    refuse_other_data(preset("ub_20"), clips(1918, 7676, 25))
    refuse_other_data(preset("ucf101_10"), clips(1010, 8527, 101))  # 10.6 % in truth
    refuse_other_data(TrainConfig(), clips(1, 3, 7))
    with pytest.raises(ValueError, match="98 classes, but 99 are expected"):
        refuse_other_data(preset("gym99_5"), clips(1316, 25004, 98))
    with pytest.raises(ValueError, match="10.0% of the training clips are labeled, but 5% are ex"):
        refuse_other_data(preset("gym99_5"), clips(2632, 23688, 99))


def test_the_released_schedule_has_the_published_number_of_steps():
    # Gym99 at 5 %: 20 steps an epoch, UCF101 at 1 %: one, read off the public code.
    assert plan(preset("released"), 1316).num_steps == 30 * 20
    assert plan(preset("released"), 101).num_steps == 30
    rising = replace(preset("paper"), optim=OptimConfig(rate_warmup_steps=100))
    with pytest.raises(ValueError, match="rate_warmup_steps must be below the run's 100 steps"):
        plan(replace(rising, steps=100), 1316)
    assert plan(replace(rising, steps=101), 1316).num_steps == 101


@pytest.mark.parametrize(
    ("on_gpu", "kept_off", "setting", "chosen"),
    [
        (True, "false", "auto", "bf16"),
        (True, "true", "auto", "no"),
        (False, "false", "auto", "no"),
        (True, "false", "no", "no"),
        (False, "false", "bf16", "bf16"),
    ],
)
def test_products_are_of_bf16_on_a_gpu_unless_settings_say_otherwise(
    on_gpu, kept_off, setting, chosen, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    monkeypatch.setenv("ACCELERATE_USE_CPU", kept_off)
    assert choose_precision(TrainConfig(mixed_precision=setting)) == chosen
