"""What FineDiving's annotations tell of a dive, in each of their forms.

Pickles (xujinglin/FineDiving@806717b8) by (folder, number): the fine-grained one has the type of
every picture's step and the names of those types; the coarse one has no steps, the aqa one no
names. JSON lists (jhong93/spot@1daf9611, data/finediving) have, for each cut between two steps, the
last picture of the first and both names in a comment: "Back -> 1.5 Twists". A first step of no
picture has no cut there.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sefar_core.data.lists.lines import read_json
from sefar_core.data.lists.listing import ListError

MOST_PICTURES = 1_000_000
"""Of a dive, which takes seconds."""

Level = Literal["action_type", "sub_action"]
Key = tuple[str, int]
"""Folder of the event, and number of the dive in it."""


class Step(NamedTuple):
    """A part of a dive: its type, its first picture, and the first one after it."""

    name: str
    start: int
    stop: int


class Dive(NamedTuple):
    """A dive as annotated."""

    where: str
    """Place in the annotation."""
    folder: str
    number: int
    action_type: str
    num_frames: int | None
    """None where the annotation does not tell it."""
    steps: list[Step]
    """Empty where they were not asked for."""

    @property
    def id(self) -> str:
        """As the JSON lists name it."""
        return f"{self.folder}__{self.number}"

    @property
    def path(self) -> str:
        """The folder of its pictures, beneath the video root."""
        return f"{self.folder}/{self.number}"


def key_of(where: str, entry: object) -> Key:
    """The folder and number of a dive.

    Raises:
        ListError: it is something else, or the folder's name leads elsewhere.
    """
    if isinstance(entry, list | tuple) and len(entry) == 2:
        folder, number = entry
        plain = isinstance(folder, str) and folder.isprintable() and folder not in ("", ".", "..")
        if plain and type(number) is int and number >= 0 and not re.search(r"[/\\]", folder):
            return folder, number
    raise ListError(
        f"{where}: found {entry!r:.120}, not the folder and number of a dive, such as ('01', 3); "
        f"fetch the list again"
    )


def pickled_dive(where: str, key: Key, entry: object, level: Level) -> Dive:
    """A dive from its entry in one of the annotation pickles.

    Raises:
        ListError: it is none of the three forms, or has no steps where they are the clips.
    """
    num_frames, steps = None, []
    action_type, labels, names = _parts(entry)
    if not isinstance(action_type, str) or not action_type:
        raise ListError(
            f"{where}: found {entry!r:.120}, without an action type; give an annotation .pkl of "
            f"FineDiving"
        )
    if labels is not None:
        types = _types(where, labels)
        num_frames = len(types)
        if level == "sub_action" and names is not None:
            steps = list(_runs(types, _names(where, types, names)))
    if level == "sub_action" and not steps:
        raise ListError(
            f"{where}: the annotation does not name the steps of dives; give "
            f"FineDiving_fine-grained_annotation.pkl, or set level to action_type"
        )
    return Dive(where, *key, action_type.lower(), num_frames, steps)


def _parts(entry: object) -> tuple[object, object, object]:
    """Action type, step type of each picture, and the names of step types, as far as there are."""
    if isinstance(entry, dict):
        return entry.get("action_type"), entry.get("frames_labels"), entry.get("sub-action_types")
    if isinstance(entry, list | tuple) and len(entry) == 5:
        return entry[0], entry[4], None
    return None, None, None


def _types(where: str, labels: object) -> list[int]:
    values = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if isinstance(values, list) and values and {*map(type, values)} <= {int, float}:
        whole = {value: _whole(value) for value in {*values}}
        types = [number for value in values if (number := whole[value]) is not None]
        if len(types) == len(values):
            return types
    raise ListError(
        f"{where}: found frames_labels {labels!r:.80}, not a whole number for each picture; fetch "
        f"the file again"
    )


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and value % 1 == 0 else None


def _names(where: str, types: Sequence[int], names: object) -> dict[int, str]:
    """The name of each step type of a dive.

    Public code works around dives whose pictures bear a number (22) that has no name, while a name
    (23) has no picture. One such pair in a dive belongs together.
    """
    if not isinstance(names, dict) or not all(isinstance(n, str) and n for n in names.values()):
        raise ListError(
            f"{where}: found sub-action_types {names!r:.120}, not a dict of numbers and names; "
            f"fetch the file again"
        )
    name_of = {_whole(number): name for number, name in names.items()}
    unnamed = sorted(set(types) - name_of.keys())
    unused = [name for number, name in name_of.items() if number not in types]
    if len(unnamed) == 1 and len(unused) == 1:
        name_of[unnamed[0]] = unused[0]
    elif unnamed:
        raise ListError(
            f"{where}: frames_labels have the step types {unnamed}, which sub-action_types "
            f"{names!r:.120} do not name; fetch the file again"
        )
    return {number: name_of[number] for number in types}


def _runs(types: Sequence[int], name_of: dict[int, str]) -> Iterator[Step]:
    start = 0
    for number, pictures in groupby(types):
        stop = start + len(list(pictures))
        yield Step(name_of[number], start, stop)
        start = stop


def json_dives(path: Path, level: Level) -> Iterator[Dive]:
    """The dives of a JSON list.

    Raises:
        ListError: the file is missing or not of this form.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise ListError(f"{path} holds no list of dives; give train.json, val.json or test.json")
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        found = entry if isinstance(entry, dict) else {}
        source, num_frames = found.get("_source_info"), found.get("num_frames")
        action_type = source.get("action_type") if isinstance(source, dict) else None
        if not isinstance(action_type, str) or not action_type:
            raise ListError(f"{where}: found no action_type in _source_info; fetch the list again")
        if type(num_frames) is not int or not 0 < num_frames <= MOST_PICTURES:
            raise ListError(f"{where}: found num_frames {num_frames!r:.80}; fetch the list again")
        folder, _, place = str(found.get("video")).rpartition("__")
        key = key_of(where, (folder, int(place) if re.fullmatch(r"[0-9]{1,9}", place) else place))
        whole = level == "action_type"
        steps = [] if whole else _json_steps(where, found.get("events"), num_frames)
        yield Dive(where, *key, action_type.lower(), num_frames, steps)


def _json_steps(where: str, events: object, num_frames: int) -> list[Step]:
    """The steps that have a picture; published events are in any order."""
    listed = events if isinstance(events, list) else []
    cuts = sorted((_cut(where, event, num_frames) for event in listed), key=lambda cut: cut.start)
    if not cuts:
        raise ListError(f"{where}: found no steps in events; fetch the list again")
    for cut, following in pairwise(cuts):
        if cut.after != following.before:
            raise ListError(
                f"{where}: found the step {following.before!r:.80} after {cut.after!r:.80}, which "
                f"does not lead on; fetch the list again"
            )
    names = [cuts[0].before, *(cut.after for cut in cuts)]
    edges = [0, *(cut.start for cut in cuts), num_frames]
    steps = [Step(name, *edge) for name, edge in zip(names, pairwise(edges), strict=True)]
    return [step for step in steps if step.start < step.stop]


class Cut(NamedTuple):
    """Where one step of a dive ends and the next one begins."""

    start: int
    """First picture of the step after it."""
    before: str
    after: str


def _cut(where: str, event: object, num_frames: int) -> Cut:
    """A cut from an event, whose `frame` is the last picture of the step before."""
    found = event if isinstance(event, dict) else {}
    before, arrow, after = str(found.get("comment")).partition(" -> ")
    frame = found.get("frame")
    if not before or not after:
        raise ListError(
            f"{where}: found the comment {found.get('comment')!r:.80} of a step, not one such as "
            f"'Back -> Entry'; fetch the list again"
        )
    if type(frame) is not int or not 0 <= frame < num_frames:
        raise ListError(
            f"{where}: found a step that ends at frame {frame!r:.80}, not between 0 and "
            f"{num_frames - 1}; fetch the list again"
        )
    return Cut(frame + 1, before, after)
