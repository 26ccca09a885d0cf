"""What only decoding tells of a video: where it stops, which frames are missing, which are patched.

Nothing is converted to RGB: decoding in order costs what the decoder costs, and a stretch that
several clips share is decoded once.
"""

from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import NamedTuple

import av
from av.video.frame import VideoFrame

from sefar_core.data import timeline
from sefar_core.data.decoding import MEND as ANY_MEND
from sefar_core.data.decoding import opened
from sefar_core.data.frame_folder import open_folder
from sefar_core.data.timeline import Timeline
from sefar_core.data.video import VideoInfo, VideoReadError, info_of, probe

MEND = "Fetch or cut the file again."

Span = tuple[float | None, float | None]
"""Where a clip starts and ends in its file, seconds; twice None for the whole file."""
WHOLE: Span = (None, None)

# Words of a VideoReadError, in the order in which they are looked for.
KINDS = {
    "does not exist": "missing",
    "is empty": "empty",
    "no video stream": "no video stream",
    "cannot decode": "undecodable",
    "does not decode": "undecodable",
    "no frame": "undecodable",
    "": "unreadable",
}


class Fault(NamedTuple):
    """What makes a clip unfit.

    Attributes:
        kind: in a word or two, to count by.
        words: which file, what was found and, where there is one, the mend.
    """

    kind: str
    words: str


def named(path: Path, error: VideoReadError) -> Fault:
    """The fault that an error tells of."""
    words = str(error).replace(ANY_MEND, MEND)
    without_path = words.replace(str(path), "")
    return Fault(next(kind for sign, kind in KINDS.items() if sign in without_path), words)


def examined(
    path: Path, spans: Iterable[Span], beat: Callable[[], None]
) -> tuple[VideoInfo, dict[Span, Fault | None]]:
    """A file's probe, and what decoding finds in each stretch of it.

    What stretches have in common is decoded once; where that is damaged, each by itself.

    Args:
        path: a file, or a folder of pictures.
        spans: the stretches.
        beat: called for every frame or picture.

    Raises:
        VideoReadError: no frame comes out of it.
    """
    found: dict[Span, Fault | None] = {}
    info: VideoInfo | None = None
    for joint, members in _joined(set(spans)):
        if joint == WHOLE and not path.is_dir():
            info, fault = _whole(path, beat)
        else:
            fault = _fault(path, joint, beat)
        for span in members:
            settled = fault is None or span == joint
            found[span] = fault if settled else _fault(path, span, beat)
    return info or probe(path), found


def _whole(path: Path, beat: Callable[[], None]) -> tuple[VideoInfo, Fault | None]:
    """Probe and decoding in one pass."""
    with opened(path) as (container, stream):
        shown = timeline.whole(container, stream)
        first, fault = _decoded(path, shown, beat)
        if first is None:
            raise VideoReadError(fault.words if fault else f"no frame comes out of {path}")
        return info_of(stream, shown, first), fault


def _joined(spans: set[Span]) -> list[tuple[Span, list[Span]]]:
    """Stretches that cover the spans, one for those that overlap, each with its spans."""
    if WHOLE in spans:
        return [(WHOLE, list(spans))]
    joined: list[tuple[Span, list[Span]]] = []
    for start, end in sorted((start or 0.0, inf if end is None else end) for start, end in spans):
        if joined and start < (joined[-1][0][1] or inf):
            (first, last), members = joined[-1]
            joined[-1] = ((first, max(last or inf, end)), [*members, (start, end)])
        else:
            joined.append(((start, end), [(start, end)]))
    return joined


def _fault(path: Path, span: Span, beat: Callable[[], None]) -> Fault | None:
    start_s, end_s = span
    try:
        if path.is_dir():
            folder = open_folder(path)
            for _ in folder.stretch(start_s or 0.0, end_s).decode():
                beat()
            return None
        with opened(path) as (container, stream):
            shown = timeline.stretch(container, stream, start_s or 0.0, end_s)
            return _decoded(path, shown, beat)[1]
    except VideoReadError as error:
        return named(path, error)


def _decoded(
    path: Path, shown: Timeline, beat: Callable[[], None]
) -> tuple[VideoFrame | None, Fault | None]:
    """The first frame, and where the decoder stops, or else which frames it lacks or patches."""
    first, decoded, patched = None, 0, []
    try:
        for frame in shown.decode():
            first = first or frame
            if frame.is_corrupt:
                patched.append(decoded)
            decoded += 1
            beat()
    except av.FFmpegError as cause:
        words = f"{path} does not decode at {_place(shown, decoded)}: {cause}. {MEND}"
        return first, Fault("undecodable", words)
    if decoded != len(shown.times_s):
        listed = len(shown.times_s)
        words = f"{path} lists {listed} frames, but {decoded} come out of the decoder. {MEND}"
        return first, Fault("frames missing", words)
    if patched:
        count, place = len(patched), _place(shown, patched[0])
        words = f"{path} is damaged: the decoder patches {count} frames, first {place}. {MEND}"
        return first, Fault("patched", words)
    return first, None


def _place(shown: Timeline, number: int) -> str:
    at_s = shown.times_s[min(number, len(shown.times_s) - 1)]
    return f"frame {number} of {len(shown.times_s)} ({at_s:.3f} s)"
