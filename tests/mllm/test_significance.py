import math
import random
from dataclasses import replace

import numpy as np
import pytest

from qa_data.files import SefarError
from sefar_core.intervals import class_mean, mean, resample_sources
from sefar_mllm.evaluation.metrics import compute_metrics
from sefar_mllm.evaluation.significance import (
    ablation_drop,
    align_runs,
    compare_drops,
    compare_seeds,
    draw_runs,
    mcnemar,
    mcnemar_of,
    over_seeds,
    share_over_seeds,
)
from tests.oracles import statistics
from tests.oracles.toy_answers import made, predictions

RNG = np.random.default_rng


def runs(*shares):
    """Runs that are right in as many tenths of the questions, by another pattern each."""
    return [made(60, lambda i, label, s=s: (3 * i + label) % 10 < s, sources=7) for s in shares]


def right(run):
    return np.array([float(p.choice == p.answer) for p in run])


def numbers(interval):
    return pytest.approx((interval.low, interval.value, interval.high))


def triple(interval):
    return (interval.low, interval.value, interval.high)


class SlowBootstrap:
    """The draws of a comparison in their order: the sources, then the runs of each model."""

    def __init__(self, seed, *counts):
        rng = RNG(seed)
        self.times = rng.multinomial(7, [1 / 7] * 7, size=100).tolist()
        self.picks = [
            rng.multinomial(count - 1, [1 / count] * count, size=100).tolist() for count in counts
        ]

    def accuracies(self, run, times):
        """Micro accuracy and class mean of a run, on each resample of the sources."""
        rows = [(float(p.choice == p.answer), p.source, p.label) for p in run]
        return statistics.bootstrap_means(rows, times)

    def lost(self, pair, times, kind):
        """Accuracy of a run less that of the same run under a control, if there is one."""
        own, *control = (self.accuracies(run, times) for run in pair)
        if not control:
            return [row[kind] for row in own]
        return [a[kind] - b[kind] for a, b in zip(own, control[0], strict=True)]

    def mean(self, pairs, picks, kind):
        """The mean of the runs on each resample, moved by the runs that were drawn."""
        whole = [self.lost(pair, [[1] * 7], kind)[0] for pair in pairs]
        each = [self.lost(pair, self.times, kind) for pair in pairs]
        return [
            statistics.average([one[r] for one in each])
            + statistics.average([whole[k] for k, n in enumerate(pick) for _ in range(n)])
            - statistics.average(whole)
            for r, pick in enumerate(picks)
        ]

    def check(self, found, *sides):
        """The intervals are those of the first side minus the second, if there is one."""
        for kind, interval in enumerate((found.micro, found.macro)):
            means = [
                self.mean(pairs, picks, kind)
                for pairs, picks in zip(sides, self.picks, strict=True)
            ]
            draws = [row[0] - sum(row[1:]) for row in zip(*means, strict=True)]
            assert interval.low == pytest.approx(statistics.percentile(draws, 2.5))
            assert interval.high == pytest.approx(statistics.percentile(draws, 97.5))


def test_the_difference_is_that_of_a_slow_bootstrap_with_the_same_draws():
    firsts, seconds = runs(6, 7, 9), runs(3, 5)
    found = compare_seeds(firsts, seconds, resamples=100, rng=RNG(4))
    slow = SlowBootstrap(4, 3, 2)
    slow.check(found, [(run,) for run in firsts], [(run,) for run in seconds])
    means = [np.mean([right(run).mean() for run in side]) for side in (firsts, seconds)]
    assert found.micro.value == pytest.approx(means[0] - means[1])
    assert (found.num_first, found.num_second) == (3, 2)


def test_a_drop_is_that_of_a_slow_bootstrap_with_one_draw_of_runs_for_both_sides():
    own, control = runs(9, 6, 8), runs(5, 4, 2)
    found = ablation_drop(own, control, resamples=100, rng=RNG(4))
    SlowBootstrap(4, 3).check(found, list(zip(own, control, strict=True)))
    assert found.micro.value == pytest.approx(0.4, abs=0.02)


def test_the_difference_of_two_drops_is_that_of_a_slow_bootstrap():
    first, second = (runs(9, 6, 8), runs(5, 4, 2)), (runs(7, 8), runs(6, 5))
    found = compare_drops(first, second, resamples=100, rng=RNG(2))
    sides = [list(zip(*pair, strict=True)) for pair in (first, second)]
    SlowBootstrap(2, 3, 2).check(found, *sides)
    assert (found.num_first, found.num_second) == (3, 2)
    same = compare_drops(first, first, resamples=100, rng=RNG(0)).macro
    assert same.value == 0


def test_one_seed_on_each_side_has_the_interval_of_the_sources():
    (first,), (second,) = runs(7), runs(4)
    found = compare_seeds([first], [second], resamples=300, rng=RNG(1))
    draws = resample_sources([p.source for p in first], resamples=300, rng=RNG(1))
    gap = right(first) - right(second)
    labels = np.array([p.label for p in first])
    assert triple(found.micro) == numbers(mean(gap, draws).interval)
    assert triple(found.macro) == numbers(class_mean(gap, labels, draws).interval)
    same = compare_seeds(runs(6, 6, 6), runs(6, 6), resamples=200, rng=RNG(0))
    assert triple(same.micro) == pytest.approx((0, 0, 0))


def test_mean_and_spread_are_those_of_the_runs():
    several = runs(6, 7, 9)
    found = over_seeds(several, resamples=200, rng=RNG(3))
    values = [right(run).mean() for run in several]
    average = math.fsum(values) / 3
    assert found.num_seeds == 3
    assert found.micro.mean.value == pytest.approx(average)
    squares = sum((value - average) ** 2 for value in values)
    assert found.micro.spread == pytest.approx(math.sqrt(squares / 2))
    sources = [p.source for p in several[0]]
    share = share_over_seeds(list(map(right, several)), sources, resamples=200, rng=RNG(3))
    assert share == found.micro
    alone = over_seeds(several[:1], resamples=200, rng=RNG(5))
    plain = compute_metrics(several[0], resamples=200, rng=RNG(5))
    assert alone.micro.spread is None
    assert triple(alone.micro.mean) == numbers(plain.micro)
    assert triple(alone.macro.mean) == numbers(plain.macro)


def test_drawn_runs_vary_as_much_as_the_mean_of_so_many_runs_does():
    values = np.array([0.31, 0.44, 0.62, 0.35])
    for count in (2, 3, 4):
        means = draw_runs(count, resamples=200_000, rng=RNG(0)) @ values[:count]
        assert means.var() == pytest.approx(np.var(values[:count], ddof=1) / count, rel=0.02)


def test_paired_intervals_see_through_shared_difficulty():
    # Sources differ much, the two models little: only the paired difference is clear.
    first = made(200, lambda i, label: i % 5 < 2 or i % 4 == 0)
    second = made(200, lambda i, label: i % 5 < 2)
    both = compare_seeds([first], [second], resamples=400, rng=RNG(0))
    one, other = (compute_metrics(run, resamples=400, rng=RNG(0)).micro for run in (first, second))
    assert both.micro.low > 0 and one.low < other.high
    assert mcnemar_of(first, second) == mcnemar_of(second, first) == 2 * 0.5**30
    turned = compare_seeds([second], [first], resamples=400, rng=RNG(0))
    assert both.macro.low == pytest.approx(-turned.macro.high)


def test_the_order_of_questions_and_of_runs_changes_nothing():
    firsts, seconds = runs(6, 7, 9), runs(3, 5)
    moved = [random.Random(k).sample(run, len(run)) for k, run in enumerate(firsts)]
    one, other, turned = (
        compare_seeds(side, seconds, resamples=200, rng=RNG(2))
        for side in (firsts, moved, firsts[::-1])
    )
    assert triple(other.micro) == numbers(one.micro)
    assert triple(other.macro) == numbers(one.macro)
    assert turned.micro.value == pytest.approx(one.micro.value)
    nameless = [replace(p, label=None) for p in firsts[0]]
    assert compare_seeds([nameless], [nameless], resamples=100, rng=RNG(0)).macro is None


def test_runs_that_cannot_be_compared_are_refused():
    how = {"resamples": 100, "rng": RNG(0)}
    other = [replace(p, video="elsewhere") for p in runs(6)[0]]
    shorter = runs(6)[0][:-1]
    for stray in (other, shorter):
        with pytest.raises(SefarError, match="differ in their questions"):
            over_seeds([*runs(6), stray], **how)
    for nothing in ([], [[], []]):
        with pytest.raises(SefarError, match="no predictions"):
            align_runs(nothing)
    with pytest.raises(SefarError, match="runs of both models, got 1 and 0"):
        compare_seeds(runs(6), [], **how)
    with pytest.raises(SefarError, match="0 runs of the own test and 0 of the control"):
        ablation_drop([], [], **how)
    words = "3 runs of the own test and 2 of the control"
    with pytest.raises(SefarError, match=words):
        ablation_drop(runs(5, 5, 5), runs(5, 5), **how)
    with pytest.raises(SefarError, match=words):
        compare_drops((runs(5, 5, 5), runs(5, 5)), (runs(5), runs(5)), **how)


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
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("seed_spread", "least"), [(0.0, 0.92), (0.05, 0.88)])
def test_the_interval_holds_the_true_difference(seed_spread, least):
    rng, held = random.Random(11), 0
    for trial in range(40):
        models, sources = statistics.trained_twice(
            3, 40, rng=rng, seed_spread=seed_spread, gain=0.06
        )
        labels = [0] * len(sources)
        sides = [[predictions(run, sources, labels) for run in model] for model in models]
        found = compare_seeds(*sides, resamples=200, rng=RNG(trial)).micro
        held += found.low <= 0.06 <= found.high
    assert held / 40 >= least
