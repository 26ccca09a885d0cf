"""The control of mismatched videos: another clip, of another class and source, each shown once."""

import random
from dataclasses import replace

import pytest

from qa_data.finegym import read_elements, to_clips
from qa_data.questions import Question
from qa_data.taxonomy import read_categories
from sefar_mllm.mismatched_videos import mismatched_videos
from tests.finegym import finegym_folder
from tests.oracles import toy_llm


def questions_about(clips) -> list[Question]:
    """A question for each (clip, class, text, source)."""
    return [
        Question(
            question_id=f"{number:07d}",
            video=clip,
            stem="What is it?",
            options=(text, "something else"),
            answer=0,
            label=label,
            source=source,
        )
        for number, (clip, label, text, source) in enumerate(clips)
    ]


def long_tailed(count: int, rng: random.Random) -> list[Question]:
    """Classes by Zipf's law, sources of uneven length, as in FineGym."""
    labels = rng.choices(range(40), [1 / (rank + 1) for rank in range(40)], k=count)
    sources = rng.choices(range(12), [rank + 1 for rank in range(12)], k=count)
    return questions_about(
        (f"clip{i}", label, f"move {label}", f"video{source}")
        for i, (label, source) in enumerate(zip(labels, sources, strict=True))
    )


def assert_mismatched(questions, shown):
    of = {one.video: one for one in questions}
    assert sorted(shown) == sorted(shown.values()) == sorted(of)
    for clip, other in shown.items():
        assert of[clip].label != of[other].label
        assert of[clip].options[of[clip].answer] != of[other].options[of[other].answer]
        assert of[clip].source != of[other].source


@pytest.mark.parametrize("seed", range(8))
def test_no_clip_is_shown_one_of_its_class_answer_or_source(seed):
    questions = long_tailed(20 + 60 * seed, random.Random(seed))
    shown = mismatched_videos(questions, random.Random(seed))
    assert_mismatched(questions, shown)
    moved = random.Random(1).sample(questions, len(questions))
    assert shown == mismatched_videos(moved, random.Random(seed))
    assert shown != mismatched_videos(questions, random.Random(seed + 1))


@pytest.mark.parametrize("seed", range(15))
def test_the_only_matching_is_found(seed):
    # Half of the clips are of one class: each must be shown one of the others, and vice versa.
    questions = questions_about(
        [(f"a{i}", 0, "salto", f"s{i}") for i in range(12)]
        + [(f"b{i}", 1 + i % 6, f"move {i % 6}", f"t{i}") for i in range(12)]
    )
    shown = mismatched_videos(questions, random.Random(seed))
    assert_mismatched(questions, shown)
    assert {clip[0] + other[0] for clip, other in shown.items()} == {"ab", "ba"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((33, "split leap"), (72, "split leap")),  # two classes of one text
        ((7, "tucked"), (7, "once")),  # two questions about one class
    ],
)
def test_clips_with_the_same_class_or_text_are_not_exchanged(first, second):
    questions = questions_about(
        [("a", *first, "s1"), ("b", *second, "s2")]
        + [("c", 5, "salto", "s3"), ("d", 6, "stalder", "s4")]
    )
    for seed in range(10):
        shown = mismatched_videos(questions, random.Random(seed))
        assert {shown["a"], shown["b"]} == {"c", "d"}


def test_all_questions_about_a_clip_count():
    questions = toy_llm.questions(8)
    more = [replace(one, question_id=f"x{one.question_id}") for one in questions]
    more[0] = replace(more[0], options=("tucked", "piked"), answer=0, label=None)
    more[1] = replace(more[1], options=("tucked", "piked"), answer=0, label=None)
    for seed in range(10):
        shown = mismatched_videos([*questions, *more], random.Random(seed))
        assert shown["clip0"] != "clip1" and shown["clip1"] != "clip0"


@pytest.mark.parametrize(
    ("clips", "words"),
    [
        ([("a", 0, "x", "s")], "of 1 clips, 1 are of source 's'"),
        (
            [(f"c{i}", 0 if i < 4 else i, f"move {max(i, 3)}", f"s{i}") for i in range(7)],
            "of 7 clips, 4 are of class 0",
        ),
        (
            [(f"c{i}", i, f"move {i}", "s" if i < 6 else f"s{i}") for i in range(10)],
            "of 10 clips, 6 are of source 's'.* take questions about more classes and sources",
        ),
    ],
)
def test_clips_that_are_too_much_alike_are_refused(clips, words):
    with pytest.raises(ValueError, match=f"no mismatched video for clip .*{words}"):
        mismatched_videos(questions_about(clips), random.Random(0))


@pytest.mark.slow
@pytest.mark.lists
def test_the_validation_list_of_gym99_has_a_matching():
    folder = finegym_folder()
    classes = read_categories(folder / "gym99_categories.txt")
    clips = to_clips(read_elements(folder / "gym99_val_element.txt"), classes, split="val")
    questions = questions_about((clip.id, clip.label, clip.text, clip.source) for clip in clips)
    shown = mismatched_videos(questions, random.Random(0))
    assert len(shown) > 8000
    assert_mismatched(questions, shown)
