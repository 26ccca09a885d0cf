"""HMDB51's lists, laid out as they come in testTrainMulti_7030_splits."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sefar_core.data.datasets.hmdb51 import film_of, read_hmdb51
from tests.oracles import lists as oracle

LISTS = {
    "turn_wheel": "A_#1_Film,_(2009)_turn_wheel_u_cm_np1_fr_med_3.avi 1 \r\n"
    "A_#1_Film,_(2009)_turn_wheel_u_cm_np1_fr_med_4.avi 0 \r\n"
    "home_video.avi 2 \r\n",
    "bow": "bow_film_bow_h_nm_np2_ba_bad_10.avi 2\nbow_film_bow_h_nm_np2_ba_bad_11.avi 1",
}


def written(folder, lists=LISTS, fold=1):
    for name, text in lists.items():
        path = folder / f"{name}_test_split{fold}.txt"
        path.write_text(text, encoding="utf-8", newline="")
    return folder


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_the_lists_become_a_pool_and_a_test_split(tmp_path, fold):
    listing = read_hmdb51(written(tmp_path, fold=fold), fold=fold)
    assert listing.classes == {0: "bow", 1: "turn wheel"}
    assert [(c.path, c.label, c.text, c.source, c.split) for c in listing.pool] == [
        ("bow/bow_film_bow_h_nm_np2_ba_bad_11.avi", 0, "bow", "bow_film", "labeled"),
        ("turn_wheel/A_#1_Film,_(2009)_turn_wheel_u_cm_np1_fr_med_3.avi", 1, "turn wheel",
         "A_#1_Film,_(2009)", "labeled"),
    ]  # fmt: skip
    assert [(c.id, c.label, c.source, c.split) for c in listing.settled] == [
        ("bow/bow_film_bow_h_nm_np2_ba_bad_10", 0, "bow_film", "test"),
        ("turn_wheel/home_video", 1, "turn_wheel/home_video", "test"),
    ]


def test_classes_are_in_the_order_of_their_names_not_of_their_files(tmp_path):
    lists = {name: "a.avi 1" for name in ("bow_low", "bow", "bow_high")}
    listing = read_hmdb51(written(tmp_path, lists))
    assert list(listing.classes.values()) == ["bow", "bow high", "bow low"]


def test_clips_that_the_fold_does_not_use_may_be_unlabeled_ones(tmp_path):
    listing = read_hmdb51(written(tmp_path), unused="unlabeled")
    assert [(c.split, c.label, c.text) for c in listing.settled] == [
        ("unlabeled", None, None), ("test", 0, "bow"), ("test", 1, "turn wheel"),
    ]  # fmt: skip
    assert listing.settled[0].source == "A_#1_Film,_(2009)"


def test_a_film_is_what_stands_before_the_class():
    assert film_of("Fast_Film_draw_sword_f_nm_np1_le_bad_2", "draw_sword") == "Fast_Film"
    assert film_of("Fast_Film_drawsword_f_nm_np1_le_bad_2", "draw_sword") == "Fast_Film_drawsword"
    assert film_of("v_A_g01_c01", "A") == ""


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a.avi 3", "bow_test_split1.txt, line 1: found 'a.avi 3'; expected a file name"),
        ("a.avi", "line 1: found 'a.avi'"),
        ("../a.avi 1", "line 1: found '../a.avi 1'"),
        ("a.avi 1\na.avi 2", "line 2: found bow/a, which"),
        ("a.avi 2", "bow_test_split1.txt has no training clip"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, line, found):
    oracle.refuses(lambda: read_hmdb51(written(tmp_path, {"bow": line})), tmp_path, found)


def test_a_folder_without_lists_of_the_fold_is_refused(tmp_path):
    oracle.refuses(lambda: read_hmdb51(written(tmp_path), fold=3), "_test_split3.txt", tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a.avi 0", "b c.avi 1 ", "d.avi 2"]) | st.text(max_size=9)))
def test_any_text_is_read_rightly_or_refused(lines):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = "\n".join(lines).encode("utf-8", "replace").decode()
        written(folder, LISTS | {"nod": text})
        listing = oracle.read_or_refused(lambda: read_hmdb51(folder, unused="unlabeled"), folder)
        if listing:
            counts = [
                sum(line.split()[-1] == one for line in lines if line.strip()) for one in "102"
            ]
            read = [c for c in listing.pool + listing.settled if c.path.startswith("nod/")]
            for split, count in zip(("labeled", "unlabeled", "test"), counts, strict=True):
                assert sum(clip.split == split for clip in read) == count
