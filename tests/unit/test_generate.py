"""Questions of clips."""

from collections import Counter
from dataclasses import replace

import pytest

from qa_data.distractors import DISTRACTORS
from qa_data.generate import build_questions
from qa_data.manifest import Clip
from qa_data.question import QuestionError, check_question
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


def test_letters_are_balanced():
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
def test_more_clips_do_not_change_the_questions_of_others(rule):
    few = build_questions(FLOOR[20:40], CLASSES, rule=rule, seed=3).questions
    many = build_questions(FLOOR, CLASSES, rule=rule, seed=3).questions
    assert [one.options for one in few] == [one.options for one in many[20:40]]


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
