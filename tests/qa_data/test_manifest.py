"""The manifest: exact round trip, no label of an unlabeled clip, errors by line."""

import csv
import errno
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_data.manifest import (
    COLUMNS,
    MAX_LABEL,
    PROBE_COLUMNS,
    Clip,
    ManifestError,
    by_split,
    read_manifest,
    write_manifest,
)

FULL = Clip(
    id="abcdefghijk_E_000001_000002_A_0000_0001",
    path="sub folder/a.mp4",
    start_s=0.1 + 0.2,
    end_s=1 / 3 + 5,
    label=3,
    text='salto, "piked"',
    event="FX",
    source="abcdefghijk",
    split="labeled",
    num_frames=31,
    fps=29.97,
    rotation=90,
    flags="variable rate",
)
BARE = Clip(id="b", path="b.mp4", split="unlabeled")
HEADER = ",".join(COLUMNS)
GOOD = "a,a.mp4,,,1,text,FX,source,labeled"


def written(folder, *lines):
    path = folder / "manifest.csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


def test_what_is_written_is_read_to_the_last_bit(tmp_path):
    assert {field.name for field in fields(Clip)} == {*COLUMNS, *PROBE_COLUMNS}
    write_manifest([FULL, BARE], tmp_path / "deep" / "manifest.csv")
    assert read_manifest(tmp_path / "deep" / "manifest.csv") == [FULL, BARE]
    # Probe columns stay away until a clip was probed.
    write_manifest([BARE], tmp_path / "manifest.csv")
    assert (tmp_path / "manifest.csv").read_text(encoding="utf-8").splitlines()[0] == HEADER


def test_the_writer_drops_the_class_of_an_unlabeled_clip(tmp_path):
    path = tmp_path / "manifest.csv"
    write_manifest([replace(FULL, split="unlabeled")], path)
    (row,) = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    assert (row["label"], row["text"], row["event"]) == ("", "", "")
    assert read_manifest(path) == [
        replace(FULL, split="unlabeled", label=None, text=None, event=None)
    ]


def test_windows_files_blank_lines_and_absolute_paths_are_read(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n{GOOD}".encode())
    assert [clip.label for clip in read_manifest(path)] == [1]
    path = written(tmp_path, "", GOOD, "", "b,/videos/a..b.mp4,,,1,text,FX,s,test")
    assert read_manifest(path)[1].path == "/videos/a..b.mp4"


def test_by_split_keeps_the_order_and_refuses_other_names():
    clips = [replace(BARE, id=name) for name in "cab"] + [FULL]
    assert [clip.id for clip in by_split(clips, "unlabeled")] == ["c", "a", "b"]
    with pytest.raises(ValueError, match="no split 'train'"):
        by_split(clips, "train")


PROBED = ",".join(COLUMNS + PROBE_COLUMNS)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("b,b.mp4,,,1.5,text,FX,s,labeled", "line 3: label is '1.5', not a whole number"),
        ("b,b.mp4,,,,text,FX,s,labeled", "line 3: label is None; a clip of split labeled"),
        ("b,b.mp4,,,-1,text,FX,s,val", "line 3: label is -1"),
        ("b,b.mp4,,,1_0,text,FX,s,val", "line 3: label is '1_0', not a whole number"),
        ("b,b.mp4,,,1000000,text,FX,s,val", "line 3: label is 1000000; .* to 999999"),
        ('b,"b.mp4,,,1,text,FX,s,val', "line 3: unexpected end of data; a cell in double quotes"),
        ('b,"b\nc.mp4",,,1,text,FX,s,val', r"line 3: found 'b\\nc.mp4', with a line break"),
        ("b,b.mp4,,,1,,,s,unlabeled", "line 3: an unlabeled clip shows its class.*'label': 1"),
        ("b,b.mp4,,,,text,,s,unlabeled", "line 3: an unlabeled clip shows its class.*'text'"),
        ("b,b.mp4,,,,,VT,s,unlabeled", "line 3: an unlabeled clip shows its class.*'VT'"),
        ("b,b.mp4,,,1,text,FX,s,train", "line 3: split is 'train'; it must be one of labeled"),
        ("b,b.mp4,2.0,2.0,1,text,FX,s,test", "line 3: the clip runs from 2.0 to 2.0 s"),
        ("b,b.mp4,nan,2.0,1,text,FX,s,test", "line 3: the clip runs from nan"),
        ("b,b.mp4,1.0,,1,text,FX,s,test", "line 3: start_s is 1.0 and end_s is None"),
        ("b,b.mp4,one,2,1,text,FX,s,test", "line 3: start_s is 'one', not a number"),
        ("b,../b.mp4,,,1,text,FX,s,test", r"line 3: path '../b.mp4' climbs out"),
        ("b,x\\..\\..\\b.mp4,,,1,text,FX,s,test", "climbs out"),
        ("b,,,,1,text,FX,s,test", "line 3: id is 'b' and path is ''"),
        ("a,b.mp4,,,1,text,FX,s,test", "line 3: clip a is in line 2 already"),
        ("b,b.mp4,,,1,a, text,FX,s,test", "line 3: found 10 cells, but the header has 9 columns"),
    ],
)
def test_a_bad_line_is_named_with_what_was_found(tmp_path, lines, found):
    with pytest.raises(ManifestError, match=found):
        read_manifest(written(tmp_path, GOOD, lines))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{HEADER.replace(',label', '')}\n{GOOD}", r"missing columns \['label'\]"),
        (f"{HEADER},fsp\n{GOOD}", r"unknown columns \['fsp'\]"),
        (f"{HEADER},label\n{GOOD}", "line 1: column 'label' is there twice; delete one"),
        (f"{PROBED}\n{GOOD},-1,25,0,", "line 2: num_frames is -1; a number of frames is at least"),
        (f"{PROBED}\n{GOOD},9,nan,0,", "line 2: fps is nan"),
        (f"{PROBED}\n{GOOD},9,25,upright,", "line 2: rotation is 'upright', not a whole number"),
        ("", "is empty"),
        (HEADER, "a header but no clip"),
        (f"{HEADER}\n{GOOD}\n\xe9".encode("latin-1"), "line 3: byte 0xe9 is not UTF-8; save"),
    ],
)
def test_a_bad_table_is_named_with_what_was_found(tmp_path, text, found):
    path = tmp_path / "manifest.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ManifestError, match=found):
        read_manifest(path)
    with pytest.raises(ManifestError, match="no manifest at .*no.csv"):
        read_manifest(tmp_path / "no.csv")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "manifest.csv"
    write_manifest([FULL], path)

    def full(*_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_manifest([BARE], path)
    assert read_manifest(path) == [FULL]
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.csv"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"id": "b"}, "'b': its id is another clip's too"),
        ({"path": "a\rb"}, r"found 'a\\rb', with a line break"),
        ({"path": "caf\udce9.mp4"}, "a byte that is not UTF-8; rename it"),
        ({"label": None}, "label is None; a clip of split labeled needs a class"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, change, found):
    with pytest.raises(ManifestError, match=f"cannot be written: clip .*{found}"):
        write_manifest([BARE, replace(FULL, **change)], tmp_path / "manifest.csv")
    assert list(tmp_path.iterdir()) == []


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=12)
names = words.filter(lambda word: word and ".." not in word)
seconds = st.floats(0, 1e9)


@st.composite
def clips(draw):
    """Any clip that may be written."""
    start, end = sorted(draw(st.tuples(seconds, seconds)))
    timed = draw(st.booleans()) and start < end
    split = draw(st.sampled_from(["labeled", "unlabeled", "val", "test"]))
    told = split != "unlabeled"
    return Clip(
        id=draw(names),
        path=draw(names),
        start_s=start if timed else None,
        end_s=end if timed else None,
        label=draw(st.integers(0, MAX_LABEL)) if told else None,
        text=draw(words) or None if told else None,
        event=draw(words) or None if told else None,
        source=draw(words),
        split=split,
        num_frames=draw(st.none() | st.integers(0, 10**9)),
        fps=draw(st.none() | st.floats(0, 1e6)),
        rotation=draw(st.none() | st.integers(-360, 360)),
        flags=draw(words),
    )


@given(drawn=st.lists(clips(), min_size=1, max_size=6, unique_by=lambda clip: clip.id))
def test_any_clips_come_back_as_they_were_written(tmp_path_factory, drawn):
    path = tmp_path_factory.getbasetemp() / "round-trip.csv"
    write_manifest(drawn, path)
    assert read_manifest(path) == drawn
    with path.open(encoding="utf-8", newline="") as stream:  # as another program sees it
        assert [row["path"] for row in csv.DictReader(stream)] == [clip.path for clip in drawn]
