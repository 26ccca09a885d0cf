"""The decision rule: every condition alone decides, and what is missing is never taken for true."""

import pytest

from sefar_core.intervals import Interval
from sefar_mllm.comparison.statistics import Gap, decide, times_trained

ABOVE, ACROSS, BELOW = (0.05, 0.02, 0.08), (0.01, -0.02, 0.04), (-0.05, -0.08, -0.02)

AGAINST_CLIP = {
    "sefar above clip on {} questions": ("{}", "sefar", "clip"),
    "sefar is above the blind model on {} questions": ("{}", "sefar", "constant"),
    "clip is above the blind model on {} questions": ("{}", "clip", "constant"),
}
FALLS = {
    "sefar falls to the blind model with wrong videos, {} questions": (
        ("{}", "sefar-wrong_videos", "constant"),
        ("{}", "sefar", "sefar-wrong_videos"),
    ),
    "clip falls to the blind model with wrong videos, {} questions": (
        ("{}", "clip-wrong_videos", "constant"),
        ("{}", "clip", "clip-wrong_videos"),
    ),
}
LABEL_MATCHED = "label-matched rows in the same table: supervised, clip_probe"


def gap(numbers):
    """Class means as given; over all questions a fifth of it, so that the two differ."""
    value, low, high = numbers
    macro = Interval(value=value, low=low, high=high)
    return Gap(macro=macro, micro=Interval(value=value / 5, low=low / 5, high=high / 5))


def for_each_rule(named):
    return {
        name.format(rule): tuple(word.format(rule) for word in key)
        for name, key in named.items()
        for rule in ("public", "hard")
    }


def falls(place):
    """Of each condition of falling, its difference to the blind model (0) or to itself (1)."""
    return for_each_rule({name: keys[place] for name, keys in FALLS.items()})


def gaps_of_a_claim():
    gaps = {key: gap(ABOVE) for key in for_each_rule(AGAINST_CLIP).values()}
    gaps |= {key: gap(ACROSS) for key in falls(0).values()}
    gaps |= {key: gap(ABOVE) for key in falls(1).values()}
    for rule in ("public", "hard"):
        for row in ("supervised", "clip_probe"):
            gaps[rule, row, "constant"] = gap(BELOW)
    return gaps


def decided(gaps, second="clip", trained="3 seeds, recognizer and fine-tuning"):
    return decide("sefar", second, gaps, trained=trained)


def held(decision):
    return {condition.name: condition.holds for condition in decision.conditions}


def test_a_claim_is_made_when_every_condition_holds():
    decision = decided(gaps_of_a_claim())
    assert decision.claimed is True
    assert decision.words.startswith("sefar is better than clip: every condition")
    assert decision.words.endswith("this budget and 3 seeds, recognizer and fine-tuning.")
    everything = {*for_each_rule(AGAINST_CLIP), *falls(0), LABEL_MATCHED}
    assert held(decision) == dict.fromkeys(everything, True)


@pytest.mark.parametrize("numbers", [ACROSS, BELOW])
@pytest.mark.parametrize(("name", "key"), for_each_rule(AGAINST_CLIP).items())
def test_one_difference_that_is_not_above_zero_forbids_the_claim(name, key, numbers):
    gaps = gaps_of_a_claim() | {key: gap(numbers)}
    decision = decided(gaps)
    assert decision.claimed is False
    assert [each for each, holds in held(decision).items() if not holds] == [name]
    assert "is not claimed" in decision.words and name in decision.words


@pytest.mark.parametrize(("name", "key"), falls(0).items())
def test_one_model_that_stays_above_the_blind_one_forbids_the_claim(name, key):
    gaps = gaps_of_a_claim() | {key: gap(ABOVE)}
    decision = decided(gaps)
    assert decision.claimed is False
    assert [each for each, holds in held(decision).items() if not holds] == [name]


@pytest.mark.parametrize("numbers", [ACROSS, BELOW])
@pytest.mark.parametrize(("name", "key"), falls(1).items())
def test_a_model_without_a_drop_under_wrong_videos_has_not_fallen(name, key, numbers):
    decision = decided(gaps_of_a_claim() | {key: gap(numbers)})
    assert decision.claimed is False
    assert [each for each, holds in held(decision).items() if not holds] == [name]
    assert f"own minus wrong videos {100 * numbers[0]:+.1f}" in decision.words


def test_what_may_remain_above_the_blind_model_is_reported():
    decision = decided(gaps_of_a_claim())
    (words,) = {one.words for one in decision.conditions if " falls to the blind " in one.name}
    assert words.startswith(
        "wrong videos minus the blind model +1.0 [-2.0, +4.0], up to +4.0 may remain"
    )


def test_differences_over_all_questions_are_reported_beside_the_class_means():
    conditions = {one.name: one for one in decided(gaps_of_a_claim()).conditions}
    first = conditions["sefar above clip on hard questions"]
    assert (first.words, first.over_all_questions) == (
        "difference +5.0 [+2.0, +8.0]",
        "+1.0 [+0.4, +1.6]",
    )
    fallen = conditions["sefar falls to the blind model with wrong videos, hard questions"]
    assert fallen.over_all_questions == "+0.2 [-0.4, +0.8]; +1.0 [+0.4, +1.6]"


def test_the_rule_uses_class_means_only():
    gaps = gaps_of_a_claim()
    key = ("hard", "sefar", "clip")
    turned = Gap(macro=gaps[key].macro, micro=gap(BELOW).macro)
    assert decided(gaps | {key: turned}).claimed is True
    turned = Gap(macro=gap(BELOW).macro, micro=gaps[key].macro)
    assert decided(gaps | {key: turned}).claimed is False


@pytest.mark.parametrize("key", falls(0).values())
def test_a_model_misled_by_wrong_videos_has_fallen(key):
    gaps = gaps_of_a_claim() | {key: gap(BELOW)}
    assert decided(gaps).claimed is True


@pytest.mark.parametrize("gone", ["deleted", "none"])
@pytest.mark.parametrize("key", sorted(gaps_of_a_claim()))
def test_one_missing_number_leaves_the_claim_undecided(key, gone):
    gaps = gaps_of_a_claim()
    if gone == "deleted":
        del gaps[key]
    else:
        gaps[key] = None
    decision = decided(gaps)
    assert decision.claimed is None
    unknown = [name for name, holds in held(decision).items() if holds is None]
    assert len(unknown) == 1 and unknown[0] in decision.words
    assert "is better than clip:" not in decision.words


def test_failures_are_reported_even_if_something_else_is_missing():
    gaps = gaps_of_a_claim() | {("hard", "sefar", "clip"): gap(BELOW)}
    del gaps["hard", "clip_probe", "constant"]
    decision = decided(gaps)
    assert decision.claimed is False
    assert "-5.0 [-8.0, -2.0]" in decision.words
    assert "Not measured: label-matched" in decision.words


def test_an_encoder_without_numbers_is_not_measured():
    gaps = gaps_of_a_claim() | {("hard", "sefar", "constant"): gap(ACROSS)}
    decision = decided(gaps, "eva")
    assert decision.claimed is None
    assert decision.words == "sefar against eva: not measured."


def test_an_interval_that_begins_at_zero_is_not_above_it():
    gaps = gaps_of_a_claim() | {("hard", "sefar", "clip"): gap((0.02, 0.0, 0.04))}
    assert decided(gaps).claimed is False


def test_against_a_control_only_the_first_model_has_to_be_above_the_blind_one():
    gaps = gaps_of_a_claim()
    for rule in ("public", "hard"):
        gaps[rule, "sefar", "random"] = gap(ABOVE)
        gaps[rule, "random", "constant"] = gap(ACROSS)
    assert decided(gaps, "random").claimed is True
    assert decided(gaps, "constant").claimed is True
    stays = gaps | {("hard", "sefar-wrong_videos", "constant"): gap(ABOVE)}
    assert decided(stays, "constant").claimed is False


def test_the_sentence_reports_the_number_of_trainings():
    def words(*counts, num_seeds=3):
        recognizers = dict(zip(("sefar", "supervised"), counts, strict=False))
        return times_trained(("sefar", "supervised"), num_seeds, recognizers)

    assert words(3, 3) == "3 seeds, recognizer and fine-tuning"
    assert words(1) == "3 fine-tuning seeds of one recognizer"
    assert words(1, 1) == "3 fine-tuning seeds of one recognizer each"
    assert words(3, 1) == "3 fine-tuning seeds (recognizers trained: sefar 3, supervised 1)"
    single = words(1, 1, num_seeds=1)
    assert single == "one training seed, which does not measure the variation of training"
    beside_clip = times_trained(("sefar", "clip"), 3, {"sefar": 3, "supervised": 1})
    assert beside_clip == "3 seeds, recognizer and fine-tuning"


def test_a_claim_that_is_not_made_reports_the_trainings_too():
    gaps = gaps_of_a_claim() | {("hard", "sefar", "clip"): gap(BELOW)}
    words = decided(gaps, trained="3 fine-tuning seeds of one recognizer").words
    assert (
        "sefar is not claimed to be better than clip, with 3 fine-tuning seeds of one recognizer."
        in words
    )


def test_a_difference_without_an_interval_counts_as_not_measured():
    for lone in gaps_of_a_claim():
        found = decided(gaps_of_a_claim() | {lone: gap_without_interval(0.05)})
        rows_alone = lone[1:] in (("supervised", "constant"), ("clip_probe", "constant"))
        assert found.claimed is (True if rows_alone else None), lone


def gap_without_interval(value):
    one = Interval(value=value, low=None, high=None)
    return Gap(macro=one, micro=one)
