"""The question record and its two files."""

import json
from dataclasses import replace

import pytest

from qa_data.manifest import Clip
from qa_data.question import Question, QuestionError, check_question, count_repeats, split_line
from qa_data.schema import (
    attach_classes,
    read_public_json,
    read_questions,
    write_public_json,
    write_questions,
)

# Written by hand after the description of the public files.
PUBLIC = """{
    "0000000": {
        "answer": "B",
        "question": "What gymnastics move is this athlete performing? A.split jump B.wolf hop, \
hip angle at 45 C.split jump D.(swing forward) giant circle",
        "answer_type": "what",
        "question_id": "0000000",
        "dataset": "finegym",
        "video": "Z0bBRwAzKe0_E_004093_004127_A_0010_0012",
        "frame_length": 74
    },
    "0000001": {
        "answer": "A",
        "question": "What gymnastics move is this athlete performing? A.salto \\u00e9 B.turn",
        "answer_type": "what",
        "question_id": "0000001",
        "dataset": "finegym",
        "video": "Z0bBRwAzKe0_E_004093_004127_A_0012_0013",
        "frame_length": null
    }
}"""
QUESTION = Question(
    question_id="0000000",
    video="clip",
    stem="Which?",
    options=("one", "two", "three"),
    answer=1,
    label=7,
    option_labels=(3, 7, 9),
    event="BB",
    source="video",
    frame_length=31,
)


def written(folder, text):
    path = folder / "questions.json"
    path.write_bytes(text.encode())
    return path


def test_the_public_file_is_read_and_written_byte_for_byte(tmp_path):
    questions = read_public_json(written(tmp_path, PUBLIC))
    first, second = questions
    assert first.stem == "What gymnastics move is this athlete performing?"
    assert first.options == (
        "split jump",
        "wolf hop, hip angle at 45",
        "split jump",
        "(swing forward) giant circle",
    )
    assert (first.answer, first.letter, first.frame_length) == (1, "B", 74)
    assert (second.options, second.frame_length) == (("salto é", "turn"), None)
    write_public_json(questions, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == PUBLIC.encode()


def test_the_lines_file_keeps_every_field(tmp_path):
    questions = [
        QUESTION,
        replace(QUESTION, question_id="0000001", option_labels=None, options=("a\u2028b", "c")),
    ]
    write_questions(questions, tmp_path / "questions.jsonl")
    assert read_questions(tmp_path / "questions.jsonl") == questions


def test_any_number_of_options_is_told_apart():
    texts = tuple(f"move {number}" for number in range(26))
    question = replace(QUESTION, options=texts, option_labels=None)
    assert split_line(question.line) == ("Which?", texts)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"answer": 3}, "the answer is option 3 of 3"),
        ({"answer": -1}, "the answer is option -1 of 3"),
        ({"options": ("one",), "answer": 0}, "it has 1 options"),
        ({"options": ("one", " ", "x")}, "one of the options .* is empty"),
        ({"video": ""}, "video '' or .* is empty"),
        ({"option_labels": (3, 7)}, "2 classes stand for 3 options"),
        ({"option_labels": (7, 3, 9)}, "clip's class is 7, but the right option's class is 3"),
        ({"options": ("one", "two C.x", "three")}, "could not be told apart"),
        ({"stem": "Which"}, "found 'Which A.one"),
        ({"stem": "Which? A.x B.y?"}, "could not be told apart"),
    ],
)
def test_an_unsound_question_is_not_written(tmp_path, change, found):
    for write in (write_public_json, write_questions):
        with pytest.raises(QuestionError, match=found):
            write([replace(QUESTION, **change)], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_sound_questions_have_no_problem_even_with_repeated_texts():
    repeated = replace(QUESTION, options=("two", "two", "three"))
    assert check_question(repeated) is None
    elsewhere = replace(QUESTION, options=("one", "two", "one"))
    assert count_repeats([QUESTION, repeated, elsewhere]) == {
        "some_option_twice": 2,
        "right_option_twice": 1,
    }


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ('"answer": "B"', '"answer": "b"', "question 0000000: its answer is 'b'"),
        ('"answer": "B"', '"answer": "F"', "question 0000000: the answer is option 5 of 4"),
        ('"question_id": "0000000"', '"question_id": "0"', "its question_id is '0'"),
        ('"0000001"', '"0000000"', "question id 0000000 is used more than once"),
        ("? A.split", "? split", "question 0000000: found .*expected a question mark"),
        ('"frame_length": 74', '"frame_length": "74"', "frame_length is '74'"),
        ('"dataset": "finegym",', "", "question 0000000: its fields are"),
        ("}\n}", "}", "is not JSON"),
        (PUBLIC, "{}", "holds no questions"),
        (PUBLIC, '{"a": 1}', "holds no questions|found"),
    ],
)
def test_a_bad_public_file_is_named_by_question(tmp_path, before, after, found):
    text = PUBLIC.replace(before, after)
    if before == '"0000001"':
        assert text.count('"0000000"') == 4
    with pytest.raises(QuestionError, match=found):
        read_public_json(written(tmp_path, text))


def test_a_bad_line_is_named_by_its_number(tmp_path):
    path = tmp_path / "questions.jsonl"
    write_questions([QUESTION], path)
    good = path.read_text(encoding="utf-8")
    for line, found in [
        ("{", "line 2 is not JSON"),
        (json.dumps({"video": "x"}), "line 2: found .* expected the fields"),
        (good.replace('"answer": 1', '"answer": "B"'), "line 2: answer is 'B'"),
    ]:
        path.write_text(good + line, encoding="utf-8")
        with pytest.raises(QuestionError, match=found):
            read_questions(path)
    with pytest.raises(QuestionError, match="no questions at"):
        read_questions(tmp_path / "absent.jsonl")


def test_classes_are_attached_by_clip_id_and_must_agree():
    bare = replace(QUESTION, label=None, option_labels=None, event=None, source="")
    clip = Clip(
        id="clip", path="x.mp4", label=7, text="two", event="BB", source="video", split="test"
    )
    assert attach_classes([bare], [clip]) == [replace(QUESTION, option_labels=None)]
    with pytest.raises(QuestionError, match="question 0000000: video clip is not in the manifest"):
        attach_classes([bare], [replace(clip, id="other")])
    with pytest.raises(QuestionError, match="'two', but the manifest calls the clip 'six'"):
        attach_classes([bare], [replace(clip, text="six")])
