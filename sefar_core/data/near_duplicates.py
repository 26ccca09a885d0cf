"""Clips that show one moment of one video twice.

FineGym's annotators cut some routines out of their broadcast twice, with the same elements in
both: the clips have different names and all but the same frames.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from qa_data.annotations import CLIP_ID, ClipId, Interval, event_of
from qa_data.manifest import Clip
from sefar_core.data.sources import SplitError

SAME_MOMENT = 0.9
"""Intersection over union in time, above which two clips of a source are near-duplicates."""


class Moment(NamedTuple):
    """When a clip is shown in its source; `place` is its number among the clips."""

    start_s: float
    end_s: float
    place: int


def near_duplicates(
    clips: Sequence[Clip], *, times: Mapping[str, Interval] | None = None
) -> Iterator[tuple[int, int]]:
    """Pairs of clips that show one moment of one source: IoU in time above SAME_MOMENT.

    Where neither the clips nor `times` tell when a clip begins and ends, the whole seconds in a
    FineGym clip id stand for it; they find fewer (19 of 42 pairs in Gym99). Of clips without
    source or time nothing is said. Takes O(n log n + pairs) time.

    Args:
        clips: any.
        times: begin and end in the source, by clip id, for clips that are files of their own.

    Yields:
        Numbers of two clips, the one that begins first before the other.

    Raises:
        SplitError: a clip does not end after it starts.
    """
    bands: dict[tuple[str, int], list[Moment]] = defaultdict(list)
    for place, clip in enumerate(clips):
        found = _interval(clip, times or {})
        source = clip.source or (clip.path if clip.start_s is not None else "")
        if found and source:
            bands[source, _band(found)].append(Moment(*found, place))
    for (source, band), members in bands.items():
        longer = bands.get((source, band + 1), [])
        own = {moment.place for moment in members}
        for one, other in _same_moments(sorted(members + longer)):
            if one.place in own or other.place in own:
                yield one.place, other.place


def routine_of(clip: Clip) -> str | None:
    """Source video and routine (one athlete's turn on one apparatus) of a FineGym clip."""
    return event_of(clip.id) if CLIP_ID.fullmatch(clip.id) else None


def _interval(clip: Clip, times: Mapping[str, Interval]) -> Interval | None:
    """The clip's time in its source, exact if known, else in whole seconds, else none."""
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
