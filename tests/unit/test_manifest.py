"""The manifest: exact round trip, no label of an unlabeled clip, errors by line."""

import csv
from dataclasses import fields, replace

import pytest

from qa_data.manifest import (
    COLUMNS,
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


def written(folder, *lines, header=HEADER):
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_every_field_of_a_clip_is_a_column():
    assert {field.name for field in fields(Clip)} == {*COLUMNS, *PROBE_COLUMNS}


def test_what_is_written_is_read_to_the_last_bit(tmp_path):
    write_manifest([FULL, BARE], tmp_path / "deep" / "manifest.csv")
    assert read_manifest(tmp_path / "deep" / "manifest.csv") == [FULL, BARE]


def test_probe_columns_stay_away_until_a_clip_was_probed(tmp_path):
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


def test_a_file_from_a_windows_spreadsheet_is_read(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n{GOOD}".encode())
    assert [clip.label for clip in read_manifest(path)] == [1]


def test_by_split_keeps_the_order_and_refuses_other_names():
    clips = [replace(BARE, id=name) for name in "cab"] + [FULL]
    assert [clip.id for clip in by_split(clips, "unlabeled")] == ["c", "a", "b"]
    with pytest.raises(ValueError, match="no split 'train'"):
        by_split(clips, "train")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("b,b.mp4,,,1.5,text,FX,s,labeled", "line 3: label is '1.5', not a whole number"),
        ("b,b.mp4,,,,text,FX,s,labeled", "line 3: label is None; a clip of split labeled"),
        ("b,b.mp4,,,-1,text,FX,s,val", "line 3: label is -1"),
        ("b,b.mp4,,,1,,,s,unlabeled", "line 3: an unlabeled clip tells its class.*'label': 1"),
        ("b,b.mp4,,,,text,,s,unlabeled", "line 3: an unlabeled clip tells its class.*'text'"),
        ("b,b.mp4,,,,,VT,s,unlabeled", "line 3: an unlabeled clip tells its class.*'VT'"),
        ("b,b.mp4,,,1,text,FX,s,train", "line 3: split is 'train'; it must be one of labeled"),
        ("b,b.mp4,2.0,2.0,1,text,FX,s,test", "line 3: the clip runs from 2.0 to 2.0 s"),
        ("b,b.mp4,-1,2.0,1,text,FX,s,test", "line 3: the clip runs from -1.0"),
        ("b,b.mp4,nan,2.0,1,text,FX,s,test", "line 3: the clip runs from nan"),
        ("b,b.mp4,0,inf,1,text,FX,s,test", "line 3: the clip runs from 0.0 to inf"),
        ("b,b.mp4,1.0,,1,text,FX,s,test", "line 3: start_s is 1.0 and end_s is None"),
        ("b,b.mp4,one,2,1,text,FX,s,test", "line 3: start_s is 'one', not a number"),
        ("b,../b.mp4,,,1,text,FX,s,test", r"line 3: path '../b.mp4' climbs out"),
        ("b,x\\..\\..\\b.mp4,,,1,text,FX,s,test", "climbs out"),
        ("b,,,,1,text,FX,s,test", "line 3: id is 'b' and path is ''"),
        ("a,b.mp4,,,1,text,FX,s,test", "line 3: clip a stands in line 2 already"),
        ("b,b.mp4,,,1,a, text,FX,s,test", "line 3: more or fewer cells"),
        ("b,b.mp4", "line 3: more or fewer cells"),
    ],
)
def test_a_bad_line_is_named_with_what_was_found(tmp_path, line, found):
    with pytest.raises(ManifestError, match=found):
        read_manifest(written(tmp_path, GOOD, line))


def test_absolute_paths_and_dots_in_names_are_allowed(tmp_path):
    path = written(tmp_path, "a,/videos/a..b.mp4,,,1,text,FX,s,test")
    assert read_manifest(path)[0].path == "/videos/a..b.mp4"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (HEADER.replace(",label", ""), r"missing columns \['label'\]"),
        (HEADER + ",fsp", r"unknown columns \['fsp'\]"),
    ],
)
def test_columns_are_checked_by_name(tmp_path, header, found):
    with pytest.raises(ManifestError, match=found):
        read_manifest(written(tmp_path, GOOD, header=header))


def test_a_missing_or_empty_file_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="no manifest at .*manifest.csv"):
        read_manifest(tmp_path / "manifest.csv")
    (tmp_path / "manifest.csv").touch()
    with pytest.raises(ManifestError, match="is empty"):
        read_manifest(tmp_path / "manifest.csv")
    with pytest.raises(ManifestError, match="a header but no clip"):
        read_manifest(written(tmp_path))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "manifest.csv"
    write_manifest([FULL], path)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_manifest([BARE], path)
    assert read_manifest(path) == [FULL]
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.csv"]
