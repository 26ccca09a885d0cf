"""Questions about one attribute, or between mirror images."""

from collections import Counter, defaultdict

import pytest

from qa_data.attribute_questions import attribute_questions, pair_questions
from qa_data.blind import audit
from qa_data.finegym import read_elements, to_clips
from qa_data.generate import build_questions
from qa_data.manifest import Clip
from qa_data.questions import STEM, QuestionError, check_question
from qa_data.taxonomy import ElementClass, read_categories
from tests.finegym import finegym_folder

SPOKEN = [
    ("FX", 24, "salto forward stretched with 1 twist"),
    ("FX", 25, "salto backward stretched with 1 twist"),
    ("FX", 25, "double salto backward tucked"),
    ("FX", 24, "arabian double salto tucked"),
    ("UB", 41, "giant circle forward"),
    ("UB", 41, "giant circle backward with 0.5 turn to handstand"),
    ("UB", 43, "transition flight from high bar to low bar"),
    ("UB", 43, "transition flight from low bar to high bar"),
    ("VT", 1, "handspring forward on, tucked salto forward with 1 turn off"),
    ("VT", 1, "handspring forward on, piked salto forward off"),
]
CLASSES = {
    label: ElementClass(label, set_id, label, event, text)
    for label, (event, set_id, text) in enumerate(SPOKEN)
}
COUNTS = dict(enumerate([30, 50, 40, 20, 25, 35, 60, 20, 15, 10]))
CLIPS = [
    Clip(id=f"clip{label}-{i}", path="x", label=label, source=f"s{i % 3}", split="test")
    for label, count in COUNTS.items()
    for i in range(count)
]
# By hand: what each class answers; the arabian turns by as much as its name means.
ANSWERS = {
    "direction": {0: "forward", 1: "backward", 2: "backward", 4: "forward", 5: "backward"},
    "turns": {0: "1", 1: "1", 2: "0", 4: "0", 5: "0.5", 8: "1", 9: "0"},
    "turning": {0: "yes", 1: "yes", 2: "no", 4: "no", 5: "yes", 8: "yes", 9: "no"},
    "saltos": {0: "1", 1: "1", 2: "2", 3: "2"},
    "shape": {0: "stretched", 1: "stretched", 2: "tucked", 3: "tucked", 8: "tucked", 9: "piked"},
    "stretched": {0: "yes", 1: "yes", 2: "no", 3: "no"},
}


def test_every_answer_is_what_the_class_says_beside_the_values_of_its_set():
    built = attribute_questions(CLIPS, CLASSES, seed=0)
    found = defaultdict(dict)
    for one in built.questions:
        assert check_question(one) is None
        answers = ANSWERS[one.answer_type]
        found[one.answer_type][one.label] = one.options[one.answer]
        assert set(one.options) == {
            answers[label] for label in answers if CLASSES[label].event == one.event
        }
        assert one.stem.endswith("?")
        assert ("vault" in one.stem) == (one.event == "VT")
    assert found == ANSWERS
    for kind in ANSWERS:
        letters = Counter(one.letter for one in built.questions if one.answer_type == kind)
        assert max(letters.values()) - min(letters.values()) <= 1
    assert [one.question_id for one in built.questions] == [
        f"{i:07d}" for i in range(len(built.questions))
    ]


def test_the_commoner_answer_is_asked_about_as_often_as_the_other():
    rights = Counter()
    sets = [attribute_questions(CLIPS, CLASSES, seed=seed) for seed in range(12)]
    for built in sets:
        assert built.bound == pytest.approx(0.5)
        for one in built.questions:
            rights[one.answer_type, one.event, one.options[one.answer]] += 1
    # of the floor, 30 clips go forward and 90 backward
    assert rights["direction", "FX", "forward"] == 12 * 30
    assert rights["direction", "FX", "backward"] == pytest.approx(12 * 30, rel=0.2)
    assert rights["saltos", "FX", "2"] == 12 * 60
    assert rights["saltos", "FX", "1"] == pytest.approx(12 * 60, rel=0.2)
    again = attribute_questions(CLIPS, CLASSES, seed=1)
    assert again.questions == sets[1].questions != sets[2].questions
    pools = {pool.pool: pool for pool in again.pools}
    asked, over = pools["direction in set 24"], pools["direction in set 24, commoner answers"]
    assert (asked.asked, asked.bound, over.asked, over.bound) == (True, 0.5, False, 1.0)
    assert asked.clips + over.clips == 120
    assert "direction in set 43" not in pools


def test_more_values_than_options_are_asked_about_by_some_of_them():
    classes = {
        label: ElementClass(label, 32, label, "BB", f"{turns} turn on one leg")
        for label, turns in enumerate(["1", "1.5", "2", "2.5", "3"])
    }
    clips = [
        Clip(id=f"{n} {i}", path="x", label=n, split="test") for n in classes for i in range(9)
    ]
    built = attribute_questions(clips, classes, seed=0, num_options=3)
    assert {len(one.options) for one in built.questions} == {3}
    assert len({frozenset(one.options) for one in built.questions}) == 10
    assert len(built.questions) == 45


def test_a_pair_is_a_class_and_its_mirror_image_each_right_half_of_the_time():
    rights = Counter()
    for seed in range(12):
        built = pair_questions(CLIPS, CLASSES, seed=seed)
        assert built.bound == 0.5
        for one in built.questions:
            assert check_question(one) is None
            assert (one.stem, one.answer_type) == (STEM, "pair")
            assert set(one.option_labels) in ({0, 1}, {6, 7})
            rights[one.label] += 1
    assert rights[0] == 12 * 30 == pytest.approx(rights[1], rel=0.2)
    assert rights[7] == 12 * 20 == pytest.approx(rights[6], rel=0.2)


def test_clips_without_anything_to_ask_are_refused():
    alike = [clip for clip in CLIPS if clip.label == 6]
    with pytest.raises(QuestionError, match="of 60 clips none can be asked about its direction"):
        attribute_questions(alike, CLASSES, seed=0)
    with pytest.raises(QuestionError, match="none can be asked about its pair"):
        pair_questions(alike, CLASSES, seed=0)
    without_pairs = {label: CLASSES[label] for label in (2, 6)}
    with pytest.raises(QuestionError, match="none can be asked about its mirror image"):
        pair_questions(alike, without_pairs, seed=0)
    with pytest.raises(QuestionError, match="there are no clips"):
        pair_questions([], CLASSES, seed=0)


def by_grids(clips, classes, *, seed):
    common = "keep" if clips[0].split == "labeled" else "leave_out"
    return build_questions(clips, classes, rule="attribute", seed=seed, common=common)


@pytest.mark.slow
@pytest.mark.lists
@pytest.mark.parametrize("benchmark", [99, 288])
@pytest.mark.parametrize("build", [attribute_questions, pair_questions, by_grids])
def test_the_real_sets_are_at_chance_for_every_blind_rule(benchmark, build):
    folder = finegym_folder()
    classes = read_categories(folder / f"gym{benchmark}_categories.txt")
    val = to_clips(read_elements(folder / f"gym{benchmark}_val_element.txt"), classes, split="val")
    train = read_elements(folder / f"gym{benchmark}_train_element_v1.1.txt")[::20]
    built = build(val, classes, seed=0)
    learned = build(to_clips(train, classes, split="labeled"), classes, seed=0).questions
    rows = audit(built.questions, learned, classes, bound=built.bound).rows
    for name, row in rows.items():
        if "known" not in name:
            assert abs(row.micro - built.bound) <= 2 * row.micro_se + 1e-9, name
    if build is by_grids:
        assert built.bound == 0.25
        # Who knows the set finds a quarter of the answers, against seven eighths of the public.
        assert rows["set known"].micro < 0.28
