"""The step against the public code's schedule, given the same random draws.

Both run the same parameters on the same batch. Dropout draws are dealt out clip by clip in an order
that both share; stochastic depth takes its masks from one table by (element, block, place, clip).
"""

import pytest
import torch
from torch import nn

from benchmarks.public_schedule import Plain
from sefar_core import block as blocks
from sefar_core.checkpoint import build_model
from sefar_core.config import LossConfig, ModelConfig
from sefar_core.mixing import draw_mix_plan, one_each
from sefar_core.step import SslBatch, ssl_step
from sefar_core.teacher import EmaTeacher
from sefar_core.train import choose_method

SIZES, DEPTH, CLASSES = (2, 2, 4), 3, 5
LABELED, UNLABELED = 2, 3
CONFIG = ModelConfig(
    sizes=SIZES, image_size=32, dim=16, depth=DEPTH, num_heads=2, fusion_dim=8,
    drop_path_rate=0.5, dropout=0.4,
)  # fmt: skip


def clips(batch: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3, frames, 32, 32, generator=generator) for frames in SIZES]


class DealtDropout:
    """Dropout whose mask for the n-th row since the start is always the same."""

    def __init__(self):
        self.dealt = 0

    def __call__(self, rows, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return rows
        flat = rows.flatten(0, -2)
        masks = []
        for number in range(self.dealt, self.dealt + len(flat)):
            generator = torch.Generator().manual_seed(number)
            masks.append(torch.rand(flat.shape[1], generator=generator) >= p)
        self.dealt += len(flat)
        return (flat * torch.stack(masks) / (1 - p)).view_as(rows)


def depth_mask(element: int, block: int, place: str, clip: int, shape) -> torch.Tensor:
    seed = ((element * DEPTH + block) * len(PLACES) + PLACES.index(place)) * 100 + clip
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) >= 0.3


class TabledDepth:
    """Stochastic depth in a fixed order of calls: (elements that share the pass, block, place)."""

    def __init__(self, calls):
        self.calls = iter(calls)

    def __call__(self, residual, drop, training):
        if not training:
            return residual
        elements, block, place, first_clip = next(self.calls)
        batch = len(residual) // len(elements)
        shape = residual.shape[1:-2] + (1, 1)
        kept = torch.stack([
            depth_mask(element, block, place, first_clip + clip, shape)
            for element in elements
            for clip in range(batch)
        ])  # fmt: skip
        return residual * kept / 0.7


PLACES = ("time", "space", "mlp")
STARTS = (0, LABELED, LABELED + UNLABELED)  # of the labeled, strong and mixed clips
PLAIN_CALLS = [
    ((element,), block, place, start)
    for start in STARTS
    for element in range(3)
    for block in range(DEPTH)
    for place in PLACES
]
MERGED_CALLS = [
    (group, block, place, 0)
    for group in ((0, 1), (2,))
    for block in range(DEPTH)
    for place in PLACES
]


def networks():
    torch.manual_seed(0)
    student = build_model(CONFIG, CLASSES)
    with torch.no_grad():  # the temporal path must not hide behind its zero start
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return student.train(), EmaTeacher(student, decay=0.9, dropout_passes=4)


def losses_and_gradients(run, monkeypatch, calls):
    student, teacher = networks()
    monkeypatch.setattr(nn.functional, "dropout", DealtDropout())
    monkeypatch.setattr(blocks, "drop_path", TabledDepth(calls))
    generator = torch.Generator().manual_seed(7)
    settings = LossConfig(color_dropout=0.3, perturbation="shuffle_fine", gamma_un=1.5)
    mix = draw_mix_plan(UNLABELED, 2, 3, 0.6, generator, partners=one_each)
    batch = SslBatch(
        clips(LABELED, 1), torch.tensor([0, 3]), clips(UNLABELED, 2), clips(UNLABELED, 3)
    )
    losses = run(student, teacher, batch, choose_method(settings), mix, generator)
    losses.total(ramp=0.7, gamma_un=1.5, gamma_mix=2.0).backward()
    monkeypatch.undo()
    return losses, {name: p.grad for name, p in student.named_parameters()}


@pytest.mark.parametrize("recompute", [False, True])
def test_losses_and_all_gradients_are_those_of_the_public_schedule(monkeypatch, recompute):
    plain, plain_gradients = losses_and_gradients(Plain().step, monkeypatch, PLAIN_CALLS)

    def merged(student, *rest):
        student.backbone.recompute = recompute
        return ssl_step(student, *rest).losses

    calls = recomputed(MERGED_CALLS) if recompute else MERGED_CALLS
    fast, fast_gradients = losses_and_gradients(merged, monkeypatch, calls)
    torch.testing.assert_close(tuple(fast), tuple(plain), rtol=1e-5, atol=1e-7)
    for name, gradient in plain_gradients.items():
        assert gradient.abs().max() > 0, name
        scale = gradient.abs().max().item()
        torch.testing.assert_close(
            fast_gradients[name],
            gradient,
            rtol=1e-5,
            atol=1e-5 * scale,
            msg=lambda m, n=name: n + m,
        )


def recomputed(calls):
    """The calls of the forward pass, then those of each block but the last again, backward."""
    per_block = [calls[i : i + len(PLACES)] for i in range(0, len(calls), len(PLACES))]
    again = [block for block in reversed(per_block) if block[0][1] < DEPTH - 1]
    return [*calls, *[call for block in again for call in block]]
