"""Blocks of options such that each member is the answer equally often."""

import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_data.balanced_design import block_design
from tests.oracles import qa as oracle


@st.composite
def problems(draw):
    units = draw(st.integers(3, 6))
    size = draw(st.integers(2, min(units, 4)))
    all_blocks = list(combinations(range(units), size))
    blocks = draw(st.lists(st.sampled_from(all_blocks), unique=True, min_size=1, max_size=4))
    clips = draw(st.lists(st.integers(1, 300), min_size=units, max_size=units))
    return clips, blocks


@settings(max_examples=40, deadline=None)
@given(problems())
def test_as_many_clips_are_asked_about_as_can_be(problem):
    clips, blocks = problem
    design = block_design(clips, blocks)
    largest = oracle.largest_packing(clips, blocks)
    assert sum(design.weights) == pytest.approx(largest, rel=1e-5)
    assert sum(design.asked) == pytest.approx(len(blocks[0]) * largest, rel=1e-5)
    assert all(one <= n * (1 + 1e-9) for one, n in zip(design.asked, clips, strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_large_problems_with_clips_of_many_sizes_are_solved(seed):
    rng = random.Random(seed)
    clips = [rng.choice([1, 2, 5, 40, 1000, 20_000]) for _ in range(40)]
    blocks = sorted({tuple(sorted(rng.sample(range(40), 4))) for _ in range(600)})
    design = block_design(clips, blocks)
    assert all(one <= n for one, n in zip(design.asked, clips, strict=True))
    assert 0 < sum(design.asked) <= sum(clips)


def test_of_many_solutions_the_middle_is_taken():
    design = block_design([10, 10, 10, 10], [(0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2)])
    assert design.weights == pytest.approx([10 / 3] * 6, rel=1e-4)


def test_the_middle_is_where_no_limit_is_near():
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
