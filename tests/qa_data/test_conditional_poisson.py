"""Random sets of fixed size against the enumeration of all subsets."""

import random
from collections import Counter

import numpy as np
import pytest

from qa_data.conditional_poisson import draw_set, draw_table, inclusions, weights_for
from tests.oracles import qa as oracle

CASES = [
    ([0.5, 0.5], 1),
    ([0.9, 0.6, 0.3, 0.2], 2),
    ([0.999, 0.4, 0.35, 0.2, 0.051], 2),
    ([0.75] * 4, 3),
    ([0.02, 0.98, 0.5, 0.6, 0.7, 0.8, 0.4], 4),
]


@pytest.mark.parametrize(("inclusion", "size"), CASES)
def test_the_weights_include_each_unit_as_often_as_asked(inclusion, size):
    inclusion = [one * size / sum(inclusion) for one in inclusion]
    weights = weights_for(inclusion)
    assert oracle.inclusions(weights, size) == pytest.approx(inclusion, abs=1e-10)
    assert inclusions(weights, size) == pytest.approx(inclusion, abs=1e-10)


def test_five_hundred_units_of_very_different_size_are_solved():
    share = 1 / np.arange(1.0, 531) ** 1.2
    share[:2] = 1.2
    inclusion = 4 * share / share.sum()
    assert inclusion.max() > 0.9
    assert inclusions(weights_for(inclusion), 4) == pytest.approx(inclusion, abs=1e-11)


def test_a_unit_that_must_not_be_drawn_weighs_nothing():
    weights = weights_for([0.5, 0.0, 0.7, 0.8])
    assert weights[1] == 0
    assert oracle.inclusions(weights, 2) == pytest.approx([0.5, 0, 0.7, 0.8], abs=1e-10)


def test_sets_are_drawn_as_often_as_their_weights_say():
    weights = np.array([0.1, 3.0, 0.0, 1.0, 0.4, 2.0])
    table = draw_table(weights, 3)
    rng = random.Random(7)
    draws = 20_000
    found = Counter(tuple(draw_set(table, rng)) for _ in range(draws))
    for members, share in oracle.set_probabilities(weights, 3).items():
        tolerance = 4 * (draws * share * (1 - share)) ** 0.5
        assert abs(found[members] - draws * share) <= tolerance
    assert found.total() == draws


def test_a_set_of_all_or_of_none_is_what_it_must_be():
    rng = random.Random(0)
    assert draw_set(draw_table(np.array([0.2, 5.0]), 2), rng) == [0, 1]
    assert draw_set(draw_table(np.array([0.2, 5.0]), 0), rng) == []


@pytest.mark.parametrize("inclusion", [[0.5, 0.6], [1.0, 1.0], [-0.1, 0.6, 0.5], [0.0, 0.0]])
def test_impossible_inclusions_are_refused(inclusion):
    with pytest.raises(ValueError, match="inclusion probabilities must be in"):
        weights_for(inclusion)
