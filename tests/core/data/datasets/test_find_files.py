"""Where listed files lie: prefixes go, folders may be missing, cases differ, nothing is guessed.

And folders of one's own: one a class, with unlabeled and test clips beside or within.
"""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_data.manifest import Clip
from sefar_core.data.datasets.find_files import find_clips, id_of, read_folders, resolve_paths
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


def sought(root, *paths):
    """Paths of the clips that are there, and listed paths of the others."""
    return tuple([clip.path for clip in part] for part in find_clips(clips(*paths), root))


@pytest.mark.parametrize(
    ("listed", "lies"),
    [
        ("wave/a.avi", "wave/a.avi"),
        ("/root/hmdb51/videos/wave/a.avi", "wave/a.avi"),
        ("./wave//a.avi", "wave/a.avi"),
        ("C:\\videos\\wave\\a.avi", "wave/a.avi"),
        ("../videos/wave/a.avi", "wave/a.avi"),
        ("wave/back\\slash.avi", "wave/back\\slash.avi"),
        ("HandstandPushups/v_HandStand.avi", "HandStandPushups/v_HandStand.avi"),
        ("train/tai chi (in game)/c.mp4", "train/tai_chi_in_game/c.mp4"),
        ("train/tai chi (in game)/d.mp4", "train/d.mp4"),
        ("it's 100 %, #1/e f;.avi", "it's 100 %, #1/e f;.avi"),
    ],
)
def test_a_listed_file_is_found(tmp_path, listed, lies):
    root = laid_out(
        *(tmp_path, "wave/a.avi", "b.mp4", "wave/back\\slash.avi"),
        *("HandStandPushups/v_HandStand.avi", "train/tai_chi_in_game/c.mp4", "train/d.mp4"),
        "it's 100 %, #1/e f;.avi",
    )
    assert placed(root, listed) == [lies]


def test_the_name_as_written_goes_first(tmp_path):
    root = laid_out(tmp_path, "Case/b.avi", "case/b.avi")
    assert placed(root, "Case/b.avi", "case/b.avi") == ["Case/b.avi", "case/b.avi"]


def test_the_clip_of_another_class_is_not_taken_for_a_missing_one(tmp_path):
    root = laid_out(tmp_path, "run/1.avi", "sub/jump/2.avi", "2.avi")
    missing = ["wave/1.avi", "jump/3.avi"]
    assert sought(root, "run/1.avi", *missing) == (["run/1.avi"], missing)
    oracle.refuses(lambda: placed(root, "run/2.avi", "wave/2.avi"), "both run/2.avi and wave")
    assert placed(root, "/r/run/2.avi", "/r/run/2.avi") == ["2.avi", "2.avi"]


def test_missing_clips_are_counted_and_a_file_of_the_name_of_one_is_shown(tmp_path):
    root = laid_out(tmp_path, "UCF-101/nod/v_nod.avi", "b/x/00001.jpg", "there.avi")
    expected = "\nUCF-101/nod/v_nod.avi has the name of the first, but is in a folder that"
    oracle.refuses(lambda: placed(root, "nod/V_nod.avi", "nod/no.avi"), expected)
    oracle.refuses(lambda: placed(root, "x"), "\nb/x has the name of the first")
    paths = [f"no{number:02d}.avi" for number in range(12)]
    told = f"12 of 13 listed clips are not beneath the video root {root}"
    with pytest.raises(ListError, match=r"no09\.avi\n  and 2 more$") as refused:
        placed(root, "there.avi", *paths)
    assert all(part in str(refused.value) for part in (told, *paths[:10]))


COMPOSED, DECOMPOSED = "K\u00fcr \ud55c", "Ku\u0308r \u1112\u1161\u11ab"


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("A.avi", "a.avi", "rename"),
        ("Run/B.avi", "run/B.avi", "rename"),
        (f"{COMPOSED}.mp4", f"{DECOMPOSED}.mp4", "accented letters are composed"),
    ],
)
def test_two_files_that_fit_one_name_are_refused(tmp_path, one, other, why):
    root = laid_out(tmp_path, one, other)
    asked = [one.upper().replace("/B", "/b")] if why == "rename" else [one, other]
    for listed in asked:
        oracle.refuses(lambda listed=listed: placed(root, listed), one, other, why)


@pytest.mark.parametrize(
    ("listed", "lies"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED), (COMPOSED, COMPOSED)]
)
def test_composed_and_decomposed_names_meet_and_the_disk_keeps_its_own(tmp_path, listed, lies):
    laid_out(tmp_path, f"{lies}/{lies}.mp4", f"frames/{lies}/0001.jpg")
    assert placed(tmp_path, f"{listed}/{listed}.mp4") == [f"{lies}/{lies}.mp4"]
    assert placed(tmp_path, f"/root/{listed.upper()}/{listed}.MP4") == [f"{lies}/{lies}.mp4"]
    assert placed(tmp_path, f"frames/{listed}") == [f"frames/{lies}"]


def test_an_id_is_the_composed_path_without_the_suffix_of_a_video():
    assert id_of(f"{DECOMPOSED}/a.mp4") == id_of(f"{COMPOSED}/a.mp4") == f"{COMPOSED}/a"
    paths = ("/r/a.b.AVI", "a/b.c", "a/b.mp4", "x.webm")
    assert list(map(id_of, paths)) == ["r/a.b", "a/b.c", "a/b", "x"]


def test_a_file_outside_the_root_keeps_its_path_and_one_inside_loses_the_root(tmp_path):
    root = laid_out(tmp_path / "root", "in/a.avi", "b.avi")
    outside = laid_out(tmp_path / "other", "b.avi") / "b.avi"
    assert placed(root, str(outside), str(root / "in/a.avi")) == [str(outside), "in/a.avi"]
    assert placed(root, f"{tmp_path}/gone/b.avi") == ["b.avi"]


def test_a_folder_of_pictures_is_a_clip_and_pictures_beside_videos_hide_none(tmp_path):
    pictures = ("10/01/00001.JPG", "10/01/00002.jpg", "01/10/00001.png", "x/none/a.txt")
    root = laid_out(tmp_path, *pictures, "x/none/._b.jpg")
    found = (["10/01", "01/10"], ["x/none", "x"])
    assert sought(root, "/r/10/01", "01/10", "x/none", "x") == found
    names = [f"wave/{number:02d}" for number in range(20)]
    laid_out(tmp_path, *(name + end for name in names for end in (".jpg", ".avi")))
    paths = [f"{name}.avi" for name in names]
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


NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: "/".join([*parts, "x.avi"]))


@given(st.sets(PATHS | st.just("x.avi"), max_size=6), PATHS, st.booleans())
def test_every_choice_of_folders_is_weighed_as_by_hand(files, listed, upper):
    with tempfile.TemporaryDirectory() as folder:
        root = laid_out(Path(folder), *files)
        expected = oracle.lies_at(listed, files)
        present, _ = sought(root, listed.upper() if upper else listed)
        assert present == ([expected] if expected else [])


@pytest.fixture
def root(tmp_path):
    return laid_out(
        *(tmp_path / "mine", "nod_twice/b.MOV", "nod_twice/a.x.mkv", "nod_twice/deeper/c.webm"),
        *("nod_twice/notes.txt", "nod_twice/thumb.jpg", "nod_twice/.hidden.mp4"),
        *("nod_twice/.trash/d.mp4", "bow/é 1.avi", "bow/frames/0001.png", "bow/frames/0002.png"),
        *("README.md", ".git/e.mp4"),
    )


def test_class_folders_become_the_pool(root, monkeypatch):
    listing = read_folders(root)
    assert listing.classes == {0: "bow", 1: "nod twice"}
    found = [(c.id, os.path.relpath(c.path, root), c.label, c.text, c.split) for c in listing.pool]
    assert all(os.path.isabs(clip.path) for clip in listing.pool)
    assert found == [
        ("bow/é 1", "bow/é 1.avi", 0, "bow", "labeled"),
        ("bow/frames", "bow/frames", 0, "bow", "labeled"),
        ("nod_twice/a.x", "nod_twice/a.x.mkv", 1, "nod twice", "labeled"),
        ("nod_twice/b", "nod_twice/b.MOV", 1, "nod twice", "labeled"),
        ("nod_twice/deeper/c", "nod_twice/deeper/c.webm", 1, "nod twice", "labeled"),
    ]
    assert listing.settled == []
    assert [c.path for c in resolve_paths(listing.pool, root)] == [path for _, path, *_ in found]
    assert resolve_paths(listing.pool, root.parent)[0].path == "mine/bow/é 1.avi"
    monkeypatch.chdir(root.parent)
    assert read_folders(Path("mine")) == listing


@pytest.mark.parametrize("inside", [True, False])
def test_unlabeled_and_test_clips_may_lie_in_the_root_or_beside_it(root, tmp_path, inside):
    parent = root if inside else tmp_path
    laid_out(parent, "more/u.mp4", "more/x/y/v.ts", "exam/nod_twice/t.mpg", "exam/notes.txt")
    listing = read_folders(root, unlabeled=parent / "more", test_root=parent / "exam")
    assert listing.classes == {0: "bow", 1: "nod twice"}
    clips = resolve_paths(listing.settled, parent)
    assert [(c.path, c.label, c.text, c.split) for c in clips] == [
        ("more/u.mp4", None, None, "unlabeled"),
        ("more/x/y/v.ts", None, None, "unlabeled"),
        ("exam/nod_twice/t.mpg", 1, "nod twice", "test"),
    ]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["empty/readme.txt"], "mine/empty has no video; add one (.3g2, .3gp, .asf, .avi"),
        (["stray.mp4"], "mine/stray.mp4 is outside the class folders"),
        (["bow/frames/more/0001.png"], "mine/bow/frames holds both pictures and folders"),
        (["nod_twice/b.mp4"], "found nod_twice/b, which"),
        (["bow/a\nb.mp4"], "holds 'a\\nb.mp4', a name that no list can hold"),
        ([f"{COMPOSED}/a.mp4", f"{DECOMPOSED}/a.mp4"], "how their accented letters are composed"),
    ],
)
def test_what_fits_no_clip_or_class_is_named(root, files, found):
    laid_out(root, *files)
    oracle.refuses(lambda: read_folders(root), root.parent, found)


def test_folders_that_do_not_fit_together_are_named(root, tmp_path):
    laid_out(tmp_path, "exam/wave/t.mp4", "none/readme.txt", "no_class/readme.txt")
    for arguments, found in (
        ({"test_root": tmp_path / "exam"}, f"{tmp_path}/exam/wave belongs to no class"),
        ({"test_root": tmp_path / "no"}, f"cannot read the folder {tmp_path}/no: No such file"),
        ({"unlabeled": tmp_path / "none"}, f"{tmp_path}/none has no video"),
        ({"unlabeled": root.parent}, "found bow/é 1, which"),
    ):
        oracle.refuses(lambda given=arguments: read_folders(root, **given), found)
    oracle.refuses(lambda: read_folders(tmp_path / "no_class"), "no folder for a class")


def test_rare_endings_are_clips_and_others_are_counted(root):
    endings = ("asf", "f4v", "mxf", "m2v", "3g2", "dv", "qt", "DIVX", "mpe")
    laid_out(root, *(f"bow/z.{ending}" for ending in endings), "bow/z.mp4", "bow/z.webp", "LICENSE")
    listing = read_folders(root)
    found = {clip.id for clip in listing.pool}
    assert {"bow/z", *(f"bow/z.{ending}" for ending in endings)} <= found
    # README.md, LICENSE; notes.txt, thumb.jpg beside videos; the pictures of bow/frames are a clip.
    others = {".jpg": 1, ".md": 1, ".txt": 1, ".webp": 1, "without ending": 1}
    assert listing.other_files == others


def test_a_test_folder_meets_its_class_however_its_letters_are_composed(tmp_path):
    laid_out(tmp_path, f"mine/{COMPOSED}/a.mp4", f"exam/{DECOMPOSED}/b.mp4")
    (clip,) = read_folders(tmp_path / "mine", test_root=tmp_path / "exam").settled
    assert (clip.label, clip.text) == (0, COMPOSED)
    assert clip.path.endswith(f"exam/{DECOMPOSED}/b.mp4")  # as it is on the disk


def test_links_lead_to_clips_once_and_never_back(root, tmp_path):
    laid_out(tmp_path / "store", "s.mp4")
    (root / "wave").symlink_to(tmp_path / "store")
    assert read_folders(root).pool[-1].path == str(root / "wave/s.mp4")
    (root / "wave").unlink()
    (root / "bow" / "jump.mp4").symlink_to(tmp_path / "store" / "s.mp4")
    twice = ("store/s.mp4 is the same file as", "mine/bow/jump.mp4,")
    oracle.refuses(lambda: read_folders(root, unlabeled=tmp_path / "store"), *twice)
    (root / "bow" / "z.mp4").symlink_to(root / "gone.mp4")
    clips = read_folders(root).pool
    oracle.refuses(lambda: resolve_paths(clips, root), "1 of 7 listed clips", "bow/z.mp4")
    (root / "bow" / "again").symlink_to(root / "bow")
    oracle.refuses(lambda: read_folders(root), "mine/bow/again is a link to a folder above it")
