"""When FineGym's clips begin and end in their source videos, to the millisecond.

Read from the official annotation file, whose sub-actions count from the start of their routine, or
from a CSV of exact times in the manner of ImtiazUlHassan/FinegymVideoextractions.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from qa_data.clip_id import CLIP_ID, EVENT_KEY, SEGMENT_KEY, SOURCE, ClipId
from qa_data.text_file import TextFileError, parse_json, read_text

TIMESTAMP_COLUMNS = ("full_id", "Subaction_start", "Subaction_end")
LONGEST_S = 1e9  # what is longer is no time, nor are NaN and infinity


class AnnotationError(ValueError):
    """A list or annotation that cannot be used. The message names file, place, found, mend."""


class Interval(NamedTuple):
    """When a clip begins and ends in its source video."""

    start_s: float
    end_s: float


def read_times(path: Path) -> dict[str, Interval]:
    """Exact times by clip id, from the annotation file (.json) or a table (.csv)."""
    return read_timestamps(path) if path.suffix.lower() == ".csv" else read_annotations(path)


def read_annotations(path: Path) -> dict[str, Interval]:
    """Exact times of every sub-action in FineGym's annotation file, by clip id.

    A vault is annotated in three stages: its clip runs from the start of the first to the end of
    the last. Events without sub-actions (`"segments": null`) give no clip.

    Raises:
        AnnotationError: the file is missing or no JSON object, a key stands twice, or an entry
            lacks times.
    """
    text = text_of(path)
    try:
        videos = parse_json(text)
    except ValueError as cause:
        raise AnnotationError(f"{path} is not JSON: {cause}; fetch it again") from cause
    if not isinstance(videos, dict) or not videos:
        raise AnnotationError(f"{path} holds no videos; expected {{video: {{event: ...}}}}")
    times: dict[str, Interval] = {}
    for source, events in _entries(str(path), videos, SOURCE):
        times.update(_video_times(f"{path}, video {source}", source, events))
    return times


def read_timestamps(path: Path) -> dict[str, Interval]:
    """Exact times by clip id from a CSV with the columns of TIMESTAMP_COLUMNS, in seconds.

    Raises:
        AnnotationError: the file is missing or not UTF-8, a column is missing, a line has more or
            fewer cells than the header, names no clip or one that was named before, or a time is
            not a number.
    """
    times: dict[str, Interval] = {}
    reader = csv.DictReader(io.StringIO(text_of(path), newline=""))
    try:
        if missing := [name for name in TIMESTAMP_COLUMNS if name not in (reader.fieldnames or ())]:
            raise AnnotationError(
                f"{path}, line 1: no column {missing[0]!r}; the times are read from the columns "
                f"{', '.join(TIMESTAMP_COLUMNS)}"
            )
        for row in reader:
            clip_id, interval = _timestamp_row(f"{path}, line {reader.line_num}", row)
            if clip_id in times:
                raise AnnotationError(
                    f"{path}, line {reader.line_num}: {clip_id} is listed twice; keep one"
                )
            times[clip_id] = interval
    except csv.Error as cause:
        raise AnnotationError(
            f"{path}, line {reader.line_num}: {cause}; expected comma-separated cells"
        ) from cause
    return times


def intervals_of(clip_ids: Sequence[str], times: Mapping[str, Interval]) -> dict[str, Interval]:
    """The times of these clips alone, checked: damaged ones of clips nobody asks for are no error.

    Raises:
        AnnotationError: a clip has no times, ends before it starts, or begins or ends seconds
            away from what its name says.
    """
    if untimed := [clip_id for clip_id in clip_ids if clip_id not in times]:
        raise AnnotationError(
            f"{len(untimed)} of {len(clip_ids)} clips have no times in the annotations, first "
            f"{untimed[0]}; take both of the same version"
        )
    intervals = {clip_id: times[clip_id] for clip_id in clip_ids}
    for clip_id, interval in intervals.items():
        where = f"clip {clip_id} is annotated from {interval.start_s} to {interval.end_s} s"
        if not 0 <= interval.start_s < interval.end_s < math.inf:
            raise AnnotationError(
                f"{where}; it must end after it starts: correct the annotation, or take the clip "
                f"out of the list"
            )
        name = ClipId.parse(clip_id)
        if not name.fits(*interval):
            raise AnnotationError(
                f"{where}, but its name says {name.event_start + name.start} to "
                f"{name.event_start + name.end} s; times count from the start of the source "
                f"video: correct the annotation"
            )
    return intervals


def text_of(path: Path) -> str:
    """The text of a list.

    Raises:
        AnnotationError: the file is missing or not UTF-8.
    """
    if not path.is_file():
        raise AnnotationError(f"there is no file {path}; FineGym's are on its dataset page")
    try:
        return read_text(path)
    except TextFileError as cause:
        raise AnnotationError(f"{cause}; fetch it again") from cause


def _video_times(where: str, source: str, events: object) -> Iterator[tuple[str, Interval]]:
    for event_key, event in _entries(where, events, EVENT_KEY):
        place = f"{where}, {event_key}"
        event_start = _timestamps(place, event)[0][0]
        segments = event.get("segments")
        for key, segment in _entries(place, {} if segments is None else segments, SEGMENT_KEY):
            stages = _timestamps(f"{place}, {key}", segment)
            bounds = [event_start + stages[0][0], event_start + stages[-1][1]]
            yield f"{source}_{event_key}_{key}", _interval(f"{place}, {key}", bounds)


def _entries(where: str, found: object, key: re.Pattern[str]) -> list[tuple[str, dict]]:
    if not isinstance(found, dict):
        raise AnnotationError(f"{where}: found {found!r:.60}; expected an object of entries")
    for name, entry in found.items():
        if key.fullmatch(name) is None or not isinstance(entry, dict):
            raise AnnotationError(
                f"{where}: found {name!r:.60}: {entry!r:.60}; expected {key.pattern}: an object"
            )
    return list(found.items())


def _timestamps(where: str, entry: dict) -> list[list[float]]:
    found = entry.get("timestamps")
    if not found or not isinstance(found, list) or not all(_is_pair(stage) for stage in found):
        raise AnnotationError(
            f"{where}: timestamps are {found!r:.60}; expected pairs of seconds [[start, end], ...]"
        )
    return found


def _is_pair(stage: object) -> bool:
    return isinstance(stage, list) and [_is_seconds(one) for one in stage] == [True] * 2


def _is_seconds(found: object) -> bool:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return False
    return -LONGEST_S < found < LONGEST_S


def _timestamp_row(where: str, row: dict) -> tuple[str, Interval]:
    if None in row or None in row.values():
        raise AnnotationError(
            f"{where}: more or fewer cells than the header has columns; "
            f"put a cell with a comma in double quotes"
        )
    clip_id, *bounds = (row[name] for name in TIMESTAMP_COLUMNS)
    interval = _interval(where, bounds)
    if CLIP_ID.fullmatch(clip_id) is None:
        raise AnnotationError(
            f"{where}: found {clip_id!r:.90}; expected a clip id such as "
            f"'A0xAXXysHUo_E_002184_002237_A_0035_0036'"
        )
    return clip_id, interval


def _interval(where: str, bounds: Iterable[str | float]) -> Interval:
    """Start and end, rounded to the milliseconds that FineGym annotates."""
    try:
        interval = Interval(*(round(float(bound), 3) for bound in bounds))
    except ValueError as cause:
        raise AnnotationError(f"{where}: {cause!s:.90}; expected seconds") from cause
    if not all(map(_is_seconds, interval)):
        raise AnnotationError(f"{where}: found {tuple(interval)}; expected seconds")
    return interval
