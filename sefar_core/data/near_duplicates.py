"""Clips that show one moment of one video twice.

FineGym's annotators cut some routines out of their broadcast twice, with the same elements in
both: the clips have different names and all but the same frames.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from qa_data.annotations import CLIP_ID, ClipId, Interval, event_of
from qa_data.manifest import Clip
from qa_data.text_file import composed
from sefar_core.data.shared_files import Files, files_of
from sefar_core.data.sources import SplitError

SAME_MOMENT = 0.9
"""Intersection over union in time, above which two clips of a film are near-duplicates."""


class Film(NamedTuple):
    """A file or a source video, by its path or name; it has one beginning."""

    kind: Literal["file", "source"]
    name: str


class Moment(NamedTuple):
    """When a clip is shown in its film; `place` is its number among the clips."""

    start_s: float
    end_s: float
    place: int


def near_duplicates(
    clips: Sequence[Clip],
    *,
    times: Mapping[str, Interval] | None = None,
    files: Files | None = None,
) -> Iterator[tuple[int, int]]:
    """Pairs of clips that show one moment of one film: IoU in time above SAME_MOMENT.

    The film is what a clip's times count in: its file where the clip itself says when it begins,
    its source video otherwise. Several files can come from one source, such as all dives of an
    event, each with a beginning of its own.

    Where neither the clips nor `times` tell when a clip begins and ends, the whole seconds in a
    FineGym clip id stand for it; they find fewer (19 of 42 pairs in Gym99). Clips that are whole
    files are near-duplicates if they are one file. Takes O(n log n + pairs) time.

    Args:
        clips: any.
        times: begin and end in the source, by clip id, for clips that are files of their own.
        files: of the clips (see `files_of`); None: by the spelling of their paths.

    Yields:
        Numbers of two clips, the one that begins first before the other.

    Raises:
        SplitError: a clip does not end after it starts.
    """
    if files is None:
        files = files_of(clips)
    yield from _whole_twice(clips, files)
    bands: dict[tuple[Film, int], list[Moment]] = defaultdict(list)
    for place, clip in enumerate(clips):
        found = _interval(clip, times or {})
        film = _film(clip, files)
        if found and film:
            bands[film, _band(found)].append(Moment(*found, place))
    for (film, band), members in bands.items():
        longer = bands.get((film, band + 1), [])
        own = {moment.place for moment in members}
        for one, other in _same_moments(sorted(members + longer)):
            pair = clips[one.place], clips[other.place]
            if (one.place in own or other.place in own) and not _one_whole_file(*pair, files):
                yield one.place, other.place


def routine_of(clip: Clip) -> str | None:
    """Source video and routine (one athlete's turn on one apparatus) of a FineGym clip."""
    return event_of(clip.id) if CLIP_ID.fullmatch(clip.id) else None


def _whole_twice(clips: Sequence[Clip], files: Files) -> Iterator[tuple[int, int]]:
    """Pairs of clips that are one whole file each, the same."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, clip in enumerate(clips):
        if clip.start_s is None:
            places[files[clip.id]].append(place)
    for found in places.values():
        yield from combinations(found, 2)


def _one_whole_file(one: Clip, other: Clip, files: Files) -> bool:
    return one.start_s is None and other.start_s is None and files[one.id] == files[other.id]


def _film(clip: Clip, files: Files) -> Film | None:
    """What the clip's times count in; a file named for its source is that source."""
    if clip.start_s is not None and composed(PurePosixPath(clip.path).stem) != clip.source:
        return Film("file", files[clip.id])
    return Film("source", clip.source) if clip.source else None


def _interval(clip: Clip, times: Mapping[str, Interval]) -> Interval | None:
    """The clip's time in its film, exact if known, else in whole seconds, else none."""
    if clip.start_s is not None and clip.end_s is not None:
        found = Interval(clip.start_s, clip.end_s)
    elif clip.id in times:
        found = times[clip.id]
    elif CLIP_ID.fullmatch(clip.id):
        parts = ClipId.parse(clip.id)
        found = Interval(parts.event_start + parts.start, parts.event_start + parts.end + 1)
    else:
        return None
    if not 0 <= found.start_s < found.end_s < math.inf:
        raise SplitError(
            f"clip {clip.id} is said to run from {found.start_s} to {found.end_s} s; it must end "
            f"after it starts: correct its times, or take it out of the list"
        )
    return found


def _band(found: Interval) -> int:
    """Lengths in one band, or in two neighboring ones, are those that near-duplicates can have."""
    return math.floor(math.log(found.end_s - found.start_s) / -math.log(SAME_MOMENT))


def _same_moments(moments: Sequence[Moment]) -> Iterator[tuple[Moment, Moment]]:
    """Pairs above SAME_MOMENT, of moments in order of their start."""
    for number, one in enumerate(moments):
        latest = one.start_s + (1 - SAME_MOMENT) * (one.end_s - one.start_s)
        later = number + 1
        while later < len(moments) and moments[later].start_s <= latest:
            other = moments[later]
            later += 1
            overlap = min(one.end_s, other.end_s) - other.start_s
            union = max(one.end_s, other.end_s) - one.start_s
            if overlap > SAME_MOMENT * union:
                yield one, other
