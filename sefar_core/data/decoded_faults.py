"""What only decoding tells of a video: where it stops, which frames are missing, which are patched.

Nothing is converted to RGB: decoding in order costs what the decoder costs, and a stretch that
several clips share is decoded once.
"""

from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import NamedTuple

from av.video.frame import VideoFrame

from sefar_core.data.decoding import MEND as ANY_MEND
from sefar_core.data.decoding import VideoReadError, upright_size, verified
from sefar_core.data.frame_folder import FrameFolder
from sefar_core.data.keyframes import is_false_keyframe
from sefar_core.data.timeline import Timeline
from sefar_core.data.video import Frames, VideoInfo, info_of, on_frames, probe

MEND = "Fetch or cut the file again."

Span = tuple[float | None, float | None]
"""Where a clip starts and ends in its file, seconds; twice None for the whole file."""
WHOLE: Span = (None, None)

# Words of a VideoReadError, in the order in which they are looked for.
KINDS = {
    "does not come out": "frames missing",
    "does not exist": "missing",
    "is empty": "empty",
    "no video stream": "no video stream",
    "cannot decode": "undecodable",
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
        told, fault = _fault(path, joint, beat)
        info = told or info
        for span in members:
            alone = fault is not None and len(members) > 1
            found[span] = _fault(path, span, beat)[1] if alone else fault
    return info or probe(path), found


def _joined(spans: set[Span]) -> list[tuple[Span, list[Span]]]:
    """Stretches that cover the spans, one for those that overlap, each with its spans."""
    if WHOLE in spans:
        return [(WHOLE, list(spans))]
    joined: list[tuple[Span, list[Span]]] = []
    for span in sorted(spans, key=_bounds):
        start, end = _bounds(span)
        if joined and start < (joined[-1][0][1] or inf):
            (first, last), members = joined[-1]
            joined[-1] = ((first, max(last or inf, end)), [*members, span])
        else:
            joined.append(((start, end), [span]))
    return joined


def _bounds(span: Span) -> tuple[float, float]:
    start, end = span
    return start or 0.0, inf if end is None else end


def _fault(
    path: Path, span: Span, beat: Callable[[], None]
) -> tuple[VideoInfo | None, Fault | None]:
    """What a whole file tells of itself, and what is wrong with a stretch."""
    start_s, end_s = span
    end_s = None if end_s == inf else end_s

    def decode(shown: Frames, start: float, end: float) -> tuple[VideoInfo | None, Fault | None]:
        if isinstance(shown, FrameFolder):
            for _ in shown.decode():
                beat()
            return None, None
        first, fault = _decoded(path, shown, beat)
        if first is None or span != WHOLE:
            return None, fault
        false = any(map(is_false_keyframe, shown.packets))
        return info_of(shown, first, false_keyframes=false), fault

    try:
        return on_frames(path, start_s, end_s, decode, beat)
    except VideoReadError as error:
        return None, named(path, error)


def _decoded(
    path: Path, shown: Timeline, beat: Callable[[], None]
) -> tuple[VideoFrame | None, Fault | None]:
    """The first frame, and which frames the decoder patches, or where the picture changes its size.

    Raises:
        Misnamed: others come out than the packets announced.
        VideoReadError: the decoder stops.
    """
    first: VideoFrame | None = None
    size = (0, 0)
    patched: list[int] = []
    for number, frame in enumerate(verified(path, shown)):
        other = upright_size(frame)
        if first is None:
            first, size = frame, other
        if size != other or first.width != frame.width:
            words = f"{path} changes from {size[0]} x {size[1]} to {other[0]} x {other[1]} pixels"
            return first, Fault("changing size", f"{words} at {_place(shown, number)}. {MEND}")
        if frame.is_corrupt:
            patched.append(number)
        beat()
    if patched:
        count, place = len(patched), _place(shown, patched[0])
        words = f"{path} is damaged: the decoder patches {count} frames, first {place}. {MEND}"
        return first, Fault("patched", words)
    return first, None


def _place(shown: Timeline, number: int) -> str:
    at_s = shown.times_s[min(number, len(shown.times_s) - 1)]
    return f"frame {number} of {len(shown.times_s)} ({at_s:.3f} s)"
