"""Kinetics' lists, and the folders in which its videos may lie."""

import csv
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sefar_core.data.datasets.find_files import resolve_paths
from sefar_core.data.datasets.kinetics import read_kinetics
from tests.oracles import lists as oracle

ROOT = Path(__file__).parents[4]
HEADER = "label,youtube_id,time_start,time_end,split"
TRAIN = [
    'catching (in game),-abcdefgh_1,7,17,train',
    '"bowing, deeply",bbbbbbbbbbb,123,133,train',
]  # fmt: skip
VAL = ["catching (in game),ccccccccccc,0,10,val"]
NAMES = ["-abcdefgh_1_000007_000017", "bbbbbbbbbbb_000123_000133", "ccccccccccc_000000_000010"]


def read(folder, *, train=TRAIN, val=VAL, header=HEADER, end="\n", **options):
    for name, rows in (("train", train), ("val", val)):
        text = end.join([header, *rows])
        (folder / f"{name}.csv").write_text(text, encoding="utf-8", newline="")
    return read_kinetics(folder / "train.csv", folder / "val.csv", **options)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_lists_become_a_pool_and_a_test_split(tmp_path, end):
    listing = read(tmp_path, end=end)
    assert listing.classes == {0: "bowing, deeply", 1: "catching (in game)"}
    assert [(c.id, c.label, c.text, c.source, c.split) for c in listing.pool] == [
        (NAMES[0], 1, "catching (in game)", "-abcdefgh_1", "labeled"),
        (NAMES[1], 0, "bowing, deeply", "bbbbbbbbbbb", "labeled"),
    ]
    assert [(c.id, c.path, c.label, c.split) for c in listing.settled] == [
        (NAMES[2], f"val/catching (in game)/{NAMES[2]}.mp4", 1, "test")
    ]


def test_files_of_another_kind_are_named_so(tmp_path):
    listing = read(tmp_path, suffix=".mkv")
    assert listing.pool[1].path == f"train/bowing, deeply/{NAMES[1]}.mkv"


def test_columns_are_known_by_their_names(tmp_path):
    turned = read(
        tmp_path,
        header="is_cc,split,time_end,time_start,youtube_id,label",
        train=["0,train,17,7,aaaaaaaaaaa,bowing"],
        val=["1,val,10,0,ccccccccccc,bowing"],
    )
    assert [clip.id for clip in turned.pool] == ["aaaaaaaaaaa_000007_000017"]


@pytest.mark.parametrize(
    "folders",
    [
        ("train/catching (in game)", "train/bowing, deeply", "val/catching (in game)"),
        ("train/catching_in_game", "train/bowing_deeply", "val/Catching_(in_game)"),
        ("catching_(in_game)", "bowing,_deeply", "catching_(in_game)"),
        ("train", "train", "val"),
        (".", ".", "."),
        ("videos_train/catching_(in_game)", "videos_train", "videos_val/catching_(in_game)"),
    ],
)
def test_videos_are_found_in_any_of_the_usual_folders(tmp_path, folders):
    root = tmp_path / "videos"
    files = [f"{folder}/{name}.mp4" for folder, name in zip(folders, NAMES, strict=True)]
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    folders = {"train_folder": "videos_train", "val_folder": "videos_val"}
    listing = read(tmp_path, **(folders if (root / "videos_train").exists() else {}))
    paths = [clip.path for clip in resolve_paths(listing.pool + listing.settled, root)]
    assert paths == [file.removeprefix("./") for file in files]


@pytest.mark.parametrize(
    ("lists", "found"),
    [
        ({"header": "label,youtube_id,start,end,split"}, "line 1: no column 'time_start'"),
        ({"train": []}, "train.csv has a header but no clip"),
        ({"train": ["bowing,#NAME?,1,2,train"]}, "train.csv, line 2: found 'bowing,#NAME?,1,2"),
        ({"train": ["bowing,aaaaaaaaaaa,1.5,2,train"]}, "expected a class, a YouTube id, and"),
        ({"train": ["bowing,aaaaaaaaaaa,5,5,train"]}, "line 2: found 'bowing"),
        ({"train": ["bowing,aaaaaaaaaaa"]}, "line 2: found 'bowing,aaaaaaaaaaa"),
        ({"train": ['"bowing,aaaaaaaaaaa,1,2,train']}, "train.csv, line 2: unexpected end of data"),
        ({"val": ["nodding,ccccccccccc,0,10,val"]}, "val.csv, line 2: class 'nodding' has no clip"),
        ({"val": TRAIN}, f"val.csv, line 2: found {NAMES[0]}, which"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, lists, found):
    oracle.refuses(lambda: read(tmp_path, **lists), tmp_path, found)


MEASURED = """
import re, sys, time
from pathlib import Path
from qa_data.manifest import read_manifest, write_manifest
from sefar_core.data.datasets.kinetics import read_kinetics
folder = Path(sys.argv[1])
start = time.process_time()
listing = read_kinetics(folder / "train.csv", folder / "val.csv")
write_manifest(listing.pool + listing.settled, folder / "manifest.csv")
num_clips = len(read_manifest(folder / "manifest.csv"))
taken_s = time.process_time() - start
peak_kib = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(num_clips, taken_s, peak_kib)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_lists_of_the_size_of_kinetics_take_under_a_minute_and_1_gb(tmp_path):
    for name, numbers in (("train", range(220_000)), ("val", range(220_000, 240_000))):
        rows = [f"class {n % 400},{n:011d},{n % 300},{n % 300 + 10},{name}" for n in numbers]
        (tmp_path / f"{name}.csv").write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    command = [sys.executable, "-c", MEASURED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    num_clips, taken_s, peak_kib = map(float, done.stdout.split())
    assert num_clips == 240_000
    assert taken_s < 60  # under 15 s on one processor
    assert peak_kib < 2**20


CELLS = st.sampled_from(["bowing", "aaaaaaaaaaa", "-bbbbbbbbb_", "1", "12", '"', "train", ""])
ROWS = st.sampled_from(TRAIN) | st.lists(CELLS | st.text(max_size=4), max_size=6).map(",".join)


@settings(max_examples=80, deadline=None)
@given(st.lists(ROWS, max_size=4), st.sampled_from([HEADER, "label,time_end,youtube_id", '"', ""]))
def test_any_text_is_read_rightly_or_refused(rows, header):
    rows = [row.encode("utf-8", "replace").decode() for row in rows]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listing = oracle.read_or_refused(lambda: read(folder, train=rows, header=header), folder)
        if listing:
            cells = [row for row in csv.reader(io.StringIO("\n".join(rows))) if row]
            assert [clip.text for clip in listing.pool] == [row[0].strip() for row in cells]
            assert [clip.source for clip in listing.pool] == [row[1].strip() for row in cells]
