"""The manifest: the one table of clips that every script reads and writes.

A UTF-8 CSV file with one line per clip. Columns: `id, path, start_s, end_s, label, text, event,
source, split`, then, once the videos have been looked at, `num_frames, fps, rotation, flags`.
An empty cell means "none". The label of an unlabeled clip is neither written nor read: what a
training run cannot see, it cannot use.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TypeVar

from qa_data.atomic import write_text

SPLITS = ("labeled", "unlabeled", "val", "test")
COLUMNS = ("id", "path", "start_s", "end_s", "label", "text", "event", "source", "split")
PROBE_COLUMNS = ("num_frames", "fps", "rotation", "flags")

Value = TypeVar("Value")


class ManifestError(ValueError):
    """A manifest that cannot be used. The message names file, line, what was found, the mend."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip: where its pictures are, and what it shows if that may be known."""

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
    """The video that the clip was cut from."""
    split: str
    """One of SPLITS."""
    num_frames: int | None = None
    fps: float | None = None
    """Frames a second."""
    rotation: int | None = None
    """Degrees by which the player turns the picture."""
    flags: str = ""
    """Whatever scripts/check_videos.py found worth saying."""


def without_label(clip: Clip) -> Clip:
    """The clip with nothing in it that tells its class."""
    return replace(clip, label=None, text=None, event=None)


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
    """
    probed = any(getattr(clip, name) not in (None, "") for clip in clips for name in PROBE_COLUMNS)
    columns = COLUMNS + PROBE_COLUMNS if probed else COLUMNS
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for clip in clips:
        shown = without_label(clip) if clip.split == "unlabeled" else clip
        writer.writerow([_cell(getattr(shown, name)) for name in columns])
    write_text(path, text.getvalue())


def read_manifest(path: Path) -> list[Clip]:
    """All clips of the table, checked.

    Raises:
        ManifestError: the file is missing or empty, lacks a column or has an unknown one, repeats
            an id, or holds a line whose cells make no sense.
    """
    if not path.is_file():
        raise ManifestError(f"no manifest at {path}; make one with scripts/make_splits.py")
    clips: list[Clip] = []
    line_of_id: dict[str, int] = {}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        _check_columns(path, reader.fieldnames)
        for row in reader:
            clip = _clip(f"{path}, line {reader.line_num}", row)
            if clip.id in line_of_id:
                raise ManifestError(
                    f"{path}, line {reader.line_num}: clip {clip.id} stands in line "
                    f"{line_of_id[clip.id]} already; a clip has one line: delete one of the two"
                )
            line_of_id[clip.id] = reader.line_num
            clips.append(clip)
    if not clips:
        raise ManifestError(
            f"{path} has a header but no clip; make it anew: scripts/make_splits.py"
        )
    return clips


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _check_columns(path: Path, found: Sequence[str] | None) -> None:
    if not found:
        raise ManifestError(f"{path} is empty; make it anew with scripts/make_splits.py")
    missing = [name for name in COLUMNS if name not in found]
    unknown = [name for name in found if name not in COLUMNS + PROBE_COLUMNS]
    if missing or unknown:
        raise ManifestError(
            f"{path}, line 1: missing columns {missing}, unknown columns {unknown}; "
            f"the columns are {', '.join(COLUMNS)} and, optionally, {', '.join(PROBE_COLUMNS)}"
        )


def _clip(where: str, row: dict) -> Clip:
    if None in row or None in row.values():
        raise ManifestError(
            f"{where}: more or fewer cells than the header has columns; "
            f"put a cell with a comma in double quotes"
        )
    clip = Clip(
        id=row["id"],
        path=row["path"],
        start_s=_number(where, row, "start_s", float),
        end_s=_number(where, row, "end_s", float),
        label=_number(where, row, "label", int),
        text=row["text"] or None,
        event=row["event"] or None,
        source=row["source"],
        split=row["split"],
        num_frames=_number(where, row, "num_frames", int),
        fps=_number(where, row, "fps", float),
        rotation=_number(where, row, "rotation", int),
        flags=row.get("flags", ""),
    )
    if problem := _path_problem(clip) or _time_problem(clip) or _label_problem(clip):
        raise ManifestError(f"{where}: {problem}")
    return clip


def _number(where: str, row: dict, column: str, kind: Callable[[str], Value]) -> Value | None:
    cell = row.get(column, "")
    if cell == "":
        return None
    try:
        return kind(cell)
    except ValueError:
        name = "a whole number" if kind is int else "a number"
        raise ManifestError(
            f"{where}: {column} is {cell!r}, not {name}; write {name} or leave the cell empty"
        ) from None


def _path_problem(clip: Clip) -> str | None:
    if not clip.id or not clip.path:
        return f"id is {clip.id!r} and path is {clip.path!r}; a clip needs both"
    if ".." in PurePath(clip.path.replace("\\", "/")).parts:
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
    told = {"label": clip.label, "text": clip.text, "event": clip.event}
    told = {name: value for name, value in told.items() if value is not None}
    if clip.split == "unlabeled":
        return f"an unlabeled clip tells its class by {told}; empty these cells" if told else None
    if clip.label is None or clip.label < 0:
        return f"label is {clip.label}; a clip of split {clip.split} needs a class from 0 upward"
    return None
