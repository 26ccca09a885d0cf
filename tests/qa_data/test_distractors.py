"""The rules of the wrong options; random sets of fixed size against all subsets."""

import random
from collections import Counter

import numpy as np
import pytest

from qa_data.distractors import (
    DISTRACTORS,
    OTHER_NAMES,
    POOLS,
    TooFewOptions,
    draw_set,
    draw_table,
    everywhere,
    inclusions,
    pool_of,
    same_event,
    same_set,
    weights_for,
)
from qa_data.taxonomy import ElementClass
from tests.oracles import qa as oracle

# Classes 0 to 5 on the floor, 6 to 11 on the beam; 5 and 11 read alike, and so do 3 and 4.
TEXTS = ["a", "b", "c", "d", "d", "twin", "f", "g", "h", "i", "j", "twin"]
CLASSES = {
    label: ElementClass(label, 21 + 10 * (label > 5), label, "FX" if label < 6 else "BB", text)
    for label, text in enumerate(TEXTS)
}
NUM_CLIPS = {0: 9, 1: 7, 2: 10, 3: 2, 4: 5, 5: 10, 6: 30, 7: 1, 8: 14, 9: 25, 10: 4, 11: 20}
POOL = pool_of(CLASSES, [label for label, count in NUM_CLIPS.items() for _ in range(count)])


def test_hard_is_another_name_and_not_another_rule():
    assert OTHER_NAMES == {"hard": "event_prior"}
    assert "hard" not in DISTRACTORS


def test_public_draws_every_other_class_alike_and_repeats_texts():
    rng = random.Random(2)
    draws = [DISTRACTORS["public"](3, POOL, 3, rng) for _ in range(11_000)]
    counts = Counter(label for wrong in draws for label in wrong)
    assert set(counts) == set(range(12)) - {3}
    # 11,000 draws at 3/11: standard deviation 47
    assert all(abs(count - 3000) < 200 for count in counts.values())
    assert any(4 in wrong for wrong in draws)


@pytest.mark.parametrize("rule", DISTRACTORS)
def test_a_rule_gives_other_texts_within_its_apparatus_or_set(rule):
    rng = random.Random(3)
    within = {"event_prior": "event", "set_prior": "set_id"}.get(rule)
    for answer in CLASSES:
        for _ in range(100):
            wrong = DISTRACTORS[rule](answer, POOL, 3, rng)
            assert len({*wrong, answer}) == 4
            if rule != "public":
                assert len({TEXTS[label] for label in [answer, *wrong]}) == 4
            if within:
                parts = {getattr(CLASSES[label], within) for label in wrong}
                assert parts == {getattr(CLASSES[answer], within)}
        again = [DISTRACTORS[rule](answer, POOL, 3, random.Random(1)) for _ in range(2)]
        assert again[0] == again[1]


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("key", [everywhere, same_event, same_set])
def test_every_member_of_every_set_is_the_answer_equally_often(key, size):
    design = POOL.design(0, size, key)
    shares = [sum(one) for one in design.shares]
    assert sum(shares) == pytest.approx(1)
    assert not design.always
    assert design.bound == pytest.approx(1 / size)
    for chances in oracle.answer_given_set(shares, design.weights, size).values():
        assert list(chances.values()) == pytest.approx([1 / size] * size, abs=1e-9)


def test_the_drawn_options_follow_the_design_given_the_answer():
    rng = random.Random(5)
    design = POOL.design(2, 3, same_event)
    texts = {label: i for i, labels in enumerate(design.labels) for label in labels}
    draws = 20_000
    found = Counter(
        tuple(sorted({texts[2], *(texts[one] for one in design.others(2, rng))}))
        for _ in range(draws)
    )
    expected = oracle.sets_beside(design.weights, 3, texts[2])
    assert set(found) <= set(expected)
    for members, share in expected.items():
        assert abs(found[members] - draws * share) <= 4 * (draws * share * (1 - share)) ** 0.5


def test_a_text_of_two_classes_is_shown_as_each_by_its_share():
    rng = random.Random(6)
    shown = Counter(
        label for _ in range(8_000) for label in DISTRACTORS["event_prior"](0, POOL, 3, rng)
    )
    assert shown[4] / (shown[3] + shown[4]) == pytest.approx(5 / 7, abs=0.03)


def test_a_class_nobody_asks_about_is_never_an_option():
    pool = pool_of(CLASSES, [0, 1, 2, 5] * 3 + [3])
    rng = random.Random(7)
    shown = {label for _ in range(500) for label in DISTRACTORS["prior"](0, pool, 3, rng)}
    assert shown == {1, 2, 3, 5}


def test_too_common_a_text_is_in_every_set_and_bounds_the_blind_guess_by_its_share():
    labels = [0] * 60 + [1] * 15 + [2] * 15 + [5] * 10
    pool = pool_of(CLASSES, labels)
    design = pool.design(0, 3, same_event)
    assert [design.labels[text] for text in design.always] == [[0]]
    assert design.bound == pytest.approx(0.6)
    rng = random.Random(8)
    right_by_set = {}
    for _ in range(150):
        for answer in labels:
            shown = [answer, *DISTRACTORS["event_prior"](answer, pool, 2, rng)]
            assert 0 in shown
            right_by_set.setdefault(tuple(sorted(shown)), Counter())[answer] += 1
    for counts in right_by_set.values():
        assert counts[0] / counts.total() == pytest.approx(0.6, abs=0.03)


def test_a_text_of_exactly_one_share_in_k_is_still_at_chance():
    pool = pool_of(CLASSES, [0] * 5 + [1] * 5 + [2] * 4 + [5] * 6)
    assert pool.design(0, 3, same_event).bound == pytest.approx(1 / 3)
    equal = pool_of(CLASSES, [0, 1, 2, 5])
    assert equal.design(0, 4, same_event).bound == pytest.approx(1 / 4)
    assert sorted(DISTRACTORS["prior"](0, equal, 3, random.Random(0))) == [1, 2, 5]


def test_merged_pools_are_one():
    merged = POOL.merge(["event FX", "event BB"])
    assert merged.name(0, same_event) == merged.name(6, same_event) == "event BB + event FX"
    assert merged.design(0, 4, same_event).labels == POOL.design(0, 4, everywhere).labels


def test_too_few_texts_or_classes_are_refused_by_name():
    pool = pool_of(CLASSES, [0, 3, 4])
    small = pool_of({label: CLASSES[label] for label in (0, 3, 4)}, [0, 3, 4])
    differ = "4 different options are needed, .* 2 different"
    cases = [(rule, pool, 3, differ) for rule in POOLS]
    cases.append(("public", small, 3, "class 0 needs 3 wrong options.* 2 other classes"))
    cases.append(("distinct", small, 2, "only 1 other texts exist among 3 classes"))
    for rule, among, count, found in cases:
        with pytest.raises(TooFewOptions, match=found):
            DISTRACTORS[rule](0, among, count, random.Random(0))


CASES = [
    ([0.5, 0.5], 1),
    ([0.9, 0.6, 0.3, 0.2], 2),
    ([0.999, 0.4, 0.35, 0.2, 0.051], 2),
    ([0.75] * 4, 3),
    ([0.02, 0.98, 0.5, 0.6, 0.7, 0.8, 0.4], 4),
]


@pytest.mark.parametrize(("inclusion", "size"), CASES)
def test_the_weights_include_each_unit_as_often_as_asked(inclusion, size):
    inclusion = [one * size / sum(inclusion) for one in inclusion]
    weights = weights_for(inclusion)
    assert oracle.inclusions(weights, size) == pytest.approx(inclusion, abs=1e-10)
    assert inclusions(weights, size) == pytest.approx(inclusion, abs=1e-10)


def test_five_hundred_units_of_very_different_size_are_solved():
    share = 1 / np.arange(1.0, 531) ** 1.2
    share[:2] = 1.2
    inclusion = 4 * share / share.sum()
    assert inclusion.max() > 0.9
    assert inclusions(weights_for(inclusion), 4) == pytest.approx(inclusion, abs=1e-11)


def test_a_unit_that_must_not_be_drawn_weighs_nothing():
    weights = weights_for([0.5, 0.0, 0.7, 0.8])
    assert weights[1] == 0
    assert oracle.inclusions(weights, 2) == pytest.approx([0.5, 0, 0.7, 0.8], abs=1e-10)


def test_sets_are_drawn_as_often_as_their_weights_say():
    weights = np.array([0.1, 3.0, 0.0, 1.0, 0.4, 2.0])
    table = draw_table(weights, 3)
    rng = random.Random(7)
    draws = 20_000
    found = Counter(tuple(draw_set(table, rng)) for _ in range(draws))
    for members, share in oracle.set_probabilities(weights, 3).items():
        tolerance = 4 * (draws * share * (1 - share)) ** 0.5
        assert abs(found[members] - draws * share) <= tolerance
    assert found.total() == draws


def test_a_set_of_all_or_of_none_is_what_it_must_be():
    rng = random.Random(0)
    assert draw_set(draw_table(np.array([0.2, 5.0]), 2), rng) == [0, 1]
    assert draw_set(draw_table(np.array([0.2, 5.0]), 0), rng) == []


@pytest.mark.parametrize("inclusion", [[0.5, 0.6], [1.0, 1.0], [-0.1, 0.6, 0.5], [0.0, 0.0]])
def test_impossible_inclusions_are_refused(inclusion):
    with pytest.raises(ValueError, match="inclusion probabilities must be in"):
        weights_for(inclusion)
