"""What all readers of data sets owe: the clips as they were laid out, or an error by name."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sefar_core.data.datasets.diving48 import read_diving48
from sefar_core.data.datasets.finediving import read_finediving, read_finediving_json
from sefar_core.data.datasets.finegym import read_finegym
from sefar_core.data.datasets.hmdb51 import film_of, read_hmdb51
from sefar_core.data.datasets.kinetics import read_kinetics
from sefar_core.data.datasets.sefar_lists import read_sefar_lists
from sefar_core.data.datasets.ssv2 import read_ssv2
from sefar_core.data.datasets.ucf101 import group_of, in_words, read_ucf101
from tests.oracles import finegym_lists
from tests.oracles import lists as oracle
from tests.oracles.any_file import contents, encoded

HOLDING = "Holding [something]"
ROUTINES = [
    finegym_lists.Routine(f"{name:_<11}", 4, 10.25, 90.0, [([(2.5, 4.5)], 1), ([(5.5, 7.25)], 0)])
    for name in ("train", "test")
]
DIVE = {"action_type": "205b", "frames_labels": [1, 1, 2], "sub-action_types": {1: "A", 2: "B"}}
JSON_DIVE = {
    "_source_info": {"action_type": "205b"},
    "events": [{"comment": "A -> B", "frame": 1}],
    "num_frames": 3,
}
# Small good files of every reader.
GOOD = {
    "diving48": {
        "vocab.json": [["Back", "15som"], ["Inward", "15som"], ["Front", "Dive"]],
        "train.json": [{"vid_name": "v_1", "label": 0}, {"vid_name": "a_b_02", "label": 2}],
        "test.json": [{"vid_name": "w_1", "label": 0}],
    },
    "finediving": {
        "annotation.pkl": {("01", 1): DIVE, ("01", 2): DIVE, ("02", 1): DIVE},
        "train_split.pkl": [("01", 1), ("01", 2)],
        "test_split.pkl": [("02", 1)],
    },
    "finediving json": {
        "train.json": [{"video": "01__1", **JSON_DIVE}, {"video": "01__2", **JSON_DIVE}],
        "val.json": [{"video": "01__3", **JSON_DIVE}],
        "test.json": [{"video": "02__1", **JSON_DIVE}],
    },
    "finegym": {
        "categories.txt": finegym_lists.category_list([(0, 1, "UB", "kip"), (1, 2, "UB", "x")]),
        "train.txt": finegym_lists.element_list(ROUTINES[:1]),
        "val.txt": finegym_lists.element_list(ROUTINES[1:]),
        "times.csv": finegym_lists.timestamp_csv(ROUTINES),
        "times.json": json.loads(finegym_lists.annotation_json(ROUTINES)),
    },
    "hmdb51": {
        "bow_test_split1.txt": "a_bow_h_nm_np2_ba_bad_0.avi 2\nb.avi 1\nc d.avi 0 ",
        "turn_wheel_test_split1.txt": "A_#1,_(2009)_turn_wheel_u_cm_np1_fr_med_3.avi 1 \r\n",
    },
    "kinetics": {
        "train.csv": "label,youtube_id,time_start,time_end,split\n"
        'catching (in game),-abcdefgh_1,7,17,train\n"bowing, deeply",bbbbbbbbbbb,123,133,train\n',
        "val.csv": "label,youtube_id,time_start,time_end,split\r\n"
        "catching (in game),ccccccccccc,0,10,val\r\n",
    },
    "sefar": oracle.SEFAR,
    "sefar names": oracle.SEFAR | {"names.txt": "nod\r\nbow deeply"},
    "ssv2": {
        "labels.json": {"Waving something": "1", "Holding something": "0"},
        "train.json": [{"id": "7", "template": HOLDING}, {"id": 6, "template": HOLDING}],
        "validation.json": [{"id": "5", "template": "Waving [something]"}],
    },
    "ucf101": {
        "classInd.txt": "1 CatchPlate\r\n2 HandStandTurn\r\n",
        "trainlist01.txt": "CatchPlate/v_CatchPlate_g08_c01.avi 1\r\n"
        "HandstandTurn/v_HandStandTurn_g10_c02.avi 2\r\n",
        "testlist01.txt": "CatchPlate/v_CatchPlate_g01_c01.avi",
    },
}


def read(name, at, **options):
    """The listing of small files."""
    reader = {
        "diving48": read_diving48,
        "finediving": read_finediving,
        "finediving json": read_finediving_json,
        "kinetics": read_kinetics,
        "ssv2": read_ssv2,
    }.get(name)
    if reader:
        return reader(*(at / file for file in GOOD[name]), **options)
    if name == "finegym":
        *lists, table, tree = (at / file for file in GOOD[name])
        return read_finegym(*lists, videos="full", annotations=(table, tree))
    if name == "hmdb51":
        return read_hmdb51(at, unused="unlabeled", **options)
    if name == "ucf101":
        return read_ucf101(at, **options)
    return read_sefar_lists(at, class_names=at / "names.txt" if "names" in name else None)


def written(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(encoded(name, content))
    return folder


def num_entries(name: str, raw: bytes) -> int:
    """Clips that a list names, counted by hand."""
    text = raw.decode("utf-8-sig")
    if name.endswith(".json"):
        return len(json.loads(text))
    if "youtube_id" in text:
        return sum(map(bool, csv.reader(io.StringIO(text)))) - 1
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return sum(bool(line.strip()) for line in lines)


# Lists whose entries are all clips.
COUNTED = {
    "diving48": ("train.json", "test.json"),
    "hmdb51": tuple(GOOD["hmdb51"]),
    "finegym": ("train.txt", "val.txt"),
    "kinetics": ("train.csv", "val.csv"),
    "ssv2": ("train.json", "validation.json"),
    "ucf101": ("trainlist01.txt", "testlist01.txt"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


@pytest.mark.parametrize("name", GOOD)
@given(data=st.data())
def test_any_file_is_read_or_refused_by_name(folder, name, data):
    file = data.draw(st.sampled_from(list(GOOD[name])))
    files = GOOD[name] | {file: data.draw(contents(file, GOOD[name][file]))}
    listing = oracle.read_or_refused(lambda: read(name, written(folder, files)), folder)
    if listing and (counted := COUNTED.get(name)):
        assert len(listing.pool + listing.settled) == sum(
            num_entries(file, encoded(file, files[file])) for file in counted
        )


def of(name, text):
    """A clip of Diving48, or of Something-Something, with another name or template."""
    return {"vid_name": name, "label": text} if "_" in name else {"id": name, "template": text}


def dive(**change):
    """A list of one dive of FineDiving's, changed."""
    return [{"video": "01__1", **JSON_DIVE, **change}]


def cuts(*events):
    return dive(events=[{"comment": comment, "frame": frame} for comment, frame in events])


V1 = of("v_1", 0)
HEADER = "label,youtube_id,time_start,time_end,split\n"
WHOSE = "not the folder and number"
REFUSED = [
    ("diving48", "train.json", [V1, V1], "train.json, entry 1: found v_1, which"),
    ("diving48", "train.json", [of("w_1", 0)], "test.json, entry 0: found w_1, which"),
    ("diving48", "train.json", [of("v_1", 3)], "entry 0: found the label 3, not one of 0 to 2"),
    ("diving48", "train.json", [{"vid_name": "v1", "label": 0}], "without a vid_name"),
    ("diving48", "train.json", [of("../v_1", 0)], "is a path"),
    ("diving48", "train.json", [], "train.json does not hold a list"),
    ("diving48", "vocab.json", [["Back"], ["Back"]], "vocab.json, class 1: found the name 'Back'"),
    ("diving48", "vocab.json", [["a\0"]], "class 0: found ['a\\x00']"),
    ("finediving json", "train.json", cuts(("A -> B\r", 1)), "the comment 'A -> B\\r' of a step"),
    ("finegym", "categories.txt", "Clabel: 0; set: 1; Glabel: 0; (VT) \0", "line 1: found 'Clabel"),
    ("finediving", "annotation.pkl", [], "annotation.pkl does not hold a dict of dives"),
    ("finediving", "train_split.pkl", [("01", 1)] * 2, "entry 1: found 01__1, which"),
    ("finediving", "train_split.pkl", [("02", 1)], "test_split.pkl, entry 0: found 02__1, which"),
    ("finediving", "train_split.pkl", [("03", 1)], "entry 0: found the dive ('03', 1), which"),
    ("finediving", "train_split.pkl", [("..", 1)], f"entry 0: found ('..', 1), {WHOSE}"),
    ("finediving", "train_split.pkl", [("01", "1")], WHOSE),
    ("finediving", "train_split.pkl", [], "train_split.pkl does not hold a list"),
    ("finediving json", "train.json", dive(video="01_1"), "train.json, entry 0: found ('', '01_1"),
    ("finediving json", "train.json", dive(video="01__3"), "val.json, entry 0: found 01__3, which"),
    ("finediving json", "train.json", dive(num_frames=0), "entry 0: found num_frames 0"),
    ("finediving json", "train.json", dive(_source_info={}), "entry 0: found no action_type"),
    ("finediving json", "train.json", dive(events=[]), "found no steps in events"),
    ("finediving json", "train.json", cuts(("Entry", 1)), "the comment 'Entry' of a step"),
    ("finediving json", "train.json", cuts(("A -> B", 3)), "frame 3, not between 0 and 2"),
    ("finediving json", "train.json", cuts(("A -> B", 0), ("A -> B", 1)), "does not lead on"),
    ("hmdb51", "bow_test_split1.txt", "a.avi 3", "line 1: found 'a.avi 3'; expected a file name"),
    ("hmdb51", "bow_test_split1.txt", "a.avi 1\na.avi 2", "line 2: found bow/a, which"),
    ("hmdb51", "bow_test_split1.txt", "a.avi 2", "bow_test_split1.txt has no training clip"),
    ("kinetics", "train.csv", "label,youtube_id,start", "line 1: no column 'time_start'"),
    ("kinetics", "train.csv", HEADER, "train.csv has a header but no clip"),
    ("kinetics", "train.csv", f"{HEADER}a,#NAME?,1,2,x", "line 2: found 'a,#NAME?,1,2,x'"),
    ("kinetics", "train.csv", f"{HEADER}a,aaaaaaaaaaa,5,5,x", "line 2: found 'a,aaaaaaaaaaa,5,5"),
    ("kinetics", "train.csv", f'{HEADER}"a,b,1,2,x', "line 2: unexpected end of data"),
    ("kinetics", "val.csv", f"{HEADER}nod,ccccccccccc,0,1,x", "line 2: class 'nod' has no clip in"),
    ("kinetics", "val.csv", GOOD["kinetics"]["train.csv"], "line 2: found -abcdefgh_1_000007_0"),
    ("ssv2", "labels.json", {"a": "0", "b": 0}, "labels.json: found 'b': 0"),
    ("ssv2", "labels.json", {"a": "0", "b": "2"}, "lists 2 classes, but none of number 1"),
    ("ssv2", "train.json", {}, "train.json: found {}; expected a list of clips"),
    ("ssv2", "train.json", [{"id": "3"}], "train.json, entry 1: found {'id': '3'}"),
    ("ssv2", "train.json", [of("3", "Eating [it]")], "entry 1: the template 'Eating it'"),
    ("ssv2", "train.json", [of("5", HOLDING)], "validation.json, entry 1: found 5, which"),
    ("ucf101", "classInd.txt", "1 A\n3 B", "line 2: found '3 B'; expected the number 2"),
    ("ucf101", "trainlist01.txt", "CatchPlate/a.avi 2", "line 1: found 'CatchPlate/a.avi 2'"),
    ("ucf101", "trainlist01.txt", "Unheard/a.avi 2", "expected <class>/<file>"),
    ("ucf101", "testlist01.txt", "CatchPlate/v_CatchPlate_g08_c01.avi", "line 1: found CatchPlate"),
    ("sefar", "train.csv", "a/x.avi 0\na/y.avi", "line 2: found 'a/y.avi'; expected the path"),
    ("sefar", "train.csv", "a/x.avi 3", "have 2 labels up to 3, but none of"),
    ("sefar", "unlabel.csv", "a/ 0", "unlabel.csv, line 1: found 'a/ 0'"),
    ("sefar", "unlabel.csv", "a/x.avi 0\na/x.avi 0", "unlabel.csv, line 2: found a/x, which"),
    ("sefar", "unlabel.csv", oracle.SEFAR["train.csv"], f"line 1: found {oracle.GYM}, which"),
    ("sefar", "unlabe.csv", "a/x.avi 0", "has unlabel.csv and unlabe.csv, which differ"),
    ("sefar names", "names.txt", "nod\nbow\nkip", "names.txt names 3 classes, 0 to 2"),
]


@pytest.mark.parametrize(("name", "file", "content", "found"), REFUSED)
def test_what_does_not_fit_is_refused_with_its_place(tmp_path, name, file, content, found):
    files = GOOD[name] | {file: content}
    oracle.refuses(lambda: read(name, written(tmp_path, files)), tmp_path, found)


@pytest.mark.parametrize("name", GOOD)
def test_a_list_that_is_not_there_is_named(tmp_path, name):
    for file in GOOD[name]:
        written(tmp_path, GOOD[name])
        (tmp_path / file).unlink()
        if name != "hmdb51" and file not in ("val.csv", "test.csv"):
            oracle.refuses(lambda: read(name, tmp_path), tmp_path, file)
    for file in tmp_path.iterdir():
        file.unlink()
    oracle.refuses(lambda: read(name, tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["hmdb51", "ucf101"])
def test_a_fold_has_lists_of_its_own(tmp_path, name):
    first = read(name, written(tmp_path, GOOD[name]))
    oracle.refuses(lambda: read(name, tmp_path, fold=3), tmp_path, "3.txt")
    for file in GOOD[name]:
        (tmp_path / file).rename(tmp_path / file.replace("1.txt", "3.txt"))
    assert read(name, tmp_path, fold=3) == first


@pytest.mark.parametrize(
    ("name", "first", "num_classes"),
    [
        ("diving48", "v_1", 3),  # its second class has no clip
        ("ssv2", "7", 2),
        ("ucf101", "CatchPlate/v_CatchPlate_g08_c01", 2),
    ],
)
def test_ids_are_those_of_the_files_and_a_class_without_a_clip_counts(
    tmp_path, name, first, num_classes
):
    listing = read(name, written(tmp_path, GOOD[name]))
    assert (listing.pool[0].id, len(listing.classes)) == (first, num_classes)


def test_names_of_files_tell_films_groups_and_words():
    assert film_of("Fast_Film_draw_sword_f_nm_np1_le_bad_2", "draw_sword") == "Fast_Film"
    assert film_of("Fast_Film_drawsword_f_nm_np1_le_bad_2", "draw_sword") == "Fast_Film_drawsword"
    assert film_of("v_A_g01_c01", "A") == ""
    assert group_of("A/v_A_g08_c01") == group_of("v_A_g08_c12") == "v_A_g08"
    assert group_of("v_A_g08") == group_of("x_A_g08_c01") == ""
    names = ("ApplyEyeMakeup", "apply_eye_makeup", "YoYo", "TVShow", "Surfing", "_")
    told = ["Apply Eye Makeup", "apply eye makeup", "Yo Yo", "TV Show", "Surfing", "_"]
    assert list(map(in_words, names)) == told


def test_clips_that_a_fold_of_hmdb51_does_not_use_are_left_out_or_unlabeled(tmp_path):
    listing = read_hmdb51(written(tmp_path, GOOD["hmdb51"]))
    assert listing.classes == {0: "bow", 1: "turn wheel"}
    assert [(c.id, c.source, c.split) for c in listing.pool + listing.settled] == [
        ("bow/b", "bow/b", "labeled"),  # whose name holds no film
        ("turn_wheel/A_#1,_(2009)_turn_wheel_u_cm_np1_fr_med_3", "A_#1,_(2009)", "labeled"),
        ("bow/a_bow_h_nm_np2_ba_bad_0", "a", "test"),
    ]
    spare = read("hmdb51", tmp_path).settled[0]
    assert (spare.id, spare.split, spare.label, spare.text) == ("bow/c d", "unlabeled", None, None)
    written(tmp_path, {f"bow_{end}_test_split1.txt": "a.avi 1" for end in ("low", "high")})
    assert list(read_hmdb51(tmp_path).classes.values()) == [
        *("bow", "bow high", "bow low", "turn wheel")
    ]


def test_columns_of_kinetics_go_by_their_names_and_files_by_their_kind(tmp_path):
    header = "is_cc,split,time_end,time_start,youtube_id,label"
    lists = {"train.csv": "0,train,17,7,aaaaaaaaaaa,bow", "val.csv": "1,val,10,0,ccccccccccc,bow"}
    written(tmp_path, {name: f"{header}\n{row}" for name, row in lists.items()})
    (clip,) = read("kinetics", tmp_path, suffix=".mkv").pool
    assert (clip.id, clip.path) == (
        "aaaaaaaaaaa_000007_000017",
        "train/bow/aaaaaaaaaaa_000007_000017.mkv",
    )
    (clip,) = read("kinetics", tmp_path, val_folder="videos_val").settled
    assert clip.path == "videos_val/bow/ccccccccccc_000000_000010.mp4"
    written(tmp_path, GOOD["ssv2"])
    assert read("ssv2", tmp_path, suffix=".mp4").pool[0].path == "7.mp4"
