import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sefar_mllm.evaluation.bootstrap import class_mean, draw_sources, mean
from tests.oracles import statistics

# Sources of very unequal size, classes that a resample can miss, a value of its own everywhere.
ROWS = [
    (0.013 * i + (i % 3) / 7, source, label)
    for i, (source, label) in enumerate(
        [("b", 4), ("a", 2), ("b", 4), ("c", 9), ("a", 2), ("a", 4), ("b", 7), ("b", 4), ("d", 9)]
    )
]


def columns(rows):
    values, sources, labels = zip(*rows, strict=True)
    return np.array(values), list(sources), np.array(labels)


def drawn(sources, resamples=60, seed=0):
    return draw_sources(sources, resamples=resamples, rng=np.random.default_rng(seed))


def test_draws_are_those_of_a_bootstrap_that_writes_every_question_out():
    values, sources, labels = columns(ROWS)
    draws = drawn(sources)
    expected = statistics.bootstrap_means(ROWS, draws.times.tolist())
    micro, macro = mean(values, draws), class_mean(values, labels, draws)
    np.testing.assert_allclose(micro.draws, [one for one, _ in expected])
    np.testing.assert_allclose(macro.draws, [other for _, other in expected])
    assert micro.value == pytest.approx(statistics.average(values.tolist()))
    pairs = [(value, label) for value, _, label in ROWS]
    assert macro.value == pytest.approx(statistics.class_average(pairs))


def test_the_interval_holds_the_middle_95_percent_of_the_draws():
    values, sources, _ = columns(ROWS)
    found = mean(values, drawn(sources, resamples=333))
    interval = found.interval
    assert interval.value == found.value
    assert interval.low == pytest.approx(statistics.percentile(found.draws.tolist(), 2.5))
    assert interval.high == pytest.approx(statistics.percentile(found.draws.tolist(), 97.5))
    assert interval.low < interval.value < interval.high


def test_every_resample_draws_as_many_sources_as_there_are_across_blocks_too():
    draws = drawn([f"s{i % 7}" for i in range(50)], resamples=700)
    assert (draws.times.sum(axis=1) == 7).all()
    assert len(np.unique(draws.times, axis=0)) > 300
    np.testing.assert_allclose(draws.times.mean(axis=0), 1, atol=0.15)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(len(ROWS))))
def test_the_order_of_the_questions_changes_nothing(order):
    values, sources, labels = columns(ROWS)
    moved = columns([ROWS[i] for i in order])
    one = class_mean(values, labels, drawn(sources))
    other = class_mean(moved[0], moved[2], drawn(moved[1]))
    np.testing.assert_allclose(one.draws, other.draws)


def test_a_constant_has_an_interval_of_no_width():
    _, sources, labels = columns(ROWS)
    found = class_mean(np.full(len(labels), 0.37), labels, drawn(sources)).interval
    assert (found.low, found.high) == pytest.approx((0.37, 0.37))


def test_a_part_is_drawn_with_its_whole_and_resamples_without_it_do_not_count():
    values, sources, _ = columns(ROWS)
    whole = drawn(sources)
    chosen = np.array([source in "cd" for source in sources])
    found = mean(values[chosen], whole.among(chosen))
    c, d = values[3], values[8]
    for times, draw in zip(whole.times, found.draws, strict=True):
        count = times[2] + times[3]
        if count == 0:
            assert np.isnan(draw)
        else:
            assert draw == pytest.approx((times[2] * c + times[3] * d) / count)
    assert np.isnan(found.draws).any()
    assert found.interval.low == pytest.approx(min(c, d))


def test_a_mean_over_nothing_is_refused():
    _, sources, _ = columns(ROWS)
    none = np.zeros(len(sources), dtype=bool)
    with pytest.raises(ValueError, match="no question"):
        mean(np.zeros(0), drawn(sources).among(none))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    # Sources differ in difficulty, on the average 0.5; 60 sources stand for FineGym's 65.
    rng = random.Random(3)
    held = 0
    for trial in range(300):
        (answers, _), sources = statistics.trained_twice(1, 60, rng=rng, seed_spread=0.0, gain=0.1)
        found = mean(np.array(answers[0]), drawn(sources, resamples=400, seed=trial)).interval
        held += found.low <= 0.6 <= found.high
    assert 0.90 <= held / 300 <= 0.98
