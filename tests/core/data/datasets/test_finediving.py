"""FineDiving as people have it: pickles, the JSON lists, and folders of pictures beneath them."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sefar_core.data.datasets.finediving import read_finediving, read_finediving_json
from sefar_core.data.datasets.records import ListError, Listing
from sefar_core.data.video import probe, read_clip
from tests.annotations import annotations_folder

# Each dive by its steps: what they are called and how many pictures they have.
DIVES = {
    ("01", 1): ("5253b", [("Back", 5), ("1.5 Twists", 3), ("2.5 Soms.Pike", 4), ("Entry", 6)]),
    ("01", 20): ("107b", [("Forward", 7), ("3.5 Soms.Pike", 9), ("Entry", 2)]),
    ("Men10mPlatform_Final_1", 0): ("5253B", [("Back", 2), ("1.5 Twists", 8), ("Entry", 1)]),
    ("Women3m_Final", 4): ("107b", [("Forward", 3), ("Entry", 3)]),
    ("Men10mPlatform_Final_1", 3): ("207c", [("Back", 4), ("3.5 Soms.Tuck", 4), ("Entry", 4)]),
}
TRAIN, VAL, TEST = list(DIVES)[:2], list(DIVES)[2:3], list(DIVES)[3:]
NAMES = {1: "Forward", 2: "Back", 5: "Entry", 9: "1.5 Twists", 12: "2.5 Soms.Pike"}
NAMES |= {22: "3.5 Soms.Pike", 30: "3.5 Soms.Tuck"}
NUMBERS = {name: number for number, name in NAMES.items()}


def labels_of(steps: list[tuple[str, int]]) -> np.ndarray:
    return np.array([NUMBERS[name] for name, count in steps for _ in range(count)])


def fine(action_type: str, steps: list[tuple[str, int]]) -> dict:
    starts = np.cumsum([count for _, count in steps])[:-1]
    return {
        "action_type": action_type,
        "dive_score": 81.5,
        "difficulty": np.float64(3.2),
        "steps_transit_frames": starts,
        "frames_labels": labels_of(steps),
        "sub-action_types": {NUMBERS[name]: name for name, _ in steps},
    }


def coarse(action_type: str, steps: list[tuple[str, int]]) -> dict:
    return {"action_type": action_type, "start_frame": 489, "end_frame": 507, "judge_scores": [9]}


def aqa(action_type: str, steps: list[tuple[str, int]]) -> list:
    return [action_type, 81.5, 3.2, np.array([3, 9]), labels_of(steps)]


def write_pickles(folder: Path, form, dives: dict = DIVES) -> list[Path]:
    folder.mkdir(exist_ok=True)
    contents = {
        "annotation.pkl": {key: form(*dive) for key, dive in dives.items()},
        "train_split.pkl": TRAIN + VAL,
        "test_split.pkl": TEST,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=3))
    return [folder / name for name in contents]


def json_entry(key: tuple[str, int], action_type: str, steps: list[tuple[str, int]]) -> dict:
    names = [name for name, _ in steps]
    starts = np.cumsum([count for _, count in steps]).tolist()
    # The published lists name the last picture before a cut; a cut before picture 0 is left out.
    return {
        "_source_info": {"action_type": action_type, "difficulty": 3.2, "dive_score": 81.5},
        "events": [
            {"comment": f"{one} -> {other}", "frame": start - 1, "label": "Twist(s)"}
            for one, other, start in zip(names, names[1:], starts, strict=False)
            if start > 0
        ],
        "fps": -1,
        "num_frames": starts[-1],
        "video": f"{key[0]}__{key[1]}",
    }


def write_json(folder: Path, dives: dict = DIVES) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name, keys in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        entries = [json_entry(key, *dives[key]) for key in keys]
        (folder / f"{name}.json").write_text(json.dumps(entries, indent=2))
    return [folder / f"{name}.json" for name in ("train", "val", "test")]


def rows(listing: Listing) -> list[tuple]:
    return [
        (clip.id, clip.path, clip.start_s, clip.end_s, clip.text, clip.source, clip.split)
        for clip in listing.pool + listing.settled
    ]


def test_steps_are_cut_where_the_label_changes(tmp_path):
    listing = read_finediving(*write_pickles(tmp_path, fine))
    expected = []
    for split, keys in (("labeled", TRAIN + VAL), ("test", TEST)):
        for folder, number in keys:
            end = 0
            for place, (name, count) in enumerate(DIVES[folder, number][1]):
                start, end = end, end + count
                clip_id, path = f"{folder}__{number}_{place}", f"{folder}/{number}"
                expected.append((clip_id, path, start / 25, end / 25, name, folder, split))
    assert rows(listing) == expected
    assert list(listing.classes.values()) == sorted(NAMES.values())
    assert all(clip.text == listing.classes[clip.label] for clip in listing.pool)
    assert list(listing.classes) == list(range(7))


@pytest.mark.parametrize("form", [fine, coarse, aqa])
def test_action_types_come_from_every_annotation(tmp_path, form):
    listing = read_finediving(*write_pickles(tmp_path, form), level="action_type")
    assert listing.classes == {0: "107b", 1: "207c", 2: "5253b"}
    assert [clip.id for clip in listing.settled] == [
        "Women3m_Final__4",
        "Men10mPlatform_Final_1__3",
    ]
    assert [clip.label for clip in listing.pool] == [2, 0, 2]
    assert listing.pool[0].start_s is None
    assert listing.pool[0].num_frames == (None if form is coarse else 18)


@pytest.mark.parametrize("level", ["action_type", "sub_action"])
@pytest.mark.parametrize("only", [{}, {"event": "10m"}, {"action": "5253b"}])
def test_pickles_and_json_give_the_same_clips(tmp_path, level, only):
    from_pickles = read_finediving(*write_pickles(tmp_path, fine), level=level, **only)
    from_json = read_finediving_json(*write_json(tmp_path), level=level, **only)
    assert from_json == from_pickles


PUBLISHED = {
    ("01", 1): ("5253b", [("Back", 1), ("1.5 Twists", 36), ("Entry", 48)]),  # cut at frame 0
    ("01", 20): ("5255b", [("Back", 0), ("1.5 Twists", 36), ("Entry", 34)]),  # no first cut
    ("Men10mPlatform_Final_1", 0): ("5253b", [("Back", 2), ("1.5 Twists", 8), ("Entry", 1)]),
}


@pytest.mark.parametrize("turned", [False, True])
def test_odd_dives_of_the_published_lists_have_the_steps_of_the_pickles(tmp_path, turned):
    """A cut at frame 0, a first step without a picture, and events out of order."""
    dives = DIVES | PUBLISHED
    paths = write_json(tmp_path, dives)
    for path in paths if turned else ():
        entries = json.loads(path.read_text())
        for entry in entries:
            entry["events"].reverse()
        path.write_text(json.dumps(entries))
    listing = read_finediving_json(*paths)
    assert listing == read_finediving(*write_pickles(tmp_path, fine, dives))
    moments = [(clip.id, clip.text, clip.start_s, clip.end_s) for clip in listing.pool]
    assert ("01__1_0", "Back", 0.0, 1 / 25) in moments
    assert ("01__20_0", "1.5 Twists", 0.0, 36 / 25) in moments


@pytest.mark.annotations
def test_published_dives_that_were_refused_are_read():
    listing = read_finediving_json(*published("finediving_json_frame0"))
    first = listing.pool[0]
    assert (first.id, first.text, first.start_s, first.end_s) == (
        "01__121_0", "Reverse", 0.0, 1 / 25,
    )  # fmt: skip
    turned = read_finediving_json(*published("finediving_json_order")).pool
    steps = [(clip.text, clip.start_s, clip.end_s) for clip in turned if clip.id[:6] == "03__67"]
    assert steps == [
        ("2.5 Twists", 0.0, 36 / 25),
        ("2.5 Soms.Pike", 36 / 25, 52 / 25),
        ("Entry", 52 / 25, 86 / 25),
    ]


def published(name: str) -> list[Path]:
    return [annotations_folder() / name / f"{part}.json" for part in ("train", "val", "test")]


def test_the_published_subsets_are_an_event_and_an_action(tmp_path):
    paths = write_pickles(tmp_path, fine)
    platform = read_finediving(*paths, event="10M")
    assert {clip.source for clip in platform.pool + platform.settled} == {"Men10mPlatform_Final_1"}
    assert len(platform.settled) == 3
    one_type = read_finediving(*paths, action="5253B")
    assert len(one_type.pool) == 7 and not one_type.settled
    assert sorted(one_type.classes.values()) == ["1.5 Twists", "2.5 Soms.Pike", "Back", "Entry"]
    assert read_finediving(*paths, action="107b|207c").settled
    with pytest.raises(ListError, match="none of 5 dives is of the wanted"):
        read_finediving(*paths, action="07")
    with pytest.raises(ListError, match=r"event is '\(', which is not a regular expression"):
        read_finediving(*paths, event="(")


def test_a_step_shows_its_own_pictures(tmp_path):
    listing = read_finediving(*write_pickles(tmp_path / "lists", fine))
    for folder, number in DIVES:
        labels = labels_of(DIVES[folder, number][1])
        (tmp_path / folder / str(number)).mkdir(parents=True)
        for place, label in enumerate(labels.tolist()):
            gray = np.full((16, 16, 3), label, np.uint8)
            path = tmp_path / folder / str(number) / f"{place + 489:05d}.png"
            assert cv2.imwrite(str(path), gray)
    for clip in listing.pool + listing.settled:
        frames = read_clip(tmp_path / clip.path, start_s=clip.start_s, end_s=clip.end_s).frames
        assert set(frames.unique().tolist()) == {NUMBERS[clip.text]}, clip.id
    for clip in read_finediving(*write_pickles(tmp_path / "lists", fine), level="action_type").pool:
        assert probe(tmp_path / clip.path).num_frames == clip.num_frames


def test_a_number_without_name_takes_the_name_without_number(tmp_path):
    def misnumbered(action_type, steps):
        dive = fine(action_type, steps)
        names = dive["sub-action_types"]
        if 22 in names:
            names[23] = names.pop(22)
        return dive

    expected = read_finediving(*write_pickles(tmp_path / "a", fine))
    assert read_finediving(*write_pickles(tmp_path / "b", misnumbered)) == expected


def without_names(action_type, steps):
    return fine(action_type, steps) | {"sub-action_types": {2: "Back"}}


def half_labels(action_type, steps):
    return fine(action_type, steps) | {"frames_labels": np.array([0.5, 1.0])}


def names_of_numbers(action_type, steps):
    return fine(action_type, steps) | {"sub-action_types": {2: 3}}


def untyped(action_type, steps):
    return fine(action_type, steps) | {"action_type": None}


def text_only(action_type, steps):
    return "5253b"


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (coarse, "does not name the steps of dives; give FineDiving_fine-grained_annotation.pkl"),
        (aqa, "does not name the steps"),
        (without_names, r"have the step types \[5, 9, 12\], which"),
        (half_labels, "not a whole number for each picture"),
        (names_of_numbers, "not a dict of numbers and names"),
        (untyped, "without an action type"),
        (text_only, "found '5253b', without an action type"),
    ],
)
def test_what_is_no_annotation_is_refused_with_its_dive(tmp_path, form, told):
    with pytest.raises(ListError, match=rf"annotation.pkl, dive \('01', 1\): .*{told}"):
        read_finediving(*write_pickles(tmp_path, form))


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ([("01", 1), ("01", 1)], r"entry 1: found 01__1, which .*entry 0 lists"),
        ([("Women3m_Final", 4)], r"test_split.pkl, entry 0: found Women3m_Final__4"),
        ([("02", 1)], r"entry 0: found the dive \('02', 1\), which .*annotation.pkl lacks"),
        ([("..", 1)], r"entry 0: found \('..', 1\), not the folder and number"),
        ([("a/b", 1)], r"not the folder and number"),
        ([("01", "1")], r"not the folder and number"),
        (["01"], r"not the folder and number"),
        ([], r"train_split.pkl does not hold a list"),
        ({("01", 1): 2}, r"train_split.pkl does not hold a list"),
    ],
)
def test_what_is_no_split_is_refused_with_its_place(tmp_path, split, told):
    paths = write_pickles(tmp_path, fine)
    paths[1].write_bytes(pickle.dumps(split))
    with pytest.raises(ListError, match=told):
        read_finediving(*paths)


def test_a_pickle_that_calls_is_refused_and_calls_nothing(tmp_path):
    class Call:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    paths = write_pickles(tmp_path, fine)
    paths[0].write_bytes(pickle.dumps({("01", 1): Call()}))
    with pytest.raises(ListError, match=r"annotation.pkl: the pickle requests .*mkdir"):
        read_finediving(*paths)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"video": "01_1"}, "not the folder and number"),
        ({"video": "../a__1"}, "not the folder and number"),
        ({"video": "01__20"}, "found 01__20, which .*entry 0 lists"),
        ({"num_frames": 0}, "found num_frames 0"),
        ({"num_frames": 10**400}, "found num_frames 10000"),
        ({"num_frames": True}, "found num_frames True"),
        ({"_source_info": {}}, "no action_type"),
        ({"events": []}, "no steps in events"),
        ({"events": [{"frame": 3, "comment": "Entry"}]}, "comment 'Entry'"),
        ({"events": [{"frame": 18, "comment": "A -> B"}]}, "frame 18, not between 0 and 17"),
        ({"events": [{"frame": n, "comment": "A -> B"} for n in (3, 5)]}, "does not lead on"),
        ({"events": [{"frame": -1, "comment": "A -> B"}]}, "frame -1, not between 0 and 17"),
    ],
)
def test_what_is_no_json_list_is_refused_with_its_place(tmp_path, change, told):
    paths = write_json(tmp_path)
    entries = json.loads(paths[0].read_text())
    entries[0] |= change
    paths[0].write_text(json.dumps(entries))
    with pytest.raises(ListError, match=rf"train.json, entry \d.*{told}"):
        read_finediving_json(*paths)


FIELDS = ["_source_info", "action_type", "events", "frame", "comment", "num_frames", "video"]
FIELDS += ["frames_labels", "sub-action_types"]
VALUES = st.recursive(
    st.one_of(
        st.none(), st.integers(-2, 9), st.floats(), st.sampled_from(["A -> B", "01__1", "x"])
    ),
    lambda parts: st.one_of(
        st.lists(parts, max_size=3), st.dictionaries(st.sampled_from(FIELDS), parts, max_size=5)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_json_is_read_or_refused(tmp_path_factory, data):
    paths = write_json(tmp_path_factory.getbasetemp() / "fuzz")
    entries = json.loads(paths[0].read_text())
    place = data.draw(st.sampled_from([*FIELDS, None]))
    value = data.draw(VALUES)
    entries = value if place is None else [entries[0] | {place: value}, *entries[1:]]
    paths[0].write_text(json.dumps(entries))
    try:
        read_finediving_json(*paths)
    except ListError as refused:
        assert str(paths[0]) in str(refused)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_plain_pickle_is_read_or_refused(tmp_path_factory, data):
    paths = write_pickles(tmp_path_factory.getbasetemp() / "fuzz", fine)
    dives = pickle.loads(paths[0].read_bytes())
    value = data.draw(VALUES)
    if data.draw(st.booleans()):
        dives["01", 1][data.draw(st.sampled_from(FIELDS))] = value
        paths[0].write_bytes(pickle.dumps(dives))
    else:
        paths[data.draw(st.sampled_from([0, 1]))].write_bytes(pickle.dumps(value))
    try:
        read_finediving(*paths)
    except ListError as refused:
        assert any(str(path) in str(refused) for path in paths)


def test_lists_are_read_without_torch():
    code = "import sys; sys.modules['torch'] = None; sys.modules['av'] = None\n"
    code += "import sefar_core.data.datasets.finediving, sefar_core.data.datasets.diving48"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_thousand_dives_take_seconds_at_most(tmp_path):
    steps = [("Back", 30), ("1.5 Twists", 20), ("2.5 Soms.Pike", 20), ("Entry", 35)]
    dives = {(f"event{number % 135}", number): fine("5253b", steps) for number in range(1000)}
    paths = write_pickles(tmp_path, fine)
    keys = list(dives)
    for path, content in zip(paths, (dives, keys[:750], keys[750:]), strict=True):
        path.write_bytes(pickle.dumps(content, protocol=3))
    start = time.perf_counter()
    listing = read_finediving(*paths)
    assert len(listing.pool) + len(listing.settled) == 4000
    # A third of a second without the checks of types that run in tests.
    assert time.perf_counter() - start < 60
