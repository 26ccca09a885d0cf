"""What a Gym-QA folder is built from."""

from collections import Counter

import pytest

from qa_data.gym_qa import QuestionPlan, build_sets, classes_of
from qa_data.manifest import Clip
from qa_data.question import STEM, QuestionError
from qa_data.taxonomy import ElementClass
from qa_data.wordings import WORDINGS, reworded

CLASSES = {label: ElementClass(label, 21, label, "FX", f"t{label}") for label in range(6)}


def clips_of(split, num_clips=60):
    return [
        Clip(id=f"{split}{i}", path="x", label=i % 6, text=f"t{i % 6}", source="s", split=split)
        for i in range(num_clips)
    ]


CLIPS = [*clips_of("labeled"), *clips_of("val"), *clips_of("test")]


def test_each_split_is_a_file_and_unlabeled_clips_are_asked_about_where_their_class_is_known():
    plan = QuestionPlan(rule="public")
    told = [*CLIPS, *clips_of("unlabeled")]
    untold = [*CLIPS, Clip(id="u", path="x", split="unlabeled")]
    assert list(build_sets(told, CLASSES, plan)) == ["train", "unlabel", "val", "test"]
    assert list(build_sets(untold, CLASSES, plan)) == ["train", "val", "test"]


def test_a_wording_is_drawn_for_each_clip_and_says_nothing_else():
    plain = build_sets(CLIPS, CLASSES, QuestionPlan())["val"].questions
    many = build_sets(CLIPS, CLASSES, QuestionPlan(wordings=7))["val"].questions
    assert {one.stem for one in plain} == {STEM}
    assert [one.options for one in plain] == [one.options for one in many]
    counts = Counter(one.stem for seed in range(20) for one in reworded(plain, 7, seed))
    assert set(counts) == set(WORDINGS)
    # 1,200 questions over 7 wordings: standard deviation 12
    assert all(abs(count - 1200 / 7) < 50 for count in counts.values())
    assert all(wording.endswith("?") for wording in WORDINGS)


@pytest.mark.parametrize("wordings", [0, 8])
def test_as_many_wordings_as_there_are(wordings):
    with pytest.raises(QuestionError, match=f"{wordings} wordings are asked for; there are 7"):
        reworded([], wordings, 0)


def test_a_stem_and_a_data_set_of_ones_own():
    plan = QuestionPlan(stem="What is going on?", dataset="mine", rule="prior")
    for one in build_sets(CLIPS, CLASSES, plan)["test"].questions:
        assert (one.stem, one.dataset) == ("What is going on?", "mine")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_options": 1}, "questions of 1 options are asked for; take 2 to 26"),
        ({"num_options": 27}, "take 2 to 26"),
        ({"asked": "pairs", "wordings": 2}, "about pairs have one wording"),
        ({"asked": "attributes", "common": "keep"}, "got 1 wordings and common keep"),
        ({"stem": "Say what"}, "must end in a question mark"),
        ({"stem": "What?", "wordings": 2}, "a stem of your own"),
        ({"stem": "What?", "asked": "pairs"}, "a stem of your own"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(QuestionError, match=message):
        QuestionPlan(**settings)


def test_classes_are_read_off_the_clips():
    found = classes_of([*CLIPS, Clip(id="u", path="x", split="unlabeled")])
    assert {label: one.text for label, one in found.items()} == {n: f"t{n}" for n in range(6)}


def test_classes_without_a_name_or_with_two_are_refused():
    nameless = Clip(id="n", path="x", label=2, split="val")
    other = Clip(id="o", path="x", label=2, text="other", split="val")
    with pytest.raises(QuestionError, match="clip n of class 2 has no text"):
        classes_of([*CLIPS, nameless])
    with pytest.raises(QuestionError, match="class 2 is 't2' for clip labeled2 and 'other' for"):
        classes_of([*CLIPS, other])


def test_a_split_that_is_missing_is_named():
    with pytest.raises(QuestionError, match="0 labeled, 60 validation and 60 test clips"):
        build_sets(CLIPS[60:], CLASSES, QuestionPlan())
