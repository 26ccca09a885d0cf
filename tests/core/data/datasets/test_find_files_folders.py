"""Folders of one's own: one a class, with unlabeled and test clips beside or within."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sefar_core.data.datasets.find_files import read_folders, resolve_paths
from sefar_core.data.datasets.records import ListError
from tests.oracles import lists as oracle


def laid_out(root, *files):
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.fixture
def root(tmp_path):
    return laid_out(
        tmp_path / "mine",
        "nod_twice/b.MOV", "nod_twice/a.x.mkv", "nod_twice/deeper/c.webm", "nod_twice/notes.txt",
        "nod_twice/thumb.jpg", "nod_twice/.hidden.mp4", "nod_twice/.trash/d.mp4",
        "bow/é 1.avi", "bow/frames/0001.png", "bow/frames/0002.png", "README.md", ".git/e.mp4",
    )  # fmt: skip


def test_class_folders_become_the_pool(root):
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


@pytest.mark.parametrize("inside", [True, False])
def test_unlabeled_and_test_clips_may_lie_in_the_root_or_beside_it(root, tmp_path, inside):
    parent = root if inside else tmp_path
    laid_out(parent, "more/u.mp4", "more/x/y/v.ts", "exam/nod_twice/t.mpg", "exam/notes.txt")
    listing = read_folders(root, unlabeled=parent / "more", test_root=parent / "exam")
    assert listing.classes == {0: "bow", 1: "nod twice"}
    placed = resolve_paths(listing.settled, parent)
    assert [(c.path, c.label, c.text, c.split) for c in placed] == [
        ("more/u.mp4", None, None, "unlabeled"),
        ("more/x/y/v.ts", None, None, "unlabeled"),
        ("exam/nod_twice/t.mpg", 1, "nod twice", "test"),
    ]


def test_a_file_that_links_show_twice_is_refused(root, tmp_path):
    laid_out(tmp_path, "raw/jump.mp4")
    (root / "bow" / "jump.mp4").symlink_to(tmp_path / "raw" / "jump.mp4")
    with pytest.raises(ListError, match="raw/jump.mp4 is the same file as .*mine/bow/jump.mp4,"):
        read_folders(root, unlabeled=tmp_path / "raw")


def test_a_relative_root_gives_the_same_clips(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    assert read_folders(Path("mine")) == read_folders(root)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["empty/readme.txt"], "mine/empty has no video; add one (.3g2, .3gp, .asf, .avi"),
        (["empty/thumb.jpg"], "mine/empty has no video"),
        (["stray.mp4"], "mine/stray.mp4 is outside the class folders"),
        (["bow/frames/more/0001.png"], "mine/bow/frames holds both pictures and folders"),
        (["nod_twice/b.mp4"], "found nod_twice/b, which"),
        (["bow/a\nb.mp4"], "holds 'a\\nb.mp4', a name that no list can hold"),
    ],
)
def test_what_fits_no_clip_or_class_is_named(root, files, found):
    laid_out(root, *files)
    oracle.refuses(lambda: read_folders(root), root, found)


def test_rare_endings_are_clips_and_others_are_counted(root):
    endings = ("asf", "f4v", "mxf", "m2v", "3g2", "dv", "qt", "DIVX", "mpe")
    laid_out(root, *(f"bow/z.{ending}" for ending in endings), "bow/z.mp4", "bow/z.webp", "LICENSE")
    listing = read_folders(root)
    found = {clip.id for clip in listing.pool}
    assert {"bow/z", *(f"bow/z.{ending}" for ending in endings)} <= found
    # README.md, LICENSE; notes.txt, thumb.jpg beside videos; the pictures of bow/frames are a clip.
    assert listing.other_files == {
        ".jpg": 1, ".md": 1, ".txt": 1, ".webp": 1, "without ending": 1,
    }  # fmt: skip


COMPOSED, DECOMPOSED = "K\u00fcr", "Ku\u0308r"


def test_a_test_folder_meets_its_class_however_its_letters_are_composed(tmp_path):
    laid_out(tmp_path, f"mine/{COMPOSED}/a.mp4", f"exam/{DECOMPOSED}/b.mp4")
    listing = read_folders(tmp_path / "mine", test_root=tmp_path / "exam")
    (clip,) = listing.settled
    assert (clip.label, clip.text) == (0, COMPOSED)
    assert clip.path.endswith(f"exam/{DECOMPOSED}/b.mp4")  # as it is on the disk


@pytest.mark.parametrize("where", ["{}/a.mp4", "bow/{}.mp4"])
def test_names_that_differ_in_normalization_alone_are_refused(root, where):
    laid_out(root, where.format(COMPOSED), where.format(DECOMPOSED))
    oracle.refuses(lambda: read_folders(root), "r", "how their accented letters are composed")


def test_a_name_that_is_not_utf_8_is_refused(root):
    os.close(os.open(os.fsencode(root / "bow") + b"/\xff.mp4", os.O_CREAT))
    oracle.refuses(lambda: read_folders(root), "holds '\\udcff.mp4'")


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


def test_a_link_to_nothing_is_no_clip_that_goes_unnoticed(root):
    (root / "bow" / "z.mp4").symlink_to(root / "gone.mp4")
    listing = read_folders(root)
    assert str(root / "bow/z.mp4") in [clip.path for clip in listing.pool]
    oracle.refuses(lambda: resolve_paths(listing.pool, root), "1 of 6 listed clips", "bow/z.mp4")


def test_a_link_back_is_refused_and_a_link_elsewhere_followed(root, tmp_path):
    laid_out(tmp_path / "store", "s.mp4")
    (root / "wave").symlink_to(tmp_path / "store")
    assert read_folders(root).pool[-1].path == str(root / "wave/s.mp4")
    (root / "bow" / "again").symlink_to(root / "bow")
    oracle.refuses(lambda: read_folders(root), "mine/bow/again is a link to a folder above it")


PARTS = st.sampled_from(["a", "b", ".c", "d.mp4", "e.txt", "f.png", "g.MKV"])
FILES = st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), max_size=6)


@settings(max_examples=80, deadline=None)
@given(FILES)
def test_any_folder_is_read_rightly_or_refused(files):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = set()
        for file in files:
            try:
                laid_out(folder, file)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue
            made.add(file)
        listing = oracle.read_or_refused(lambda: read_folders(folder), folder)
        if listing:
            videos = {
                file
                for file in made
                if "." + file.rpartition(".")[2].lower() in (".mp4", ".mkv")
                and (folder / file).is_file()
                and not any(part.startswith(".") for part in file.split("/"))
            }
            assert {
                os.path.relpath(c.path, folder) for c in listing.pool if os.path.isfile(c.path)
            } == videos
