"""Users' own question files: read rightly, or refused with place, what was found, and the fix."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_data.questions import (
    Question,
    QuestionError,
    check_videos,
    read_any,
    write_public_json,
    write_questions,
)

LINE = {"video": "clip-17", "question": "Which turn?", "options": ["half", "full"], "answer": "B"}


def written(folder, data):
    path = folder / "mine.jsonl"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def lines(*entries):
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def test_short_lines_are_questions_with_numbers_for_ids(tmp_path):
    named = {**LINE, "answer": "half", "question_id": "q", "frame_length": 12}
    first, second = read_any(written(tmp_path, lines(LINE, named)))
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


def test_a_line_says_of_which_kind_its_question_is(tmp_path):
    (question,) = read_any(written(tmp_path, lines({**LINE, "answer_type": "what"})))
    assert question.answer_type == "what"


def test_byte_order_mark_windows_line_ends_and_other_scripts_are_read(tmp_path):
    other = {**LINE, "options": ["Grätsche", "ターン\u2028"], "answer": "ターン\u2028"}
    text = lines(LINE, other).replace("\n", "\r\n")
    plain = read_any(written(tmp_path, lines(LINE, other)))
    assert read_any(written(tmp_path, b"\xef\xbb\xbf" + text.encode())) == plain
    assert plain[1].options[1] == "ターン\u2028"


def test_the_three_formats_are_told_apart_by_what_stands_in_them(tmp_path):
    questions = read_any(written(tmp_path, lines(LINE)))
    for write in (write_public_json, write_questions):
        write(questions, tmp_path / "any-name")
        assert read_any(tmp_path / "any-name") == questions


BROKEN = {
    "a JSON list": (b"[1]", "is a JSON list; write one object a line"),
    "nothing": (b"", "line 1 is empty"),
    "a number": (b"7", "line 1: found 7; expected"),
    "half a line": (b'{"video": "x"', "line 1 is not JSON"),
    "an empty object": (b"{}", "holds no questions"),
    "Latin-1": (b'{}\n{"video": "Gr\xe4tsche"}', "line 2: byte 0xe4 is not UTF-8; save it as"),
    "UTF-16": ("{}".encode("utf-16"), "is UTF-16; save it as UTF-8"),
    "deep nesting": (
        b'{"video": ' + b"[" * 100_000,
        "line 1 is not JSON: brackets are nested too deep",
    ),
    "a number of many digits": (b'{"video": ' + b"7" * 5_000 + b"}", "line 1 is not JSON: Exceeds"),
    "an infinite number": (b'{"video": -Infinity}', "line 1 is not JSON: found -Infinity"),
    "a key twice": (
        b'{"video": "x", "video": "y"}',
        "line 1 is not JSON: the key 'video' is twice",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_by_line(tmp_path, name):
    data, found = BROKEN[name]
    with pytest.raises(QuestionError, match=found):
        read_any(written(tmp_path, data))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"answer": "C"}, "line 2: answer 'C' is outside the options; give a letter from A to B"),
        ({"answer": "b"}, "line 2: answer 'b' is outside the options"),
        ({"answer": ""}, "line 2: answer '' is outside the options"),
        ({"answer": 1}, "line 2: answer is 1; expected a letter in quotation marks"),
        ({"answer": None}, "line 2: answer is None; expected a letter"),
        ({"options": ["B", "A"]}, "line 2: answer 'B' could be option A and B"),
        ({"options": ["x", "x"], "answer": "x"}, "line 2: answer 'x' could be option A and B"),
        ({"options": ["x", "x"]}, "line 2: answer 'B' could be option A and B"),
        ({"frame_length": 10**11}, "line 2: frame_length is 100000000000; .* 0 to 2147483647"),
        ({"answer_type": None}, "line 2: answer_type is None; expected a text"),
        ({"options": ["one"], "answer": "A"}, "line 2: it has 1 options; give 2 to 26"),
        ({"options": ["A. half", "B. full"]}, "line 2: options begin with their letters"),
        ({"options": ["half", 2]}, "line 2: options is .*; expected a list of texts"),
        ({"options": {"A": "half"}}, "line 2: options is .*; expected a list of texts"),
        ({"options": ["half", " "]}, "question 0000001: option B is empty"),
        ({"video": "videos/clip-17.MP4"}, "line 2: video .* is a file; give the clip's id"),
        ({"video": 17}, "line 2: video is 17; expected a text"),
        ({"question": ["Which?"]}, "line 2: question is "),
        ({"frame_length": 7.5}, "line 2: frame_length is 7.5; expected a whole number from 0"),
        ({"question_id": None}, "line 2: question_id is None; expected a text"),
        ({"question_id": "0000000"}, "question id 0000000 is used more than once"),
        ({"awnser": "B"}, "line 2: 'awnser' is unknown in"),
    ],
)
def test_a_bad_line_is_refused_by_number_with_what_was_found(tmp_path, change, found):
    with pytest.raises(QuestionError, match=found):
        read_any(written(tmp_path, lines(LINE, {**LINE, **change})))


@pytest.mark.parametrize("name", LINE)
def test_a_missing_field_is_named(tmp_path, name):
    line = {key: value for key, value in LINE.items() if key != name}
    with pytest.raises(QuestionError, match=f"line 1: {name} is missing in"):
        read_any(written(tmp_path, lines(line)))


def test_unknown_videos_are_counted_and_a_path_is_recognized(tmp_path):
    path = written(tmp_path, lines(LINE, {**LINE, "video": "a/clip-18"}, {**LINE, "video": "x"}))
    questions = read_any(path)
    check_videos(questions, ["clip-17", "a/clip-18", "x"])
    found = "question 0000001: video a/clip-18 is not in the manifest; write 'clip-18'."
    with pytest.raises(QuestionError, match=f"{found} 2 questions name unknown videos"):
        check_videos(questions, ["clip-17", "clip-18"])
    with pytest.raises(QuestionError, match="take questions and manifest of one set"):
        check_videos(questions, ["y"])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*LINE, "stem", "0000000"]), inner, max_size=4)
    ),
    max_leaves=6,
)


@given(
    st.binary(max_size=40)
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from([*LINE, "question_id"]), JSON_VALUES).map(
        lambda change: json.dumps({**LINE, **change}).encode()
    )
)
@settings(max_examples=50, deadline=None)
def test_anything_is_read_or_refused_by_name(tmp_path_factory, data):
    path = written(tmp_path_factory.getbasetemp(), data)
    try:
        questions = read_any(path)
    except QuestionError as error:
        assert str(path) in str(error)
        return
    (entry,) = [json.loads(line) for line in data.decode("utf-8-sig").splitlines()]
    (question,) = questions
    assert list(question.options) == entry["options"]
    assert entry["answer"] in (question.letter, question.options[question.answer])


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_public_file_with_one_thing_changed_is_read_or_refused_by_name(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    write_public_json(read_any(written(folder, lines(LINE))), folder / "public.json")
    entries = json.loads((folder / "public.json").read_text(encoding="utf-8"))
    name = data.draw(st.sampled_from(sorted(entries["0000000"])))
    entries["0000000"][name] = data.draw(JSON_VALUES)
    text = json.dumps(entries, indent=4)
    try:
        questions = read_any(written(folder, text))
    except QuestionError as error:
        assert "mine.jsonl" in str(error)
        return
    write_public_json(questions, folder / "again.json")
    assert (folder / "again.json").read_bytes() == text.encode()
