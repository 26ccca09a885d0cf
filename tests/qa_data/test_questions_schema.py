"""The question record and its two files."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_data.manifest import Clip
from qa_data.questions import (
    Question,
    QuestionError,
    attach_classes,
    read_any,
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
    first, second = questions = read_any(written(tmp_path, PUBLIC))
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


# As the public builder printed them: json.dump with an indent of 4, from plain dictionaries.
OPTION = st.text(st.characters(exclude_characters=".?", codec="utf-8"), min_size=1, max_size=9)
PUBLIC_ENTRY = st.tuples(
    st.lists(OPTION.filter(str.strip), min_size=2, max_size=4),
    st.integers(0, 1),
    st.none() | st.integers(0, 2**31 - 1),
)


@given(st.lists(PUBLIC_ENTRY, min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_any_public_file_is_written_as_it_was_read(tmp_path_factory, entries):
    names = [f"{number:07d}" for number in range(len(entries))]
    public = {
        name: {
            "answer": "AB"[answer],
            "question": "Which move? "
            + " ".join(f"{letter}.{text}" for letter, text in zip("ABCD", options, strict=False)),
            "answer_type": "what",
            "question_id": name,
            "dataset": "finegym",
            "video": f"clip {name} é",
            "frame_length": frames,
        }
        for name, (options, answer, frames) in zip(names, entries, strict=True)
    }
    folder = tmp_path_factory.getbasetemp()
    path = written(folder, json.dumps(public, indent=4))
    questions = read_any(path)
    assert [one.options for one in questions] == [tuple(options) for options, _, _ in entries]
    write_public_json(questions, folder / "again.json")
    assert (folder / "again.json").read_bytes() == path.read_bytes()


def test_the_lines_file_keeps_every_field(tmp_path):
    questions = [
        QUESTION,
        replace(QUESTION, question_id="0000001", option_labels=None, options=("a\u2028b", "c")),
    ]
    write_questions(questions, tmp_path / "questions.jsonl")
    assert read_questions(tmp_path / "questions.jsonl") == questions


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"answer": 3}, "the answer is option 3 of 3"),
        ({"answer": -1}, "the answer is option -1 of 3"),
        ({"options": ("one",), "answer": 0}, "it has 1 options"),
        ({"options": ("one", " ", "x")}, "option B is empty"),
        ({"video": ""}, "the video is empty"),
        ({"stem": "  "}, "the question is empty"),
        ({"question_id": ""}, "its id is empty"),
        ({"options": ("one", "\ud800", "x")}, "holds half a character"),
        ({"dataset": "\udfff"}, "holds half a character"),
        ({"option_labels": (3, 7)}, "it has 2 classes for 3 options"),
        ({"option_labels": (7, 3, 9)}, "clip's class is 7, but the right option's class is 3"),
    ],
)
def test_an_unsound_question_is_not_written(tmp_path, change, found):
    for write in (write_public_json, write_questions):
        with pytest.raises(QuestionError, match=found):
            write([replace(QUESTION, **change)], tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"options": ("one", "two C.x", "three")},
        {"options": ("one", "two", "three E.x")},
        {"stem": "Which"},
        {"stem": "Which? A.x B.y?"},
    ],
)
def test_what_one_line_cannot_tell_apart_is_kept_in_lines_of_fields_only(tmp_path, change):
    question = replace(QUESTION, **change)
    with pytest.raises(QuestionError, match="question 0000000: .* cannot be separated again"):
        write_public_json([question], tmp_path / "out.json")
    assert not list(tmp_path.iterdir())
    write_questions([question], tmp_path / "out.jsonl")
    assert read_questions(tmp_path / "out.jsonl") == [question]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ('"answer": "B"', '"answer": "b"', "question 0000000: its answer is 'b'"),
        (
            '"answer": "B"',
            '"answer": "F"',
            "question 0000000: its answer is 'F', but its options are A to D",
        ),
        ('"question_id": "0000000"', '"question_id": "0"', "its question_id is '0'"),
        ('"0000001"', '"0000000"', "the key '0000000' is twice"),
        ("? A.split", "? split", "question 0000000: found .*expected a question mark"),
        ("B.wolf hop", "wolf hop", "question 0000000: option B is missing"),
        ("C.split jump D.", "split jump D.", "question 0000000: option C is missing"),
        ('"frame_length": 74', '"frame_length": "74"', "frame_length is '74'"),
        ('"frame_length": 74', '"frame_length": true', "frame_length is True"),
        ('"frame_length": 74', '"frame_length": -1', "frame_length is -1"),
        ('"frame_length": 74', '"frame_length": 2147483648', "frame_length is 2147483648; .* 0 to"),
        ('"frame_length": 74', '"frame_length": NaN', "found NaN in place of a number"),
        (
            '"dataset": "finegym",\n        "video": "Z0',
            '"dataset": 7,\n        "video": "Z0',
            "dataset is 7",
        ),
        (
            '"answer": "B"',
            '"answer": "B", "answer": "A"',
            "the key 'answer' is twice in one object, .*'What gym",
        ),
        ('"answer": "B"', '"answer": ["B"]', r"its answer is \['B'\]"),
        ('"dataset": "finegym",', "", "question 0000000: its fields are"),
        ("}\n}", "}", "is not JSON"),
        (PUBLIC, "{}", "holds no questions"),
        (PUBLIC, '{"a": {}}', r"its fields are \[\]"),
    ],
)
def test_a_bad_public_file_is_named_by_question(tmp_path, before, after, found):
    text = PUBLIC.replace(before, after)
    if before == '"0000001"':
        assert text.count('"0000000"') == 4
    with pytest.raises(QuestionError, match=found):
        read_any(written(tmp_path, text))


def test_a_bad_line_is_named_by_its_number(tmp_path):
    path = tmp_path / "questions.jsonl"
    write_questions([QUESTION], path)
    good = path.read_text(encoding="utf-8")
    for line, found in [
        ("{", "line 2 is not JSON"),
        (json.dumps({"video": "x"}), "line 2: question is missing in"),
        (good.replace('"answer": 1', '"answer": "B"'), "line 2: answer is 'B'; .* a position"),
        (good.replace('"answer": 1', '"answer": true'), "line 2: answer is True"),
        (good.replace('"label": 7', '"label": 7.0'), "line 2: label is 7.0; .* or null"),
        (good.replace("[3, 7, 9]", "[3, 7, null]"), "line 2: option_labels is"),
        (good.replace('"event": "BB"', '"event": 3'), "line 2: event is 3"),
        (good.replace('"source": "video", ', ""), "line 2: its fields are"),
        ("\n" + good, "line 2 is empty; delete it"),
    ]:
        path.write_text(good + line, encoding="utf-8")
        with pytest.raises(QuestionError, match=found):
            read_questions(path)
    with pytest.raises(QuestionError, match="no questions at"):
        read_questions(tmp_path / "absent.jsonl")


def test_the_answer_to_another_question_than_what_move_need_not_be_the_class_text():
    clip = Clip(id="clip", path="x.mp4", label=7, text="six", event="BB", split="test")
    counting = replace(QUESTION, answer_type="count", option_labels=None)
    assert attach_classes([counting], [clip])[0].label == 7


def test_a_question_keeps_its_class_which_must_be_the_manifest_s():
    clip = Clip(id="clip", path="x.mp4", label=7, text="two", event="VT", split="test")
    assert attach_classes([QUESTION], [clip]) == [QUESTION]
    assert attach_classes([QUESTION], [replace(clip, label=None, text=None)]) == [QUESTION]
    with pytest.raises(QuestionError, match="0000000: the clip's class is 7, but 8 in the manif"):
        attach_classes([QUESTION], [replace(clip, label=8)])


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
