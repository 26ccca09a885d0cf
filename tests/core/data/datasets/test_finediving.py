"""FineDiving as people have it: pickles, the JSON lists, and folders of pictures beneath them.

Plain data comes out of a pickle as Python's own reader gives it; nothing in it is ever run.
"""

import json
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sefar_core.data.datasets.finediving import (
    read_finediving,
    read_finediving_json,
    read_plain_pickle,
)
from sefar_core.data.datasets.records import ListError, Listing
from sefar_core.data.video import probe, read_clip

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
    files = {
        "annotation.pkl": {key: form(*dive) for key, dive in dives.items()},
        "train_split.pkl": TRAIN + VAL,
        "test_split.pkl": TEST,
    }
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=3))
    return [folder / name for name in files]


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


def write_json(folder: Path, dives: dict = DIVES, *, turned: bool = False) -> list[Path]:
    lists = {folder / "train.json": TRAIN, folder / "val.json": VAL, folder / "test.json": TEST}
    for path, keys in lists.items():
        entries = [json_entry(key, *dives[key]) for key in keys]
        for entry in entries if turned else ():
            entry["events"].reverse()
        path.write_text(json.dumps(entries, indent=2))
    return list(lists)


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
    listing = read_finediving_json(*write_json(tmp_path, dives, turned=turned))
    assert listing == read_finediving(*write_pickles(tmp_path, fine, dives))
    moments = [(clip.id, clip.text, clip.start_s, clip.end_s) for clip in listing.pool]
    assert ("01__1_0", "Back", 0.0, 1 / 25) in moments
    assert ("01__20_0", "1.5 Twists", 0.0, 36 / 25) in moments


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


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (coarse, "does not name the steps of dives; give FineDiving_fine-grained_annotation.pkl"),
        ({"sub-action_types": {2: "Back"}}, r"have the step types \[5, 9, 12\], which"),
        ({"frames_labels": np.array([0.5, 1.0])}, "not a whole number for each picture"),
        ({"sub-action_types": {2: 3}}, "not a dict of numbers and names"),
        (lambda *_: "5253b", "found '5253b', without an action type"),
    ],
)
def test_what_is_no_annotation_is_refused_with_its_dive(tmp_path, form, told):
    made = form if callable(form) else lambda *dive: fine(*dive) | form
    with pytest.raises(ListError, match=rf"annotation.pkl, dive \('01', 1\): .*{told}"):
        read_finediving(*write_pickles(tmp_path, made))


ARRAYS = [
    np.arange(100),
    np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    np.arange(5).astype(">i4"),
    np.array([True, False]),
    np.array(["back", "1.5 twists"]),
    np.zeros((0, 3)),
    np.array(7),
]
INTEGERS = st.integers(-(2**64) + 1, 2**64 - 1)
KEYS = st.one_of(st.text(), INTEGERS, st.booleans(), st.binary(), st.tuples(st.text(), INTEGERS))
SCALARS = st.sampled_from([np.int64(3), np.float32(0.5), np.bool_(True), np.str_("back")])
PLAIN = st.recursive(
    st.none() | st.floats(allow_nan=False) | SCALARS | KEYS,
    lambda parts: st.lists(parts) | st.lists(parts).map(tuple) | st.dictionaries(KEYS, parts),
    max_leaves=20,
)


def pickled(folder: Path, content: bytes) -> Path:
    path = folder / "annotations.pkl"
    path.write_bytes(content)
    return path


@given(data=PLAIN, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_comes_back_as_pythons_reader_gives_it(tmp_path_factory, data, protocol):
    content = pickle.dumps(data, protocol=protocol)
    path = pickled(tmp_path_factory.getbasetemp(), content)
    assert read_plain_pickle(path) == pickle.loads(content)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back_in_every_protocol(tmp_path, array):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = pickled(tmp_path, pickle.dumps({("01", 3): [array, array]}, protocol=protocol))
        first, second = read_plain_pickle(path)[("01", 3)]
        np.testing.assert_array_equal(first, array)
        assert (first.shape, first.dtype.kind) == (array.shape, array.dtype.kind)
        assert first is second


def test_both_names_of_numpys_core_are_known(tmp_path):
    content = pickle.dumps(np.arange(3), protocol=0)
    assert content.count(b"numpy._core") + content.count(b"numpy.core") == 1
    for name in (b"numpy.core", b"numpy._core"):
        renamed = content.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", name)
        np.testing.assert_array_equal(read_plain_pickle(pickled(tmp_path, renamed)), np.arange(3))


class Reduced:
    """Pickled as the call of a function with arguments, and the state set on what it returns."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def canary(path: Path, protocol: int) -> dict[str, bytes]:
    """Pickles that create the file when Python reads them, by what they do."""
    command = Reduced(os.system, f"touch {path}")
    traps = {
        "os.system": command,
        "eval": Reduced(eval, f"open({str(path)!r}, 'w').close()"),
        "np.frompyfunc": Reduced(np.frompyfunc, os.system, 1, 1),
        "in an array": np.array([command], dtype=object),
        "as a state": Reduced(OrderedDict, state={"x": command}),
    }
    return {name: pickle.dumps(value, protocol=protocol) for name, value in traps.items()}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_in_a_pickle_is_run(tmp_path, protocol):
    target = tmp_path / "run"
    pickles = canary(target, protocol)
    for name, content in pickles.items():
        with pytest.raises(ListError, match="Only plain data is read"):
            read_plain_pickle(pickled(tmp_path, content))
        assert not list(tmp_path.glob("run*")), name
    # The trap works: Python's own reader does run it.
    pickle.loads(pickles["os.system"])
    assert target.exists()


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


DTYPE = b"cnumpy\ndtype\n"
EMPTY_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n%b\x85C\x01b\x87R"
RECONSTRUCT = EMPTY_ARRAY % b"K\x00"
SCALAR = b"cnumpy.core.multiarray\nscalar\n"
LONG_2_62 = b"\x8a\x08" + struct.pack("<q", 2**62)


def dtype(name: str) -> bytes:
    return DTYPE + b"(" + short(name) + b"\x89\x88tR"


def array_of(side: bytes, kind: bytes, raw: bytes) -> bytes:
    return RECONSTRUCT + b"(K\x01" + side + b"\x85" + kind + b"\x89" + raw + b"tb."


I8 = dtype("i8")
TRICKS = {
    "names from the stack": b"\x80\x04" + short("os") + short("system") + b"\x93.",
    "a path within a name": b"\x80\x04" + short("numpy.dtype") + short("__init__") + b"\x93.",
    "a type kept": I8 + b".",
    "an array class called": b"cnumpy\nndarray\n(K\x04\x85\x8c\x01OtR.",
    "a state for a name": DTYPE + b"}\x8c\x08__call__K\x01sb.",
    "a call of a remembered result": I8 + b"\x940h\x00)R.",
    "an object by NEWOBJ": DTYPE + b")\x81.",
    "a persistent id": b"Pfile\n.",
    "a set": b"\x80\x04\x8f.",
    "a list as a key": b"}]K\x01s.",
    "a type of objects": dtype("O8") + b".",
    "a type with fields": I8 + b"(K\x03\x8c\x01|N\x8c\x01a\x85}K\x08K\x01K\x00tb.",
    "a scalar of objects": SCALAR + dtype("O8") + b"K\x05\x86R.",
    "an array larger than its bytes": array_of(b"K\x09", I8, b"C\x08" + bytes(8)),
    "an empty array of terabytes": EMPTY_ARRAY % LONG_2_62 + b".",
    "a scalar with bytes to spare": SCALAR + I8 + b"C\x10" + bytes(16) + b"\x86R.",
    "very many empty strings": array_of(LONG_2_62, dtype("U0"), b"C\x00"),
    "a negative shape": array_of(b"J\xff\xff\xff\xff", I8, b"C\x00"),
    "an array of lists": array_of(b"K\x01", I8, b"]"),
    "a memo of terabytes": b"Nr\xff\xff\xff\xff0.",
    "a call with arguments too deep to show": DTYPE + b")" + b"\x85" * 60_000 + b"\x85R.",
    "text": b"<html>not found</html>",
    "a name with an odd backslash": b"cnum\\qpy\ndtype\n.",
}


def test_tricks_are_refused_by_the_named_error(tmp_path):
    for name, content in TRICKS.items():
        with pytest.raises(ListError) as refused:
            read_plain_pickle(pickled(tmp_path, content))
        assert "annotations.pkl: " in str(refused.value), name


def test_what_a_pickle_asks_for_is_named(tmp_path):
    asked = {pickle.dumps(OrderedDict(a=1), protocol=0): r"requests collections.Ordered"}
    for number in (2**64, -(2**64), 10**5000):
        asked[pickle.dumps({number: "back"})] = f"a number of {number.bit_length()} bits"
    content = pickle.dumps({key: fine(*dive) for key, dive in DIVES.items()}, protocol=3)
    for end in range(0, len(content), 9):
        asked[content[:end]] = "this is not a whole pickle"
    for content, found in asked.items():
        with pytest.raises(ListError, match=rf"annotations.pkl: .*{found}"):
            read_plain_pickle(pickled(tmp_path, content))


def test_reading_changes_no_type_of_numpy(tmp_path):
    swapped = I8.replace(b"\x89\x88", b"\x89\x89")
    swapped += b"(K\x03\x8c\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    content = array_of(b"K\x01", swapped, b"C\x08" + bytes(7) + b"\x01")
    np.testing.assert_array_equal(read_plain_pickle(pickled(tmp_path, content)), [1])
    assert np.dtype("i8") == np.dtype("<i8")
