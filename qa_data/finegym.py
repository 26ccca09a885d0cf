"""FineGym's own files: clip ids, exact times from the annotations, and element lists as clips.

A clip id names source video, routine and sub-action with their times in whole seconds. It is a
name, not a measurement: the annotations have the same times to the millisecond. They come as the
official annotation file, whose sub-actions count from the start of their routine, or as a CSV of
exact times as in ImtiazUlHassan/FinegymVideoextractions. An element list says which clip shows
which class (`<clip id> <label>`).

Format: SDOlivia/FineGym, gh-pages, index.html.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from qa_data.files import SefarError, parse_json, read_text
from qa_data.manifest import Clip
from qa_data.taxonomy import ElementClass

# YouTube ids may hold "_" and "-" themselves, so that the id is cut by length.
SOURCE_LENGTH = 11
SOURCE = re.compile(rf"[A-Za-z0-9_-]{{{SOURCE_LENGTH}}}")
EVENT_KEY = re.compile(r"E_([0-9]{6,9})_([0-9]{6,9})")
SEGMENT_KEY = re.compile(r"A_([0-9]{4,9})_([0-9]{4,9})")
EXAMPLE = "A0xAXXysHUo_E_002184_002237_A_0035_0036"
CLIP_ID = re.compile(f"({SOURCE.pattern})_{EVENT_KEY.pattern}_{SEGMENT_KEY.pattern}")

# A time is up to 2 s above the two floors that name it; 1 s more is left to either side.
NAME_SLACK_S = (-1.0, 3.0)
TIMESTAMP_COLUMNS = ("full_id", "Subaction_start", "Subaction_end")
LONGEST_S = 1e9  # longer times, NaN and infinity are refused
LABEL = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True)
class ClipId:
    """The parts of a clip's name, in whole seconds; `start` and `end` count from `event_start`."""

    source: str
    event_start: int
    event_end: int
    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> "ClipId":
        """Read `<source>_E_<6 digits>_<6 digits>_A_<4 digits>_<4 digits>`.

        Raises:
            ValueError: the text is not of that form.
        """
        match = CLIP_ID.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r:.90} is not a FineGym clip id; expected one such as {EXAMPLE!r}"
            )
        return cls(match[1], *map(int, match.groups()[1:]))

    def fits(self, start_s: float, end_s: float) -> bool:
        """Whether a clip of these times, seconds in the source video, can have this name."""
        low, high = NAME_SLACK_S
        return (
            low <= start_s - self.event_start - self.start < high
            and low <= end_s - self.event_start - self.end < high
        )


def source_of(clip_id: str) -> str:
    """The source video in a FineGym clip id."""
    return clip_id[:SOURCE_LENGTH]


def event_of(clip_id: str) -> str:
    """Source video and routine (one athlete's turn on one apparatus) in a FineGym clip id."""
    return clip_id.rsplit("_A_", 1)[0]


class AnnotationError(SefarError):
    """A list or annotation that cannot be used. The message names file, place, found value, fix."""


class TimeSpan(NamedTuple):
    """When a clip begins and ends in its source video."""

    start_s: float
    end_s: float


def read_times(path: Path) -> dict[str, TimeSpan]:
    """Exact times by clip id, from the annotation file (.json) or a table (.csv)."""
    return read_timestamps(path) if path.suffix.lower() == ".csv" else read_annotations(path)


def merge_times(annotations: Iterable[Path]) -> dict[str, TimeSpan]:
    """Exact times by clip id from one annotation file or several.

    Raises:
        AnnotationError: a file cannot be read, or two give a clip different times.
    """
    times: dict[str, TimeSpan] = {}
    for path in annotations:
        for clip_id, interval in read_times(path).items():
            before = times.setdefault(clip_id, interval)
            if before != interval:
                raise AnnotationError(
                    f"{path}: clip {clip_id} lasts from {interval.start_s} to {interval.end_s} s, "
                    f"but from {before.start_s} to {before.end_s} s in the file before; take all "
                    f"files of one version"
                )
    return times


def read_annotations(path: Path) -> dict[str, TimeSpan]:
    """Exact times of every sub-action in FineGym's annotation file, by clip id.

    A vault is annotated in three stages: its clip runs from the start of the first to the end of
    the last. Events without sub-actions (`"segments": null`) give no clip.

    Raises:
        AnnotationError: the file is missing or not a JSON object, a key is there twice, or an entry
            lacks times.
    """
    text = _text_of(path)
    try:
        videos = parse_json(text)
    except ValueError as cause:
        raise AnnotationError(f"{path} is not JSON: {cause}; fetch it again") from cause
    if not isinstance(videos, dict) or not videos:
        raise AnnotationError(f"{path} holds no videos; expected {{video: {{event: ...}}}}")
    times: dict[str, TimeSpan] = {}
    for source, events in _entries(str(path), videos, SOURCE):
        times.update(_video_times(f"{path}, video {source}", source, events))
    return times


def read_timestamps(path: Path) -> dict[str, TimeSpan]:
    """Exact times by clip id from a CSV with the columns of TIMESTAMP_COLUMNS, in seconds.

    Raises:
        AnnotationError: the file is missing or not UTF-8, a column is missing, a line has more or
            fewer cells than the header, names no clip or one that was named before, or a time is
            not a number.
    """
    times: dict[str, TimeSpan] = {}
    reader = csv.DictReader(io.StringIO(_text_of(path), newline=""))
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


def times_of_clips(clip_ids: Sequence[str], times: Mapping[str, TimeSpan]) -> dict[str, TimeSpan]:
    """The times of these clips, checked; damaged times of other clips are not an error.

    Raises:
        AnnotationError: a clip has no times, ends before it starts, or begins or ends seconds
            away from the times in its name.
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


def _text_of(path: Path) -> str:
    return read_text(
        path,
        error=AnnotationError,
        missing=f"there is no file {path}; FineGym's are on its dataset page",
        fix="fetch it again",
    )


def _video_times(where: str, source: str, events: object) -> Iterator[tuple[str, TimeSpan]]:
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
    stages = found if isinstance(found, list) else []
    pairs = [isinstance(one, list) and [*map(_is_seconds, one)] == [True] * 2 for one in stages]
    if not pairs or not all(pairs):
        raise AnnotationError(
            f"{where}: timestamps are {found!r:.60}; expected pairs of seconds [[start, end], ...]"
        )
    return stages


def _is_seconds(found: object) -> bool:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return False
    return -LONGEST_S < found < LONGEST_S


def _timestamp_row(where: str, row: dict) -> tuple[str, TimeSpan]:
    if None in row or None in row.values():
        raise AnnotationError(
            f"{where}: more or fewer cells than the header has columns; "
            f"put a cell with a comma in double quotes"
        )
    clip_id, *bounds = (row[name] for name in TIMESTAMP_COLUMNS)
    interval = _interval(where, bounds)
    if CLIP_ID.fullmatch(clip_id) is None:
        raise AnnotationError(
            f"{where}: found {clip_id!r:.90}; expected a clip id such as {EXAMPLE!r}"
        )
    return clip_id, interval


def _interval(where: str, bounds: Iterable[str | float]) -> TimeSpan:
    """Start and end, rounded to the milliseconds that FineGym annotates."""
    try:
        interval = TimeSpan(*(round(float(bound), 3) for bound in bounds))
    except ValueError as cause:
        raise AnnotationError(f"{where}: {cause!s:.90}; expected seconds") from cause
    if not all(map(_is_seconds, interval)):
        raise AnnotationError(f"{where}: found {tuple(interval)}; expected seconds")
    return interval


def read_elements(path: Path) -> list[tuple[str, int]]:
    """Clip ids and labels of an element list, in its order.

    Raises:
        AnnotationError: the file is missing, empty or not UTF-8, a line is not
            `<clip id> <label>`, or a clip id repeats.
    """
    elements: dict[str, int] = {}
    for number, line in enumerate(_text_of(path).splitlines(), 1):
        if not line.strip():
            continue
        clip_id, _, label = line.strip().partition(" ")
        if CLIP_ID.fullmatch(clip_id) is None or LABEL.fullmatch(label) is None:
            raise AnnotationError(
                f"{path}, line {number}: found {line!r:.90}; expected a clip id, one blank and a "
                f"label, such as '{EXAMPLE} 93'"
            )
        if clip_id in elements:
            raise AnnotationError(f"{path}, line {number}: {clip_id} is listed twice; keep one")
        elements[clip_id] = int(label)
    if not elements:
        raise AnnotationError(f"{path} is empty; fetch it again")
    return list(elements.items())


def to_clips(
    elements: Sequence[tuple[str, int]],
    classes: Mapping[int, ElementClass],
    *,
    split: str,
    times: Mapping[str, TimeSpan] | None = None,
) -> list[Clip]:
    """Clips of an element list, with class text and apparatus.

    With `times`, a clip is a part of its full source video `<source>.mp4`; without, it is a file
    of its own, `<clip id>.mp4`.

    Raises:
        AnnotationError: a label has no class, or a clip's times are refused by `times_of_clips`.
    """
    if unknown := sorted({label for _, label in elements} - classes.keys()):
        raise AnnotationError(
            f"the element list has label {unknown[0]}, but the class list ends at "
            f"{max(classes)}; is it the list of another benchmark?"
        )
    ids = [clip_id for clip_id, _ in elements]
    intervals = None if times is None else times_of_clips(ids, times)
    return [_clip(clip_id, classes[label], split, intervals) for clip_id, label in elements]


def _clip(
    clip_id: str, found: ElementClass, split: str, intervals: Mapping[str, TimeSpan] | None
) -> Clip:
    source = source_of(clip_id)
    start_s, end_s = intervals[clip_id] if intervals else (None, None)
    return Clip(
        id=clip_id,
        path=f"{source if intervals else clip_id}.mp4",
        start_s=start_s,
        end_s=end_s,
        label=found.label,
        text=found.text,
        event=found.event,
        source=source,
        split=split,
    )
