"""Questions: what makes one sound, and its files, read rightly or refused with place and fix."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_data.manifest import Clip
from qa_data.questions import (
    LETTERS,
    Question,
    QuestionError,
    attach_classes,
    check_question,
    check_videos,
    count_repeats,
    line_problem,
    read_any,
    read_questions,
    split_line,
    write_public_json,
    write_questions,
)

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
BARE = replace(QUESTION, label=None, option_labels=None, event=None, source="")
# Letters, full stops and blanks, of which markers such as " B." are made, and a few others.
TEXTS = st.text(alphabet="ABCD. ?é", min_size=1, max_size=8)


def written(folder, data):
    path = folder / "mine.jsonl"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_letters_and_lines_are_printed_as_in_the_public_files():
    assert QUESTION.letter == "B"
    assert QUESTION.line == "Which? A.one B.two C.three"
    repeated = replace(BARE, options=("two", "two", "three"))
    assert check_question(repeated) is None
    assert check_question(replace(QUESTION, stem="🤸?")) is None
    elsewhere = replace(BARE, options=("one", "two", "one"))
    repeats = {"some_option_twice": 2, "right_option_twice": 1}
    assert count_repeats([QUESTION, repeated, elsewhere]) == repeats


@given(st.lists(TEXTS, min_size=2, max_size=6), TEXTS)
def test_a_line_without_problem_is_told_apart_again_and_another_never_in_silence(options, stem):
    question = replace(BARE, options=tuple(options), stem=f"{stem}?")
    if line_problem(question) is None:
        assert split_line(question.line) == (question.stem, question.options)
    else:
        try:
            assert split_line(question.line) != (question.stem, question.options)
        except QuestionError as error:
            assert "expected" in str(error)


def test_every_number_of_letters_is_told_apart_and_a_missing_one_named():
    for count in range(2, 27):
        line = " ".join(["Which?", *(f"{letter}.move" for letter in LETTERS[:count])])
        assert split_line(line) == ("Which?", ("move",) * count)
    for missing in range(25):
        texts = [f"{letter}.move" for i, letter in enumerate(LETTERS) if i != missing]
        found = f"option {LETTERS[missing]} is missing" if missing else "expected a question mark"
        with pytest.raises(QuestionError, match=found):
            split_line(" ".join(["Which?", *texts]))
    with pytest.raises(QuestionError, match="option B is missing"):
        split_line("Which? A.one")


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


def test_the_public_file_is_read_and_written_byte_for_byte(tmp_path):
    first, second = questions = read_any(written(tmp_path, PUBLIC))
    assert first.stem == "What gymnastics move is this athlete performing?"
    texts = (
        "split jump",
        "wolf hop, hip angle at 45",
        "split jump",
        "(swing forward) giant circle",
    )
    assert first.options == texts
    assert (first.answer, first.letter, first.frame_length) == (1, "B", 74)
    assert (second.options, second.frame_length) == (("salto é", "turn"), None)
    write_public_json(questions, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == PUBLIC.encode()


def test_the_lines_file_keeps_every_field_and_formats_are_told_apart_by_content(tmp_path):
    other = replace(BARE, question_id="0000001", options=("a\u2028b", "c"))
    write_questions([QUESTION, other], tmp_path / "any-name")
    assert read_questions(tmp_path / "any-name") == [QUESTION, other]
    own = read_any(written(tmp_path, lines(LINE)))
    for write in (write_public_json, write_questions):
        write(own, tmp_path / "any-name")
        assert read_any(tmp_path / "any-name") == own


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"answer": 3}, "the answer is option 3 of 3"),
        ({"options": ("one",), "answer": 0}, "it has 1 options"),
        ({"options": tuple("abcdefghijklmnopqrstuvwxyzä")}, "it has 27 options"),
        ({"options": ("one", " ", "x")}, "option B is empty"),
        ({"video": ""}, "the video is empty"),
        ({"options": ("one", "\ud800", "x")}, "holds half a character"),
        ({"option_labels": (3, 7)}, "it has 2 classes for 3 options"),
        ({"option_labels": (7, 3, 9)}, "clip's class is 7, but the right option's class is 3"),
    ],
)
def test_an_unsound_question_is_not_written(tmp_path, change, found):
    question = replace(QUESTION, **change)
    assert found in check_question(question)
    for write in (write_public_json, write_questions):
        with pytest.raises(QuestionError, match=found):
            write([question], tmp_path / "out")
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


FINEGYM = '"dataset": "finegym"'


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ('"answer": "B"', '"answer": "F"', "its answer is 'F', but its options are A to D"),
        ('"answer": "B"', '"answer": "B", "answer": "A"', "the key 'answer' is twice .*'What gym"),
        ('"question_id": "0000000"', '"question_id": "0"', "its question_id is '0'"),
        ('"0000001"', '"0000000"', "the key '0000000' is twice"),
        ("? A.split", "? split", "question 0000000: found .*expected a question mark"),
        ("B.wolf hop", "wolf hop", "question 0000000: option B is missing"),
        ('_length": 74', '_length": "74"', "frame_length is '74'"),
        ('_length": 74', '_length": 2147483648', "frame_length is 2147483648; .* 0 to"),
        (f"{FINEGYM},", "", "question 0000000: its fields are"),
        (PUBLIC, "{}", "holds no questions"),
    ],
)
def test_a_bad_public_file_is_named_by_question(tmp_path, before, after, found):
    assert before in PUBLIC
    with pytest.raises(QuestionError, match=found):
        read_any(written(tmp_path, PUBLIC.replace(before, after)))


LINE = {"video": "clip-17", "question": "Which turn?", "options": ["half", "full"], "answer": "B"}


def lines(*entries):
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def test_short_lines_are_questions_with_numbers_for_ids(tmp_path):
    named = {**LINE, "answer": "half", "question_id": "q", "frame_length": 12}
    first, second = read_any(written(tmp_path, lines(LINE, named | {"answer_type": "what"})))
    assert first == Question(
        question_id="0000000",
        video="clip-17",
        stem="Which turn?",
        options=("half", "full"),
        answer=1,
        answer_type="other",
        dataset="own",
    )
    assert (second.question_id, second.answer, second.frame_length) == ("q", 0, 12)
    assert second.answer_type == "what"


def test_byte_order_mark_windows_line_ends_and_other_scripts_are_read(tmp_path):
    other = {**LINE, "options": ["Grätsche", "ターン\u2028"], "answer": "ターン\u2028"}
    text = lines(LINE, other).replace("\n", "\r\n")
    plain = read_any(written(tmp_path, lines(LINE, other)))
    assert read_any(written(tmp_path, b"\xef\xbb\xbf" + text.encode())) == plain
    assert plain[1].options[1] == "ターン\u2028"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"[1]", "is a JSON list; write one object a line"),
        (b"", "line 1 is empty"),
        (b'{"video": "x"', "line 1 is not JSON"),
        (b"{}", "holds no questions"),
        (b'{}\n{"video": "Gr\xe4tsche"}', "line 2: byte 0xe4 is not UTF-8; save it as"),
        ("{}".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b'{"video": "x", "video": "y"}', "line 1 is not JSON: the key 'video' is twice"),
    ],
)
def test_a_broken_file_is_named_by_line(tmp_path, data, found):
    with pytest.raises(QuestionError, match=found):
        read_any(written(tmp_path, data))
    with pytest.raises(QuestionError, match="no questions at"):
        read_questions(tmp_path / "absent.jsonl")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"answer": "C"}, "line 2: answer 'C' is outside the options; give a letter from A to B"),
        ({"answer": 1}, "line 2: answer is 1; expected a letter in quotation marks"),
        ({"options": ["B", "A"]}, "line 2: answer 'B' could be option A and B"),
        ({"options": ["one"], "answer": "A"}, "line 2: it has 1 options; give 2 to 26"),
        ({"options": ["A. half", "B. full"]}, "line 2: options begin with their letters"),
        ({"options": ["half", 2]}, "line 2: options is .*; expected a list of texts"),
        ({"video": "videos/clip-17.MP4"}, "line 2: video .* is a file; give the clip's id"),
        ({"frame_length": 7.5}, "line 2: frame_length is 7.5; expected a whole number from 0"),
        ({"question_id": "0000000"}, "question id 0000000 is used more than once"),
        ({"awnser": "B"}, "line 2: 'awnser' is unknown in"),
        *(({name: ...}, f"line 2: {name} is missing in") for name in LINE),
    ],
)
def test_a_bad_line_is_refused_by_number_with_what_was_found(tmp_path, change, found):
    line = {name: value for name, value in (LINE | change).items() if value is not ...}
    with pytest.raises(QuestionError, match=found):
        read_any(written(tmp_path, lines(LINE, line)))


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ('"answer": 1', '"answer": "B"', "line 2: answer is 'B'; .* a position"),
        ('"answer": 1', '"answer": true', "line 2: answer is True"),
        ('"label": 7', '"label": 7.0', "line 2: label is 7.0; .* or null"),
        ('"source": "video", ', "", "line 2: its fields are"),
        ('{"question_id"', '\n{"question_id"', "line 2 is empty; delete it"),
    ],
)
def test_a_bad_line_of_all_fields_is_named_by_its_number(tmp_path, before, after, found):
    path = tmp_path / "questions.jsonl"
    write_questions([QUESTION], path)
    good = path.read_text(encoding="utf-8")
    assert before in good
    path.write_text(good + good.replace(before, after), encoding="utf-8")
    with pytest.raises(QuestionError, match=found):
        read_questions(path)


def test_unknown_videos_are_counted_and_a_path_is_recognized(tmp_path):
    path = written(tmp_path, lines(LINE, {**LINE, "video": "a/clip-18"}, {**LINE, "video": "x"}))
    questions = read_any(path)
    check_videos(questions, ["clip-17", "a/clip-18", "x"])
    found = "question 0000001: video a/clip-18 is not in the manifest; write 'clip-18'."
    with pytest.raises(QuestionError, match=f"{found} 2 questions name unknown videos"):
        check_videos(questions, ["clip-17", "clip-18"])
    with pytest.raises(QuestionError, match="take questions and manifest of one set"):
        check_videos(questions, ["y"])


CLIP = Clip(id="clip", path="x", label=7, text="two", event="BB", source="video", split="test")


def test_classes_are_attached_by_clip_id_and_must_agree():
    assert attach_classes([BARE], [CLIP]) == [replace(QUESTION, option_labels=None)]
    # A question keeps what it has.
    for known in (replace(CLIP, event="VT"), replace(CLIP, label=None, text=None)):
        assert attach_classes([QUESTION], [known]) == [QUESTION]
    # The answer to another question than what move need not be the class's text.
    counting = replace(BARE, answer_type="count")
    assert attach_classes([counting], [replace(CLIP, text="six")])[0].label == 7
    for question, clip, found in (
        (BARE, replace(CLIP, id="other"), "question 0000000: video clip is not in the manifest"),
        (BARE, replace(CLIP, text="six"), "'two', but the manifest calls the clip 'six'"),
        (QUESTION, replace(CLIP, label=8), "0000000: the clip's class is 7, but 8 in the manif"),
    ):
        with pytest.raises(QuestionError, match=found):
            attach_classes([question], [clip])
