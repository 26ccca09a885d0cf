"""Frames of a video file, or of a folder of numbered pictures, asked for by time.

Time rather than frame numbers, so that sources of 25, 30, 50 and 60 frames a second are seen at the
same moments. Each request is one pass over the file or, for a stretch of a long one, from the
keyframe before it; what it gives equals a full decode in order (decoding.py). Of a folder
(frame_folder.py) only the pictures that are wanted are opened.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from sefar_core.data import timeline
from sefar_core.data.decoding import (
    MEND,
    VideoReadError,
    opened,
    pictures,
    quarter_turns,
    upright_size,
)
from sefar_core.data.frame_folder import FrameFolder, open_folder, probe_folder
from sefar_core.data.timeline import ROUNDING_S, Timeline
from sefar_core.data.video_info import VideoInfo

__all__ = [
    "VideoInfo",
    "VideoReadError",
    "clip_length",
    "frames_at",
    "info_of",
    "probe",
    "read_clip",
    "read_fractions",
]


def probe(path: Path) -> VideoInfo:
    """Length, times and oddities of a video, from its packets and, for the angle, one picture.

    Raises:
        VideoReadError: missing, empty, no video, or the first picture does not decode.
    """
    if path.is_dir():
        return probe_folder(open_folder(path))
    marks: list[timeline.Mark] = []
    first: VideoFrame | None = None
    with opened(path) as (container, stream):
        for packet in timeline.packets_of(container, stream):
            marks.append(timeline.mark_of(packet))
            first = first or first_picture(path, stream, packet)
        first = first or first_picture(path, stream, None)
        if first is None:
            raise VideoReadError(f"cannot decode {path}: no frame comes out of it. {MEND}")
        return info_of(stream, timeline.outline(marks, stream), first)


def first_picture(path: Path, stream: VideoStream, packet: Packet | None) -> VideoFrame | None:
    """The first frame that comes out of the decoder with this packet, or at the end (None).

    Raises:
        VideoReadError: the packet does not decode.
    """
    try:
        return next(iter(stream.decode(packet)), None)
    except av.FFmpegError as cause:
        raise VideoReadError(f"cannot decode {path}: {cause} at its first frame. {MEND}") from cause


def info_of(stream: VideoStream, shown: Timeline, first: VideoFrame) -> VideoInfo:
    """What the packets of a file and its first picture tell.

    Args:
        stream: of an open file.
        shown: all of its frames.
        first: the first of them, decoded.
    """
    turns = quarter_turns(first) % 4
    width, height = upright_size(first)
    return VideoInfo(
        num_frames=len(shown.times_s),
        times_s=tuple(shown.times_s.tolist()),
        duration_s=shown.end_s,
        fps=len(shown.times_s) / shown.end_s,
        width=width,
        height=height,
        rotation=turns * 90,
        codec=stream.codec_context.name,
        flags=timeline.oddities(stream, shown, rotated=turns != 0),
    )


def frames_at(
    path: Path, moments_s: Sequence[float], *, short_side: int | None = None
) -> UInt8[Tensor, "frame height width channel"]:
    """The frame shown at each moment, RGB, upright, in one pass over the file.

    Args:
        path: the video.
        moments_s: seconds from the first shown frame, in any order, repeats allowed.
        short_side: if given, larger frames are scaled so that their shorter side has this many
            pixels.

    Raises:
        VideoReadError: the file is unreadable, or ends before one of the moments.
        ValueError: no moment, or one before 0.
    """
    moments = np.asarray(moments_s, dtype=np.float64)
    refuse_outside(moments, high=np.inf, name="moments_s")
    with _shown(path) as (shown, _, _):
        return _read(path, shown, moments, short_side)


def read_fractions(
    path: Path,
    fractions: Sequence[float],
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    short_side: int | None = None,
) -> UInt8[Tensor, "frame height width channel"]:
    """The frames shown at fractions of a clip's length: frame floor(f * F) of F evenly spaced ones.

    Args:
        path: the video, which is the clip unless `start_s` or `end_s` is given.
        fractions: in [0, 1), in any order, repeats allowed. 1 counts as the last moment: float32
            arithmetic rounds up to it once in some ten million draws.
        start_s: where the clip begins, seconds from the file's first shown frame.
        end_s: where it ends. Little more than what lies between is decoded.
        short_side: if given, larger frames are scaled so that their shorter side has this many
            pixels.

    Raises:
        VideoReadError: the file is unreadable, or ends before the clip does.
        ValueError: a fraction outside [0, 1], or a clip that ends before it starts.
    """
    places = places_of(fractions)
    with _shown(path, start_s, end_s) as (shown, start, end):
        return _read(path, shown, start + places * (end - start), short_side)


def places_of(fractions: Sequence[float]) -> np.ndarray:
    """Fractions of a clip's length, in [0, 1): a 1 becomes the last number before it.

    Raises:
        ValueError: a fraction outside [0, 1], or none.
    """
    places = np.asarray(fractions, dtype=np.float64)
    refuse_outside(places, high=1.0, name="fractions")
    return np.minimum(places, np.nextafter(1, 0))


def read_clip(
    path: Path,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    short_side: int | None = None,
) -> tuple[UInt8[Tensor, "frame height width channel"], list[float]]:
    """Every frame of a clip, RGB, upright, and the fraction of its length at which each appears.

    The frame at fraction f is the last one that appears at or before f, as in `read_fractions`.

    Raises:
        VideoReadError: the file is unreadable, or fewer frames come out of it than it holds.
    """
    with _shown(path, start_s, end_s) as (shown, start, end):
        refuse_beyond(path, float(shown.times_s[-1]), shown.end_s, end - ROUNDING_S)
        first = shown.shown_at(np.array([start]))[0]
        numbers = np.flatnonzero(shown.times_s + ROUNDING_S < end)[first:]
        places = (shown.times_s[numbers] - start) / (end - start)
        return _pictures(path, shown, numbers, short_side), np.maximum(places, 0).tolist()


def clip_length(path: Path, *, start_s: float | None = None, end_s: float | None = None) -> float:
    """Seconds that a clip lasts.

    Raises:
        VideoReadError: the file is unreadable.
    """
    with _shown(path, start_s, end_s) as (_, start, end):
        return end - start


@contextmanager
def _shown(
    path: Path, start_s: float | None = None, end_s: float | None = None
) -> Iterator[tuple[Timeline | FrameFolder, float, float]]:
    """The frames of a clip, and where it starts and ends, seconds from the first shown frame."""
    start = start_s or 0.0
    if end_s is not None and end_s <= start:
        raise ValueError(f"{path}: a clip from {start} s to {end_s} s has no length")
    whole = start_s is None and end_s is None
    shown: Timeline | FrameFolder
    if path.is_dir():
        shown = open_folder(path) if whole else open_folder(path).stretch(start, end_s)
        yield shown, start, shown.end_s if end_s is None else end_s
        return
    with opened(path) as (container, stream):
        if whole:
            shown = timeline.whole(container, stream)
        else:
            shown = timeline.stretch(container, stream, start, end_s)
        yield shown, start, shown.end_s if end_s is None else end_s


def _read(
    path: Path, shown: Timeline | FrameFolder, moments: np.ndarray, short_side: int | None
) -> Tensor:
    refuse_beyond(path, float(shown.times_s[-1]), shown.end_s, float(moments.max()))
    return _pictures(path, shown, shown.shown_at(moments), short_side)


def _pictures(
    path: Path, shown: Timeline | FrameFolder, numbers: np.ndarray, short_side: int | None
) -> Tensor:
    if isinstance(shown, FrameFolder):
        return shown.pictures(numbers, short_side)
    return pictures(path, shown, numbers, short_side)


def refuse_beyond(path: Path, last_s: float, end_s: float, moment_s: float) -> None:
    """Raise VideoReadError for a moment after a file's end, told by when its last frame appears
    and disappears.
    """
    # Lists round their times: a clip may seem to end up to a frame after its file does.
    if moment_s >= end_s + (end_s - last_s):
        raise VideoReadError(
            f"{path} ends after {end_s:.3f} s, but the frame at {moment_s:.3f} s was asked "
            f"for. The list was made from a longer video: correct it, or cut the clip again."
        )


def refuse_outside(places: np.ndarray, *, high: float, name: str) -> None:
    """Raise ValueError unless there are places and all lie in [0, high]."""
    if places.ndim != 1 or len(places) == 0:
        raise ValueError(f"{name} must be a list of at least one number")
    if not ((places >= 0) & (places <= high)).all():
        raise ValueError(f"{name} must lie in [0, {high}], got {places.tolist()}")
