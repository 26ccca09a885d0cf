import copy
import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from sefar_core import train
from sefar_core.config import LossConfig, ModelConfig, OptimConfig, TeacherConfig, TrainConfig
from sefar_core.step import SslBatch
from sefar_core.train import Loop, build_optimizer, choose_method, plan


def test_sgd_is_the_published_one():
    optimizer = build_optimizer(OptimConfig(), nn.Linear(2, 2))
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelConfig(image_size=100), "multiple of model.patch_size"),
        (lambda: ModelConfig(dim=100), "multiple of model.num_heads"),
        (lambda: ModelConfig(sizes=(2, 0)), "model.sizes"),
        (lambda: TeacherConfig(ema_decay=1.0), "teacher.ema_decay"),
        (lambda: TeacherConfig(dropout_passes=-1), "teacher.dropout_passes"),
        (lambda: LossConfig(threshold=2.0), "loss.threshold"),
        (lambda: OptimConfig(lr=0.0), "optim.lr"),
        (lambda: OptimConfig(lr=math.nan), "optim.lr"),
        (lambda: OptimConfig(lr=math.inf), "optim.lr"),
        (lambda: OptimConfig(weight_decay=-1.0), "optim.weight_decay"),
        (lambda: OptimConfig(clip_norm=0.0), "optim.clip_norm"),
        (lambda: OptimConfig(clip_norm=math.nan), "optim.clip_norm"),
        (lambda: OptimConfig(rate_warmup_steps=-1), "optim.rate_warmup_steps"),
        (lambda: LossConfig(mix_concentration=math.nan), "loss.mix_concentration"),
        (lambda: LossConfig(gamma_un=math.nan), "loss.gamma_un"),
        (lambda: ModelConfig(std=(0.2, 0.0, 0.2)), "model.std"),
        (lambda: ModelConfig(mean=(math.nan, 0.0, 0.2)), "model.mean"),
        (lambda: TrainConfig(seed=10**20), "seed must be in"),
        (lambda: TrainConfig(batch_size=10, micro_batch_size=4), "multiple of micro_batch_size"),
        (lambda: TrainConfig(warmup_epochs=31), "warmup_epochs"),
        (lambda: TrainConfig(steps=0), "steps must be at least 1"),
        (lambda: TrainConfig(keep_last=0), "keep_last"),
    ],
)
def test_nonsense_settings_are_refused_by_their_dotted_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


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


def plain_norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(number**2 for t in tensors for number in t.flatten().tolist()))


@pytest.mark.parametrize("scale", [0.01, 1.0, 478.0])
@pytest.mark.parametrize("clip_norm", [None, 0.5, 3.0])
def test_the_gradient_of_a_whole_step_is_scaled_down_to_the_clip_norm(
    monkeypatch, tmp_path, scale, clip_norm
):
    """The mean over micro-batches, whose own norms are longer; against plain Python and torch."""
    slopes = known_slopes(scale)
    mean = [(first + second) / 2 for first, second in zip(*slopes, strict=True)]
    metrics, moves = step_along(monkeypatch, tmp_path, slopes, clip_norm=clip_norm)
    norm = plain_norm(mean)
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)  # before clipping
    share = min(1.0, clip_norm / norm) if clip_norm is not None else 1.0
    for move, whole in zip(moves, mean, strict=True):
        torch.testing.assert_close(move, share * whole, rtol=1e-4, atol=1e-6 * scale)
    if clip_norm is not None:
        holders = [nn.Parameter(torch.zeros_like(whole)) for whole in mean]
        for holder, whole in zip(holders, mean, strict=True):
            holder.grad = whole.clone()
        nn.utils.clip_grad_norm_(holders, clip_norm)
        for move, holder in zip(moves, holders, strict=True):
            torch.testing.assert_close(move, holder.grad, rtol=1e-4, atol=1e-6 * scale)


def test_a_loss_that_is_not_a_number_before_any_state_is_saved_names_no_state(
    monkeypatch, tmp_path
):
    with pytest.raises(FloatingPointError, match="by it, and no state was saved before it. Lower"):
        step_along(monkeypatch, tmp_path, known_slopes(math.nan), clip_norm=1.0)
    assert not (tmp_path / "states").exists()
