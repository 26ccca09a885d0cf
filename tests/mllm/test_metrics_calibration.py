import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sefar_mllm.evaluation.metrics import NUM_BINS, calibration
from tests.oracles import statistics

CONFIDENCE = st.floats(min_value=0.0, max_value=1.0, exclude_min=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CONFIDENCE, st.booleans()), min_size=1, max_size=40))
def test_the_error_is_that_of_plain_loops(rows):
    confidence, right = map(list, zip(*rows, strict=True))
    found = calibration(np.array(confidence), np.array(right))
    assert found.error == pytest.approx(
        statistics.calibration_error(confidence, right, NUM_BINS), abs=1e-12
    )
    assert sum(one.num_questions for one in found.bins) == len(rows)
    assert found.confidence == pytest.approx(math.fsum(confidence) / len(rows))


def test_edges_belong_to_the_bin_below():
    found = calibration(np.array([1 / 15, 2 / 15, 1.0]), np.array([True, False, True]))
    assert [i for i, one in enumerate(found.bins) if one.num_questions] == [0, 1, 14]


def test_a_calibrated_model_has_no_error():
    confidence = np.repeat([0.25, 0.5, 0.8], [4, 4, 5])
    right = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0], dtype=bool)
    assert calibration(confidence, right).error == pytest.approx(0)


def test_the_error_of_an_overconfident_model_is_its_overconfidence():
    rng = random.Random(0)
    confidence = np.array([rng.uniform(0.95, 1.0) for _ in range(200)])
    right = np.array([i % 4 == 0 for i in range(200)])
    found = calibration(confidence, right)
    assert found.error == pytest.approx(found.confidence - 0.25)
    assert found.bins[3].accuracy is None


def test_log_probabilities_are_refused():
    with pytest.raises(ValueError, match="were log-probabilities passed"):
        calibration(np.array([-0.3, 0.2]), np.array([True, False]))
