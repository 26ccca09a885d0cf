"""The manifest: the one table of clips that every script reads and writes.

A UTF-8 CSV file with one line per clip. Columns: `id, path, start_s, end_s, label, text, event,
source, split`, then, once the videos have been looked at, `num_frames, fps, rotation, flags`.
An empty cell means "none"; no cell holds a line break. The label of an unlabeled clip is neither
written nor read: what a training run cannot see, it cannot use.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from qa_data.atomic import write_text
from qa_data.clip import SPLITS, Clip, problem_of, without_label
from qa_data.text_file import TextFileError, composed, read_text

COLUMNS = ("id", "path", "start_s", "end_s", "label", "text", "event", "source", "split")
PROBE_COLUMNS = ("num_frames", "fps", "rotation", "flags")

Value = TypeVar("Value")


class ManifestError(ValueError):
    """A manifest that cannot be used. The message names file, line, what was found, the mend."""


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
        problem = "its id is another clip's too" if taken else problem_of(shown)
        if problem:
            raise ManifestError(f"{path} cannot be written: clip {clip.id!r}: {problem}")
        written.add(composed(clip.id))
        writer.writerow([_cell(getattr(shown, name)) for name in columns])
    write_text(path, text.getvalue())


def read_manifest(path: Path) -> list[Clip]:
    """All clips of the table, checked.

    Raises:
        ManifestError: the file is missing or empty, no UTF-8 or no CSV, lacks a column or has one
            twice or an unknown one, repeats an id, or holds a line whose cells make no sense.
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
                f"{path}, line {line}: clip {clip.id} stands in line "
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
    if not path.is_file():
        raise ManifestError(f"no manifest at {path}; make one with scripts/make_splits.py")
    try:
        text = read_text(path)
    except TextFileError as cause:
        raise ManifestError(f"{cause}; save the table as CSV UTF-8") from cause
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


def _cell(value: object) -> str:
    return "" if value is None else str(value)


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
        raise ManifestError(f"{path}, line 1: column {twice[0]!r} stands there twice; delete one")


def _clip(columns: Sequence[str], cells: Sequence[str]) -> Clip:
    """The clip of a line.

    Raises:
        ValueError: the cells make no sense; the message lacks the place.
    """
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
    if problem := problem_of(clip):
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
