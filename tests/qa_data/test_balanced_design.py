"""Blocks of options such that each member is the answer equally often; grids of two attributes."""

import random
from collections import Counter
from dataclasses import astuple
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_data.attributes import Attributes, attributes_of, family_of
from qa_data.balanced_design import block_design, family_designs, grids
from qa_data.finegym import read_elements
from qa_data.taxonomy import ElementClass, read_categories
from tests.finegym import finegym_folder
from tests.oracles import qa as oracle


@st.composite
def problems(draw):
    units = draw(st.integers(3, 6))
    size = draw(st.integers(2, min(units, 4)))
    all_blocks = list(combinations(range(units), size))
    blocks = draw(st.lists(st.sampled_from(all_blocks), unique=True, min_size=1, max_size=4))
    clips = draw(st.lists(st.integers(1, 300), min_size=units, max_size=units))
    return clips, blocks


@given(problems())
def test_as_many_clips_are_asked_about_as_can_be(problem):
    clips, blocks = problem
    design = block_design(clips, blocks)
    largest = oracle.largest_packing(clips, blocks)
    assert sum(design.weights) == pytest.approx(largest, rel=1e-5)
    assert sum(design.asked) == pytest.approx(len(blocks[0]) * largest, rel=1e-5)
    assert all(one <= n * (1 + 1e-9) for one, n in zip(design.asked, clips, strict=True))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_large_problems_with_clips_of_many_sizes_are_solved(seed):
    rng = random.Random(seed)
    clips = [rng.choice([1, 2, 5, 40, 1000, 20_000]) for _ in range(40)]
    blocks = sorted({tuple(sorted(rng.sample(range(40), 4))) for _ in range(600)})
    design = block_design(clips, blocks)
    assert all(one <= n for one, n in zip(design.asked, clips, strict=True))
    assert 0 < sum(design.asked) <= sum(clips)


def test_of_many_solutions_the_middle_is_taken_where_no_limit_is_near():
    design = block_design([10, 10, 10, 10], [(0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2)])
    assert design.weights == pytest.approx([10 / 3] * 6, rel=1e-4)
    design = block_design([10, 4, 100], [(0, 1), (0, 2)])
    # On w0 + w1 = 10 the product of all slacks, w0 (10 - w0) (4 - w0) (90 + w0), is largest at
    middle = max(np.linspace(0, 4, 100_001), key=lambda w: w * (10 - w) * (4 - w) * (90 + w))
    assert design.weights == pytest.approx([middle, 10 - middle], rel=1e-3)


def test_a_unit_without_clips_and_no_blocks_at_all():
    assert block_design([5, 0, 5], [(0, 1), (1, 2)]).blocks == []
    empty = block_design([5, 3], [])
    assert empty.asked == [0, 0]
    assert empty.draw(0, random.Random(0)) is None


def test_whoever_sees_a_block_is_right_once_in_k():
    clips = [40, 10, 25, 5, 30]
    design = block_design(clips, [(0, 1, 2), (0, 2, 4), (1, 3, 4), (0, 3, 4)])
    rng = random.Random(1)
    answers = {}
    repeats = 300
    for unit, count in enumerate(clips):
        for _ in range(count * repeats):
            block = design.draw(unit, rng)
            if block is not None:
                answers.setdefault(block, Counter())[unit] += 1
    assert len(answers) > 1
    for block, counts in answers.items():
        assert set(counts) == set(block)
        total = counts.total()
        for unit in block:
            # three standard deviations of a share of one third
            assert abs(counts[unit] / total - 1 / 3) < 3.5 * (2 / 9 / total) ** 0.5
    asked = sum(counts.total() for counts in answers.values()) / repeats
    assert asked == pytest.approx(sum(design.asked), rel=0.02)


def test_a_unit_of_which_all_clips_are_asked_about_leaves_none_over():
    design = block_design([7, 20], [(0, 1)])
    rng = random.Random(2)
    assert all(design.draw(0, rng) == (0, 1) for _ in range(2000))
    assert design.asked == pytest.approx([7, 7], rel=1e-5)
    assert design.asked[0] == 7


TEXTS = [
    *("salto forward tucked", "salto backward tucked"),
    *("salto forward piked", "salto backward piked"),
    *("salto forward tucked with 1 twist", "salto backward tucked with 1 twist"),
    "whip salto backward",
    "salto backward piked",  # reads as class 3
    "salto forward tucked",  # in another family
]
# Forward saltos of the floor are of set 24, backward ones of set 25.
SETS = [24, 25, 24, 25, 24, 25, 25, 25, 21]
CLASSES = {
    label: ElementClass(label, set_id, label, "FX", text)
    for label, (set_id, text) in enumerate(zip(SETS, TEXTS, strict=True))
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


@given(st.lists(ATTRIBUTES, max_size=9), st.sampled_from([2, 3, 5, 6]))
def test_no_option_of_a_grid_is_nearer_to_the_others_than_any_other(attributes, size):
    values = [astuple(one) for one in attributes]
    assert grids(attributes, 4) == oracle.two_by_two(values)
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
    assert [len(grids(attributes, size)) for size in (2, 4, 7)] == [9, 3, 0]
    assert len(grids([*attributes, attributes[0]], 4)) == 5  # two with the one, two with its twin


def test_others_are_the_rest_of_a_grid_of_the_answers_family():
    designs = family_designs(CLASSES, NUM_CLIPS, 4)
    assert set(designs) == {21, 24}
    design, rng = designs[24], random.Random(0)
    seen, drawn = Counter(), Counter()
    for _ in range(3000):
        others = design.others(0, rng)
        if others is not None:
            assert len({TEXTS[one] for one in [0, *others]}) == 4
            seen[tuple(sorted({min(one, 3) if one == 7 else one for one in others}))] += 1
            drawn.update(others)
    assert set(seen) == {(1, 2, 3), (1, 4, 5)}
    # Two classes that read alike share a place by their clips.
    assert drawn[7] / (drawn[3] + drawn[7]) == pytest.approx(6 / 16, abs=0.04)
    assert {len(design.others(label, rng)) for label in (3, 7)} == {3}
    assert design.others(6, rng) is None
    assert designs[21].others(8, rng) is None


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
@pytest.mark.parametrize(
    ("benchmark", "in_grids", "asked"),
    [(99, 25, 1264), pytest.param(288, 165, 2292, marks=pytest.mark.slow)],
)
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
