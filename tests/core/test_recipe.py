"""The parts of the method by the names that the settings have for them."""

from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch

from sefar_core.config import LossConfig
from sefar_core.recipe import choose_method, choose_regulation
from tests.oracles import method as oracle

CONFIDENCE, SPREAD = [0.2, 0.6, 0.9], [0.3, 0.1, 0.02]
# Without a spread the paper's weight is its limit at spread 0.
EXPECTED = {
    "adaptive": [oracle.adaptive_weight(c, s) for c, s in zip(CONFIDENCE, SPREAD, strict=True)],
    "confidence_only": [oracle.adaptive_weight(c, 0.0) for c in CONFIDENCE],
    "fixed": [0.0, 1.0, 1.0],
}
NAMES = get_args(get_type_hints(LossConfig)["regulation"])


@pytest.mark.parametrize("name", NAMES)
def test_every_regulation_of_the_settings_is_the_rule_of_that_name(name):
    regulate = choose_regulation(name, threshold=0.5)
    trust = regulate(torch.tensor(CONFIDENCE), torch.tensor(SPREAD))
    assert trust.tolist() == pytest.approx(EXPECTED[name], abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_step_weighs_by_the_regulation_and_threshold_of_its_settings(name):
    config = replace(LossConfig(), regulation=name, threshold=0.5)
    regulate = choose_method(config, torch.Generator()).regulate
    trust = regulate(torch.tensor(CONFIDENCE), torch.tensor(SPREAD))
    assert trust.tolist() == pytest.approx(EXPECTED[name], abs=1e-6)


def test_a_regulation_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="adaptive, confidence_only, fixed, got 'strict'"):
        choose_regulation("strict", threshold=0.5)
