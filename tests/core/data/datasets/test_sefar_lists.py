"""The lists of the public code: blank or comma, any line end, odd names, labels that must go."""

import re

import pytest

from qa_data.manifest import by_split
from sefar_core.data.datasets.find_files import resolve_paths
from sefar_core.data.datasets.sefar_lists import read_sefar_lists
from tests.oracles import lists as oracle

UCF_LISTS = {
    "train.csv": "/root/UCF/NodHead/v_NodHead_g08_c01.avi,0\r\n"
    "/root/UCF/HandstandTurn/v_HandStandTurn_g09_c01.avi,1\r\n",
    "unlabe.csv": "/root/UCF/NodHead/v_NodHead_g08_c02.avi,0",
    "val.csv": "/root/UCF/NodHead/v_NodHead_g01_c01.avi 0\r\n"
    "/root/UCF/HandStandTurn/v_HandStandTurn_g01_c01.avi 1\r\n",
}
HMDB = "/root/hmdb51/videos/bow/Old Film_bow_h_nm_np1_fr_goo_0.avi"


def written(folder, lists):
    folder.mkdir(exist_ok=True)
    for name, text in lists.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder


def test_sources_of_kinetics_come_from_the_youtube_ids_of_both_manners(tmp_path):
    """SVFormer's training lists name clips by id and times, its validation list by id alone."""
    root = "/mnt/kinetics400"
    names = ["g4TI_iqWxmw.mkv", "l43cqc3KvUA.mp4.webm", "vCjj3nmTERw.mp4", "some other file.mp4"]
    lists = {
        "train.csv": f"{root}/videos_train/headbanging/ocs9PbO-hI4_000071_000081.mp4 1\n"
        f"{root}/videos_train/hurling_(sport)/-JS6qUnKaes_000030_000040.mp4 0\n",
        "unlabel.csv": f"{root}/videos_train/singing/mlymRPhBUuY_000080_000090.mp4 0\n",
        "val.csv": "".join(f"{root}/videos_val/zumba/{name} 1\n" for name in names),
    }
    found = [clip.source for clip in read_sefar_lists(written(tmp_path, lists)).settled]
    assert found[:3] == ["ocs9PbO-hI4", "-JS6qUnKaes", "mlymRPhBUuY"]
    assert found[3:] == ["g4TI_iqWxmw", "l43cqc3KvUA", "vCjj3nmTERw", ""]
    own = {name: text.replace("_000", "-") for name, text in lists.items()}
    clips = read_sefar_lists(written(tmp_path / "own", own)).settled
    assert {clip.source for clip in clips} == {""}


def test_lists_with_commas_windows_ends_and_a_misspelt_name_are_read(tmp_path):
    listing = read_sefar_lists(written(tmp_path / "lists", UCF_LISTS))
    assert listing.pool == []
    assert listing.classes == {0: "Nod Head", 1: "Handstand Turn"}
    assert [(c.id, c.label, c.source, c.split) for c in listing.settled] == [
        ("NodHead/v_NodHead_g08_c01", 0, "v_NodHead_g08", "labeled"),
        ("HandstandTurn/v_HandStandTurn_g09_c01", 1, "v_HandStandTurn_g09", "labeled"),
        ("NodHead/v_NodHead_g08_c02", None, "v_NodHead_g08", "unlabeled"),
        ("NodHead/v_NodHead_g01_c01", 0, "v_NodHead_g01", "test"),
        ("HandStandTurn/v_HandStandTurn_g01_c01", 1, "v_HandStandTurn_g01", "test"),
    ]
    for clip in listing.settled:
        path = tmp_path / "videos" / clip.path.removeprefix("/root/UCF/").replace("sta", "Sta")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    paths = [clip.path for clip in resolve_paths(listing.settled, tmp_path / "videos")]
    assert paths[1] == "HandStandTurn/v_HandStandTurn_g09_c01.avi"


@pytest.mark.parametrize(
    ("line", "clip_id", "source"),
    [
        (f"/root/video/{oracle.GYM}.mp4 0", oracle.GYM, "abc-_fghijk"),
        (f"{HMDB} 0", "bow/Old Film_bow_h_nm_np1_fr_goo_0", "Old Film"),
        (f"{HMDB}, 0", "bow/Old Film_bow_h_nm_np1_fr_goo_0", "Old Film"),
        ("/r/bow/-bcdefghij__000001_000011.mp4  0", "-bcdefghij__000001_000011", "-bcdefghij_"),
        ("/r/bow/other.mp4 0", "r/bow/other", ""),
        ("C:\\r\\other.mp4 0", "C:/r/other", ""),
        ("a/1, 2.avi 0", "a/1, 2", ""),
    ],
)
def test_names_that_data_sets_give_tell_the_source(tmp_path, line, clip_id, source):
    lists = oracle.SEFAR | {"train.csv": line, "val.csv": "x/y.avi,1", "test.csv": "x/y.avi,1"}
    train, _, test = read_sefar_lists(written(tmp_path, lists)).settled
    assert (train.id, train.path, train.label) == (clip_id, re.split("[ ,]+0$", line)[0], 0)
    assert (train.source, test.path, test.label, test.split) == (source, "x/y.avi", 1, "test")


def test_no_label_of_an_unlabeled_list_gets_through(tmp_path):
    for told in (" 99", ",-1", ""):
        lists = oracle.SEFAR | {"unlabel.csv": f"a b/c.mp4{told}"}
        listing = read_sefar_lists(written(tmp_path, lists))
        (clip,) = by_split(listing.settled, "unlabeled")
        assert (clip.path, clip.label, clip.text, clip.event) == ("a b/c.mp4", None, None, None)
        assert listing.classes == {0: "class 0", 1: "class 1"}


@pytest.mark.parametrize(
    ("lists", "splits"),
    [
        ({"val.csv": "a/x.avi 0\r\n", "test.csv": "a/x.avi 0"}, ["test"]),
        ({"val.csv": "a/x.avi 0"}, ["test"]),
        ({"test.csv": "a/x.avi 0"}, ["test"]),
        ({"val.csv": "a/x.avi 0", "test.csv": "a/y.avi 0"}, ["val", "test"]),
    ],
)
def test_lists_that_say_the_same_are_the_test_split(tmp_path, lists, splits):
    base = {"train.csv": "a/t.avi 0", "unlabel.csv": "a/u.avi 0"}
    listing = read_sefar_lists(written(tmp_path, base | lists))
    assert [clip.split for clip in listing.settled] == ["labeled", "unlabeled", *splits]


def test_classes_are_called_as_they_are_listed(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("nod\r\nbow deeply", encoding="utf-8")
    folder = written(tmp_path / "lists", oracle.SEFAR)
    assert read_sefar_lists(folder, class_names=names).classes == {0: "nod", 1: "bow deeply"}
    names.write_text(
        "Clabel: 0; set: 1; Glabel: 4; (VT) leap\n"
        "Clabel: 1; set: 41; Glabel: 6; (UB) swing \n"
        "Clabel: 2; set: 42; Glabel: 7; (UB) turn\n",
        encoding="utf-8",
    )
    listing = read_sefar_lists(folder, class_names=names, part="UB")
    assert listing.classes == {0: "swing", 1: "turn"}
    assert [clip.event for clip in listing.settled] == ["UB", None, "UB"]
    for part, found in (
        (None, "train.csv, line 1: label 1 is the largest of the lists, but"),
        ("FX", "has no class of part 'FX'"),
        ("41", "names 1 classes, 0 to 0"),
    ):
        oracle.refuses(
            lambda part=part: read_sefar_lists(folder, class_names=names, part=part), found
        )
