import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sefar_core.intervals import (
    Interval,
    class_mean,
    clustered_interval,
    in_percent,
    mean,
    resample_sources,
    sources_of,
)
from tests.oracles import statistics

# Sources of very unequal size, classes that a resample can miss, a value of its own everywhere.
ROWS = [
    (0.013 * i + (i % 3) / 7, source, label)
    for i, (source, label) in enumerate(
        [("b", 4), ("a", 2), ("b", 4), ("c", 9), ("a", 2), ("a", 4), ("b", 7), ("b", 4), ("d", 9)]
    )
]


def columns(rows=ROWS):
    values, sources, labels = zip(*rows, strict=True)
    return np.array(values), list(sources), np.array(labels)


def drawn(sources, resamples=60, seed=0):
    return resample_sources(sources, resamples=resamples, rng=np.random.default_rng(seed))


def test_draws_are_those_of_a_bootstrap_that_writes_every_question_out():
    values, sources, labels = columns()
    draws = drawn(sources)
    expected = statistics.bootstrap_means(ROWS, draws.times.tolist())
    micro, macro = mean(values, draws), class_mean(values, labels, draws)
    np.testing.assert_allclose(micro.draws, [one for one, _ in expected])
    np.testing.assert_allclose(macro.draws, [other for _, other in expected])
    assert micro.value == pytest.approx(statistics.average(values.tolist()))
    pairs = [(value, label) for value, _, label in ROWS]
    assert macro.value == pytest.approx(statistics.class_average(pairs))
    constant = class_mean(np.full(len(labels), 0.37), labels, draws).interval
    assert constant.limits == pytest.approx((0.37, 0.37))


def test_the_interval_holds_the_middle_95_percent_of_the_draws():
    values, sources, _ = columns()
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


@given(st.permutations(range(len(ROWS))))
def test_the_order_of_the_questions_changes_nothing(order):
    values, sources, labels = columns()
    moved = columns([ROWS[i] for i in order])
    one = class_mean(values, labels, drawn(sources))
    other = class_mean(moved[0], moved[2], drawn(moved[1]))
    np.testing.assert_allclose(one.draws, other.draws)


def test_a_part_is_drawn_with_its_whole_and_resamples_without_it_do_not_count():
    values, sources, _ = columns()
    whole = drawn(sources)
    chosen = np.array([source in "cd" for source in sources])
    found = mean(values[chosen], whole.among(chosen))
    c, d = values[3], values[8]
    for times, draw in zip(whole.times, found.draws, strict=True):
        count = times[2] + times[3]
        expected = (times[2] * c + times[3] * d) / count if count else np.nan
        assert draw == pytest.approx(expected, nan_ok=True)
    assert np.isnan(found.draws).any()
    assert found.interval.low == pytest.approx(min(c, d))
    of_a = np.array([source == "a" for source in sources])
    assert mean(values[of_a], whole.among(of_a)).interval.limits is None  # about one source
    with pytest.raises(ValueError, match="no question"):
        mean(np.zeros(0), whole.among(np.zeros(len(sources), dtype=bool)))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    # Sources differ in difficulty, on the average 0.5; 60 sources, as FineGym has 65.
    rng = random.Random(3)
    held = 0
    for trial in range(300):
        (answers, _), sources = statistics.trained_twice(1, 60, rng=rng, seed_spread=0.0, gain=0.1)
        found = mean(np.array(answers[0]), drawn(sources, resamples=400, seed=trial)).interval
        held += found.low <= 0.6 <= found.high
    assert 0.90 <= held / 300 <= 0.98


def test_intervals_of_known_sources_are_those_that_were_published():
    """Written down before both halves shared this file: same seeds, same draws, same digits.

    90 answers of two models about clips of 12 known source videos, and their classes.
    """
    rng = random.Random(7)
    sources = [f"s{rng.randint(0, 11)}" for _ in range(90)]
    right = np.array([float(rng.random() < 0.3 + 0.05 * int(name[1:])) for name in sources])
    other = np.array([float(rng.random() < 0.5) for _ in sources])
    labels = np.array([rng.randint(0, 4) for _ in sources])
    assert clustered_interval(right, sources) == (0.44083870967741934, 0.720474910394265)
    gain = clustered_interval(right - other, sources, draws=333, seed=5)
    assert gain == (-0.10050657174151151, 0.30945017182130585)
    draws = drawn(sources, resamples=700, seed=3)
    chosen = labels == 2
    found = [
        mean(right, draws),
        mean(right - other, draws),
        class_mean(right, labels, draws),
        mean(right[chosen], draws.among(chosen)),
    ]
    assert [one.interval.limits for one in found] == [
        (0.44808728448275864, 0.7205131246046805),
        (-0.07108585858585859, 0.31122117400419286),
        (0.4738376099706745, 0.7340271464646464),
        (0.31583333333333335, 0.9259615384615384),
    ]


def test_each_clip_of_unknown_source_is_drawn_by_itself():
    count, source = sources_of(["b", "", "a", "b", ""])
    assert (count, source.tolist()) == (4, [1, 2, 0, 1, 3])
    assert sources_of(["b", "a"])[1].tolist() == [1, 0]
    right = np.array([1.0, 0, 1, 0, 1, 0])
    low, high = clustered_interval(right, [""] * 6)
    assert high - low > 0.4
    assert (low, high) == clustered_interval(right, [f"clip {i}" for i in range(6)])
    assert mean(right, drawn([""] * 6, resamples=500)).interval.high - 0.5 > 0.2


def test_one_source_has_no_interval_and_says_so():
    values = np.array([1.0, 0.0, 1.0])
    assert clustered_interval(values, ["a"] * 3) is None
    assert clustered_interval(values[:1], [""]) is None
    draws = drawn(["a"] * 3)
    found = mean(values, draws).interval
    assert (found.limits, found.contains_zero, found.is_above_zero) == (None, None, None)
    assert str(found) == "66.7 (no interval)"
    assert class_mean(values, np.array([1, 1, 2]), draws).interval.limits is None


@pytest.mark.parametrize(
    "low, high, above, holds", [(0.1, 0.3, True, False), (-0.1, 0.2, False, True)]
)
def test_an_interval_knows_where_zero_is(low, high, above, holds):
    found = Interval(value=0.15, low=low, high=high)
    assert (found.is_above_zero, found.contains_zero) == (above, holds)
    ends = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    assert in_percent(0.15, found.limits, sign="+") == f"+15.0 {ends}"
