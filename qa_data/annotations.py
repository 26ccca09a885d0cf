"""FineGym's element lists, read into clips.

An element list says which clip shows which class (`<clip id> <label>`); when each begins and ends
in its source video is a matter of clip_times.py. What reads FineGym's files is imported from here.

Format: SDOlivia/FineGym, gh-pages, index.html.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from qa_data.clip_id import CLIP_ID, ClipId, event_of, source_of
from qa_data.clip_times import (
    AnnotationError,
    Interval,
    intervals_of,
    read_annotations,
    read_times,
    read_timestamps,
    text_of,
)
from qa_data.manifest import Clip
from qa_data.taxonomy import ElementClass

__all__ = [
    "AnnotationError",
    "ClipId",
    "Interval",
    "event_of",
    "intervals_of",
    "read_annotations",
    "read_elements",
    "read_times",
    "read_timestamps",
    "source_of",
    "to_clips",
]

LABEL = re.compile(r"[0-9]{1,6}")


def read_elements(path: Path) -> list[tuple[str, int]]:
    """Clip ids and labels of an element list, in its order.

    Raises:
        AnnotationError: the file is missing, empty or not UTF-8, a line is not
            `<clip id> <label>`, or a clip id repeats.
    """
    elements: dict[str, int] = {}
    for number, line in enumerate(text_of(path).splitlines(), 1):
        if not line.strip():
            continue
        clip_id, _, label = line.strip().partition(" ")
        if CLIP_ID.fullmatch(clip_id) is None or LABEL.fullmatch(label) is None:
            raise AnnotationError(
                f"{path}, line {number}: found {line!r:.90}; expected a clip id, one blank and a "
                f"label, such as 'A0xAXXysHUo_E_002184_002237_A_0035_0036 93'"
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
    times: Mapping[str, Interval] | None = None,
) -> list[Clip]:
    """Clips of an element list, with class text and apparatus.

    With `times`, a clip is a part of its full source video `<source>.mp4`; without, it is a file
    of its own, `<clip id>.mp4`.

    Raises:
        AnnotationError: a label has no class, or a clip's times are refused by intervals_of.
    """
    if unknown := sorted({label for _, label in elements} - classes.keys()):
        raise AnnotationError(
            f"the element list has label {unknown[0]}, but the class list ends at "
            f"{max(classes)}; is it the list of another benchmark?"
        )
    ids = [clip_id for clip_id, _ in elements]
    intervals = None if times is None else intervals_of(ids, times)
    return [_clip(clip_id, classes[label], split, intervals) for clip_id, label in elements]


def _clip(
    clip_id: str, found: ElementClass, split: str, intervals: Mapping[str, Interval] | None
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
