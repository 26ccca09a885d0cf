"""Lines of text lists: whoever wrote them, they are read alike, or refused by file and line."""

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sefar_core.data.datasets.records import (
    ListError,
    read_list_json,
    read_list_lines,
    read_list_text,
    refuse_repeat,
)
from tests.oracles import lists as oracle


def written(folder, raw):
    path = folder / "list.txt"
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    "raw",
    [
        b"a b 1\n\nc 2\n",
        b"a b 1\r\n\r\nc 2",
        b"\xef\xbb\xbfa b 1\n \t\n  c 2  ",
        b"a b 1\r\rc 2\r",
    ],
)
def test_lines_are_read_whoever_wrote_them(tmp_path, raw):
    path = written(tmp_path, raw)
    assert read_list_lines(path) == [(f"{path}, line 1", "a b 1"), (f"{path}, line 3", "c 2")]


def test_signs_that_only_python_takes_for_line_ends_are_part_of_a_name(tmp_path):
    path = written(tmp_path, "a\u2028b\x0bc\x85d 1\n".encode())
    assert [line for _, line in read_list_lines(path)] == ["a\u2028b\x0bc\x85d 1"]


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"a 1\nb\xff 2\n", "line 2: byte 0xff is not UTF-8; save"),
        ("a 1\n".encode("utf-16"), "is UTF-16"),
        (b"a 1\nb 2\nc\0 3\n", "line 3: found a NUL"),
        (b"", "is empty; fetch it again"),
        (b" \r\n\t\n", "is empty; fetch it again"),
    ],
)
def test_what_is_no_text_is_refused_by_file_and_line(tmp_path, raw, found):
    path = written(tmp_path, raw)
    oracle.refuses(lambda: read_list_lines(path), path, found)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    oracle.refuses(lambda: read_list_text(tmp_path / "no.txt"), "there is no file", "no.txt")
    oracle.refuses(lambda: read_list_text(tmp_path), f"cannot read {tmp_path}: Is a directory")


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b'{"a": 1,\n "b" 2}', "Expecting ':' delimiter: line 2"),
        (b"[" * 100_000, "is not JSON"),
        (b"9" * 5000, "is not JSON"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_what_is_no_json_is_refused(tmp_path, raw, found):
    path = written(tmp_path, raw)
    oracle.refuses(lambda: read_list_json(path), path, found)


def test_a_clip_that_is_listed_twice_is_named_with_both_places():
    seen = {}
    refuse_repeat(seen, "a/b", "train.txt, line 1")
    oracle.refuses(
        lambda: refuse_repeat(seen, "a/b", "test.txt, line 9"),
        "test.txt, line 9: found a/b, which train.txt, line 1 lists already",
    )


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_bytes_are_lines_or_refused(raw):
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), raw)
        try:
            lines = read_list_lines(path)
        except ListError as error:
            assert str(path) in str(error)
        else:
            parts = re.split("\r\n|\r|\n", raw.decode("utf-8-sig"))
            assert [line for _, line in lines] == [part.strip() for part in parts if part.strip()]
            assert [parts[int(where.split()[-1]) - 1].strip() for where, _ in lines] == [
                line for _, line in lines
            ]
