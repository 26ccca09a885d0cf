"""The rules of the wrong options."""

import random
from collections import Counter

import pytest

from qa_data.distractors import (
    DISTRACTORS,
    OTHER_NAMES,
    POOLS,
    TooFewOptions,
    everywhere,
    pool_of,
    same_event,
    same_set,
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


@pytest.mark.parametrize("rule", DISTRACTORS)
@pytest.mark.parametrize("answer", [0, 4, 11])
def test_a_rule_gives_other_classes_and_the_same_for_the_same_seed(rule, answer):
    wrong = DISTRACTORS[rule](answer, POOL, 3, random.Random(1))
    assert len({*wrong, answer}) == 4
    assert wrong == DISTRACTORS[rule](answer, POOL, 3, random.Random(1))


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


@pytest.mark.parametrize("rule", [name for name in DISTRACTORS if name != "public"])
def test_the_other_rules_never_print_a_text_twice(rule):
    rng = random.Random(3)
    for answer in CLASSES:
        for _ in range(200):
            wrong = DISTRACTORS[rule](answer, POOL, 3, rng)
            assert len({TEXTS[label] for label in [answer, *wrong]}) == 4


@pytest.mark.parametrize(("rule", "within"), [("event_prior", "event"), ("set_prior", "set_id")])
def test_options_stay_in_the_answers_apparatus_or_set(rule, within):
    rng = random.Random(4)
    for answer in CLASSES:
        for label in DISTRACTORS[rule](answer, POOL, 3, rng):
            assert getattr(CLASSES[label], within) == getattr(CLASSES[answer], within)


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


@pytest.mark.parametrize("rule", POOLS)
def test_too_few_texts_are_refused_by_name(rule):
    pool = pool_of(CLASSES, [0, 3, 4])
    with pytest.raises(TooFewOptions, match="4 different options are needed, .* 2 different"):
        DISTRACTORS[rule](0, pool, 3, random.Random(0))


def test_too_few_classes_are_refused():
    small = pool_of({label: CLASSES[label] for label in (0, 3, 4)}, [0, 3, 4])
    with pytest.raises(TooFewOptions, match="class 0 needs 3 wrong options.* 2 other classes"):
        DISTRACTORS["public"](0, small, 3, random.Random(0))
    with pytest.raises(TooFewOptions, match="only 1 other texts exist among 3 classes"):
        DISTRACTORS["distinct"](0, small, 2, random.Random(0))
