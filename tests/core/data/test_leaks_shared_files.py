"""One file under several names, and stretches of it that overlap."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import pytest

from qa_data.finegym import TimeSpan
from qa_data.manifest import Clip, write_manifest
from sefar_core.data.leaks import files_of, manifest_lines, near_duplicates, overlap, sharing_frames

SCRIPT = Path(__file__).parents[3] / "scripts/check_videos.py"


def clip(name, path, split="labeled", *, start_s=None, end_s=None):
    return Clip(id=name, path=path, start_s=start_s, end_s=end_s, label=0, split=split)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.mp4").write_bytes(b"one film")
    (tmp_path / "a/2.mp4").write_bytes(b"another.")  # as many bytes
    return tmp_path


@pytest.mark.parametrize("spelling", ["a/1.mp4", "./a/1.mp4", "a//1.mp4"])
def test_two_spellings_are_one_file_without_a_look_at_the_disk(spelling):
    found = files_of([clip("x", "a/1.mp4"), clip("y", spelling), clip("z", "a/2.mp4")])
    assert found["x"] == found["y"] != found["z"]


def test_composed_and_decomposed_letters_spell_one_file():
    found = files_of([clip("x", "Kür/1.mp4"), clip("y", "Ku\u0308r/1.mp4")])
    assert found["x"] == found["y"]


@pytest.mark.parametrize("way", ["absolute", "link", "link of a folder", "hard link", "copy"])
def test_a_file_keeps_its_identity_under_every_name(root, way):
    other = {
        "absolute": str(root / "a/1.mp4"),
        "link": "b.mp4",
        "link of a folder": "b/1.mp4",
        "hard link": "c.mp4",
        "copy": "d.mp4",
    }[way]
    (root / "b.mp4").symlink_to(root / "a/1.mp4")
    (root / "b").symlink_to(root / "a")
    os.link(root / "a/1.mp4", root / "c.mp4")
    (root / "d.mp4").write_bytes(b"one film")
    clips = [clip("x", "a/1.mp4"), clip("y", other, "test"), clip("z", "a/2.mp4", "test")]
    found = files_of(clips, root)
    assert found["x"] == found["y"] != found["z"]
    shared = overlap(clips[:1], clips[1:], video_root=root)
    assert (shared["near_duplicates"], shared["clips_of_shared_frames"]) == (1, 1)


def test_a_linked_folder_of_pictures_is_one_clip(root):
    (root / "frames").mkdir()
    (root / "frames/0001.jpg").write_bytes(b"picture")
    (root / "again").symlink_to(root / "frames")
    found = files_of([clip("x", "frames"), clip("y", "again"), clip("z", "a")], root)
    assert found["x"] == found["y"] != found["z"]


def test_empty_and_missing_files_and_folders_equal_nothing(root):
    for name in ("empty1.mp4", "empty2.mp4"):
        (root / name).touch()
    names = ("empty1.mp4", "empty2.mp4", "none1.mp4", "none2.mp4", "a")
    assert len(set(files_of([clip(name, name) for name in names], root).values())) == 5


def test_stretches_of_one_file_share_frames_where_they_overlap():
    train = [
        clip("t1", "v.mp4", start_s=0.0, end_s=9.0),
        clip("t2", "v.mp4", start_s=1.0, end_s=2.0),
        clip("t3", "w.mp4", start_s=1.0, end_s=2.0),
    ]
    test = [
        clip("inside", "./v.mp4", start_s=5.0, end_s=6.0),  # behind t2, but within t1
        clip("touching", "v.mp4", start_s=9.0, end_s=10.0),
        clip("before", "w.mp4", start_s=0.0, end_s=1.0),
        clip("whole", "w.mp4"),
        clip("elsewhere", "u.mp4", start_s=5.0, end_s=6.0),
    ]
    found = sharing_frames(train, test, files_of([*train, *test]))
    assert [one.id for one in found] == ["inside", "whole"]
    back = sharing_frames([test[3]], train, files_of([*train, *test]))
    assert [one.id for one in back] == ["t3"]


def test_one_whole_file_under_two_ids_is_a_near_duplicate_once():
    one = clip("A0xAXXysHUo_E_002184_002237_A_0035_0036", "x.mp4")
    clips = [replace(one, source="A0xAXXysHUo"), replace(one, id="other", source="A0xAXXysHUo")]
    assert list(near_duplicates(clips)) == [(0, 1)]
    times = dict.fromkeys((one.id, "other"), TimeSpan(2219.0, 2221.0))
    assert list(near_duplicates(clips, times=times)) == [(0, 1)]


def test_a_file_and_frames_on_both_sides_are_named_with_their_clips(root):
    (root / "copy.mp4").write_bytes(b"one film")
    clips = [
        clip("x", "a/1.mp4"),
        replace(clip("y", "copy.mp4", "test"), label=1),
        clip("s", "a/2.mp4", start_s=0.0, end_s=2.0),
        clip("t", "./a/2.mp4", "test", start_s=1.0, end_s=3.0),
    ]
    assert manifest_lines(clips, root) == [
        "the same file: a/1.mp4, copy.mp4 (clip x, labeled, class 0, clip y, test, class 1)",
        "test clips of frames that training clips show: y, t",
    ]
    assert manifest_lines(clips[:1], root) == []


def test_the_doctor_names_one_file_in_two_splits(root, capsys):
    spec = importlib.util.spec_from_file_location("check_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    clips = [clip("x", "a/1.mp4"), replace(clip("y", "./a/1.mp4", "test"), label=1)]
    write_manifest(clips, root / "m.csv")
    with pytest.raises(SystemExit):
        script.main(
            script.CheckVideos(manifest=root / "m.csv", video_root=root, workers=0, quick=True)
        )
    assert "the same file: ./a/1.mp4, a/1.mp4 (clip x, labeled" in capsys.readouterr().out
