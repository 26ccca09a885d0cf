from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch

from sefar_core.config import LossConfig, RegulationName
from sefar_core.regulation import (
    adaptive_weight,
    choose_regulation,
    confidence_only,
    fixed_threshold,
)
from sefar_core.train import choose_method
from tests.oracles import method as oracle

RULES = (adaptive_weight, confidence_only, partial(fixed_threshold, threshold=0.3))


def test_weight_follows_the_equation():
    confidence, spread = torch.cartesian_prod(
        torch.tensor([0.0, 0.1, 0.5, 0.95, 1.0]), torch.tensor([0.0, 1e-3, 0.05, 0.3])
    ).unbind(dim=1)
    pairs = zip(confidence.tolist(), spread.tolist(), strict=True)
    expected = [oracle.adaptive_weight(one, other) for one, other in pairs]
    assert adaptive_weight(confidence, spread).tolist() == pytest.approx(expected, abs=1e-6)


def test_weight_has_the_values_worked_out_for_the_public_code():
    confidence = torch.tensor([0.9, 0.7, 0.1, 1.0, 1.0])
    got = adaptive_weight(confidence, torch.tensor([1e-6, 1e-6, 1e-6, 0.03, 0.1]))
    assert got.tolist() == pytest.approx([0.871, 0.662, 0.332, 0.682, 0.245], abs=6e-4)


def test_weight_falls_with_doubt_of_either_kind_and_carries_no_gradient():
    steps = torch.linspace(0.01, 0.99, 50, requires_grad=True)
    by_confidence = adaptive_weight(steps, torch.full_like(steps, 0.1))
    by_spread = adaptive_weight(torch.full_like(steps, 0.9), steps)
    assert (by_confidence.diff() > 0).all()
    assert (by_spread.diff() < 0).all()
    assert not by_confidence.requires_grad


def test_threshold_asks_confidence_alone():
    confidence = torch.tensor([0.29, 0.3, 0.9])
    got = fixed_threshold(confidence, torch.tensor([0.0, 0.5, 0.5]), threshold=0.3)
    assert got.tolist() == [0, 1, 1]


def test_a_single_prediction_has_its_confidence_alone():
    confidence = torch.tensor([0.1, 0.5, 0.9])
    got = confidence_only(confidence, torch.full((3,), torch.nan))
    steady = adaptive_weight(confidence, torch.full((3,), 1e-9))
    torch.testing.assert_close(got, steady)


@pytest.mark.parametrize("rule", RULES)
def test_logits_are_refused_and_a_diverged_teacher_has_no_weight_that_is_a_number(rule):
    with pytest.raises(ValueError, match=r"\[3\.7, 3\.7\]; were logits passed"):
        rule(torch.tensor([3.7, torch.nan]), torch.tensor([0.1, torch.nan]))
    got = rule(torch.tensor([0.5, torch.nan]), torch.tensor([0.1, torch.nan]))
    assert got.isnan().tolist() == [False, True]


def test_the_spread_of_a_single_pass_is_refused():
    with pytest.raises(ValueError, match="at least two dropout passes"):
        adaptive_weight(torch.tensor([0.5]), torch.tensor([float("nan")]))


CONFIDENCE, SPREAD = [0.2, 0.6, 0.9], [0.3, 0.1, 0.02]
# Without a spread the paper's weight is its limit at spread 0.
EXPECTED = {
    "adaptive": [oracle.adaptive_weight(c, s) for c, s in zip(CONFIDENCE, SPREAD, strict=True)],
    "confidence_only": [oracle.adaptive_weight(c, 0.0) for c in CONFIDENCE],
    "fixed": [0.0, 1.0, 1.0],
}


@pytest.mark.parametrize("name", get_args(RegulationName))
def test_every_regulation_of_the_settings_is_the_rule_of_that_name(name):
    in_the_step = choose_method(replace(LossConfig(), regulation=name, threshold=0.5)).regulate
    for regulate in (choose_regulation(name, threshold=0.5), in_the_step):
        trust = regulate(torch.tensor(CONFIDENCE), torch.tensor(SPREAD))
        assert trust.tolist() == pytest.approx(EXPECTED[name], abs=1e-6)


def test_an_unknown_regulation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="adaptive, confidence_only, fixed, got 'strict'"):
        choose_regulation("strict", threshold=0.5)
