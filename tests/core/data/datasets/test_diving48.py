"""Diving48 as people have it, and whatever else may lie in its files."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sefar_core.data.datasets.diving48 import read_diving48
from sefar_core.data.datasets.records import ListError

VOCAB = [["Back", f"{number}som", "NoTwis", "FREE"] for number in range(48)]
EMPTY_CLASS = 30


def entry(name: str, label: int) -> dict:
    return {"vid_name": name, "label": label, "start_frame": 0, "end_frame": 48}


def write(folder: Path, vocab: object, train: object, test: object) -> list[Path]:
    names = ("Diving48_vocab.json", "Diving48_V2_train.json", "Diving48_V2_test.json")
    paths = [folder / name for name in names]
    for path, content in zip(paths, (vocab, train, test), strict=True):
        path.write_text(json.dumps(content), encoding="utf-8")
    return paths


def test_clips_have_the_file_class_and_source_of_the_list(tmp_path):
    train = [entry("-mmq0PT-u8k_00155", 0), entry("a_b_00001", 47)]
    listing = read_diving48(*write(tmp_path, VOCAB, train, [entry("xyz_00002", 29)]))
    first, second = listing.pool
    (held_out,) = listing.settled
    assert (first.id, first.path) == ("-mmq0PT-u8k_00155", "-mmq0PT-u8k_00155.mp4")
    assert [clip.source for clip in (first, second, held_out)] == ["-mmq0PT-u8k", "a_b", "xyz"]
    assert [clip.label for clip in (first, second, held_out)] == [0, 47, 29]
    assert first.text == "Back, 0som, NoTwis, FREE"
    assert [clip.split for clip in (first, second, held_out)] == ["labeled", "labeled", "test"]
    assert (first.start_s, first.end_s, first.event) == (None, None, None)


def test_the_class_without_clips_stays_a_class(tmp_path):
    train = [entry(f"v_{label:05d}", label) for label in range(48) if label != EMPTY_CLASS]
    listing = read_diving48(*write(tmp_path, VOCAB, train, [entry("w_1", 31)]))
    assert sorted(listing.classes) == list(range(48))
    assert listing.classes[EMPTY_CLASS] == "Back, 30som, NoTwis, FREE"
    assert {clip.label for clip in listing.pool} == set(range(48)) - {EMPTY_CLASS}
    assert all(clip.text == f"Back, {clip.label}som, NoTwis, FREE" for clip in listing.pool)


GOOD = entry("v_00001", 3)


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ([GOOD, GOOD], r"train.json, entry 1: found v_00001, which .*entry 0 lists"),
        ([entry("w_1", 3)], r"test.json, entry 0: found w_1, which .*train.json, entry 0"),
        ([entry("v_1", 48)], r"entry 0: found the label 48, not one of 0 to 47"),
        ([entry("v_1", True)], r"label True"),
        ([{"label": 3}], r"entry 0: found .*without a vid_name"),
        ([entry("nounderscore", 3)], r"without a vid_name"),
        ([entry("../v_1", 3)], r"is a path"),
        (["v_1"], r"entry 0: found 'v_1'"),
        ([], r"train.json does not hold a list"),
        ({"v_1": 3}, r"train.json does not hold a list"),
    ],
)
def test_what_is_no_list_is_refused_with_its_place(tmp_path, train, told):
    with pytest.raises(ListError, match=told):
        read_diving48(*write(tmp_path, VOCAB, train, [entry("w_1", 0)]))


@pytest.mark.parametrize("vocab", [[["Back"], ["Back"]], [["Back"], "words"], [[1, 2]], [[]], {}])
def test_a_vocabulary_that_names_no_classes_is_refused(tmp_path, vocab):
    with pytest.raises(ListError, match=r"vocab.json"):
        read_diving48(*write(tmp_path, vocab, [GOOD], [entry("w_1", 0)]))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda parts: st.one_of(
        st.lists(parts, max_size=4),
        st.dictionaries(st.sampled_from(["vid_name", "label", "x"]), parts, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(vocab=st.one_of(st.just(VOCAB), JSON), train=JSON, test=JSON)
def test_any_json_is_read_or_refused(tmp_path_factory, vocab, train, test):
    paths = write(tmp_path_factory.getbasetemp(), vocab, train, test)
    try:
        listing = read_diving48(*paths)
    except ListError as refused:
        assert any(str(path) in str(refused) for path in paths)
    else:
        assert all(clip.label in listing.classes for clip in listing.pool)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_refused(tmp_path_factory, content):
    paths = write(tmp_path_factory.getbasetemp(), VOCAB, [GOOD], [entry("w_1", 0)])
    paths[1].write_bytes(content)
    with pytest.raises(ListError, match=r"Diving48_V2_train.json"):
        read_diving48(*paths)


def test_a_large_list_takes_seconds_at_most(tmp_path):
    train = [entry(f"v{number // 30}_{number:05d}", number % 48) for number in range(35_000)]
    paths = write(tmp_path, VOCAB, train, [entry("w_1", 0)])
    start = time.perf_counter()
    listing = read_diving48(*paths)
    assert len(listing.pool) == 35_000
    assert time.perf_counter() - start < 60
