import math
import random

import numpy as np
import pytest

from qa_data.files import SefarError
from sefar_core.intervals import resample_sources
from sefar_mllm.evaluation.metrics import compute_metrics
from sefar_mllm.evaluation.significance import align_runs, compare, mcnemar
from tests.oracles import statistics
from tests.oracles.toy_answers import made


def compared(first, second, resamples=400):
    return compare(first, second, resamples=resamples, rng=np.random.default_rng(0))


def test_the_difference_is_that_of_a_slow_bootstrap_with_the_same_draws():
    first = made(30, lambda i, label: i % 7 < 4, sources=6)
    second = made(30, lambda i, label: i % 5 < 2 or label == 1, sources=6)
    found = compared(first, second, resamples=100)
    draws = resample_sources(
        [p.source for p in first], resamples=100, rng=np.random.default_rng(0)
    ).times.tolist()
    rows = [
        (float(p.choice == p.answer) - float(q.choice == q.answer), p.source, p.label)
        for p, q in zip(first, second, strict=True)
    ]
    slow = statistics.bootstrap_means(rows, draws)
    for interval, values in zip((found.micro, found.macro), zip(*slow, strict=True), strict=True):
        assert interval.low == pytest.approx(statistics.percentile(values, 2.5))
        assert interval.high == pytest.approx(statistics.percentile(values, 97.5))


def test_paired_intervals_see_through_shared_difficulty():
    # Sources differ much, the two models little: only the paired difference is clear.
    first = made(200, lambda i, label: i % 5 < 2 or i % 4 == 0)
    second = made(200, lambda i, label: i % 5 < 2)
    both = compared(first, second)
    alone = [
        compute_metrics(one, resamples=400, rng=np.random.default_rng(0)).micro
        for one in (first, second)
    ]
    assert both.micro.value == pytest.approx(alone[0].value - 0.4)
    assert both.micro.low > 0
    assert alone[0].low < alone[1].high
    assert (both.only_first_right, both.only_second_right) == (30, 0)
    assert both.mcnemar_p == 2 * 0.5**30


def test_a_model_does_not_differ_from_itself():
    one = made(40, lambda i, label: i % 3 == 0)
    found = compared(one, one)
    assert (found.micro.low, found.micro.value, found.micro.high) == (0, 0, 0)
    assert found.macro.high == 0
    assert found.mcnemar_p == 1


def test_turning_the_models_round_turns_the_difference_round():
    first = made(60, lambda i, label: i % 7 < 4)
    second = made(60, lambda i, label: label == 1)
    one, other = compared(first, second), compared(second, first)
    assert one.macro.low == pytest.approx(-other.macro.high)
    assert (one.only_first_right, one.mcnemar_p) == (other.only_second_right, other.mcnemar_p)


def test_the_order_of_the_questions_changes_nothing():
    first = made(60, lambda i, label: i % 7 < 4)
    second = made(60, lambda i, label: label == 1)
    moved = random.Random(0).sample(second, len(second))
    assert compared(first, moved) == compared(first, second)


def test_questions_without_classes_have_no_macro_difference():
    one = [p.__class__(**{**vars(p), "label": None}) for p in made(8, lambda i, label: True)]
    assert compared(one, one).macro is None


def test_different_questions_are_not_compared():
    one = made(5, lambda i, label: True)
    with pytest.raises(SefarError, match="differ in their questions"):
        compared(one, made(6, lambda i, label: True))
    with pytest.raises(SefarError, match="no predictions to compare"):
        align_runs([[], []])


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (2, 9), (7, 3), (0, 12)])
def test_mcnemar_counts_all_divisions_of_the_discordant_questions(first, second):
    assert mcnemar(first, second) == pytest.approx(statistics.sign_test(first, second), rel=1e-12)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_mcnemar_stays_exact_with_thousands_of_questions():
    # The normal approximation is good here; far out, what is left is too small for a float.
    count, gap = 6000, 160
    z = (gap - 1) / math.sqrt(count)
    assert mcnemar((count + gap) // 2, (count - gap) // 2) == pytest.approx(
        math.erfc(z / math.sqrt(2)), rel=1e-3
    )
    assert mcnemar(0, 8521) == 0.0


def test_negative_counts_are_refused():
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 3)
