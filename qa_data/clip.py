"""One clip of a table of clips, and what must hold of it."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import PurePath

from qa_data.text_file import composed

SPLITS = ("labeled", "unlabeled", "val", "test")
MAX_LABEL = 999_999  # a larger number is a mistaken column, not a class
NO_CELL = re.compile(
    r"[\0\r\n\ud800-\udfff]"
)  # the last are bytes of file names that are not UTF-8


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
    """The video that the clip was cut from; its letters are composed, for sources are compared."""
    split: str
    """One of SPLITS."""
    num_frames: int | None = None
    fps: float | None = None
    """Frames a second."""
    rotation: int | None = None
    """Degrees by which the player turns the picture."""
    flags: str = ""
    """Whatever scripts/check_videos.py found worth saying."""

    def __post_init__(self):
        object.__setattr__(self, "source", composed(self.source))


def without_label(clip: Clip) -> Clip:
    """The clip with nothing in it that tells its class."""
    return replace(clip, label=None, text=None, event=None)


def problem_of(clip: Clip) -> str | None:
    """What makes no sense in a clip, and the mend; none if all is well."""
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
    told = {"label": clip.label, "text": clip.text, "event": clip.event}
    told = {name: value for name, value in told.items() if value is not None}
    if clip.split == "unlabeled":
        return f"an unlabeled clip tells its class by {told}; empty these cells" if told else None
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
