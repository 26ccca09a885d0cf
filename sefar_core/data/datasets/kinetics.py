"""Kinetics: its lists of YouTube clips, as published for 400, 600 and 700 classes.

Files: `train.csv` and `val.csv` (or `validate.csv`) with a header: `label, youtube_id, time_start,
time_end, split` and, in some, `is_cc`. The videos were cut from YouTube by
`<youtube id>_<start>_<end>.mp4`, the times in whole seconds of six digits.
"""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from qa_data.files import composed
from qa_data.manifest import Clip
from sefar_core.data.datasets.records import (
    UNWRITABLE,
    ListError,
    Listing,
    read_list_text,
    refuse_repeat,
)

COLUMNS = ("label", "youtube_id", "time_start", "time_end")
CLIP_NAME = re.compile(r"([A-Za-z0-9_-]{11})_[0-9]{6}_[0-9]{6}")
CLIP_CELLS = re.compile(r"([A-Za-z0-9_-]+) ([0-9]{1,6}) ([0-9]{1,6})")


def read_kinetics(
    train: Path,
    val: Path,
    *,
    train_folder: str = "train",
    val_folder: str = "val",
    suffix: str = ".mp4",
) -> Listing:
    """Kinetics' official lists: the training clips as the pool, the validation clips as the test.

    The classes are those of the training list in alphabetical order; a clip's source is its
    YouTube video. Of `<train_folder>/<class>/<file>`, either folder or both may be missing on
    disk: sefar_core.data.datasets.find_files finds the file.

    Args:
        train: CSV list of the training clips.
        val: CSV list of the validation clips.
        train_folder: folder of the training clips beneath the video root, if they have one.
        val_folder: folder of the validation clips beneath the video root, if they have one.
        suffix: how the names of the files end.

    Raises:
        ListError: a list is missing, lacks a column, or has a row that does not follow the
            format, a validation clip's class has no training clip, or a clip is listed twice.
    """
    training, validation = _read_rows(train), _read_rows(val)
    names = sorted({row.name for row in training})
    label_of = {name: label for label, name in enumerate(names)}
    for row in validation:
        if row.name not in label_of:
            raise ListError(
                f"{row.where}: class {row.name!r} has no clip in {train}; take both lists of one "
                f"version"
            )
    seen: dict[str, str] = {}
    for row in training + validation:
        refuse_repeat(seen, row.clip_id, row.where)
    pool, test = (
        [
            Clip(
                id=row.clip_id,
                path=f"{folder}/{row.name}/{row.clip_id}{suffix}",
                label=label_of[row.name],
                text=row.name,
                source=row.youtube_id,
                split=split,
            )
            for row in rows
        ]
        for rows, split, folder in (
            (training, "labeled", train_folder),
            (validation, "test", val_folder),
        )
    )
    return Listing(classes=dict(enumerate(names)), pool=pool, settled=test)


def youtube_id_of(stem: str) -> str:
    """The YouTube video that a clip was cut from, if it is named so; else nothing."""
    match = CLIP_NAME.fullmatch(stem)
    return match[1] if match else ""


class Row(NamedTuple):
    """A row of a list, with its file and line."""

    where: str
    name: str
    youtube_id: str
    clip_id: str


def _read_rows(path: Path) -> list[Row]:
    reader = csv.reader(io.StringIO(read_list_text(path)), strict=True)
    try:
        header = [cell.strip() for cell in next(reader)]
        if missing := [name for name in COLUMNS if name not in header]:
            raise ListError(
                f"{path}, line 1: no column {missing[0]!r} among {header!r:.100}; the list must "
                f"have the columns {', '.join(COLUMNS)}, as its publisher's has"
            )
        places = [header.index(name) for name in COLUMNS]
        rows = [_row(f"{path}, line {reader.line_num}", cells, places) for cells in reader if cells]
    except csv.Error as cause:
        raise ListError(
            f"{path}, line {reader.line_num}: {cause}; put a cell with a comma in double quotes, "
            f"or fetch the list again"
        ) from None
    if not rows:
        raise ListError(f"{path} has a header but no clip; fetch it again")
    return rows


def _row(where: str, cells: list[str], places: list[int]) -> Row:
    if len(cells) > max(places):
        name, *rest = (composed(cells[place].strip()) for place in places)
        match = CLIP_CELLS.fullmatch(" ".join(rest))
        if match and name and not UNWRITABLE.search(name) and int(match[2]) < int(match[3]):
            clip_id = f"{match[1]}_{int(match[2]):06d}_{int(match[3]):06d}"
            return Row(where, name, match[1], clip_id)
    raise ListError(
        f"{where}: found {','.join(cells)!r:.150}; expected a class, a YouTube id, and "
        f"start and end in whole seconds (spreadsheets spoil ids that begin with -)"
    )
