"""Whatever a file holds, its reader gives what stands there or an error that names the file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_data.attributes import read_question_tree
from qa_data.files import SefarError
from qa_data.manifest import COLUMNS, read_manifest
from qa_data.questions import LETTERS, read_any, write_public_json
from tests.oracles.any_file import contents

LINE = {"video": "clip-17", "question": "Which turn?", "options": ["half", "full"], "answer": "B"}
PUBLIC = {
    "0000000": {
        "answer": "B",
        "question": "Which turn? A.half B.full",
        "answer_type": "what",
        "question_id": "0000000",
        "dataset": "finegym",
        "video": "clip-17",
        "frame_length": None,
    }
}


def check_tree(read, content):
    assert {str(key) for key in read} == set(json.loads(content.decode("utf-8-sig")))


def check_manifest(read, content):
    for clip in read:
        assert clip.start_s is None or 0 <= clip.start_s < clip.end_s < float("inf")
        assert (clip.label is None) == (clip.split == "unlabeled")
        for text in (clip.id, clip.path, clip.source, clip.split):
            assert text.replace('"', '""').encode() in content


def check_questions(read, content):
    if read[0].dataset != "own":
        return
    text = content.decode("utf-8-sig")
    for question, line in zip(read, text.rstrip("\r\n").split("\n"), strict=True):
        entry = json.loads(line)
        if "stem" not in entry:
            assert list(question.options) == entry["options"]
            right = (LETTERS[question.answer], question.options[question.answer])
            assert entry["answer"] in right


ROWS = "a,a.mp4,,,1,text,FX,source,labeled\nb,b.mp4,0.5,2,,,,,unlabeled\n"
READERS = {
    "tree": (read_question_tree, check_tree, {"7": {"questions": ["Salto?"], "BTcode": "1"}}),
    "manifest": (read_manifest, check_manifest, f"{','.join(COLUMNS)}\n{ROWS}"),
    "public questions": (read_any, check_questions, PUBLIC),
    "lines of questions": (read_any, check_questions, LINE),
}


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_any_file_is_read_or_refused_by_name(tmp_path_factory, name, data):
    read, check, good = READERS[name]
    path = tmp_path_factory.getbasetemp() / f"{name}.any"
    path.write_bytes(content := data.draw(contents(name, good)))
    try:
        found = read(path)
    except SefarError as error:
        assert str(path) in str(error)
        return
    assert found
    check(found, content)


@given(contents("public.json", PUBLIC))
def test_a_public_file_that_is_read_is_written_as_it_was(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "public.json"
    path.write_bytes(content)
    try:
        text = json.dumps(json.loads(content), indent=4)
        questions = read_any(path)
    except (SefarError, ValueError):
        return
    if questions[0].dataset != "own":
        write_public_json(questions, path)
        assert path.read_text(encoding="utf-8") == text
