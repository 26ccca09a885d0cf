"""FineGym's class lists."""

import pytest

from qa_data.taxonomy import (
    ElementClass,
    TaxonomyError,
    mirrored,
    opposite_pairs,
    read_categories,
)
from tests.finegym import finegym_folder

LINES = [
    "Clabel:   0; set:  1; Glabel:   7; (VT) handspring on; set: (2) é",
    "Clabel:   1; set: 41; Glabel:  40; (UB) (swing forward) giant circle ",
]


def written(folder, *lines, end="\n"):
    path = folder / "categories.txt"
    path.write_bytes(end.join(lines).encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_classes_are_read_whatever_the_line_ends(tmp_path, end):
    assert read_categories(written(tmp_path, *LINES, end=end)) == {
        0: ElementClass(0, 1, 7, "VT", "handspring on; set: (2) é"),
        1: ElementClass(1, 41, 40, "UB", "(swing forward) giant circle"),
    }
    # The list of 530 numbers its classes by Glabel.
    path = written(tmp_path, "Glabel:   0; set:  1; (VT) round-off", end=end)
    assert read_categories(path) == {0: ElementClass(0, 1, 0, "VT", "round-off")}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([*LINES, "Clabel: 1; set: 1; Glabel: 9; (VT) x"], "line 3: label 1 is given a second"),
        ([*LINES, "Clabel: 3; set: 1; Glabel: 9; (VT) x"], "3 classes .* label 3, but not label 2"),
        ([*LINES, "Clabel: 2; set: 1; Glabel: 9; (VT)  "], "line 3: the class has no text"),
        ([*LINES, "Clabel: 2; set: 1; Glabel: 9; (XX) x"], "line 3: unknown apparatus 'XX'"),
        ([*LINES, "2 round-off"], "line 3: found '2 round-off'; expected a line such as"),
        (["", " "], "is empty"),
    ],
)
def test_a_bad_list_is_named_with_what_was_found(tmp_path, lines, found):
    with pytest.raises(TaxonomyError, match=found):
        read_categories(written(tmp_path, *lines))
    with pytest.raises(TaxonomyError, match="no list at .*no.txt"):
        read_categories(tmp_path / "no.txt")


def test_mirrored_exchanges_every_direction_and_nothing_else():
    text = "(swing forward) double salto backward tucked, forwards straightforward"
    other = "(swing backward) double salto forward tucked, forwards straightforward"
    assert mirrored(text) == other
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
        (7, 43, "UB", "from high bar to low bar"),
        (8, 43, "UB", "from low bar to high bar"),
        (9, 43, "UB", "high barre"),
    ]
    classes = [
        ElementClass(label, set_id, label, event, text) for label, set_id, event, text in rows
    ]
    assert opposite_pairs(classes) == opposite_pairs(reversed(classes)) == [(0, 1), (3, 4)]
    assert opposite_pairs(classes, ("high bar", "low bar")) == [(7, 8)]


@pytest.mark.lists
def test_the_real_lists_are_read():
    folder = finegym_folder()
    lists = {n: read_categories(folder / f"gym{n}_categories.txt") for n in (99, 288, 530)}
    assert [len(classes) for classes in lists.values()] == [99, 288, 530]
    texts = [len({one.text for one in classes.values()}) for classes in lists.values()]
    assert texts == [89, 253, 480]
    events = [one.event for one in lists[99].values()]
    assert [events.count(event) for event in ("FX", "BB", "UB", "VT")] == [35, 33, 25, 6]
