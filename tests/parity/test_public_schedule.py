"""The step against the public code's schedule, given the same random draws.

Both run the same parameters on the same batch. Dropout draws are dealt out clip by clip in an order
that both share; stochastic depth takes its masks from one table by (element, block, place, clip).
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.public_schedule import Plain
from sefar_core import block as blocks
from sefar_core.config import LossConfig
from sefar_core.mixing import draw_mix_plan, one_each
from sefar_core.step import SslBatch, ssl_step
from sefar_core.teacher import EmaTeacher
from sefar_core.train import choose_method
from tests.oracles import tiny

DEPTH = 3
LABELED, UNLABELED = 2, 3
CONFIG = replace(tiny.CONFIG, depth=DEPTH, drop_path_rate=0.5, dropout=0.4)


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


def calls_of(passes):
    """Calls for elements that share a pass, whose first clip has a number."""
    return [
        (elements, block, place, first)
        for first, elements in passes
        for block in range(DEPTH)
        for place in PLACES
    ]


STARTS = (0, LABELED, LABELED + UNLABELED)  # of the labeled, strong and mixed clips
PLAIN_CALLS = calls_of([(start, (element,)) for start in STARTS for element in range(3)])
MERGED_CALLS = calls_of([(0, (0, 1)), (0, (2,))])


def losses_and_gradients(run, monkeypatch, calls):
    student = tiny.network(CONFIG).train()
    teacher = EmaTeacher(student, decay=0.9, dropout_passes=4)
    monkeypatch.setattr(nn.functional, "dropout", DealtDropout())
    monkeypatch.setattr(blocks, "drop_path", TabledDepth(calls))
    generator = torch.Generator().manual_seed(7)
    settings = LossConfig(color_dropout=0.3, perturbation="shuffle_fine", gamma_un=1.5)
    mix = draw_mix_plan(UNLABELED, 2, 3, 0.6, generator, partners=one_each)
    labeled, weak, strong = (
        tiny.elements(count, seed=seed)
        for count, seed in ((LABELED, 1), (UNLABELED, 2), (UNLABELED, 3))
    )
    batch = SslBatch(labeled, torch.tensor([0, 3]), weak, strong)
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
        scale = gradient.abs().max().item()
        assert scale > 0, name
        near = {"rtol": 1e-5, "atol": 1e-5 * scale, "msg": lambda m, n=name: n + m}
        torch.testing.assert_close(fast_gradients[name], gradient, **near)


def recomputed(calls):
    """The calls of the forward pass, then those of each block but the last again, backward."""
    per_block = [calls[i : i + len(PLACES)] for i in range(0, len(calls), len(PLACES))]
    again = [block for block in reversed(per_block) if block[0][1] < DEPTH - 1]
    return [*calls, *[call for block in again for call in block]]
