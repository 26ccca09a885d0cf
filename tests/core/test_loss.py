import math

import pytest
import torch

from sefar_core.loss import MIX_LOSSES, Losses, pseudo_label_loss, ramp
from tests.oracles import method as oracle

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 3.0]])
LABEL = torch.tensor([0, 1])
TRUST = torch.tensor([0.9, 0.25])
PROBS = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.15, 0.8]])


def test_pseudo_label_loss_weighs_cross_entropy_by_trust():
    clips = zip(LOGITS.tolist(), LABEL.tolist(), TRUST.tolist(), strict=True)
    expected = sum(trust * oracle.cross_entropy(row, label) / 2 for row, label, trust in clips)
    assert pseudo_label_loss(LOGITS, LABEL, TRUST).item() == pytest.approx(expected, rel=1e-5)
    assert pseudo_label_loss(LOGITS, LABEL, torch.zeros(2)) == 0


@pytest.mark.parametrize("name", MIX_LOSSES)
def test_mix_loss_follows_its_equation(name):
    equation = getattr(oracle, f"mix_loss_on_{name}")
    expected = equation(LOGITS.tolist(), PROBS.tolist(), TRUST.tolist())
    assert MIX_LOSSES[name](LOGITS, PROBS, TRUST).item() == pytest.approx(expected, rel=1e-5)
    assert MIX_LOSSES[name](LOGITS, PROBS, torch.zeros(2)) == 0


def test_ramp_has_the_published_values():
    # Epochs 5..29 of 30 with a warm-up of 5, as the public code prints them.
    got = [round(ramp((epoch + 1 - 5) / 25), 3) for epoch in range(5, 30)]
    assert got[:5] == [0.063, 0.125, 0.187, 0.249, 0.309]
    assert got[-3:] == [0.992, 0.998, 1.0]
    assert ramp(0.0) == 0 and ramp(1 / 3) == pytest.approx(math.sin(math.pi / 6))
    with pytest.raises(ValueError, match="part of the stage"):
        ramp(1.2)


def test_total_weighs_the_three_losses():
    losses = Losses(torch.tensor(1.0), torch.tensor(10.0), torch.tensor(100.0))
    assert losses.total(ramp=0.5, gamma_un=2.0, gamma_mix=3.0).item() == 1 + 0.5 * (20 + 300)
