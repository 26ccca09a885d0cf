import math
import random
from dataclasses import replace

import numpy as np
import pytest

from qa_data.files import SefarError
from sefar_mllm.evaluation.metrics import compute_metrics
from sefar_mllm.evaluation.significance import (
    compare,
    compare_seeds,
    draw_runs,
    over_seeds,
    share_over_seeds,
)
from tests.oracles import statistics
from tests.oracles.toy_answers import made, predictions

RNG = np.random.default_rng


def runs(*shares):
    """Runs that are right in as many tenths of the questions, by another pattern each."""
    return [made(60, lambda i, label, s=s: (3 * i + label) % 10 < s, sources=7) for s in shares]


def test_the_difference_is_that_of_a_slow_bootstrap_with_the_same_draws():
    firsts, seconds = runs(6, 7, 9), runs(3, 5)
    found = compare_seeds(firsts, seconds, resamples=100, rng=RNG(4))
    rng = RNG(4)  # the draws in their order: sources, runs of the first, runs of the second
    times = rng.multinomial(7, [1 / 7] * 7, size=100).tolist()
    first_runs = rng.multinomial(2, [1 / 3] * 3, size=100).tolist()
    second_runs = rng.multinomial(1, [1 / 2] * 2, size=100).tolist()

    def drawn(side, picks, kind):
        rows = [[(float(p.choice == p.answer), p.source, p.label) for p in run] for run in side]
        whole = [statistics.bootstrap_means(run, [[1] * 7])[0][kind] for run in rows]
        each = [[pair[kind] for pair in statistics.bootstrap_means(run, times)] for run in rows]
        return [
            statistics.average([run[r] for run in each])
            + statistics.average([whole[k] for k, n in enumerate(pick) for _ in range(n)])
            - statistics.average(whole)
            for r, pick in enumerate(picks)
        ]

    for kind, interval in enumerate((found.micro, found.macro)):
        gaps = [
            a - b
            for a, b in zip(
                drawn(firsts, first_runs, kind), drawn(seconds, second_runs, kind), strict=True
            )
        ]
        assert interval.low == pytest.approx(statistics.percentile(gaps, 2.5))
        assert interval.high == pytest.approx(statistics.percentile(gaps, 97.5))
    assert found.micro.value == pytest.approx(
        np.mean([np.mean([p.choice == p.answer for p in run]) for run in firsts])
        - np.mean([np.mean([p.choice == p.answer for p in run]) for run in seconds])
    )


def test_models_that_answer_alike_in_every_seed_do_not_differ():
    same = runs(6, 6, 6)
    found = compare_seeds(same, same[:2], resamples=200, rng=RNG(0))
    assert (found.micro.low, found.micro.value, found.micro.high) == pytest.approx((0, 0, 0))
    assert (found.num_first, found.num_second) == (3, 2)


def test_one_seed_on_each_side_is_the_plain_comparison():
    (first,), (second,) = runs(7), runs(4)
    found = compare_seeds([first], [second], resamples=300, rng=RNG(1))
    plain = compare(first, second, resamples=300, rng=RNG(1))
    for one, other in ((found.micro, plain.micro), (found.macro, plain.macro)):
        assert (one.low, one.value, one.high) == pytest.approx((other.low, other.value, other.high))


def test_the_order_of_questions_and_of_runs_changes_nothing_that_matters():
    firsts, seconds = runs(6, 7, 9), runs(3, 5)
    moved = [random.Random(k).sample(run, len(run)) for k, run in enumerate(firsts)]
    one = compare_seeds(firsts, seconds, resamples=200, rng=RNG(2))
    other = compare_seeds(moved, seconds, resamples=200, rng=RNG(2))
    assert one.micro.low == pytest.approx(other.micro.low)
    assert one.macro.high == pytest.approx(other.macro.high)
    turned = compare_seeds(firsts[::-1], seconds, resamples=200, rng=RNG(2))
    assert turned.micro.value == pytest.approx(one.micro.value)


def test_mean_and_spread_are_those_of_the_runs():
    found = over_seeds(runs(6, 7, 9), resamples=200, rng=RNG(0))
    values = [compute_metrics(run, resamples=100, rng=RNG(0)).micro.value for run in runs(6, 7, 9)]
    average = math.fsum(values) / 3
    assert found.num_seeds == 3
    assert found.micro.mean.value == pytest.approx(average)
    assert found.micro.spread == pytest.approx(
        math.sqrt(sum((value - average) ** 2 for value in values) / 2)
    )


def test_one_seed_has_no_spread_and_the_interval_of_its_sources():
    (run,) = runs(6)
    found = over_seeds([run], resamples=200, rng=RNG(5))
    alone = compute_metrics(run, resamples=200, rng=RNG(5))
    assert found.micro.spread is None
    for one, other in ((found.micro.mean, alone.micro), (found.macro.mean, alone.macro)):
        assert (one.low, one.value, one.high) == pytest.approx((other.low, other.value, other.high))


def test_a_share_of_the_questions_has_the_interval_of_an_accuracy():
    several = runs(6, 7, 9)
    right = [np.array([float(p.choice == p.answer) for p in run]) for run in several]
    sources = [p.source for p in several[0]]
    found = share_over_seeds(right, sources, resamples=200, rng=RNG(3))
    assert found == over_seeds(several, resamples=200, rng=RNG(3)).micro


def test_drawn_runs_vary_as_much_as_the_mean_of_so_many_runs_does():
    values = np.array([0.31, 0.44, 0.62, 0.35])
    for count in (2, 3, 4):
        means = draw_runs(count, resamples=200_000, rng=RNG(0)) @ values[:count]
        assert means.var() == pytest.approx(np.var(values[:count], ddof=1) / count, rel=0.02)


def test_runs_of_other_questions_are_refused():
    other = [replace(p, video="elsewhere") for p in runs(6)[0]]
    with pytest.raises(SefarError, match="differ in their questions"):
        over_seeds([*runs(6), other], resamples=100, rng=RNG(0))
    with pytest.raises(SefarError, match="no predictions"):
        over_seeds([], resamples=100, rng=RNG(0))
    with pytest.raises(SefarError, match="runs of both models, got 1 and 0"):
        compare_seeds(runs(6), [], resamples=100, rng=RNG(0))


@pytest.mark.slow
@pytest.mark.parametrize(("seed_spread", "least"), [(0.0, 0.92), (0.05, 0.88)])
def test_the_interval_holds_the_true_difference(seed_spread, least):
    rng, held = random.Random(11), 0
    for trial in range(100):
        models, sources = statistics.trained_twice(
            3, 40, rng=rng, seed_spread=seed_spread, gain=0.06
        )
        labels = [0] * len(sources)
        sides = [[predictions(run, sources, labels) for run in model] for model in models]
        found = compare_seeds(*sides, resamples=200, rng=RNG(trial)).micro
        held += found.low <= 0.06 <= found.high
    assert held / 100 >= least
