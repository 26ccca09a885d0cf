"""Questions of clips."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from qa_data.distractors import DISTRACTORS
from qa_data.generate import build_questions
from qa_data.manifest import Clip
from qa_data.questions import QuestionError, check_question
from qa_data.taxonomy import ElementClass

# Eight classes on the floor, three on the vault.
CLASSES = {
    label: ElementClass(
        label, 21 if label < 8 else 1, label, "FX" if label < 8 else "VT", f"t{label}"
    )
    for label in range(11)
}


def clips_of(counts, first=0):
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [
        Clip(
            id=f"clip{number}",
            path="x.mp4",
            label=label,
            text=f"t{label}",
            event=CLASSES[label].event,
            source=f"source{number % 5}",
            split="test",
            num_frames=30 + number,
        )
        for number, label in enumerate(labels, first)
    ]


FLOOR = clips_of(dict.fromkeys(range(8), 10))
FLOOR_AND_VAULT = clips_of({**dict.fromkeys(range(8), 10), 8: 5, 9: 3, 10: 2})


@pytest.mark.parametrize("rule", DISTRACTORS)
def test_every_clip_becomes_a_sound_question_in_its_place(rule):
    built = build_questions(FLOOR, CLASSES, rule=rule, seed=0)
    assert [one.question_id for one in built.questions] == [f"{i:07d}" for i in range(80)]
    for question, clip in zip(built.questions, FLOOR, strict=True):
        assert check_question(question) is None
        assert question.options[question.answer] == clip.text
        assert (question.video, question.label, question.event) == (clip.id, clip.label, "FX")
        assert (question.source, question.frame_length) == (clip.source, clip.num_frames)
        labels = question.option_labels
        assert question.options == tuple(CLASSES[label].text for label in labels)


@pytest.mark.parametrize("num_options", [2, 3, 6])
def test_any_number_of_options(num_options):
    built = build_questions(FLOOR, CLASSES, rule="event_prior", seed=0, num_options=num_options)
    assert {len(question.options) for question in built.questions} == {num_options}
    assert built.bound == pytest.approx(1 / num_options)


@pytest.mark.parametrize("rule", [rule for rule in DISTRACTORS if rule != "public"])
@pytest.mark.parametrize("num_options", [2, 3, 4])
def test_every_letter_is_right_equally_often(rule, num_options):
    clips = FLOOR[:79]
    built = build_questions(clips, CLASSES, rule=rule, seed=5, num_options=num_options)
    counts = Counter(question.letter for question in built.questions)
    assert len(counts) == num_options
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_wrong_options_are_at_every_letter_alike():
    places = Counter()
    for seed in range(40):
        for question in build_questions(FLOOR, CLASSES, rule="distinct", seed=seed).questions:
            wrong = [label for label in question.option_labels if label != question.label]
            places[question.answer, question.option_labels.index(min(wrong))] += 1
    # 3,200 questions over 12 places: standard deviation 16
    assert len(places) == 12
    assert all(abs(count - 3200 / 12) < 65 for count in places.values())


def test_the_public_rule_shuffles_and_balances_nothing():
    letters = Counter(
        question.letter
        for seed in range(50)
        for question in build_questions(FLOOR, CLASSES, rule="public", seed=seed).questions
    )
    # 4,000 questions: standard deviation 27
    assert all(abs(letters[letter] - 1000) < 110 for letter in "ABCD")


def test_the_seed_decides():
    one, again, other = (
        build_questions(FLOOR, CLASSES, rule="prior", seed=seed).questions for seed in (1, 1, 2)
    )
    assert one == again != other


@pytest.mark.parametrize("rule", ["public", "distinct"])
def test_more_clips_do_not_change_the_options_of_others(rule):
    few = build_questions(FLOOR[20:40], CLASSES, rule=rule, seed=3).questions
    many = build_questions(FLOOR, CLASSES, rule=rule, seed=3).questions
    assert [in_turn(one) for one in few] == [in_turn(one) for one in many[20:40]]
    if rule == "public":
        assert [one.options for one in few] == [one.options for one in many[20:40]]


def in_turn(question):
    """The options from the right one on, round the end: what the balance of letters leaves."""
    return question.options[question.answer :] + question.options[: question.answer]


def test_the_order_of_the_clips_changes_the_numbers_only():
    forward = build_questions(FLOOR, CLASSES, rule="prior", seed=3).questions
    backward = build_questions(FLOOR[::-1], CLASSES, rule="prior", seed=3).questions
    assert [one.options for one in forward] == [one.options for one in backward[::-1]]


def test_pools_that_cannot_be_at_chance_are_left_out_and_reported():
    built = build_questions(FLOOR_AND_VAULT, CLASSES, rule="event_prior", seed=0, num_options=3)
    assert [question.event for question in built.questions] == ["FX"] * 80
    floor, vault = built.pools
    assert (floor.pool, floor.clips, floor.asked) == ("event FX", 80, True)
    assert (vault.pool, vault.clips, vault.asked) == ("event VT", 10, False)
    assert vault.bound == pytest.approx(0.5)
    assert built.bound == pytest.approx(1 / 3)


def test_they_are_kept_at_their_bound_if_asked():
    built = build_questions(
        FLOOR_AND_VAULT, CLASSES, rule="event_prior", seed=0, num_options=3, common="keep"
    )
    assert len(built.questions) == 90
    assert built.bound == pytest.approx((80 / 3 + 10 / 2) / 90)


def test_what_shows_too_few_texts_is_left_out_even_if_common_ones_are_kept():
    built = build_questions(FLOOR_AND_VAULT, CLASSES, rule="event_prior", seed=0, common="keep")
    assert len(built.questions) == 80
    assert [pool.bound for pool in built.pools if not pool.asked] == [None]


def test_they_are_joined_with_others_until_all_are_at_chance():
    built = build_questions(FLOOR_AND_VAULT, CLASSES, rule="event_prior", seed=0, common="widen")
    assert len(built.questions) == 90
    (pool,) = built.pools
    assert (pool.pool, pool.bound) == ("event FX + event VT", pytest.approx(0.25))
    assert any(
        {CLASSES[label].event for label in question.option_labels} == {"FX", "VT"}
        for question in built.questions
    )


def test_widening_leaves_pools_alone_that_are_at_chance():
    kept = build_questions(FLOOR, CLASSES, rule="event_prior", seed=0)
    widened = build_questions(FLOOR, CLASSES, rule="event_prior", seed=0, common="widen")
    assert widened == kept


# The floor's classes 0 to 3 are a grid, 4 is commoner than all; 5 and 6 are of the bars.
SPOKEN = {
    0: ("FX", 24, "salto forward tucked"),
    1: ("FX", 25, "salto backward tucked"),
    2: ("FX", 24, "salto forward piked"),
    3: ("FX", 25, "salto backward piked"),
    4: ("FX", 25, "whip salto backward"),
    5: ("UB", 41, "giant circle forward"),
    6: ("UB", 41, "giant circle backward"),
}
MOVES = {
    label: ElementClass(label, set_id, label, event, text)
    for label, (event, set_id, text) in SPOKEN.items()
}


def moves_of(counts):
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [
        Clip(id=f"move{number}", path="x.mp4", label=label, split="test")
        for number, label in enumerate(labels)
    ]


MOVE_CLIPS = moves_of({0: 40, 1: 25, 2: 20, 3: 35, 4: 30, 5: 12, 6: 9})


def test_the_rule_attribute_asks_by_grids_and_leaves_out_the_rest():
    built = build_questions(MOVE_CLIPS, MOVES, rule="attribute", seed=0)
    assert {frozenset(one.option_labels) for one in built.questions} == {frozenset(range(4))}
    grids, bars, floor = sorted(built.pools, key=lambda pool: pool.pool, reverse=True)
    assert (grids.pool, grids.asked, grids.bound) == ("grids of set 24 + 25", True, 0.25)
    assert grids.clips == len(built.questions)
    assert 60 <= grids.clips <= 90  # 4 * 20 as expected
    assert (floor.pool, floor.asked) == ("event FX beyond the grids", False)
    assert (bars.pool, bars.asked, bars.bound) == ("event UB beyond the grids", False, None)
    assert sum(pool.clips for pool in built.pools) == len(MOVE_CLIPS)
    assert built.bound == 0.25


def test_what_is_beyond_the_grids_is_asked_about_by_apparatus_if_kept():
    built = build_questions(MOVE_CLIPS, MOVES, rule="attribute", seed=0, common="keep")
    assert [one.video for one in built.questions] == [clip.id for clip in MOVE_CLIPS[:150]]
    beyond = [one for one in built.questions if 4 in one.option_labels]
    assert beyond
    assert all(set(one.option_labels) <= set(range(5)) for one in beyond)
    # of classes 2, nothing is left over: it is no option beyond the grids
    assert all(2 not in one.option_labels for one in beyond)
    (floor,) = [pool for pool in built.pools if pool.pool == "event FX beyond the grids"]
    # 30 of the 70 left over are of class 4
    assert floor.asked
    assert floor.bound == pytest.approx(30 / 70, abs=1e-6)


def test_what_is_beyond_the_grids_is_widened_until_it_is_at_chance():
    clips = moves_of({0: 40, 1: 25, 2: 20, 3: 35, 4: 22, 5: 20, 6: 18})
    built = build_questions(clips, MOVES, rule="attribute", seed=0, common="widen")
    assert len(built.questions) == len(clips)
    (pool,) = [pool for pool in built.pools if "beyond" in pool.pool]
    assert pool.pool == "event FX + event UB beyond the grids"
    assert pool.bound == built.bound == pytest.approx(0.25)


def test_grids_leave_chance_to_whoever_sees_the_options_alone():
    right = Counter()
    for seed in range(60):
        for one in build_questions(MOVE_CLIPS, MOVES, rule="attribute", seed=seed).questions:
            right[one.label] += 1
    for label in range(4):
        assert right[label] / right.total() == pytest.approx(0.25, abs=0.02)


def test_a_rule_without_a_single_grid_is_refused():
    with pytest.raises(QuestionError, match="rule attribute with 4 options leaves none of 21"):
        build_questions(MOVE_CLIPS[150:], MOVES, rule="attribute", seed=0)


def test_the_public_options_are_three_other_classes_drawn_and_shuffled_by_the_clips_own_generator():
    for question, clip in zip(
        build_questions(FLOOR, CLASSES, rule="public", seed=9).questions, FLOOR, strict=True
    ):
        rng = random.Random(f"9/{clip.id}")
        others = [label for label in sorted(CLASSES) if label != clip.label]
        shown = [clip.label, *rng.sample(others, 3)]
        rng.shuffle(shown)
        assert question.option_labels == tuple(shown)


def test_what_cannot_be_asked_is_refused():
    clip = FLOOR[0]
    build = {"classes": CLASSES, "rule": "public", "seed": 0}
    with pytest.raises(QuestionError, match="there are no clips"):
        build_questions([], **build)
    with pytest.raises(QuestionError, match="clip0 has class None"):
        build_questions([replace(clip, label=None)], **build)
    with pytest.raises(QuestionError, match="clip0 has class 11, which is not among the 11"):
        build_questions([replace(clip, label=11)], **build)
    with pytest.raises(QuestionError, match="clip0 is called 'x', but class 0 of the list is 't0'"):
        build_questions([replace(clip, text="x")], **build)
    with pytest.raises(QuestionError, match="leaves none of 10 clips: in event FX one text"):
        build_questions(FLOOR[:10], CLASSES, rule="event_prior", seed=0)
