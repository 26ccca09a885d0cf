"""Answering Gym-QA without looking, on FineGym's own lists.

A seed draws the labeled clips and the options. Given the clips the seeds are independent, and a
mean over them has at most the standard error of one set (0.47 points on 8,521 questions) over the
root of their number: that the answers are given clips, and not drawn, only makes it smaller. Every
blind rule is compared with the bound of every exchangeable set, and none may be off by more than
the furthest of so many would be in one run of twenty (Bonferroni): 3.55 errors. docs/gym_qa.md has
the same with five seeds.
"""

from functools import cache
from statistics import NormalDist, mean

import pytest

from benchmarks.blind_audit import audit_train, audit_val, read_lists
from tests.finegym import finegym_folder

SEEDS = {99: (0, 1, 2), 288: (0,)}
BLIND = (
    *(f"always {letter}" for letter in "ABCD"),
    *("longest option", "shortest option"),
    *("commonest answer", "rarest answer"),
    *("naive Bayes", "naive Bayes inverted"),
    *("bag of words", "bag of words inverted"),
    *("words nearest the others", "words farthest from the others"),
    *("code nearest the others", "code farthest from the others"),
)
EXCHANGEABLE = ("prior", "event_prior", "set_prior", "attribute")
COMPARISONS = len(BLIND) * len(EXCHANGEABLE) * len(SEEDS)
LIMIT = NormalDist().inv_cdf(1 - 0.05 / (2 * COMPARISONS))
"""Standard errors that the furthest of all comparisons may be off."""

pytestmark = [pytest.mark.lists, pytest.mark.slow]
lists_of = cache(read_lists)


def audits(benchmark, rule, **common):
    lists = lists_of(finegym_folder(), benchmark)
    return [audit_val(lists, rule, seed, **common) for seed in SEEDS[benchmark]]


def mean_error(found, name):
    return mean(one.rows[name].micro_se for one in found) / len(found) ** 0.5


@pytest.mark.parametrize(("benchmark", "published"), [(99, 0.474), (288, 0.645)])
def test_the_public_rule_gives_the_real_answers_away(benchmark, published):
    found = audits(benchmark, "public")
    rows = {name: mean(one.rows[name].micro for one in found) for name in found[0].rows}
    assert rows["commonest answer"] == pytest.approx(published, abs=0.015)
    assert rows["rarest answer"] < 0.12
    assert min(rows["naive Bayes"], rows["bag of words"]) > published - 0.015
    by_class = mean(one.rows["commonest answer"].macro for one in found)
    assert by_class == pytest.approx(0.25, abs=0.02)
    if benchmark == 99:  # of the official file: 59.9, 70.9, 87.5, 90.9
        assert rows["apparatus known"] == pytest.approx(0.599, abs=0.01)
        assert rows["apparatus known, commonest answer"] == pytest.approx(0.709, abs=0.015)
        assert rows["set known"] == pytest.approx(0.875, abs=0.01)
        assert rows["set known, commonest answer"] == pytest.approx(0.909, abs=0.01)


@pytest.mark.parametrize("benchmark", SEEDS)
@pytest.mark.parametrize("rule", EXCHANGEABLE)
def test_every_blind_rule_and_its_inversion_is_at_the_bound(benchmark, rule):
    found = audits(benchmark, rule)
    (bound,) = {one.bound for one in found}
    assert bound == pytest.approx(0.25)
    off = {
        name: (mean(one.rows[name].micro for one in found) - bound) / mean_error(found, name)
        for name in BLIND
    }
    assert {name: errors for name, errors in off.items() if abs(errors) > LIMIT} == {}


@pytest.mark.parametrize("benchmark", SEEDS)
def test_the_best_blind_rule_reaches_the_bound_of_sets_that_cannot_be_at_chance(benchmark):
    found = audits(benchmark, "set_prior", common="keep")
    (bound,) = {one.bound for one in found}
    assert bound > 0.27
    best = mean(one.rows["commonest answer"].micro for one in found)
    assert best == pytest.approx(bound, abs=0.015)
    for name in BLIND:
        above = mean(one.rows[name].micro for one in found) - bound
        assert above <= LIMIT * mean_error(found, name), name


def test_an_audit_of_the_real_training_questions_learns_from_other_clips():
    found = audit_train(lists_of(finegym_folder(), 99), "public", 0)
    assert found.num_questions == 1316
    assert 0.4 < found.rows["commonest answer"].micro < 0.6
