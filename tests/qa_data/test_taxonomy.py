"""FineGym's class lists."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_data.taxonomy import (
    ElementClass,
    TaxonomyError,
    mirrored,
    opposite_pairs,
    read_categories,
)
from tests.finegym import finegym_folder
from tests.oracles import finegym_lists as oracle

LINES = [
    "Clabel:   0; set:  1; Glabel:   7; (VT) handspring on, salto off",
    "Clabel:   1; set: 41; Glabel:  40; (UB) (swing forward) giant circle ",
]
# Gym-New: twenty opposing pairs of Gym288, listed by hand; the one that does not differ in
# "forward" and "backward" but in bars ("from high bar to low bar") is left out.
GYM_NEW = [
    (106, 117), (107, 118), (108, 122), (109, 123), (208, 216), (209, 217), (211, 225),
    (212, 222), (213, 223), (234, 236), (237, 244), (239, 243), (241, 246), (248, 250),
    (249, 251), (254, 255), (257, 259), (258, 260), (277, 278),
]  # fmt: skip


def written(folder, *lines, end="\n"):
    path = folder / "categories.txt"
    path.write_bytes(end.join(lines).encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_classes_are_read_whatever_the_line_ends(tmp_path, end):
    assert read_categories(written(tmp_path, *LINES, end=end)) == {
        0: ElementClass(0, 1, 7, "VT", "handspring on, salto off"),
        1: ElementClass(1, 41, 40, "UB", "(swing forward) giant circle"),
    }


def test_the_list_of_530_numbers_its_classes_by_glabel(tmp_path):
    path = written(tmp_path, "Glabel:   0; set:  1; (VT) round-off")
    assert read_categories(path) == {0: ElementClass(0, 1, 0, "VT", "round-off")}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Clabel: 1; set: 1; Glabel: 9; (VT) again", "line 3: label 1 is given a second time"),
        ("Clabel: 3; set: 1; Glabel: 9; (VT) far", "3 classes up to label 3, but not label 2"),
        ("Clabel: 2; set: 1; Glabel: 9; (VT)  ", "line 3: the class has no text"),
        ("Clabel: 2; set: 1; Glabel: 9; (XX) odd", "line 3: unknown apparatus 'XX'"),
        ("2 round-off", "line 3: found '2 round-off'; expected a line such as"),
    ],
)
def test_a_bad_line_is_named_with_what_was_found(tmp_path, line, found):
    with pytest.raises(TaxonomyError, match=found):
        read_categories(written(tmp_path, *LINES, line))


def test_a_missing_or_empty_list_is_refused(tmp_path):
    with pytest.raises(TaxonomyError, match="no list at .*categories.txt"):
        read_categories(tmp_path / "categories.txt")
    with pytest.raises(TaxonomyError, match="is empty"):
        read_categories(written(tmp_path, "", " "))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 99),
            st.sampled_from(["VT", "FX", "BB", "UB"]),
            st.text("ab (,;.)Clabel:0é", min_size=1).map(str.strip).filter(bool),
        ),
        min_size=1,
        max_size=6,
    ),
    order=st.randoms(use_true_random=False),
)
def test_classes_come_back_as_they_were_written(folder, rows, order):
    numbered = [(label, *row) for label, row in enumerate(rows)]
    shuffled = order.sample(numbered, len(numbered))
    path = written(folder, oracle.category_list(shuffled))
    classes = read_categories(path)
    assert list(classes) == list(range(len(rows)))
    assert [(c.label, c.set_id, c.event, c.text) for c in classes.values()] == numbered
    assert [c.glabel for c in classes.values()] == [3 * label for label in classes]


@settings(max_examples=100, deadline=None)
@given(
    head=st.sampled_from(["", "Clabel: 0; set: 1; Glabel: 7; (VT) ", "Clabel: "]),
    noise=st.one_of(st.binary(max_size=40), st.text(max_size=40), st.just("9" * 5000)),
)
def test_any_bytes_are_read_or_refused_by_the_files_name(folder, head, noise):
    content = noise if isinstance(noise, bytes) else noise.encode("utf-8", "surrogatepass")
    path = folder / "noise.txt"
    path.write_bytes(head.encode() + content)
    try:
        found = read_categories(path)
    except TaxonomyError as error:
        assert str(path) in str(error)
        assert len(str(error)) < 600
    else:
        assert found


def test_a_number_too_long_to_be_one_is_refused(tmp_path):
    with pytest.raises(TaxonomyError, match="line 1: found 'Clabel: 9999"):
        read_categories(written(tmp_path, f"Clabel: {'9' * 5000}; set: 1; Glabel: 1; (VT) x"))


def test_mirrored_exchanges_every_direction_and_nothing_else():
    text = "(swing forward) double salto backward tucked, forwards"
    assert mirrored(text) == "(swing backward) double salto forward tucked, forwards"
    assert mirrored(mirrored(text)) == text


def test_opposite_pairs_stay_within_apparatus_and_set():
    rows = [
        (0, 33, "BB", "salto backward tucked"),
        (1, 33, "BB", "salto forward tucked"),
        (2, 35, "BB", "salto forward tucked"),
        (3, 24, "FX", "salto forward tucked"),
        (4, 25, "FX", "salto backward tucked"),
        (5, 33, "BB", "salto backward piked"),
        (6, 33, "BB", "salto sideward tucked"),
    ]
    classes = [
        ElementClass(label, set_id, label, event, text) for label, set_id, event, text in rows
    ]
    assert opposite_pairs(classes) == [(0, 1), (3, 4)]
    assert opposite_pairs(reversed(classes)) == [(0, 1), (3, 4)]


def test_any_two_words_can_oppose_one_another():
    texts = ["from high bar to low bar", "from low bar to high bar", "high barre"]
    classes = [ElementClass(n, 43, n, "UB", text) for n, text in enumerate(texts)]
    assert opposite_pairs(classes, ("high bar", "low bar")) == [(0, 1)]
    assert opposite_pairs(classes) == []


@pytest.mark.lists
def test_the_real_lists_are_read_and_hold_the_published_opposites():
    folder = finegym_folder()
    lists = {n: read_categories(folder / f"gym{n}_categories.txt") for n in (99, 288, 530)}
    assert [len(classes) for classes in lists.values()] == [99, 288, 530]
    texts = [len({one.text for one in classes.values()}) for classes in lists.values()]
    assert texts == [89, 253, 480]
    events = [one.event for one in lists[99].values()]
    assert [events.count(event) for event in ("FX", "BB", "UB", "VT")] == [35, 33, 25, 6]
    assert set(GYM_NEW) <= set(opposite_pairs(lists[288].values()))
