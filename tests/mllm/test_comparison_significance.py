"""The decision rule: every condition alone decides, and what is missing is never taken for true."""

import pytest

from sefar_core.intervals import Interval
from sefar_mllm.comparison.statistics import Gap, decide, times_trained

ABOVE, ACROSS, BELOW = (0.05, 0.02, 0.08), (0.01, -0.02, 0.04), (-0.05, -0.08, -0.02)
NOT_ABOVE = (ACROSS, BELOW, (0.02, 0.0, 0.04))  # an interval that begins at 0 is not above it
ALONE = (0.05, None, None)  # one source video
FALLS = "{} falls to the blind model with wrong videos, {{}} questions"
SEFAR_FALLS, CLIP_FALLS = FALLS.format("sefar"), FALLS.format("clip")
MATCHED = "label-matched rows in the same table: supervised, clip_probe"
# First row, second row: the condition that their difference decides, a difference with which it
# holds, and those with which it fails.
RULE = {
    ("sefar", "clip"): ("sefar above clip on {} questions", ABOVE, NOT_ABOVE),
    ("sefar", "constant"): ("sefar is above the blind model on {} questions", ABOVE, NOT_ABOVE),
    ("clip", "constant"): ("clip is above the blind model on {} questions", ABOVE, NOT_ABOVE),
    ("sefar-wrong_videos", "constant"): (SEFAR_FALLS, ACROSS, (ABOVE,)),
    ("clip-wrong_videos", "constant"): (CLIP_FALLS, ACROSS, (ABOVE,)),
    ("sefar", "sefar-wrong_videos"): (SEFAR_FALLS, ABOVE, NOT_ABOVE),
    ("clip", "clip-wrong_videos"): (CLIP_FALLS, ABOVE, NOT_ABOVE),
    ("supervised", "constant"): (MATCHED, BELOW, ()),
    ("clip_probe", "constant"): (MATCHED, BELOW, ()),
}
RULES = ("public", "hard")
FAILING = [
    ((rule, *pair), name.format(rule), bad)
    for pair, (name, _, failing) in RULE.items()
    for rule in RULES
    for bad in failing
]
KEYS = [(rule, *pair) for pair in RULE for rule in RULES]


def gap(numbers):
    """Class means as given; over all questions a fifth of it, so that the two differ."""
    fifth = (end and end / 5 for end in numbers)
    macro, micro = (Interval(value=v, low=low, high=high) for v, low, high in (numbers, fifth))
    return Gap(macro=macro, micro=micro)


CLAIM = {(rule, *pair): gap(good) for pair, (_, good, _) in RULE.items() for rule in RULES}


def decided(changed, second="clip", trained="3 seeds, recognizer and fine-tuning"):
    """The decision where every condition holds but for what is changed."""
    return decide("sefar", second, CLAIM | changed, trained=trained)


def named(decision, holds):
    return {one.name for one in decision.conditions if one.holds is holds}


def test_a_claim_is_made_when_every_condition_holds():
    decision = decided({})
    assert decision.claimed is True
    assert named(decision, True) == {
        name.format(rule) for name, _, _ in RULE.values() for rule in RULES
    }
    assert decision.words.startswith("sefar is better than clip: every condition")
    assert decision.words.endswith("this budget and 3 seeds, recognizer and fine-tuning.")
    conditions = {one.name: one for one in decision.conditions}
    first = conditions["sefar above clip on hard questions"]
    assert first.words == "difference +5.0 [+2.0, +8.0]"
    assert first.over_all_questions == "+1.0 [+0.4, +1.6]"
    fallen = conditions[SEFAR_FALLS.format("hard")]
    assert fallen.words.startswith(
        "wrong videos minus the blind model +1.0 [-2.0, +4.0], up to +4.0 may remain"
    )
    assert fallen.over_all_questions == "+0.2 [-0.4, +0.8]; +1.0 [+0.4, +1.6]"


@pytest.mark.parametrize(("key", "name", "numbers"), FAILING)
def test_one_condition_that_fails_forbids_the_claim_and_is_named(key, name, numbers):
    decision = decided({key: gap(numbers)})
    assert decision.claimed is False and named(decision, False) == {name}
    assert "is not claimed" in decision.words and name in decision.words
    if key[2].endswith("wrong_videos"):
        assert f"own minus wrong videos {100 * numbers[0]:+.1f}" in decision.words


def test_the_rule_uses_class_means_only_and_a_model_misled_by_wrong_videos_has_fallen():
    key, above, below = ("hard", "sefar", "clip"), gap(ABOVE), gap(BELOW)
    assert decided({key: Gap(macro=above.macro, micro=below.macro)}).claimed is True
    assert decided({key: Gap(macro=below.macro, micro=above.macro)}).claimed is False
    assert decided({("hard", "clip-wrong_videos", "constant"): below}).claimed is True


@pytest.mark.parametrize("key", KEYS)
def test_one_missing_number_leaves_the_claim_undecided(key):
    decision = decided({key: None})
    assert decision.claimed is None
    (unknown,) = named(decision, None)
    assert unknown in decision.words and "is better than clip:" not in decision.words
    without = {other: CLAIM[other] for other in KEYS if other != key}
    assert decide("sefar", "clip", without, trained="") == decide(
        "sefar", "clip", CLAIM | {key: None}, trained=""
    )
    label_matched = unknown == MATCHED
    assert decided({key: gap(ALONE)}).claimed is (True if label_matched else None)


def test_failures_are_reported_even_if_something_else_is_missing():
    changed = {("hard", "sefar", "clip"): gap(BELOW), ("hard", "clip_probe", "constant"): None}
    decision = decided(changed, trained="3 fine-tuning seeds of one recognizer")
    assert decision.claimed is False
    assert (
        "sefar is not claimed to be better than clip, with 3 fine-tuning seeds of one recognizer."
        in decision.words
    )
    assert "-5.0 [-8.0, -2.0]" in decision.words
    assert "Not measured: label-matched" in decision.words


def test_an_encoder_without_numbers_is_not_measured():
    decision = decided({("hard", "sefar", "constant"): gap(ACROSS)}, "eva")
    assert decision.claimed is None and decision.words == "sefar against eva: not measured."


def test_against_a_control_only_the_first_model_has_to_be_above_the_blind_one():
    changed = {}
    for rule in RULES:
        changed[rule, "sefar", "random"] = gap(ABOVE)
        changed[rule, "random", "constant"] = gap(ACROSS)
    assert decided(changed, "random").claimed is True
    assert decided(changed, "constant").claimed is True
    stays = changed | {("hard", "sefar-wrong_videos", "constant"): gap(ABOVE)}
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
