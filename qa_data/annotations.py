"""FineGym's element lists and annotations, read into clips.

An element list says which clip shows which class (`<clip id> <label>`); the annotation file says
when each clip begins and ends in its source video. The clip id holds the same times cut to whole
seconds: it is a name, not a measurement.

Format: SDOlivia/FineGym, gh-pages, index.html; the CSV of exact times is that of
ImtiazUlHassan/FinegymVideoextractions.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from qa_data.manifest import Clip
from qa_data.taxonomy import ElementClass

# YouTube ids may hold "_" and "-" themselves, so that the id is cut by length.
SOURCE_LENGTH = 11
CLIP_ID = re.compile(rf"(.{{{SOURCE_LENGTH}}})_E_(\d{{6,}})_(\d{{6,}})_A_(\d{{4,}})_(\d{{4,}})")
EVENT_KEY = re.compile(r"E_\d{6,}_\d{6,}")
SEGMENT_KEY = re.compile(r"A_\d{4,}_\d{4,}")
TIMESTAMP_COLUMNS = ("full_id", "Subaction_start", "Subaction_end")


class AnnotationError(ValueError):
    """A list or annotation that cannot be used. The message names file, place, found, mend."""


@dataclass(frozen=True)
class ClipId:
    """What a clip's name says, in whole seconds; `start` and `end` count from `event_start`."""

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
                f"{text!r} is no FineGym clip id; expected one such as "
                f"'A0xAXXysHUo_E_002184_002237_A_0035_0036'"
            )
        return cls(match[1], *map(int, match.groups()[1:]))

    def __str__(self) -> str:
        event = f"E_{self.event_start:06d}_{self.event_end:06d}"
        return f"{self.source}_{event}_A_{self.start:04d}_{self.end:04d}"


class Interval(NamedTuple):
    """When a clip begins and ends in its source video."""

    start_s: float
    end_s: float


def source_of(clip_id: str) -> str:
    """The source video in a FineGym clip id."""
    return clip_id[:SOURCE_LENGTH]


def event_of(clip_id: str) -> str:
    """Source video and routine (one athlete's turn on one apparatus) in a FineGym clip id."""
    return clip_id.rsplit("_A_", 1)[0]


def read_elements(path: Path) -> list[tuple[str, int]]:
    """Clip ids and labels of an element list, in its order.

    Raises:
        AnnotationError: the file is missing or empty, a line is not `<clip id> <label>`, or a
            clip id repeats.
    """
    _refuse_missing(path)
    elements: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        clip_id, _, label = line.strip().partition(" ")
        if CLIP_ID.fullmatch(clip_id) is None or not re.fullmatch(r"\d+", label):
            raise AnnotationError(
                f"{path}, line {number}: found {line!r}; expected a clip id, one blank and a "
                f"label, such as 'A0xAXXysHUo_E_002184_002237_A_0035_0036 93'"
            )
        if clip_id in elements:
            raise AnnotationError(f"{path}, line {number}: {clip_id} is listed twice; keep one")
        elements[clip_id] = int(label)
    if not elements:
        raise AnnotationError(f"{path} is empty; fetch it again")
    return list(elements.items())


def read_times(path: Path) -> dict[str, Interval]:
    """Exact times by clip id, from the annotation file (.json) or a table (.csv)."""
    return read_timestamps(path) if path.suffix == ".csv" else read_annotations(path)


def read_annotations(path: Path) -> dict[str, Interval]:
    """Exact times of every sub-action in FineGym's annotation file, by clip id.

    A vault is annotated in three stages: its clip runs from the start of the first to the end of
    the last. Events without sub-actions (`"segments": null`) give no clip.

    Raises:
        AnnotationError: the file is missing or no JSON object, or an entry lacks times.
    """
    _refuse_missing(path)
    try:
        videos = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as cause:
        raise AnnotationError(f"{path} is not JSON: {cause}; fetch it again") from cause
    if not isinstance(videos, dict) or not videos:
        raise AnnotationError(f"{path} holds no videos; expected {{video: {{event: ...}}}}")
    times: dict[str, Interval] = {}
    for source, events in videos.items():
        times.update(_video_times(f"{path}, video {source}", source, events))
    return times


def read_timestamps(path: Path) -> dict[str, Interval]:
    """Exact times by clip id from a CSV with the columns of TIMESTAMP_COLUMNS, in seconds.

    Raises:
        AnnotationError: the file or a column is missing, or a time is not a number.
    """
    _refuse_missing(path)
    times: dict[str, Interval] = {}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        if missing := [name for name in TIMESTAMP_COLUMNS if name not in (reader.fieldnames or ())]:
            raise AnnotationError(
                f"{path}, line 1: no column {missing[0]!r}; the times are read from the columns "
                f"{', '.join(TIMESTAMP_COLUMNS)}"
            )
        for row in reader:
            clip_id, *bounds = (row[name] for name in TIMESTAMP_COLUMNS)
            times[clip_id] = _interval(f"{path}, line {reader.line_num}", bounds)
    return times


def to_clips(
    elements: Sequence[tuple[str, int]],
    classes: Mapping[int, ElementClass],
    *,
    split: str,
    times: Mapping[str, Interval] | None = None,
) -> list[Clip]:
    """Clips of an element list, with class text and apparatus.

    With `times`, a clip is a part of its full source video `<source>.mp4`; without, it is a file
    of its own, `<clip id>.mp4`.

    Raises:
        AnnotationError: a label has no class, or a clip has no times or ends before it starts.
    """
    if unknown := sorted({label for _, label in elements} - classes.keys()):
        raise AnnotationError(
            f"the element list has label {unknown[0]}, but the class list ends at "
            f"{max(classes)}; is it the list of another benchmark?"
        )
    if times is not None and (untimed := [one for one, _ in elements if one not in times]):
        raise AnnotationError(
            f"{len(untimed)} of {len(elements)} clips have no times in the annotations, first "
            f"{untimed[0]}; take both of the same version"
        )
    return [_clip(clip_id, classes[label], split, times) for clip_id, label in elements]


def _refuse_missing(path: Path) -> None:
    if not path.is_file():
        raise AnnotationError(f"there is no file {path}; FineGym's are on its dataset page")


def _clip(clip_id: str, found: ElementClass, split: str, times: Mapping | None) -> Clip:
    source = source_of(clip_id)
    interval = None if times is None else times[clip_id]
    if interval and not 0 <= interval.start_s < interval.end_s < math.inf:
        raise AnnotationError(
            f"clip {clip_id} is annotated from {interval.start_s} to {interval.end_s} s; it must "
            f"end after it starts: correct the annotation, or take the clip out of the list"
        )
    return Clip(
        id=clip_id,
        path=f"{source if interval else clip_id}.mp4",
        start_s=interval and interval.start_s,
        end_s=interval and interval.end_s,
        label=found.label,
        text=found.text,
        event=found.event,
        source=source,
        split=split,
    )


def _video_times(where: str, source: str, events: object) -> Iterator[tuple[str, Interval]]:
    for event_key, event in _entries(where, events, EVENT_KEY):
        place = f"{where}, {event_key}"
        event_start = _timestamps(place, event)[0][0]
        for key, segment in _entries(place, event.get("segments") or {}, SEGMENT_KEY):
            stages = _timestamps(f"{place}, {key}", segment)
            bounds = [event_start + stages[0][0], event_start + stages[-1][1]]
            yield f"{source}_{event_key}_{key}", _interval(f"{place}, {key}", bounds)


def _entries(where: str, found: object, key: re.Pattern[str]) -> list[tuple[str, dict]]:
    if not isinstance(found, dict):
        raise AnnotationError(f"{where}: found {found!r:.60}; expected an object of entries")
    for name, entry in found.items():
        if key.fullmatch(name) is None or not isinstance(entry, dict):
            raise AnnotationError(
                f"{where}: found {name!r}: {entry!r:.60}; expected {key.pattern}: an object"
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
    return isinstance(stage, list) and [isinstance(one, int | float) for one in stage] == [True] * 2


def _interval(where: str, bounds: Sequence[str | float]) -> Interval:
    """Start and end, rounded to the milliseconds that FineGym annotates."""
    try:
        return Interval(*(round(float(bound), 3) for bound in bounds))
    except ValueError as cause:
        raise AnnotationError(f"{where}: {cause}; expected seconds") from cause
