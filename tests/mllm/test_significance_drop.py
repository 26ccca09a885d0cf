"""Accuracy that trained models lose under a control."""

import numpy as np
import pytest

from qa_data.files import SefarError
from sefar_mllm.evaluation.significance import ablation_drop, compare_drops, compare_seeds
from tests.oracles import statistics
from tests.oracles.toy_answers import made

RNG = np.random.default_rng


def runs(*shares):
    """Runs that are right in as many tenths of the questions, by another pattern each."""
    return [made(60, lambda i, label, s=s: (3 * i + label) % 10 < s, sources=7) for s in shares]


def accuracies(run, times):
    """Micro accuracy and class mean of a run, on each resample."""
    rows = [(float(p.choice == p.answer), p.source, p.label) for p in run]
    return statistics.bootstrap_means(rows, times)


def slow_drop(own, control, times, picks, kind):
    """Loss on each resample: of the sources in the mean of the runs, moved by the runs drawn."""

    def lost(pair, drawn):
        one, other = (accuracies(run, drawn) for run in pair)
        return [a[kind] - b[kind] for a, b in zip(one, other, strict=True)]

    pairs = list(zip(own, control, strict=True))
    whole = [lost(pair, [[1] * 7])[0] for pair in pairs]
    each = [lost(pair, times) for pair in pairs]
    return [
        statistics.average([one[r] for one in each])
        + statistics.average([whole[k] for k, n in enumerate(pick) for _ in range(n)])
        - statistics.average(whole)
        for r, pick in enumerate(picks)
    ]


def assert_interval(interval, draws):
    assert interval.low == pytest.approx(statistics.percentile(draws, 2.5))
    assert interval.high == pytest.approx(statistics.percentile(draws, 97.5))


def test_a_drop_is_that_of_a_slow_bootstrap_with_one_draw_of_runs_for_both_sides():
    own, control = runs(9, 6, 8), runs(5, 4, 2)
    found = ablation_drop(own, control, resamples=100, rng=RNG(4))
    rng = RNG(4)
    times = rng.multinomial(7, [1 / 7] * 7, size=100).tolist()
    picks = rng.multinomial(2, [1 / 3] * 3, size=100).tolist()
    for kind, interval in enumerate((found.micro, found.macro)):
        assert_interval(interval, slow_drop(own, control, times, picks, kind))
    assert found.micro.value == pytest.approx(0.4, abs=0.02)


def test_equal_drops_of_all_runs_add_no_variation_of_training():
    # Accuracies differ much from run to run, drops do not: paired by run this is seen.
    own, control = runs(9, 5, 7), runs(7, 3, 5)
    together = ablation_drop(own, control, resamples=400, rng=RNG(0)).micro
    apart = compare_seeds(own, control, resamples=400, rng=RNG(0)).micro
    assert together.value == pytest.approx(apart.value)
    assert together.low > 0.1
    assert apart.low < 0


def test_the_difference_of_two_drops_is_that_of_a_slow_bootstrap():
    first, second = (runs(9, 6, 8), runs(5, 4, 2)), (runs(7, 8), runs(6, 5))
    found = compare_drops(first, second, resamples=100, rng=RNG(2))
    rng = RNG(2)  # the draws in their order: sources, runs of the first, runs of the second
    times = rng.multinomial(7, [1 / 7] * 7, size=100).tolist()
    picks = rng.multinomial(2, [1 / 3] * 3, size=100).tolist()
    other = rng.multinomial(1, [1 / 2] * 2, size=100).tolist()
    for kind, interval in enumerate((found.micro, found.macro)):
        ours = slow_drop(*first, times, picks, kind)
        theirs = slow_drop(*second, times, other, kind)
        assert_interval(interval, [a - b for a, b in zip(ours, theirs, strict=True)])
    assert (found.num_first, found.num_second) == (3, 2)


def test_the_drops_of_a_model_and_itself_are_equal():
    pair = (runs(9), runs(5))
    found = compare_drops(pair, pair, resamples=100, rng=RNG(0)).macro
    assert (found.low, found.value, found.high) == (0, 0, 0)


@pytest.mark.parametrize("counts", [(3, 2), (0, 0)])
def test_runs_without_their_other_side_are_refused(counts):
    own, control = (runs(*[5] * count) for count in counts)
    message = f"{counts[0]} runs of the own test and {counts[1]} of the control"
    with pytest.raises(SefarError, match=message):
        ablation_drop(own, control, resamples=100, rng=RNG(0))
    with pytest.raises(SefarError, match=message):
        compare_drops((own, control), (runs(5), runs(5)), resamples=100, rng=RNG(0))
