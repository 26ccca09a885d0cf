"""FineGym's class lists: from a class number to apparatus, set and element text.

Format (SDOlivia/FineGym, gh-pages, resources/dataset): one class a line,
`Clabel:   0; set:  1; Glabel:   1; (VT) round-off, ...`. `Clabel` counts within Gym99 or Gym288,
`Glabel` within Gym530, whose own list has no `Clabel`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qa_data.files import SefarError, read_text

EVENTS = {1: "VT", 2: "FX", 3: "BB", 4: "UB"}

# FineGym files the forward and the backward saltos of the floor under two sets.
MIRROR_SETS = {24: 25, 25: 24}

DIRECTIONS = ("forward", "backward")

CLASS_LINE = re.compile(
    r"Clabel:\s*(?P<label>[0-9]{1,6});\s*set:\s*(?P<set_id>[0-9]{1,6});\s*"
    r"Glabel:\s*(?P<glabel>[0-9]{1,6});\s*\((?P<event>\w+)\)(?P<text>.*)"
)
GYM530_LINE = re.compile(
    r"Glabel:\s*(?P<glabel>[0-9]{1,6});\s*set:\s*(?P<set_id>[0-9]{1,6});\s*"
    r"\((?P<event>\w+)\)(?P<text>.*)"
)


class TaxonomyError(SefarError):
    """A class list that cannot be used. The message names file, line, what was found, the fix."""


@dataclass(frozen=True)
class ElementClass:
    """One class of element."""

    label: int
    """Number of the class in its own list, from 0 without gaps."""
    set_id: int
    """FineGym's group of like elements; its tens digit is the number of the apparatus."""
    glabel: int
    """Number of the class in Gym530."""
    event: str
    """Apparatus: VT, FX, BB or UB."""
    text: str
    """Description without the apparatus. Two classes may read alike (ten pairs in Gym99)."""


def read_categories(path: Path) -> dict[int, ElementClass]:
    """The classes of a list by label, in ascending order.

    Windows line ends and a missing last line end are fine, and blanks around a text are dropped.

    Raises:
        TaxonomyError: the file is missing or empty, a line does not follow the format, has no
            text or an unknown apparatus, or the labels repeat or have gaps.
    """
    classes: dict[int, ElementClass] = {}
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        found = _element_class(where, line)
        if found.label in classes:
            raise TaxonomyError(
                f"{where}: label {found.label} is given a second time, for {found.text!r:.60} "
                f"after {classes[found.label].text!r:.60}; number the classes 0, 1, 2, ..."
            )
        classes[found.label] = found
    if gaps := sorted(set(range(len(classes))) - classes.keys()):
        raise TaxonomyError(
            f"{path} lists {len(classes)} classes up to label {max(classes)}, but not label "
            f"{gaps[0]}; number the classes 0, 1, 2, ... without gaps"
        )
    return dict(sorted(classes.items()))


def opposite_pairs(
    classes: Iterable[ElementClass], words: tuple[str, str] = DIRECTIONS
) -> list[tuple[int, int]]:
    """Labels of classes that differ in two opposite words alone, each pair once, ascending.

    Their texts are mirror images ("salto forward tucked", "salto backward tucked"), and they are
    of one apparatus and one set, the floor's front and back saltos counting as one.
    """
    known = sorted(classes, key=lambda one: one.label)
    by_key = {(one.event, one.set_id, one.text): one.label for one in known}
    pairs = set()
    for one in known:
        turned = mirrored(one.text, words)
        if turned == one.text:
            continue
        for set_id in (one.set_id, MIRROR_SETS.get(one.set_id, one.set_id)):
            other = by_key.get((one.event, set_id, turned))
            if other is not None:
                pairs.add((min(one.label, other), max(one.label, other)))
    return sorted(pairs)


def mirrored(text: str, words: tuple[str, str] = DIRECTIONS) -> str:
    """The text with the two words exchanged, wherever they are whole words."""
    turn = {words[0]: words[1], words[1]: words[0]}
    return re.sub(rf"\b({'|'.join(words)})\b", lambda word: turn[word[0]], text)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not blank, stripped, with their numbers from 1."""
    text = read_text(
        path,
        error=TaxonomyError,
        missing=f"no list at {path}; FineGym's lists are on its dataset page",
        fix="fetch it again",
    )
    lines = enumerate(text.splitlines(), 1)
    kept = [(number, line.strip()) for number, line in lines if line.strip()]
    if not kept:
        raise TaxonomyError(f"{path} is empty; fetch it again")
    return kept


def _element_class(where: str, line: str) -> ElementClass:
    match = CLASS_LINE.fullmatch(line) or GYM530_LINE.fullmatch(line)
    if match is None or "\0" in line:
        raise TaxonomyError(
            f"{where}: found {line!r:.90}; expected a line such as "
            f"'Clabel: 0; set: 1; Glabel: 1; (VT) round-off, flic-flac on'"
        )
    cells = match.groupdict()
    text = cells["text"].strip()
    if not text:
        raise TaxonomyError(f"{where}: the class has no text; write it after the apparatus")
    if cells["event"] not in EVENTS.values():
        raise TaxonomyError(
            f"{where}: unknown apparatus {cells['event']!r:.60}; it must be one of "
            f"{', '.join(EVENTS.values())}"
        )
    glabel = int(cells["glabel"])
    label = glabel if cells.get("label") is None else int(cells["label"])
    return ElementClass(label, int(cells["set_id"]), glabel, cells["event"], text)
