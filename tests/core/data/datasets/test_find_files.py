"""Where listed files lie: prefixes go, folders may be missing, cases differ, nothing is guessed."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_data.manifest import Clip
from sefar_core.data.datasets.find_files import find_clips, id_of, resolve_paths
from sefar_core.data.datasets.records import ListError
from tests.oracles import lists as oracle


def laid_out(root, *files):
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def clips(*paths):
    return [Clip(id=path, path=path, label=0, split="labeled") for path in paths]


def placed(root, *paths):
    return [clip.path for clip in resolve_paths(clips(*paths), root)]


@pytest.mark.parametrize(
    ("listed", "lies"),
    [
        ("wave/a.avi", "wave/a.avi"),
        ("/root/hmdb51/videos/wave/a.avi", "wave/a.avi"),
        ("/root/video/b.mp4", "b.mp4"),
        ("./wave//a.avi", "wave/a.avi"),
        ("C:\\videos\\wave\\a.avi", "wave/a.avi"),
        ("../videos/wave/a.avi", "wave/a.avi"),
        ("wave/b.mp4", "b.mp4"),
        ("WAVE/A.AVI", "wave/a.avi"),
        ("wave/back\\slash.avi", "wave/back\\slash.avi"),
        ("HandstandPushups/v_HandStandPushups_g01_c01.avi",
         "HandStandPushups/v_HandStandPushups_g01_c01.avi"),
        ("train/tai chi (in game)/c.mp4", "train/tai_chi_in_game/c.mp4"),
        ("train/tai chi (in game)/d.mp4", "train/d.mp4"),
        ("it's 100 %, #1/e f;.avi", "it's 100 %, #1/e f;.avi"),
    ],
)  # fmt: skip
def test_a_listed_file_is_found(tmp_path, listed, lies):
    root = laid_out(
        tmp_path,
        "wave/a.avi",
        "b.mp4",
        "wave/back\\slash.avi",
        "HandStandPushups/v_HandStandPushups_g01_c01.avi",
        "train/tai_chi_in_game/c.mp4",
        "train/d.mp4",
        "it's 100 %, #1/e f;.avi",
    )
    assert placed(root, listed) == [lies]


def test_the_longest_end_counts_and_the_name_as_written_goes_first(tmp_path):
    root = laid_out(
        tmp_path, "a.avi", "x/a.avi", "y/x/a.avi", "y/a.avi", "Case/b.avi", "case/b.avi"
    )
    assert placed(root, "/r/y/x/a.avi", "/r/x/a.avi", "y/q/a.avi") == [
        "y/x/a.avi", "x/a.avi", "a.avi",
    ]  # fmt: skip
    assert placed(root, "Case/b.avi", "case/b.avi") == ["Case/b.avi", "case/b.avi"]


def test_the_clip_of_another_class_is_not_taken_for_a_missing_one(tmp_path):
    root = laid_out(tmp_path, "run/1.avi", "sub/jump/2.avi")
    present, missing = find_clips(clips("run/1.avi", "wave/1.avi", "jump/2.avi"), root)
    assert [clip.path for clip in present] == ["run/1.avi"]
    assert [clip.path for clip in missing] == ["wave/1.avi", "jump/2.avi"]


def test_one_file_is_not_taken_for_two_clips_but_may_be_listed_often(tmp_path):
    root = laid_out(tmp_path, "1.avi", "run/2.avi")
    oracle.refuses(
        lambda: placed(root, "run/1.avi", "wave/1.avi"), "1.avi", "both run/1.avi and wave"
    )
    assert placed(root, "/r/run/2.avi", "/r/run/2.avi") == ["run/2.avi", "run/2.avi"]


def test_a_file_of_the_name_of_a_missing_one_is_shown(tmp_path):
    root = laid_out(tmp_path, "UCF-101/nod/v_nod.avi", "b/x/00001.jpg")
    expected = "\nUCF-101/nod/v_nod.avi has the name of the first, but is in a folder that"
    oracle.refuses(lambda: placed(root, "nod/V_nod.avi", "nod/no.avi"), expected)
    oracle.refuses(lambda: placed(root, "x"), "\nb/x has the name of the first")


def test_all_that_are_missing_are_counted_and_ten_named(tmp_path):
    root = laid_out(tmp_path, "there.avi")
    paths = [f"no{number:02d}.avi" for number in range(12)]
    oracle.refuses(
        lambda: resolve_paths(clips("there.avi", *paths), root),
        f"12 of 13 listed clips are not beneath the video root {root}",
        *paths[:10],
    )
    with pytest.raises(ListError, match=r"no09\.avi\n  and 2 more$"):
        resolve_paths(clips("there.avi", *paths), root)


@pytest.mark.parametrize("files", [("A.avi", "a.avi"), ("Run/B.avi", "run/B.avi")])
def test_two_files_that_differ_in_case_only_are_refused(tmp_path, files):
    root = laid_out(tmp_path, *files)
    oracle.refuses(lambda: placed(root, files[0].upper().replace("/B", "/b")), *files, "rename")


COMPOSED, DECOMPOSED = "K\u00fcr \ud55c", "Ku\u0308r \u1112\u1161\u11ab"


@pytest.mark.parametrize(
    ("listed", "lies"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED), (COMPOSED, COMPOSED)]
)
def test_composed_and_decomposed_names_meet_and_the_disk_keeps_its_own(tmp_path, listed, lies):
    laid_out(tmp_path, f"{lies}/{lies}.mp4", f"frames/{lies}/0001.jpg")
    assert placed(tmp_path, f"{listed}/{listed}.mp4") == [f"{lies}/{lies}.mp4"]
    assert placed(tmp_path, f"/root/{listed.upper()}/{listed}.MP4") == [f"{lies}/{lies}.mp4"]
    assert placed(tmp_path, f"frames/{listed}") == [f"frames/{lies}"]


@pytest.mark.parametrize("files", [("{}.mp4",), ("{}/a.mp4",)])
def test_two_names_that_differ_in_normalization_alone_are_refused(tmp_path, files):
    (file,) = files
    laid_out(tmp_path, file.format(COMPOSED), file.format(DECOMPOSED))
    for listed in (COMPOSED, DECOMPOSED):
        oracle.refuses(
            lambda name=listed: placed(tmp_path, file.format(name)),
            file.format(COMPOSED), file.format(DECOMPOSED), "accented letters are composed",
        )  # fmt: skip


def test_an_id_is_composed_so_that_ids_of_both_spellings_are_one():
    assert id_of(f"{DECOMPOSED}/a.mp4") == id_of(f"{COMPOSED}/a.mp4") == f"{COMPOSED}/a"


def test_a_file_outside_the_root_keeps_its_path_and_one_inside_loses_the_root(tmp_path):
    root = laid_out(tmp_path / "root", "in/a.avi", "b.avi")
    outside = laid_out(tmp_path / "other", "b.avi") / "b.avi"
    assert placed(root, str(outside), str(root / "in/a.avi")) == [str(outside), "in/a.avi"]
    assert placed(root, f"{tmp_path}/gone/b.avi") == ["b.avi"]


def test_a_folder_of_pictures_is_a_clip_and_an_empty_one_is_not(tmp_path):
    root = laid_out(
        tmp_path,
        "10/01/00001.JPG",
        "10/01/00002.jpg",
        "01/10/00001.png",
        "x/none/a.txt",
        "x/none/._b.jpg",
    )
    present, missing = find_clips(clips("/r/10/01", "01/10", "x/none", "x"), root)
    assert [clip.path for clip in present] == ["10/01", "01/10"]
    assert [clip.path for clip in missing] == ["x/none", "x"]


def test_pictures_beside_videos_hide_none_of_them(tmp_path):
    names = [f"{number:02d}" for number in range(20)]
    root = laid_out(tmp_path, *(f"wave/{one}{end}" for one in names for end in (".jpg", ".avi")))
    paths = [f"wave/{one}.avi" for one in names]
    assert placed(root, *paths) == paths


def test_links_are_followed_and_loops_are_not(tmp_path):
    root = laid_out(tmp_path / "root", "a/x.avi")
    laid_out(tmp_path / "store", "y.avi")
    (root / "b").symlink_to(tmp_path / "store")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "over").symlink_to(tmp_path)
    (root / "broken.avi").symlink_to(root / "nowhere.avi")
    assert placed(root, "b/y.avi", "a/x.avi") == ["b/y.avi", "a/x.avi"]
    oracle.refuses(lambda: placed(root, "broken.avi"), "1 of 1 listed clips")


def test_a_root_that_is_no_folder_or_cannot_be_read_is_refused(tmp_path, monkeypatch):
    oracle.refuses(lambda: placed(tmp_path / "no", "a.avi"), tmp_path / "no", "is not a folder")

    def forbidden(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", forbidden)
    oracle.refuses(lambda: placed(tmp_path, "a.avi"), "Permission denied", tmp_path)


def test_an_id_is_the_path_without_the_suffix_of_a_video():
    assert [id_of(path) for path in ("/r/a.b.AVI", "a/b.c", "a/b.mp4", "x.webm")] == [
        "r/a.b", "a/b.c", "a/b", "x",
    ]  # fmt: skip


NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: "/".join([*parts, "x.avi"]))


@settings(max_examples=60, deadline=None)
@given(st.sets(PATHS | st.just("x.avi"), max_size=6), PATHS, st.booleans())
def test_every_choice_of_folders_is_weighed_as_by_hand(files, listed, upper):
    with tempfile.TemporaryDirectory() as folder:
        root = laid_out(Path(folder), *files)
        present, _ = find_clips(clips(listed.upper() if upper else listed), root)
        expected = oracle.lies_at(listed, files)
        assert [clip.path for clip in present] == ([expected] if expected else [])


TEXTS = st.text(st.sampled_from("abB/\\. ."), min_size=1) | st.text(min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, max_size=4))
def test_any_listed_path_is_found_beneath_the_root_or_missing(paths):
    with tempfile.TemporaryDirectory() as folder:
        root = laid_out(Path(folder), "a/b", "b", "a b/a")
        try:
            present, missing = find_clips(clips(*paths), root)
        except ListError as error:
            assert " fits " in str(error)
            return
        assert len(present) + len(missing) == len(paths)
        assert all((root / clip.path).exists() for clip in present)
