"""The manifest: the one table of clips that every script reads and writes.

A UTF-8 CSV file with one line per clip. Columns: `id, path, start_s, end_s, label, text, event,
source, split`, then, once the videos have been checked, `num_frames, fps, rotation, flags`.
An empty cell means "none"; no cell holds a line break. The label of an unlabeled clip is neither
written nor read: what a training run cannot see, it cannot use. A Clip is one line of it.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TypeVar

from qa_data.files import SefarError, composed, read_text, write_text

SPLITS = ("labeled", "unlabeled", "val", "test")
MAX_LABEL = 999_999  # a larger number is a mistaken column, not a class
NO_CELL = re.compile(r"[\0\r\n\ud800-\udfff]")  # the last: bytes of names that are not UTF-8


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip: its file, its time in the file, and its class unless it is unlabeled."""

    id: str
    path: str
    """Video file, relative to the video root, or absolute."""
    start_s: float | None = None
    """First second of the clip in the file; none if the file is the clip."""
    end_s: float | None = None
    """Second at which the clip ends; given with `start_s` or not at all."""
    label: int | None = None
    """Class, from 0; none for unlabeled clips."""
    text: str | None = None
    """What the class is called, without the apparatus; none for unlabeled clips."""
    event: str | None = None
    """Apparatus: VT, FX, BB or UB; none for unlabeled clips."""
    source: str = ""
    """The video that the clip was cut from; its letters are composed, for sources are compared."""
    split: str
    """One of SPLITS."""
    num_frames: int | None = None
    fps: float | None = None
    """Frames a second."""
    rotation: int | None = None
    """Degrees by which the player turns the picture."""
    flags: str = ""
    """Remarks of scripts/check_videos.py."""

    def __post_init__(self):
        object.__setattr__(self, "source", composed(self.source))


def without_label(clip: Clip) -> Clip:
    """The clip without its class."""
    return replace(clip, label=None, text=None, event=None)


def _problem_of(clip: Clip) -> str | None:
    """What is wrong with a clip, and the fix; None for a sound clip."""
    return (
        _text_problem(clip)
        or _path_problem(clip)
        or _time_problem(clip)
        or _label_problem(clip)
        or _probe_problem(clip)
    )


def _text_problem(clip: Clip) -> str | None:
    cells = (clip.id, clip.path, clip.text or "", clip.event or "", clip.source, clip.flags)
    if NO_CELL.search("".join(cells)) is None:
        return None
    found = next(cell for cell in cells if NO_CELL.search(cell))
    return (
        f"found {found!r:.100}, with a line break, a zero byte or a byte that is not UTF-8; "
        f"rename it, or close the double quote that was left open"
    )


def _path_problem(clip: Clip) -> str | None:
    if not clip.id or not clip.path:
        return f"id is {clip.id!r} and path is {clip.path!r}; a clip needs both"
    if ".." in clip.path and ".." in PurePath(clip.path.replace("\\", "/")).parts:
        return (
            f"path {clip.path!r} climbs out of the video root by '..'; write it relative to the "
            f"root, or as an absolute path"
        )
    return None


def _time_problem(clip: Clip) -> str | None:
    if (clip.start_s is None) != (clip.end_s is None):
        return f"start_s is {clip.start_s} and end_s is {clip.end_s}; give both or neither"
    if clip.start_s is None or clip.end_s is None:
        return None
    if not 0 <= clip.start_s < clip.end_s < math.inf:
        return (
            f"the clip runs from {clip.start_s} to {clip.end_s} s; start_s must be at least 0 and "
            f"before end_s"
        )
    return None


def _label_problem(clip: Clip) -> str | None:
    if clip.split not in SPLITS:
        return f"split is {clip.split!r}; it must be one of {', '.join(SPLITS)}"
    known = {"label": clip.label, "text": clip.text, "event": clip.event}
    known = {name: value for name, value in known.items() if value is not None}
    if clip.split == "unlabeled":
        return f"an unlabeled clip shows its class by {known}; empty these cells" if known else None
    if clip.label is None or not 0 <= clip.label <= MAX_LABEL:
        return (
            f"label is {clip.label}; a clip of split {clip.split} needs a class, a number from 0 "
            f"to {MAX_LABEL}"
        )
    return None


def _probe_problem(clip: Clip) -> str | None:
    if clip.num_frames is not None and clip.num_frames < 0:
        return f"num_frames is {clip.num_frames}; a number of frames is at least 0"
    if clip.fps is not None and not 0 <= clip.fps < math.inf:
        return f"fps is {clip.fps}; frames a second are a number from 0 upward"
    return None


COLUMNS = ("id", "path", "start_s", "end_s", "label", "text", "event", "source", "split")
PROBE_COLUMNS = ("num_frames", "fps", "rotation", "flags")

Value = TypeVar("Value")


class ManifestError(SefarError):
    """A manifest that cannot be used. The message names file, line, what was found, the fix."""


def by_split(clips: Iterable[Clip], split: str) -> list[Clip]:
    """The clips of one split, in their order.

    Raises:
        ValueError: there is no split of that name.
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; the splits are {', '.join(SPLITS)}")
    return [clip for clip in clips if clip.split == split]


def write_manifest(clips: Sequence[Clip], path: Path) -> None:
    """Write the table atomically; the class of an unlabeled clip is dropped.

    The probe columns are written if any clip has one of them.

    Raises:
        ManifestError: a clip is such that the table could not be read again; nothing is written.
    """
    probed = any(getattr(clip, name) not in (None, "") for clip in clips for name in PROBE_COLUMNS)
    columns = COLUMNS + PROBE_COLUMNS if probed else COLUMNS
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    written: set[str] = set()
    for clip in clips:
        shown = without_label(clip) if clip.split == "unlabeled" else clip
        taken = composed(clip.id) in written
        problem = "its id is another clip's too" if taken else _problem_of(shown)
        if problem:
            raise ManifestError(f"{path} cannot be written: clip {clip.id!r}: {problem}")
        written.add(composed(clip.id))
        writer.writerow([getattr(shown, name) for name in columns])  # None is an empty cell
    write_text(path, text.getvalue())


def read_manifest(path: Path) -> list[Clip]:
    """All clips of the table, checked.

    Raises:
        ManifestError: the file is missing or empty, not UTF-8 or not CSV, lacks a column or has one
            twice or an unknown one, repeats an id, or holds a line with invalid cells.
    """
    rows = _rows(path)
    _, columns = next(rows, (1, []))
    _check_columns(path, columns)
    clips: list[Clip] = []
    line_of_id: dict[str, int] = {}
    for line, cells in rows:
        try:
            clip = _clip(columns, cells)
        except ValueError as problem:
            raise ManifestError(f"{path}, line {line}: {problem}") from None
        name = composed(clip.id)
        if name in line_of_id:
            raise ManifestError(
                f"{path}, line {line}: clip {clip.id} is in line "
                f"{line_of_id[name]} already; a clip has one line: delete one of the two"
            )
        line_of_id[name] = line
        clips.append(clip)
    if not clips:
        raise ManifestError(
            f"{path} has a header but no clip; make it anew: scripts/make_splits.py"
        )
    return clips


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number (from 1) and cells of each line that is not blank."""
    text = read_text(
        path,
        error=ManifestError,
        missing=f"no manifest at {path}; make one with scripts/make_splits.py",
        fix="save the table as CSV UTF-8",
    )
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as cause:
            raise ManifestError(
                f"{path}, line {line}: {cause}; a cell in double quotes ends in its line, and a "
                f"double quote within it is written twice"
            ) from None
        if cells is None:
            return
        if cells:
            yield line, cells


def _check_columns(path: Path, found: Sequence[str]) -> None:
    if not found:
        raise ManifestError(f"{path} is empty; make it anew with scripts/make_splits.py")
    missing = [name for name in COLUMNS if name not in found]
    unknown = [name for name in found if name not in COLUMNS + PROBE_COLUMNS]
    if missing or unknown:
        raise ManifestError(
            f"{path}, line 1: missing columns {missing}, unknown columns {unknown}; "
            f"the columns are {', '.join(COLUMNS)} and, optionally, {', '.join(PROBE_COLUMNS)}"
        )
    if twice := [name for number, name in enumerate(found) if name in found[:number]]:
        raise ManifestError(f"{path}, line 1: column {twice[0]!r} is there twice; delete one")


def _clip(columns: Sequence[str], cells: Sequence[str]) -> Clip:
    """The clip of a line; a ValueError, without the place, if its cells are invalid."""
    if len(cells) != len(columns):
        raise ValueError(
            f"found {len(cells)} cells, but the header has {len(columns)} columns; put a cell with "
            f"a comma in double quotes"
        )
    row = dict(zip(columns, cells, strict=True))
    clip = Clip(
        id=row["id"],
        path=row["path"],
        start_s=_number(row, "start_s", float),
        end_s=_number(row, "end_s", float),
        label=_number(row, "label", int),
        text=row["text"] or None,
        event=row["event"] or None,
        source=row["source"],
        split=row["split"],
        num_frames=_number(row, "num_frames", int),
        fps=_number(row, "fps", float),
        rotation=_number(row, "rotation", int),
        flags=row.get("flags", ""),
    )
    if problem := _problem_of(clip):
        raise ValueError(problem)
    return clip


def _number(row: Mapping[str, str], column: str, kind: Callable[[str], Value]) -> Value | None:
    cell = row.get(column, "")
    if cell == "":
        return None
    try:
        if not cell.isascii() or "_" in cell:  # which Python reads: 1_000
            raise ValueError
        return kind(cell)
    except ValueError:
        name = "a whole number" if kind is int else "a number"
        raise ValueError(
            f"{column} is {cell!r:.60}, not {name}; write {name} or leave the cell empty"
        ) from None
