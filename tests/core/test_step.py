import random
from dataclasses import replace

import pytest
import torch

from sefar_core.checkpoint import build_model
from sefar_core.config import LossConfig, ModelConfig
from sefar_core.mixing import draw_mix_plan
from sefar_core.step import SslBatch, ssl_step, supervised_step
from sefar_core.teacher import EmaTeacher
from sefar_core.train import choose_method
from tests.oracles import method as oracle

TINY = ModelConfig(
    image_size=32, patch_size=16, dim=16, depth=1, num_heads=2, fusion_dim=8, drop_path_rate=0.0,
    dropout=0.0,
)  # fmt: skip


def clips(batch: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3, frames, 32, 32, generator=generator) for frames in (2, 2, 4)]


@pytest.fixture
def networks():
    torch.manual_seed(0)
    student = build_model(TINY, num_classes=5)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return student, EmaTeacher(student, decay=0.9, dropout_passes=3)


def batch() -> SslBatch:
    return SslBatch(clips(2, 1), torch.tensor([0, 3]), clips(3, 2), clips(3, 3))


def test_the_step_is_the_paper_s_formulas_clip_by_clip(networks):
    """No dropout is live here, so every loss can be worked out in plain Python."""
    student, teacher = networks
    seen, mix = batch(), draw_mix_plan(3, 2, 3, 0.6, torch.Generator().manual_seed(0))
    method = choose_method(LossConfig(mix_on="probs"))
    losses = ssl_step(student, teacher, seen, method, mix, torch.Generator()).losses

    def logits_of(elements):
        with torch.no_grad():
            return student(elements).tolist()

    labeled = logits_of(seen.labeled)
    expected = sum(map(oracle.cross_entropy, labeled, [0, 3])) / 2
    assert losses.supervised.item() == pytest.approx(expected, rel=1e-5)

    probs = [oracle.softmax(row) for row in logits_of(seen.weak)]
    label = [row.index(max(row)) for row in probs]
    trust = [oracle.adaptive_weight(max(row), 0.0) for row in probs]
    reversed_fine = [seen.strong[0].flip(2), seen.strong[1].flip(2), seen.strong[2]]
    terms = map(oracle.cross_entropy, logits_of(reversed_fine), label)
    expected = sum(t * term for t, term in zip(trust, terms, strict=True)) / 3
    assert losses.unsupervised.item() == pytest.approx(expected, rel=1e-4)

    mixed = [torch.empty_like(clip) for clip in reversed_fine]
    for i, j in enumerate(mix.partners[-1].tolist()):
        for place, clip in enumerate(reversed_fine):
            for channel in range(3):
                mixed[place][i, channel] = torch.tensor(
                    oracle.tube_mix(
                        clip[i, channel].tolist(), clip[j, channel].tolist(),
                        mix.keep[place].tolist(), 16,
                    )
                )  # fmt: skip
    partner = mix.partners[-1].tolist()
    targets = [
        [0.6 * p + 0.4 * q for p, q in zip(probs[i], probs[j], strict=True)]
        for i, j in enumerate(partner)
    ]
    mixed_trust = [0.6 * trust[i] + 0.4 * trust[j] for i, j in enumerate(partner)]
    expected = oracle.mix_loss_on_probs(logits_of(mixed), targets, mixed_trust)
    assert losses.mix.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("sizes", [(2, 2, 4), (8,)])
def test_gradients_reach_all_of_the_student_and_it_alone(sizes):
    """Distributed training waits for ever for a parameter that gets none."""
    torch.manual_seed(0)
    student = build_model(replace(TINY, sizes=sizes), num_classes=5)
    teacher = EmaTeacher(student, decay=0.9, dropout_passes=3)
    views = [[torch.randn(n, 3, size, 32, 32) for size in sizes] for n in (2, 3, 3)]
    seen = SslBatch(views[0], torch.tensor([0, 3]), views[1], views[2])
    mix = draw_mix_plan(3, 2, len(sizes), 0.5, torch.Generator().manual_seed(0))
    method = choose_method(LossConfig())
    losses = ssl_step(student, teacher, seen, method, mix, torch.Generator()).losses
    losses.total(ramp=1.0, gamma_un=1.0, gamma_mix=1.0).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_without_ramp_the_step_trains_as_on_labels_alone(networks):
    student, teacher = networks
    mix = draw_mix_plan(3, 2, 3, 0.5, torch.Generator().manual_seed(0))
    method = choose_method(LossConfig())
    seen = batch()
    ssl = ssl_step(student, teacher, seen, method, mix, torch.Generator()).losses
    alone, _ = supervised_step(student, seen.labeled, seen.labels)
    off = {"ramp": 0.0, "gamma_un": 1.0, "gamma_mix": 1.0}
    torch.testing.assert_close(ssl.total(**off), alone.total(**off))
    assert alone.unsupervised == 0 and alone.mix == 0


def test_a_fixed_threshold_above_every_confidence_silences_the_unlabeled(networks):
    student, teacher = networks
    mix = draw_mix_plan(3, 2, 3, random.Random(0).betavariate(10, 10), torch.Generator())
    method = choose_method(LossConfig(regulation="fixed", threshold=1.0))
    outcome = ssl_step(student, teacher, batch(), method, mix, torch.Generator())
    assert outcome.losses.unsupervised == 0 and outcome.losses.mix == 0
    assert outcome.trust.tolist() == [0, 0, 0]


def test_under_bf16_the_statistics_and_losses_are_fp32_and_near_the_exact_ones(networks):
    student, teacher = networks
    mix = draw_mix_plan(3, 2, 3, 0.5, torch.Generator().manual_seed(0))
    method = choose_method(LossConfig(mix_on="probs"))
    exact = ssl_step(student, teacher, batch(), method, mix, torch.Generator())
    with torch.autocast("cpu", torch.bfloat16):
        rough = ssl_step(student, teacher, batch(), method, mix, torch.Generator())
    outputs = [rough.trust, rough.pseudo.probs, rough.pseudo.confidence, rough.labeled_logits]
    assert {part.dtype for part in (*outputs, *rough.losses)} == {torch.float32}
    torch.testing.assert_close(tuple(rough.losses), tuple(exact.losses), rtol=0.05, atol=0.01)
    torch.testing.assert_close(rough.pseudo.probs, exact.pseudo.probs, rtol=0, atol=0.02)
