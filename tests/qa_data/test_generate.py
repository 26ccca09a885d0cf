"""Questions of clips; other wrong options in every epoch, at chance in each."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from qa_data.distractors import DISTRACTORS
from qa_data.generate import build_questions, resample_distractors
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


def clips_of(counts, classes=CLASSES):
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [
        Clip(
            id=f"clip{number}",
            path="x.mp4",
            label=label,
            text=f"t{label}",
            event=classes[label].event,
            source=f"source{number % 5}",
            split="test",
            num_frames=30 + number,
        )
        for number, label in enumerate(labels)
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


@pytest.mark.parametrize("rule", [rule for rule in DISTRACTORS if rule != "public"])
@pytest.mark.parametrize("num_options", [2, 3, 6])
def test_every_letter_is_right_equally_often(rule, num_options):
    built = build_questions(FLOOR[:79], CLASSES, rule=rule, seed=5, num_options=num_options)
    assert {len(question.options) for question in built.questions} == {num_options}
    assert built.bound is None or built.bound == pytest.approx(1 / num_options)
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


def test_the_seed_decides_and_the_order_of_the_clips_changes_the_numbers_only():
    forward = build_questions(FLOOR, CLASSES, rule="prior", seed=3).questions
    backward = build_questions(FLOOR[::-1], CLASSES, rule="prior", seed=3).questions
    assert [one.options for one in forward] == [one.options for one in backward[::-1]]
    assert build_questions(FLOOR, CLASSES, rule="prior", seed=2).questions != forward


def test_pools_that_cannot_be_at_chance_are_left_out_and_reported_or_kept_at_their_bound():
    built = build_questions(FLOOR_AND_VAULT, CLASSES, rule="event_prior", seed=0, num_options=3)
    assert [question.event for question in built.questions] == ["FX"] * 80
    floor, vault = built.pools
    assert (floor.pool, floor.clips, floor.asked) == ("event FX", 80, True)
    assert (vault.pool, vault.clips, vault.asked) == ("event VT", 10, False)
    assert vault.bound == pytest.approx(0.5)
    assert built.bound == pytest.approx(1 / 3)
    kept, few = (
        build_questions(
            FLOOR_AND_VAULT, CLASSES, rule="event_prior", seed=0, num_options=size, common="keep"
        )
        for size in (3, 4)
    )
    assert len(kept.questions) == 90
    assert kept.bound == pytest.approx((80 / 3 + 10 / 2) / 90)
    # What shows too few texts is left out even then.
    assert len(few.questions) == 80
    assert [pool.bound for pool in few.pools if not pool.asked] == [None]


def test_they_are_joined_with_others_until_all_are_at_chance():
    built = build_questions(FLOOR_AND_VAULT, CLASSES, rule="event_prior", seed=0, common="widen")
    assert len(built.questions) == 90
    (pool,) = built.pools
    assert (pool.pool, pool.bound) == ("event FX + event VT", pytest.approx(0.25))
    events = [{CLASSES[label].event for label in one.option_labels} for one in built.questions]
    assert {"FX", "VT"} in events
    # Pools that are at chance are left alone.
    left, widened = (
        build_questions(FLOOR, CLASSES, rule="event_prior", seed=0, common=common)
        for common in ("leave_out", "widen")
    )
    assert widened == left


# The floor's classes 0 to 3 are a grid, 4 is commoner than all; 5 and 6 are of the bars.
SPOKEN = [
    ("FX", 24, "salto forward tucked"),
    ("FX", 25, "salto backward tucked"),
    ("FX", 24, "salto forward piked"),
    ("FX", 25, "salto backward piked"),
    ("FX", 25, "whip salto backward"),
    ("UB", 41, "giant circle forward"),
    ("UB", 41, "giant circle backward"),
]
MOVES = {
    label: ElementClass(label, set_id, label, event, text)
    for label, (event, set_id, text) in enumerate(SPOKEN)
}


def moves_of(*counts):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return [Clip(id=f"move{i}", path="x", label=one, split="test") for i, one in enumerate(labels)]


MOVE_CLIPS = moves_of(40, 25, 20, 35, 30, 12, 9)


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
    clips = moves_of(40, 25, 20, 35, 22, 20, 18)
    built = build_questions(clips, MOVES, rule="attribute", seed=0, common="widen")
    assert len(built.questions) == len(clips)
    (pool,) = [pool for pool in built.pools if "beyond" in pool.pool]
    assert pool.pool == "event FX + event UB beyond the grids"
    assert pool.bound == built.bound == pytest.approx(0.25)


def test_the_public_options_are_three_other_classes_drawn_and_shuffled_by_the_clips_own_generator():
    for question, clip in zip(
        build_questions(FLOOR, CLASSES, rule="public", seed=9).questions, FLOOR, strict=True
    ):
        rng = random.Random(f"9/{clip.id}")
        others = [label for label in sorted(CLASSES) if label != clip.label]
        shown = [clip.label, *rng.sample(others, 3)]
        rng.shuffle(shown)
        assert question.option_labels == tuple(shown)


@pytest.mark.parametrize(
    ("clips", "rule", "found"),
    [
        ([], "public", "there are no clips"),
        ([replace(FLOOR[0], label=None)], "public", "clip0 has class None"),
        ([replace(FLOOR[0], label=11)], "public", "class 11, which is not among the 11"),
        ([replace(FLOOR[0], text="x")], "public", "called 'x', but class 0 of the list is 't0'"),
        (FLOOR[:10], "event_prior", "leaves none of 10 clips: in event FX one text"),
    ],
)
def test_what_cannot_be_asked_is_refused(clips, rule, found):
    with pytest.raises(QuestionError, match=found):
        build_questions(clips, CLASSES, rule=rule, seed=0)
    for moves, size, found in (
        (MOVE_CLIPS[150:], 4, "rule attribute with 4 options leaves none of 21"),
        (moves_of(*[9] * 5), 3, "leaves none of 45 clips: in event FX beyond the grids one"),
    ):
        with pytest.raises(QuestionError, match=found):
            build_questions(moves, MOVES, rule="attribute", seed=0, num_options=size)


# A long tail on two apparatuses: class -> clips. No text is commoner than a quarter of its pool's.
TAIL = {0: 24, 1: 22, 2: 20, 3: 14, 4: 10, 5: 6, 10: 25, 11: 25, 12: 25, 13: 12, 14: 9, 15: 4}
TAILED = {
    label: ElementClass(label, 0, label, "FX" if label < 10 else "UB", f"t{label}")
    for label in TAIL
}


TAIL_CLIPS = clips_of(TAIL, TAILED)


@pytest.fixture
def asked():
    found = build_questions(TAIL_CLIPS, TAILED, rule="public", seed=4).questions
    return [replace(question, stem="Which one is it?") for question in found][::-1]


def commonest_answer_is_right(questions, times):
    """Share of questions whose option most often right elsewhere is the right one."""
    right = 0.0
    for question in questions:
        most = max(times[text] for text in question.options)
        best = [text for text in question.options if times[text] == most]
        right += (question.options[question.answer] in best) / len(best)
    return right / len(questions)


@pytest.mark.parametrize("rule", ["public", "hard"])
def test_an_epoch_keeps_all_but_the_wrong_options(asked, rule):
    draw = resample_distractors(asked, TAIL_CLIPS, TAILED, rule=rule, seed=0)
    for epoch in range(3):
        for before, after in zip(asked, draw(epoch), strict=True):
            assert before.options[before.answer] == after.options[after.answer]
            names = ("question_id", "video", "stem", "label", "source", "event", "dataset")
            assert all(getattr(before, name) == getattr(after, name) for name in names)
            assert after.option_labels[after.answer] == after.label
            assert len(after.options) == 4
            events = {TAILED[label].event for label in after.option_labels}
            assert rule == "public" or events == {after.event}


def test_epochs_differ_and_an_epoch_follows_from_seed_and_its_number(asked):
    draw = resample_distractors(asked, TAIL_CLIPS, TAILED, rule="hard", seed=0)
    epochs = {epoch: draw(epoch) for epoch in (2, 0, 1)}
    assert (
        resample_distractors(asked, TAIL_CLIPS[::-1], TAILED, rule="hard", seed=0)(2) == epochs[2]
    )
    assert resample_distractors(asked, TAIL_CLIPS, TAILED, rule="hard", seed=1)(2) != epochs[2]
    sets = [[frozenset(question.options) for question in epochs[epoch]] for epoch in (0, 1, 2)]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        moved = sum(a != b for a, b in zip(sets[first], sets[second], strict=True))
        assert moved > len(asked) / 2


def test_hard_stays_at_chance_in_every_epoch_and_public_does_not(asked):
    times = Counter(question.options[question.answer] for question in asked)
    hard = resample_distractors(asked, TAIL_CLIPS, TAILED, rule="hard", seed=0)
    public = resample_distractors(asked, TAIL_CLIPS, TAILED, rule="public", seed=0)
    found = [commonest_answer_is_right(hard(epoch), times) for epoch in range(12)]
    assert max(found) < 0.38  # 25 % and three standard errors of 196 questions
    assert sum(found) / 12 == pytest.approx(0.25, abs=0.035)
    easy = [commonest_answer_is_right(public(epoch), times) for epoch in range(4)]
    assert sum(easy) / 4 > 0.33


def test_what_cannot_be_redrawn_is_refused(asked):
    two = replace(asked[0], options=("a", "b"), answer=0, option_labels=None)
    yes = replace(asked[0], options=("yes", "no", "a", "b"), answer=0, option_labels=None)
    few = [question for question in asked if question.label in (0, 1, 10, 11, 12, 13)]
    for questions, known, found in (
        ([*asked, asked[0]], TAIL_CLIPS, "2 questions are about clip195"),
        ([two, *asked[1:]], TAIL_CLIPS, "the questions have 2, 4 options"),
        (asked, TAIL_CLIPS[24:], "24 of 196 clips are not in the manifest"),
        ([yes, *asked[1:]], TAIL_CLIPS, "right option is 'yes', but the clip's class is"),
        (few, TAIL_CLIPS, "shows too few different texts on its apparatus"),
    ):
        with pytest.raises(QuestionError, match=found):
            resample_distractors(questions, known, TAILED, rule="hard", seed=0)(0)
