"""Something-Something v2's JSON lists."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sefar_core.data.datasets.ssv2 import read_ssv2
from tests.oracles import lists as oracle

LABELS = {"Waving something at something": "1", "Dropping something": "0"}


def entry(number, template):
    return {"id": str(number), "label": "told", "template": template, "placeholders": ["a cup"]}


TRAIN = [
    entry(78687, "Dropping [something]"),
    entry(42326, "Waving [something] at [something]"),
]
VALIDATION = [entry(5, "Dropping [something]")]


def read(folder, *, labels=LABELS, train=TRAIN, validation=VALIDATION):
    paths = [folder / f"{name}.json" for name in ("labels", "train", "validation")]
    for path, content in zip(paths, (labels, train, validation), strict=True):
        path.write_text(json.dumps(content), encoding="utf-8")
    return read_ssv2(*paths)


def test_the_lists_become_a_pool_and_a_test_split(tmp_path):
    listing = read(tmp_path)
    assert list(listing.classes.items()) == [
        (0, "Dropping something"),
        (1, "Waving something at something"),
    ]
    assert [(c.id, c.path, c.label, c.text, c.source, c.split) for c in listing.pool] == [
        ("78687", "78687.webm", 0, "Dropping something", "", "labeled"),
        ("42326", "42326.webm", 1, "Waving something at something", "", "labeled"),
    ]
    assert [(c.id, c.label, c.split) for c in listing.settled] == [("5", 0, "test")]


def test_files_of_another_kind_are_named_so(tmp_path):
    read(tmp_path)
    paths = [tmp_path / f"{name}.json" for name in ("labels", "train", "validation")]
    assert read_ssv2(*paths, suffix=".mp4").pool[0].path == "78687.mp4"


@pytest.mark.parametrize(
    ("lists", "found"),
    [
        ({"labels": ["a"]}, "labels.json: found ['a']"),
        ({"labels": {"a": "x"}}, "labels.json: found 'a': 'x'"),
        ({"labels": {"a": "0", "b": 0}}, "labels.json: found 'b': 0"),
        ({"labels": {"a\ud800": "0"}}, "labels.json: found 'a\\ud800': '0'"),
        ({"labels": {"a": "0", "b": "2"}}, "lists 2 classes, but none of number 1"),
        ({"train": {}}, "train.json: found {}; expected a list of clips"),
        ({"train": []}, "train.json: found []"),
        ({"train": [{"id": "3"}]}, "train.json, entry 1: found {'id': '3'}"),
        ({"train": [entry("../3", "Dropping [something]")]}, "entry 1: found"),
        ({"train": [entry(3, "Eating [something]")]}, "entry 1: the template 'Eating something'"),
        ({"train": VALIDATION}, "validation.json, entry 1: found 5, which"),
    ],
)
def test_an_entry_that_does_not_fit_is_named(tmp_path, lists, found):
    oracle.refuses(lambda: read(tmp_path, **lists), tmp_path, found)


ENTRIES = st.sampled_from(TRAIN) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["id", "template", "x"]), inner, max_size=3)
    ),
    max_leaves=4,
)
LABEL_LISTS = st.dictionaries(st.text(max_size=4), st.sampled_from(["0", "1", 2, "-1", None, "٣"]))


@settings(max_examples=60, deadline=None)
@given(st.one_of(
    st.tuples(st.just("train"), st.lists(ENTRIES, max_size=3) | ENTRIES),
    st.tuples(st.just("labels"), LABEL_LISTS | ENTRIES),
))  # fmt: skip
def test_any_json_is_read_rightly_or_refused(case):
    which, content = case
    with tempfile.TemporaryDirectory() as name:
        listing = oracle.read_or_refused(lambda: read(Path(name), **{which: content}), Path(name))
        if listing:
            assert [clip.id for clip in listing.pool] == [one["id"] for one in content]


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet='{}[]":,0a \n', max_size=20))
def test_any_text_in_place_of_json_is_refused(text):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "labels.json"
        path.write_text(text, encoding="utf-8")
        assert oracle.read_or_refused(lambda: read_ssv2(path, path, path), Path(name)) is None
