"""Lines of text lists, read alike whoever wrote them; sources that the names of files tell."""

from unicodedata import normalize

import pytest

from qa_data.manifest import Clip
from sefar_core.data.datasets.records import (
    Listing,
    read_list_json,
    read_list_lines,
    read_list_text,
    refuse_repeat,
    with_sources,
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
    (one,) = read_list_lines(written(tmp_path, b"a\x0bb\xc2\x85c"))
    assert one[1] == "a\x0bb\x85c"  # which str.splitlines would cut


@pytest.mark.parametrize(
    ("read", "raw", "found"),
    [
        (read_list_lines, b"a 1\nb\xff 2\n", "line 2: byte 0xff is not UTF-8; save"),
        (read_list_lines, "a 1\n".encode("utf-16"), "is UTF-16"),
        (read_list_lines, b"a 1\nb 2\nc\0 3\n", "line 3: found a NUL"),
        (read_list_lines, b" \r\n\t\n", "is empty; fetch it again"),
        (read_list_json, b'{"a": 1,\n "b" 2}', "Expecting ':' delimiter: line 2"),
        (read_list_json, b"[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_list_is_refused_by_file_and_line(tmp_path, read, raw, found):
    path = written(tmp_path, raw)
    oracle.refuses(lambda: read(path), path, found)
    oracle.refuses(lambda: read_list_text(tmp_path / "no.txt"), "there is no file", "no.txt")
    oracle.refuses(lambda: read_list_text(tmp_path), f"cannot read {tmp_path}: Is a directory")


def test_a_clip_that_is_listed_twice_is_named_with_both_places():
    seen = {}
    refuse_repeat(seen, "a/b", "train.txt, line 1")
    oracle.refuses(
        lambda: refuse_repeat(seen, "a/b", "test.txt, line 9"),
        "test.txt, line 9: found a/b, which train.txt, line 1 lists already",
    )
    refuse_repeat(seen, normalize("NFD", "Kür"), "train.txt, line 2")
    composed = normalize("NFC", "Kür")
    oracle.refuses(lambda: refuse_repeat(seen, composed, "test.txt, line 1"), "line 2 lists")


def clip(path, split="labeled", source=""):
    return Clip(id=path, path=path, label=0, source=source, split=split)


LISTING = Listing(
    classes={0: "wave"},
    pool=[clip("x_s9_class/a1_s3_t2_color.avi"), clip("/data/wave/a1_s12_t1_color.avi")],
    settled=[clip("wave\\a2_s3_t1_color.avi", "test", source="wrong"), clip("x/a_s5_frames")],
)


def test_the_group_is_the_source_and_folders_tell_nothing():
    found = with_sources(LISTING, r"_s([0-9]+)_")
    assert [one.source for one in found.pool] == ["3", "12"]
    assert [one.source for one in found.settled] == ["3", "5"]
    assert found.classes == LISTING.classes
    assert [one.path for one in found.pool] == [one.path for one in LISTING.pool]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("_s([0-9]+", "'_s([0-9]+' is not a valid regular expression"),
        ("_s[0-9]+_", "has 0 groups"),
        ("_color_([0-9]+)", "finds no source in the name of x_s9_class/a1_s3_t2_color.avi"),
        ("_t(?:[0-9])|(x?)", "a1_s3_t2_color.avi"),
    ],
)
def test_a_pattern_that_fits_no_file_or_has_not_one_group_is_refused(pattern, found):
    oracle.refuses(lambda: with_sources(LISTING, pattern), found)


def test_a_source_is_the_same_however_its_letters_are_composed():
    paths = [normalize(form, f"Müller_{form}.mp4") for form in ("NFD", "NFC")]
    clips = [Clip(id=path, path=path, split="unlabeled") for path in paths]
    for form in ("NFC", "NFD"):
        found = with_sources(Listing(classes={}, pool=clips), normalize(form, "^(Müller|Kim)_"))
        assert {clip.source for clip in found.pool} == {normalize("NFC", "Müller")}
