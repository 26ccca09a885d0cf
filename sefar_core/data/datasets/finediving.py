"""FineDiving: dives as folders of pictures, whole or cut into the steps of the annotation.

Two labels are known of a dive: its action type (`5253b`) and, of each picture, the type of the
step that it belongs to (`Back`, `1.5 Twists`, `2.5 Soms.Pike`, `Entry`). The lists come as pickles,
or as the JSON lists derived from them. The same dives give the same clips from both.

Pickles (xujinglin/FineDiving@806717b8) hold dives by (folder, number): the fine-grained one has the
type of every picture's step and the names of those types; the coarse one has no steps, the aqa one
no names. JSON lists (jhong93/spot@1daf9611, data/finediving) have, for each cut between two steps,
the last picture of the first and both names in a comment: "Back -> 1.5 Twists". A first step
without a picture has no cut there.

A pickle is a program whose instructions may call any function on the machine. Here it is read as
plain data only (see `read_plain_pickle`): nothing that it names is imported or called.
"""

import io
import math
import pickle
import pickletools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path
from reprlib import repr as brief
from typing import Literal, NamedTuple, TypeGuard

import numpy as np

from qa_data.manifest import Clip
from sefar_core.data.datasets.records import (
    UNWRITABLE,
    ListError,
    Listing,
    read_list_json,
    refuse_repeat,
)
from sefar_core.data.pictures import NOMINAL_FPS

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
    """None where the annotation does not hold it."""
    steps: list[Step]
    """Empty at level action_type."""

    @property
    def id(self) -> str:
        """As the JSON lists name it."""
        return f"{self.folder}__{self.number}"

    @property
    def path(self) -> str:
        """The folder of its pictures, beneath the video root."""
        return f"{self.folder}/{self.number}"


def read_finediving(
    annotations: Path,
    train: Path,
    test: Path,
    *,
    level: Level = "sub_action",
    event: str = "",
    action: str = "",
) -> Listing:
    """The clips of FineDiving from its pickles.

    Args:
        annotations: FineDiving_fine-grained_annotation.pkl; for action types also the coarse or
            the aqa one.
        train: train_split.pkl.
        test: test_split.pkl.
        level: what a clip and its class are: a whole dive and its action type, or a step of one
            and its sub-action type.
        event: only dives in whose folder this regular expression is found, such as 10m.
        action: only dives whose action type is this regular expression as a whole, such as 5253b.
            Case does not matter in either expression.

    Returns:
        The pool and the settled test clips, as the split files list them; each dive is a folder
        `<event>/<number>` beneath the video root. Classes are those that the clips have, by name.

    Raises:
        ListError: a file is missing or not of this form, requests more than plain data, lists a
            dive twice or one without annotation; or no dive is left.
    """
    wanted = _wanted(event, action)
    found = read_plain_pickle(annotations)
    if not isinstance(found, dict) or not found:
        raise ListError(
            f"{annotations} does not hold a dict of dives; give an annotation .pkl of FineDiving"
        )
    seen: dict[str, str] = {}
    dives: list[list[Dive]] = []
    for path in (train, test):
        dives.append([])
        for where, key in _split(path):
            refuse_repeat(seen, f"{key[0]}__{key[1]}", where)
            if key not in found:
                raise ListError(f"{where}: found the dive {key}, which {annotations} lacks")
            dives[-1].append(_pickled_dive(f"{annotations}, dive {key}", key, found[key], level))
    return _listing(*dives, level=level, wanted=wanted)


def read_finediving_json(
    train: Path,
    val: Path,
    test: Path,
    *,
    level: Level = "sub_action",
    event: str = "",
    action: str = "",
) -> Listing:
    """The clips of FineDiving from its public JSON lists; as `read_finediving` gives them.

    Args:
        train: train.json.
        val: val.json. It was cut from the official training dives and goes back to them.
        test: test.json.
        level: what a clip and its class are: a whole dive and its action type, or a step of one
            and its sub-action type.
        event: only dives in whose folder this regular expression is found, such as 10m.
        action: only dives whose action type is this regular expression as a whole, such as 5253b.

    Returns:
        The pool and the settled test clips.

    Raises:
        ListError: a file is missing or not of this form, a dive is listed twice, or none is left.
    """
    wanted = _wanted(event, action)
    pool, settled = (
        [dive for path in paths for dive in _json_dives(path, level)]
        for paths in ((train, val), (test,))
    )
    seen: dict[str, str] = {}
    for dive in pool + settled:
        refuse_repeat(seen, dive.id, dive.where)
    return _listing(pool, settled, level=level, wanted=wanted)


def _split(path: Path) -> Iterator[tuple[str, Key]]:
    """The dives of a split file, each with its place in it."""
    entries = read_plain_pickle(path)
    if not isinstance(entries, list | tuple) or not entries:
        raise ListError(
            f"{path} does not hold a list of dives; give train_split.pkl or test_split.pkl"
        )
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        yield where, _key_of(where, entry)


def _wanted(event: str, action: str) -> Callable[[Dive], bool]:
    """Whether a dive is one of the wanted events and action types."""
    patterns = []
    for name, text in (("event", event), ("action", action)):
        try:
            patterns.append(re.compile(text, re.IGNORECASE))
        except re.error as cause:
            raise ListError(
                f"{name} is {text!r}, which is not a regular expression ({cause}); 10m finds what "
                f"contains 10m, and a dot matches any letter"
            ) from None
    folder, action_type = patterns

    def wanted(dive: Dive) -> bool:
        whole = not action or action_type.fullmatch(dive.action_type)
        return bool(whole and folder.search(dive.folder))

    return wanted


def _listing(
    pool: Sequence[Dive],
    settled: Sequence[Dive],
    *,
    level: Level,
    wanted: Callable[[Dive], bool],
) -> Listing:
    clips = [
        clip
        for split, dives in (("labeled", pool), ("test", settled))
        for dive in filter(wanted, dives)
        for clip in (_steps(dive, split) if level == "sub_action" else [_whole(dive, split)])
    ]
    if not clips:
        raise ListError(
            f"none of {len(pool) + len(settled)} dives is of the wanted event and action; dives "
            f"look like {(*pool, *settled)[0].folder} with action type "
            f"{(*pool, *settled)[0].action_type}"
        )
    names = sorted({str(clip.text) for clip in clips})
    label_of = {name: label for label, name in enumerate(names)}
    clips = [replace(clip, label=label_of[str(clip.text)]) for clip in clips]
    return Listing(
        classes=dict(enumerate(names)),
        pool=[clip for clip in clips if clip.split == "labeled"],
        settled=[clip for clip in clips if clip.split == "test"],
    )


def _whole(dive: Dive, split: str) -> Clip:
    return Clip(
        id=dive.id,
        path=dive.path,
        text=dive.action_type,
        source=dive.folder,
        split=split,
        num_frames=dive.num_frames,
    )


def _steps(dive: Dive, split: str) -> Iterator[Clip]:
    for number, step in enumerate(dive.steps):
        yield Clip(
            id=f"{dive.id}_{number}",
            path=dive.path,
            start_s=step.start / NOMINAL_FPS,
            end_s=step.stop / NOMINAL_FPS,
            text=step.name,
            source=dive.folder,
            split=split,
        )


def _key_of(where: str, entry: object) -> Key:
    """The folder and number of a dive; refuses a folder's name that leads elsewhere."""
    if isinstance(entry, list | tuple) and len(entry) == 2:
        folder, number = entry
        plain = isinstance(folder, str) and folder.isprintable() and folder not in ("", ".", "..")
        if plain and type(number) is int and number >= 0 and not re.search(r"[/\\]", folder):
            return folder, number
    raise ListError(
        f"{where}: found {brief(entry):.120}, not the folder and number of a dive, such as "
        f"('01', 3); fetch the list again"
    )


def _pickled_dive(where: str, key: Key, entry: object, level: Level) -> Dive:
    """A dive from its entry in one of the three annotation pickles."""
    num_frames, steps = None, []
    action_type, labels, names = _parts(entry)
    if not _is_name(action_type):
        raise ListError(
            f"{where}: found {brief(entry):.120}, without an action type; give an annotation .pkl "
            f"of FineDiving"
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
        whole = {value: _whole_number(value) for value in {*values}}
        types = [number for value in values if (number := whole[value]) is not None]
        if len(types) == len(values):
            return types
    raise ListError(
        f"{where}: found frames_labels {brief(labels):.80}, not a whole number for each picture; "
        f"fetch the file again"
    )


def _is_name(value: object) -> TypeGuard[str]:
    """Whether it is a text that a manifest can hold."""
    return isinstance(value, str) and value != "" and UNWRITABLE.search(value) is None


def _whole_number(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and value % 1 == 0 else None


def _names(where: str, types: Sequence[int], names: object) -> dict[int, str]:
    """The name of each step type of a dive.

    Public code works around dives whose pictures bear a number (22) that has no name, while a name
    (23) has no picture. One such pair in a dive belongs together.
    """
    if not isinstance(names, dict) or not all(map(_is_name, names.values())):
        raise ListError(
            f"{where}: found sub-action_types {brief(names):.120}, not a dict of numbers and "
            f"names; fetch the file again"
        )
    name_of = {_whole_number(number): name for number, name in names.items()}
    unnamed = sorted(set(types) - name_of.keys())
    unused = [name for number, name in name_of.items() if number not in types]
    if len(unnamed) == 1 and len(unused) == 1:
        name_of[unnamed[0]] = unused[0]
    elif unnamed:
        raise ListError(
            f"{where}: frames_labels have the step types {unnamed}, which sub-action_types "
            f"{brief(names):.120} do not name; fetch the file again"
        )
    return {number: name_of[number] for number in types}


def _runs(types: Sequence[int], name_of: dict[int, str]) -> Iterator[Step]:
    start = 0
    for number, pictures in groupby(types):
        stop = start + len(list(pictures))
        yield Step(name_of[number], start, stop)
        start = stop


def _json_dives(path: Path, level: Level) -> Iterator[Dive]:
    """The dives of a JSON list."""
    entries = read_list_json(path)
    if not isinstance(entries, list) or not entries:
        raise ListError(
            f"{path} does not hold a list of dives; give train.json, val.json or test.json"
        )
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        found = entry if isinstance(entry, dict) else {}
        source, num_frames = found.get("_source_info"), found.get("num_frames")
        action_type = source.get("action_type") if isinstance(source, dict) else None
        if not _is_name(action_type):
            raise ListError(f"{where}: found no action_type in _source_info; fetch the list again")
        if type(num_frames) is not int or not 0 < num_frames <= MOST_PICTURES:
            raise ListError(f"{where}: found num_frames {num_frames!r:.80}; fetch the list again")
        folder, _, place = str(found.get("video")).rpartition("__")
        key = _key_of(where, (folder, int(place) if re.fullmatch(r"[0-9]{1,9}", place) else place))
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


class StepChange(NamedTuple):
    """Where one step of a dive ends and the next one begins."""

    start: int
    """First picture of the step after it."""
    before: str
    after: str


def _cut(where: str, event: object, num_frames: int) -> StepChange:
    """A cut from an event, whose `frame` is the last picture of the step before."""
    found = event if isinstance(event, dict) else {}
    before, arrow, after = str(found.get("comment")).partition(" -> ")
    frame = found.get("frame")
    if not _is_name(before) or not _is_name(after):
        raise ListError(
            f"{where}: found the comment {found.get('comment')!r:.80} of a step, not one such as "
            f"'Back -> Entry'; fetch the list again"
        )
    if type(frame) is not int or not 0 <= frame < num_frames:
        raise ListError(
            f"{where}: found a step that ends at frame {frame!r:.80}, not between 0 and "
            f"{num_frames - 1}; fetch the list again"
        )
    return StepChange(frame + 1, before, after)


DTYPE = re.compile(r"[<>|=]?[biufcSU][0-9]{1,6}")
MALFORMED = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
    RecursionError,
    DeprecationWarning,
)
"""Errors of pickle and numpy for bytes that are not a pickle of plain data."""
PLAIN = (dict, tuple, list, str, bytes, bytearray, int, float, complex, type(None), np.ndarray)


class Refused(Exception):
    """A pickle requests more than plain data. The message continues "the pickle"."""


def read_plain_pickle(path: Path) -> object:
    """The plain data in a pickle; numpy's scalars as Python's.

    Plain data is dict, tuple, list, str, bytes, numbers, bool, None, and numpy's arrays and scalars
    of numbers, bool, str or bytes.

    Raises:
        ListError: the file is missing, is not a whole pickle, or requests more than plain data.
            What it requests is named; none of it is done.
    """
    if not path.is_file():
        raise ListError(f"there is no file {path}; give the pickle (.pkl) of the annotations")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # of texts with odd backslashes
            content = path.read_bytes()
            _refuse_large_memo(content)
            found = PlainUnpickler(io.BytesIO(content)).load()
        _refuse_other_values(found)
    except Refused as refused:
        raise ListError(
            f"{path}: the pickle {refused}. Only plain data is read from a pickle, since any other "
            f"may do harm; get the list from its authors, or as JSON"
        ) from None
    except MALFORMED as cause:
        raise ListError(
            f"{path}: this is not a whole pickle of plain data "
            f"({type(cause).__name__}: {str(cause):.120}); fetch it again"
        ) from None
    return found


class PlainUnpickler(pickle.Unpickler):
    """An unpickler that knows the names in MAKERS alone. A name is never imported."""

    def find_class(self, module: str, name: str) -> "Maker":
        """The stand-in for a name of numpy's; see the standard library."""
        wanted = f"{module}.{name}"
        if wanted not in MAKERS:
            raise Refused(f"requests {wanted}")
        return MAKERS[wanted]


class Maker:
    """Makes what a pickle means by a name of numpy's, after checking the arguments.

    numpy's own functions are not called: they would also make arrays of objects, and change numpy's
    own types. A maker has no attributes that a pickle could set.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable):
        self._make = make

    def __call__(self, *arguments: object) -> object:
        return self._make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise Refused("sets the state of a function")


class Dtype:
    """A type of numpy, whose byte order the pickle gives as a state."""

    __slots__ = ("dtype",)

    def __init__(self, text: str, align: bool = False, copy: bool = True):
        if type(text) is not str or not DTYPE.fullmatch(text):
            raise Refused(f"requests values of numpy type {brief(text)}, not numbers or text")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple) -> None:
        _, order, *parts = state
        if parts[:3] != [None] * 3 or len(parts) != 6 or order not in ("<", ">", "|", "="):
            raise Refused(f"requests a type of numpy with parts: {brief(state)}")
        self.dtype = self.dtype.newbyteorder(order)


class PlainArray(np.ndarray):
    """An array that takes its content from a pickle if shape, type and bytes agree."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        if type(dtype) is not Dtype or type(raw) not in (bytes, bytearray):
            raise Refused("makes an array of something else than bytes")
        if type(shape) is not tuple or not all(type(side) is int and side >= 0 for side in shape):
            raise Refused(f"makes an array of shape {brief(shape)}")
        size = math.prod(shape) * dtype.dtype.itemsize
        if size != len(raw) or dtype.dtype.itemsize == 0:
            raise Refused(f"makes an array of {size} bytes from {len(raw)}")
        # The stub requests numpy's bool, which numpy itself does not take.
        super().__setstate__((1, shape, dtype.dtype, bool(fortran), bytes(raw)))  # type: ignore[arg-type]


def _empty_array(subtype: object, shape: object, typecode: object) -> PlainArray:
    if subtype is not MAKERS["numpy.ndarray"] or shape != (0,):
        raise Refused(f"requests an array of class {brief(subtype)} and shape {brief(shape)}")
    return PlainArray(0, np.int8)


def _array(raw: object, dtype: object, shape: object, order: object) -> PlainArray:
    array = PlainArray(0, np.int8)
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


def _scalar(dtype: object, raw: object) -> object:
    return _array(raw, dtype, (), "C").item()


def _bytes(text: object = "", encoding: object = "latin1") -> bytes:
    """How protocols before 3 write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused(f"encodes a {type(text).__name__} as {brief(encoding)}")
    return text.encode("latin1")


def _not_called(*arguments: object) -> None:
    raise Refused("makes an array in a way that numpy does not")


MAKERS = {
    "numpy.ndarray": Maker(_not_called),
    "numpy.dtype": Maker(Dtype),
    "_codecs.encode": Maker(_bytes),
    "__builtin__.bytes": Maker(_bytes),
}
for _core in ("numpy.core", "numpy._core"):  # before and from numpy 2
    MAKERS[f"{_core}.multiarray._reconstruct"] = Maker(_empty_array)
    MAKERS[f"{_core}.multiarray.scalar"] = Maker(_scalar)
    MAKERS[f"{_core}.numeric._frombuffer"] = Maker(_array)


def _refuse_large_memo(content: bytes) -> None:
    """Refuse numbers of kept values for which `pickle` would take memory beyond the file's size."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name.endswith("PUT") and int(argument or 0) > len(content):
            raise Refused(f"keeps a value under the number {argument}")


def _refuse_other_values(found: object) -> None:
    """Refuse sets, names that were requested and not used, and numbers too long to print."""
    todo, seen = [found], {id(found)}
    while todo:
        value = todo.pop()
        if not isinstance(value, PLAIN):
            raise Refused(f"holds {brief(value)}, which is not plain data")
        if isinstance(value, int) and value.bit_length() > 64:
            raise Refused(f"has a number of {value.bit_length()} bits")
        if isinstance(value, dict):
            parts = [*value, *value.values()]
        else:
            parts = list(value) if isinstance(value, list | tuple) else []
        fresh = [part for part in parts if id(part) not in seen]
        seen.update(map(id, fresh))
        todo += fresh
