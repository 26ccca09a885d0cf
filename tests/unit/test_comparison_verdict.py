"""The decision rule: every condition alone decides, and what is missing is never taken for true."""

import pytest

from sefar_mllm.comparison.verdict import decide
from sefar_mllm.evaluation.bootstrap import Interval

ABOVE, ACROSS, BELOW = (0.05, 0.02, 0.08), (0.01, -0.02, 0.04), (-0.05, -0.08, -0.02)

AGAINST_CLIP = {
    "sefar above clip on {} questions": ("{}", "sefar", "clip"),
    "sefar beats the blind model on {} questions": ("{}", "sefar", "constant"),
    "clip beats the blind model on {} questions": ("{}", "clip", "constant"),
}
FALLS = {
    "sefar falls to the blind model when shown wrong videos, {} questions": (
        "{}",
        "sefar-wrong_videos",
        "constant",
    ),
    "clip falls to the blind model when shown wrong videos, {} questions": (
        "{}",
        "clip-wrong_videos",
        "constant",
    ),
}
LABEL_MATCHED = "label-matched rows in the same table: supervised, clip_probe"


def interval(numbers):
    value, low, high = numbers
    return Interval(value=value, low=low, high=high)


def for_each_rule(named):
    return {
        name.format(rule): tuple(word.format(rule) for word in key)
        for name, key in named.items()
        for rule in ("public", "hard")
    }


def gaps_of_a_claim():
    gaps = {key: interval(ABOVE) for key in for_each_rule(AGAINST_CLIP).values()}
    gaps |= {key: interval(ACROSS) for key in for_each_rule(FALLS).values()}
    for rule in ("public", "hard"):
        for row in ("supervised", "clip_probe"):
            gaps[rule, row, "constant"] = interval(BELOW)
    return gaps


def held(verdict):
    return {condition.name: condition.holds for condition in verdict.conditions}


def test_a_claim_is_made_when_every_condition_holds():
    verdict = decide("sefar", "clip", gaps_of_a_claim(), num_seeds=3)
    assert verdict.claimed is True
    assert verdict.words.startswith("sefar beats clip: every condition")
    assert "3 training seeds" in verdict.words
    everything = {*for_each_rule(AGAINST_CLIP), *for_each_rule(FALLS), LABEL_MATCHED}
    assert held(verdict) == dict.fromkeys(everything, True)


@pytest.mark.parametrize("numbers", [ACROSS, BELOW])
@pytest.mark.parametrize(("name", "key"), for_each_rule(AGAINST_CLIP).items())
def test_one_difference_that_is_not_above_zero_forbids_the_claim(name, key, numbers):
    gaps = gaps_of_a_claim() | {key: interval(numbers)}
    verdict = decide("sefar", "clip", gaps, num_seeds=3)
    assert verdict.claimed is False
    assert [each for each, holds in held(verdict).items() if not holds] == [name]
    assert "is not claimed" in verdict.words and name in verdict.words


@pytest.mark.parametrize(("name", "key"), for_each_rule(FALLS).items())
def test_one_model_that_stays_above_the_blind_one_forbids_the_claim(name, key):
    gaps = gaps_of_a_claim() | {key: interval(ABOVE)}
    verdict = decide("sefar", "clip", gaps, num_seeds=3)
    assert verdict.claimed is False
    assert [each for each, holds in held(verdict).items() if not holds] == [name]


@pytest.mark.parametrize("key", for_each_rule(FALLS).values())
def test_a_model_misled_by_wrong_videos_has_fallen(key):
    gaps = gaps_of_a_claim() | {key: interval(BELOW)}
    assert decide("sefar", "clip", gaps, num_seeds=3).claimed is True


@pytest.mark.parametrize("gone", ["deleted", "none"])
@pytest.mark.parametrize("key", sorted(gaps_of_a_claim()))
def test_one_missing_number_leaves_the_claim_undecided(key, gone):
    gaps = gaps_of_a_claim()
    if gone == "deleted":
        del gaps[key]
    else:
        gaps[key] = None
    verdict = decide("sefar", "clip", gaps, num_seeds=3)
    assert verdict.claimed is None
    unknown = [name for name, holds in held(verdict).items() if holds is None]
    assert len(unknown) == 1 and unknown[0] in verdict.words
    assert "beats clip:" not in verdict.words


def test_what_fails_is_said_even_where_something_else_is_missing():
    gaps = gaps_of_a_claim() | {("hard", "sefar", "clip"): interval(BELOW)}
    del gaps["hard", "clip_probe", "constant"]
    verdict = decide("sefar", "clip", gaps, num_seeds=3)
    assert verdict.claimed is False
    assert "-5.0 [-8.0, -2.0]" in verdict.words
    assert "Not measured: label-matched" in verdict.words


def test_a_rival_without_numbers_is_not_measured():
    gaps = gaps_of_a_claim() | {("hard", "sefar", "constant"): interval(ACROSS)}
    verdict = decide("sefar", "eva", gaps, num_seeds=3)
    assert verdict.claimed is None
    assert verdict.words == "sefar against eva: not measured."


def test_an_interval_that_begins_at_zero_is_not_above_it():
    gaps = gaps_of_a_claim() | {("hard", "sefar", "clip"): interval((0.02, 0.0, 0.04))}
    assert decide("sefar", "clip", gaps, num_seeds=3).claimed is False


def test_against_a_control_only_the_first_model_has_to_see():
    gaps = gaps_of_a_claim()
    for rule in ("public", "hard"):
        gaps[rule, "sefar", "random"] = interval(ABOVE)
        gaps[rule, "random", "constant"] = interval(ACROSS)
    assert decide("sefar", "random", gaps, num_seeds=3).claimed is True
    assert decide("sefar", "constant", gaps, num_seeds=3).claimed is True
    stays = gaps | {("hard", "sefar-wrong_videos", "constant"): interval(ABOVE)}
    assert decide("sefar", "constant", stays, num_seeds=3).claimed is False


def test_a_claim_from_one_seed_says_so():
    words = decide("sefar", "clip", gaps_of_a_claim(), num_seeds=1).words
    assert "one training seed, which says nothing of how training varies" in words
