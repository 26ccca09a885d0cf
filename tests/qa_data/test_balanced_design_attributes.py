"""Grids of two attributes."""

import random
from collections import Counter
from dataclasses import astuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_data.attributes import Attributes, attributes_of, family_of
from qa_data.balanced_design import family_designs, grids
from qa_data.blind import audit
from qa_data.finegym import read_elements, to_clips
from qa_data.generate import build_questions
from qa_data.taxonomy import ElementClass, read_categories
from tests.finegym import finegym_folder
from tests.oracles import qa as oracle

TEXTS = [
    "salto forward tucked",
    "salto backward tucked",
    "salto forward piked",
    "salto backward piked",
    "salto forward tucked with 1 twist",
    "salto backward tucked with 1 twist",
    "whip salto backward",
    "salto backward piked",  # reads as class 3
    "salto forward tucked",  # in another family
]
# Forward saltos of the floor are of set 24, backward ones of set 25.
CLASSES = {
    label: ElementClass(
        label,
        21 if label == 8 else 24 if "forward" in text else 25,
        label,
        "FX",
        text,
    )
    for label, text in enumerate(TEXTS)
}
NUM_CLIPS = {0: 40, 1: 30, 2: 20, 3: 10, 4: 25, 5: 15, 6: 50, 7: 6, 8: 9}

ATTRIBUTES = st.builds(
    Attributes,
    kind=st.sampled_from("ab"),
    direction=st.sampled_from(["forward", "backward", None]),
    turns=st.sampled_from([0.0, 1.0, 2.0, None]),
    saltos=st.sampled_from([1, 2]),
    shape=st.just("tucked"),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ATTRIBUTES, max_size=11))
def test_grids_of_four_are_the_corners_that_a_search_of_all_fours_finds(attributes):
    assert grids(attributes, 4) == oracle.two_by_two([astuple(one) for one in attributes])


@settings(max_examples=40, deadline=None)
@given(st.lists(ATTRIBUTES, max_size=9), st.sampled_from([2, 3, 5, 6]))
def test_no_option_of_a_grid_is_nearer_to_the_others_than_any_other(attributes, size):
    values = [astuple(one) for one in attributes]
    for block in grids(attributes, size):
        assert len(set(block)) == size
        near = {
            tuple(
                sorted(
                    sum(a != b for a, b in zip(values[one], values[other], strict=True))
                    for other in block
                )
            )
            for one in block
        }
        assert len(near) == 1


def test_a_prime_number_of_options_differs_in_one_attribute_and_six_make_two_rows():
    attributes = [
        Attributes("circle", way, turns, 0, None)
        for way in ("forward", "backward")
        for turns in (0.0, 1.0, 2.0)
    ]
    assert grids(attributes, 3) == [(0, 1, 2), (3, 4, 5)]
    assert grids(attributes, 6) == [(0, 1, 2, 3, 4, 5)]
    assert len(grids(attributes, 4)) == 3
    assert len(grids(attributes, 2)) == 9
    assert grids(attributes, 7) == []


def test_others_are_the_rest_of_a_grid_of_the_answers_family():
    designs = family_designs(CLASSES, NUM_CLIPS, 4)
    assert set(designs) == {21, 24}
    rng = random.Random(0)
    seen = Counter()
    for _ in range(400):
        others = designs[24].others(0, rng)
        if others is not None:
            assert len({TEXTS[one] for one in [0, *others]}) == 4
            seen[tuple(sorted({min(one, 3) if one == 7 else one for one in others}))] += 1
    assert set(seen) == {(1, 2, 3), (1, 4, 5)}
    assert designs[24].others(6, rng) is None
    assert designs[21].others(8, rng) is None


def test_two_classes_that_read_alike_share_a_place_by_their_clips():
    design = family_designs(CLASSES, NUM_CLIPS, 4)[24]
    rng = random.Random(1)
    drawn = Counter(one for _ in range(4000) for one in design.others(0, rng) or [])
    assert drawn[7] / (drawn[3] + drawn[7]) == pytest.approx(6 / 16, abs=0.04)
    assert {len(design.others(label, rng)) for label in (3, 7)} == {3}


def test_every_member_of_every_grid_is_the_answer_equally_often():
    design = family_designs(CLASSES, NUM_CLIPS, 4)[24]
    rng = random.Random(2)
    answers = {}
    for label, clips in NUM_CLIPS.items():
        for _ in range(60 * clips if label != 8 else 0):
            others = design.others(label, rng)
            if others is not None:
                shown = frozenset(TEXTS[one] for one in [label, *others])
                answers.setdefault(shown, Counter())[TEXTS[label]] += 1
    assert len(answers) == 2
    for shown, counts in answers.items():
        assert set(counts) == shown
        for text in shown:
            assert counts[text] / counts.total() == pytest.approx(0.25, abs=0.03)


def test_what_is_left_over_is_what_the_grids_do_not_ask_about():
    design = family_designs(CLASSES, NUM_CLIPS, 4)[24]
    left = design.left_over()
    asked = sum(design.design.asked)
    assert sum(left.values()) + asked == pytest.approx(sum(NUM_CLIPS.values()) - NUM_CLIPS[8])
    assert left[6] == 50
    # "salto backward tucked", with 30 clips, is in both grids
    assert left[1] == 0
    assert asked == pytest.approx(4 * 30)


@pytest.mark.lists
@pytest.mark.parametrize(("benchmark", "in_grids", "asked"), [(99, 25, 1264), (288, 165, 2292)])
def test_share_of_the_real_clips_that_grids_can_ask_about(benchmark, in_grids, asked):
    folder = finegym_folder()
    classes = read_categories(folder / f"gym{benchmark}_categories.txt")
    counts = Counter(n for _, n in read_elements(folder / f"gym{benchmark}_val_element.txt"))
    designs = family_designs(classes, counts, 4)
    assert sum(sum(one.design.asked) for one in designs.values()) == pytest.approx(asked, abs=0.1)
    members = [classes[label] for label in counts]
    held = set()
    for family in designs:
        inside = [one for one in members if family_of(one) == family]
        held |= {
            inside[unit].label
            for block in grids([attributes_of(one) for one in inside], 4)
            for unit in block
        }
    assert len(held) == in_grids


@pytest.mark.lists
@pytest.mark.parametrize("benchmark", [99, 288])
def test_the_rule_attribute_is_at_chance_on_the_real_lists_for_every_blind_rule(benchmark):
    folder = finegym_folder()
    classes = read_categories(folder / f"gym{benchmark}_categories.txt")
    val = to_clips(read_elements(folder / f"gym{benchmark}_val_element.txt"), classes, split="val")
    train = read_elements(folder / f"gym{benchmark}_train_element_v1.1.txt")[::20]
    labeled = to_clips(train, classes, split="labeled")
    built = build_questions(val, classes, rule="attribute", seed=0)
    learned = build_questions(labeled, classes, rule="attribute", seed=0, common="keep")
    assert built.bound == 0.25
    rows = audit(built.questions, learned.questions, classes, bound=built.bound).rows
    for name, row in rows.items():
        if "known" not in name:
            assert abs(row.micro - 0.25) <= 2 * row.micro_se + 1e-9, name
    # Who knows the set finds a quarter of the answers, against seven eighths of the public ones.
    assert rows["set known"].micro < 0.28
