from dataclasses import replace

import pytest
import torch

from sefar_core.config import LossConfig
from sefar_core.mixing import draw_mix_plan
from sefar_core.step import SslBatch, effective_share, ssl_step, supervised_step
from sefar_core.teacher import EmaTeacher
from sefar_core.train import choose_method
from tests.oracles import method as oracle
from tests.oracles import tiny

# Nothing is random in it, so every loss can be worked out in plain Python.
CONFIG = replace(tiny.CONFIG, depth=1, drop_path_rate=0.0, dropout=0.0)


def networks(config=CONFIG):
    student = tiny.network(config, spread=0.2)
    return student, EmaTeacher(student, decay=0.9, dropout_passes=3)


def batch(sizes=(2, 2, 4)) -> SslBatch:
    labeled, weak, strong = (
        tiny.elements(count, sizes, seed=seed) for count, seed in ((2, 1), (3, 2), (3, 3))
    )
    return SslBatch(labeled, torch.tensor([0, 3]), weak, strong)


def mixing(share: float = 0.5, elements: int = 3):
    return draw_mix_plan(3, 2, elements, share, torch.Generator().manual_seed(0))


def outcome(student, teacher, seen, mix, **settings):
    method = choose_method(LossConfig(**settings))
    return ssl_step(student, teacher, seen, method, mix, torch.Generator())


def test_the_step_is_the_paper_s_formulas_clip_by_clip():
    student, teacher = networks()
    seen, mix = batch(), mixing(0.6)
    losses = outcome(student, teacher, seen, mix, mix_on="probs").losses

    def logits_of(elements):
        with torch.no_grad():
            return student(elements).tolist()

    expected = sum(map(oracle.cross_entropy, logits_of(seen.labeled), [0, 3])) / 2
    assert losses.supervised.item() == pytest.approx(expected, rel=1e-5)

    probs = [oracle.softmax(row) for row in logits_of(seen.weak)]
    label = [row.index(max(row)) for row in probs]
    trust = [oracle.adaptive_weight(max(row), 0.0) for row in probs]
    reversed_fine = [seen.strong[0].flip(2), seen.strong[1].flip(2), seen.strong[2]]
    terms = map(oracle.cross_entropy, logits_of(reversed_fine), label)
    expected = sum(t * term for t, term in zip(trust, terms, strict=True)) / 3
    assert losses.unsupervised.item() == pytest.approx(expected, rel=1e-4)

    partner = mix.partners[-1].tolist()
    mixed = [torch.empty_like(clip) for clip in reversed_fine]
    for clip, keep, into in zip(reversed_fine, mix.keep, mixed, strict=True):
        for i, j in enumerate(partner):
            for channel in range(3):
                own, other = clip[i, channel].tolist(), clip[j, channel].tolist()
                into[i, channel] = torch.tensor(oracle.tube_mix(own, other, keep.tolist(), 16))
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
    student, teacher = networks(replace(CONFIG, sizes=sizes))
    losses = outcome(student, teacher, batch(sizes), mixing(elements=len(sizes))).losses
    losses.total(ramp=1.0, gamma_un=1.0, gamma_mix=1.0).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_without_ramp_the_step_trains_as_on_labels_alone():
    student, teacher = networks()
    seen = batch()
    ssl = outcome(student, teacher, seen, mixing()).losses
    alone, _ = supervised_step(student, seen.labeled, seen.labels)
    off = {"ramp": 0.0, "gamma_un": 1.0, "gamma_mix": 1.0}
    torch.testing.assert_close(ssl.total(**off), alone.total(**off))
    assert alone.unsupervised == 0 and alone.mix == 0


def test_a_fixed_threshold_above_every_confidence_silences_the_unlabeled():
    got = outcome(*networks(), batch(), mixing(), regulation="fixed", threshold=1.0)
    assert got.losses.unsupervised == 0 and got.losses.mix == 0
    assert got.trust.tolist() == [0, 0, 0]
    assert effective_share(got.trust) == 0
    assert effective_share(torch.tensor([1.0, 0.0, 1.0, 0.5])) == pytest.approx(6.25 / 9)


def test_under_bf16_the_statistics_and_losses_are_fp32_and_near_the_exact_ones():
    student, teacher = networks()
    exact = outcome(student, teacher, batch(), mixing(), mix_on="probs")
    with torch.autocast("cpu", torch.bfloat16):
        rough = outcome(student, teacher, batch(), mixing(), mix_on="probs")
    outputs = [rough.trust, rough.pseudo.probs, rough.pseudo.confidence, rough.labeled_logits]
    assert {part.dtype for part in (*outputs, *rough.losses)} == {torch.float32}
    torch.testing.assert_close(tuple(rough.losses), tuple(exact.losses), rtol=0.05, atol=0.01)
    torch.testing.assert_close(rough.pseudo.probs, exact.pseudo.probs, rtol=0, atol=0.02)
