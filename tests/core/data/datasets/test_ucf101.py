"""UCF101's lists, laid out as they come in ucfTrainTestlist."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sefar_core.data.datasets.ucf101 import group_of, in_words, read_ucf101
from tests.oracles import lists as oracle

CLASSES = "1 CatchPlate\r\n2 HandStandTurn\r\n3 YoYoTrick\r\n"
TRAIN = (
    "CatchPlate/v_CatchPlate_g08_c01.avi 1\r\n"
    "HandstandTurn/v_HandStandTurn_g10_c02.avi 2\r\n"
    "YoYoTrick/v_YoYoTrick_g25_c07.avi 3\r\n"
)
TEST = "CatchPlate/v_CatchPlate_g01_c01.avi\r\nYoYoTrick/v_YoYoTrick_g07_c01.avi"


def written(folder, *, classes=CLASSES, train=TRAIN, test=TEST, fold=1):
    for name, text in (("classInd", classes), (f"trainlist0{fold}", train),
                       (f"testlist0{fold}", test)):  # fmt: skip
        (folder / f"{name}.txt").write_text(text, encoding="utf-8", newline="")
    return folder


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_the_lists_become_a_pool_and_a_test_split(tmp_path, fold):
    listing = read_ucf101(written(tmp_path, fold=fold), fold=fold)
    assert listing.classes == {0: "Catch Plate", 1: "Hand Stand Turn", 2: "Yo Yo Trick"}
    assert [(c.id, c.path, c.label, c.text, c.source, c.split) for c in listing.pool] == [
        ("CatchPlate/v_CatchPlate_g08_c01", "CatchPlate/v_CatchPlate_g08_c01.avi", 0,
         "Catch Plate", "v_CatchPlate_g08", "labeled"),
        ("HandstandTurn/v_HandStandTurn_g10_c02", "HandstandTurn/v_HandStandTurn_g10_c02.avi", 1,
         "Hand Stand Turn", "v_HandStandTurn_g10", "labeled"),
        ("YoYoTrick/v_YoYoTrick_g25_c07", "YoYoTrick/v_YoYoTrick_g25_c07.avi", 2,
         "Yo Yo Trick", "v_YoYoTrick_g25", "labeled"),
    ]  # fmt: skip
    assert [(clip.label, clip.source, clip.split) for clip in listing.settled] == [
        (0, "v_CatchPlate_g01", "test"),
        (2, "v_YoYoTrick_g07", "test"),
    ]


def test_another_fold_than_the_one_that_lies_there_is_refused(tmp_path):
    oracle.refuses(lambda: read_ucf101(written(tmp_path), fold=2), "no file", "trainlist02.txt")


@pytest.mark.parametrize(
    ("lists", "found"),
    [
        ({"classes": "1 A\n3 B\n"}, "classInd.txt, line 2: found '3 B'; expected the number 2"),
        ({"classes": "1 A\n2 A\n"}, "classInd.txt, line 2: found '2 A'"),
        ({"classes": "A\n"}, "classInd.txt, line 1: found 'A'"),
        ({"train": "CatchPlate/a.avi 2\n"}, "trainlist01.txt, line 1: found 'CatchPlate/a.avi 2'"),
        (
            {"train": "Unheard/a.avi 2\n"},
            "line 1: found 'Unheard/a.avi 2'; expected <class>/<file>",
        ),
        ({"train": "a.avi 1\n"}, "line 1: found 'a.avi 1'"),
        (
            {"test": TEST + "\n" + TRAIN},
            "testlist01.txt, line 3: found CatchPlate/v_CatchPlate_g08",
        ),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, lists, found):
    oracle.refuses(lambda: read_ucf101(written(tmp_path, **lists)), tmp_path, found)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ApplyEyeMakeup", "Apply Eye Makeup"), ("apply_eye_makeup", "apply eye makeup"),
        ("YoYo", "Yo Yo"), ("TVShow", "TV Show"), ("Surfing", "Surfing"), ("_", "_"),
    ],
)  # fmt: skip
def test_a_name_is_told_in_words(name, words):
    assert in_words(name) == words


def test_only_names_in_the_manner_of_ucf101_have_a_group():
    assert group_of("A/v_A_g08_c01") == group_of("v_A_g08_c12") == "v_A_g08"
    assert group_of("v_A_g08") == group_of("x_A_g08_c01") == ""


LINES = st.lists(
    st.sampled_from([*TRAIN.split("\r\n"), *TEST.split("\r\n")]) | st.text(max_size=12), max_size=4
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["classes", "train", "test"]), LINES)
def test_any_text_is_read_rightly_or_refused(which, lines):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = "\n".join(lines).encode("utf-8", "replace").decode()
        written(folder, **{which: text})
        listing = oracle.read_or_refused(lambda: read_ucf101(folder), folder)
        if listing and which != "classes":
            assert [
                clip.path for clip in (listing.pool if which == "train" else listing.settled)
            ] == [line.split()[0] for line in text.splitlines() if line.strip()]
