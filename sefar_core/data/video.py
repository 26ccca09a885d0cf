"""Frames of a video file, or of a folder of numbered pictures, by time.

By time rather than by frame number, so that sources of 25, 30, 50 and 60 frames a second show the
same instants. Each request is one pass over the file or, for a stretch of a long one, from the
keyframe before it; its frames equal those of a full decode in order (decode.py). In a folder
(image_folder.py) only the pictures that are wanted are opened.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, isfinite
from pathlib import Path
from typing import NamedTuple, TypeVar

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from sefar_core.data import frame_index
from sefar_core.data.decode import (
    FIX,
    FileVersion,
    Misnamed,
    Patched,
    VideoReadError,
    opened,
    orientation_of,
    pictures,
    settle,
    upright_size,
    version_of,
)
from sefar_core.data.frame_index import ROUNDING_S, Timeline, VideoInfo, oddities
from sefar_core.data.image_folder import FrameFolder, open_folder, probe_folder
from sefar_core.data.packets import (
    Mark,
    hides_frames,
    index_is_false,
    is_false_keyframe,
    mark_of,
    packets_of,
)
from sefar_core.data.seek import jump, leads_right

Frames = Timeline | FrameFolder
Result = TypeVar("Result")


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
        fractions: in [0, 1), in any order, repeats allowed. 1 counts as the last instant: float32
            arithmetic rounds up to it once in some ten million draws.
        start_s: where the clip begins, seconds from the file's beginning, as players count: where
            its sound begins before its picture, 0 is the beginning of the sound.
        end_s: where it ends. Where a file allows it, little more than the clip itself is decoded.
        short_side: if given, larger frames are scaled so that their shorter side has this many
            pixels.

    Raises:
        VideoReadError: the file is unreadable, or ends before the clip does.
        ValueError: a fraction outside [0, 1], or a clip that ends before it starts.
    """
    places = places_of(fractions)

    def use(shown: Frames, start: float, end: float) -> Tensor:
        return _read(path, shown, start + places * (end - start), short_side)

    return on_frames(path, start_s, end_s, use)


def places_of(fractions: Sequence[float]) -> np.ndarray:
    """Fractions of a clip's length, in [0, 1): a 1 becomes the last number before it. ValueError
    for a fraction outside [0, 1], or none.
    """
    places = np.asarray(fractions, dtype=np.float64)
    if places.ndim != 1 or len(places) == 0:
        raise ValueError("fractions must be a list of at least one number")
    if not ((places >= 0) & (places <= 1)).all():
        raise ValueError(f"fractions must be in [0, 1], got {places.tolist()}")
    return np.minimum(places, np.nextafter(1, 0))


class ClipFrames(NamedTuple):
    """Every frame of a clip, RGB, upright."""

    frames: UInt8[Tensor, "frame height width channel"]
    appears: list[float]
    """Fraction of the clip's length at which each appears."""
    length_s: float
    """Seconds that the clip lasts."""


def read_clip(
    path: Path,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    short_side: int | None = None,
) -> ClipFrames:
    """Every frame of a clip, and when each appears.

    The frame at fraction f is the last one that appears at or before f, as in `read_fractions`.
    VideoReadError if the file is unreadable, or fewer frames come out of it than it holds.
    """

    def use(shown: Frames, start: float, end: float) -> ClipFrames:
        _refuse_unshown(path, shown, end - ROUNDING_S)
        first = shown.numbers_at(np.array([start]))[0]
        # Before the first picture appears it is the first.
        stop = max(first + 1, int((shown.times_s + ROUNDING_S < end).sum()))
        numbers = np.arange(first, stop)
        places = (shown.times_s[numbers] - start) / (end - start)
        frames = _pictures(path, shown, numbers, short_side)
        return ClipFrames(frames, np.maximum(places, 0).tolist(), end - start)

    return on_frames(path, start_s, end_s, use)


def clip_length(path: Path, *, start_s: float | None = None, end_s: float | None = None) -> float:
    """Seconds that a clip lasts, by its packets where they say so. VideoReadError for an unreadable
    file, ValueError for a clip that ends before it starts.
    """
    return on_frames(path, start_s, end_s, lambda _, start, end: end - start, decodes=False)


def refuse_empty(path: Path, start: float, end_s: float | None) -> None:
    """Raise ValueError for a clip that ends before it starts."""
    if not (isfinite(start) and (end_s is None or start < end_s < inf)):
        raise ValueError(f"{path}: a clip from {start} s to {end_s} s has no length")


def clip_end(path: Path, shown: Frames | VideoInfo, start: float, end_s: float | None) -> float:
    """Where a clip ends; VideoReadError if its file ends before it starts."""
    if start >= shown.end_s - ROUNDING_S:
        raise VideoReadError(
            f"{path} ends after {shown.end_s:.3f} s, but the clip starts at {start:.3f} s. The "
            f"list was made from a longer video: correct it, or cut the clip again."
        )
    return shown.end_s if end_s is None else end_s


@dataclass
class Record:
    """What reading a file showed of it, in this process."""

    counted: bool = False
    """As many pictures come out of a full decode as its packets announce."""
    jumps_lead_right: bool | None = None
    """Decoding can begin at its keyframes; None until it is tested."""
    settled: Timeline | None = None
    """Its pictures by a full decode, if packets announce others."""


def record_of(path: Path) -> Record:
    """The record of a file; another one once the file has changed."""
    return _record(version_of(path)) if path.is_file() else Record()


@lru_cache(maxsize=1024)
def _record(file: FileVersion) -> Record:
    return Record()


def on_frames(
    path: Path,
    start_s: float | None,
    end_s: float | None,
    use: Callable[[Frames, float, float], Result],
    heartbeat: Callable[[], None] = lambda: None,
    *,
    decodes: bool = True,
) -> Result:
    """Call `use` with the frames of a clip, decoded by the fastest way that shows the right ones.

    From the keyframe before the clip; from the file's beginning; or by what a full decode gave.
    Each way is left for the next where the decoder gives other pictures than the packets
    announced (decode.Misnamed), and is not tried again with the same file.

    `use` takes the frames, and where the clip starts and ends among them. Where it decodes no
    picture (`decodes`), a jump need not be compared with them. Every picture of a full decode gives
    a heartbeat.

    Raises:
        VideoReadError: the file is unreadable.
        ValueError: a clip that ends before it starts.
    """
    start = start_s or 0.0
    refuse_empty(path, start, end_s)
    whole = start_s is None and end_s is None
    if path.is_dir():
        folder = open_folder(path) if whole else open_folder(path).stretch(start, end_s)
        return use(folder, start, clip_end(path, folder, start, end_s))
    record = record_of(path)
    if not whole and record.settled is None and record.jumps_lead_right is not False:
        try:
            with opened(path) as file:
                shown = jump(path, file, start, end_s)
                misled = shown and shown.jumped and decodes and not _jumps_lead_right(path, record)
                if shown and not misled:
                    return use(shown, start, clip_end(path, shown, start, end_s))
        except Patched:
            pass  # damage in one place does not spoil jumps to others
        except Misnamed:
            record.jumps_lead_right = False
    span = None if whole else (start, end_s)
    if record.settled is None:
        try:
            return _in_order(path, span, record, use)
        except Misnamed:
            record.settled = settle(path, heartbeat)
    return _in_order(path, span, record, use)


def _jumps_lead_right(path: Path, record: Record) -> bool:
    if record.jumps_lead_right is None:
        record.jumps_lead_right = leads_right(path)
    return record.jumps_lead_right


def _in_order(
    path: Path,
    span: tuple[float, float | None] | None,
    record: Record,
    use: Callable[[Frames, float, float], Result],
) -> Result:
    """As `on_frames`, decoded from the file's beginning; without a span, the whole file."""
    with opened(path) as (container, stream):
        if record.settled is not None and span is not None:
            shown = replace(record.settled, stream=stream)  # its packets are read with the pictures
        else:
            shown = frame_index.whole(container, stream, keep=span is None)
            if record.settled is not None:
                shown = replace(record.settled, packets=shown.packets, stream=stream)
            elif shown.begins_in_doubt:
                raise Misnamed(f"{path} announces pictures before its first keyframe")
        start, end = span or (float(shown.times_s[0]), None)
        return use(shown, start, clip_end(path, shown, start, end))


def _read(path: Path, shown: Frames, timestamps: np.ndarray, short_side: int | None) -> Tensor:
    _refuse_unshown(path, shown, float(timestamps.max()))
    return _pictures(path, shown, shown.numbers_at(timestamps), short_side)


def _refuse_unshown(path: Path, shown: Frames, timestamp_s: float) -> None:
    last_s = float(shown.times_s[-1])
    if isinstance(shown, Timeline) and shown.is_cut_off:
        last_s = shown.end_s  # what follows is lost: no time behind the end is forgiven
    refuse_beyond(path, last_s, shown.end_s, timestamp_s)


def _pictures(path: Path, shown: Frames, numbers: np.ndarray, short_side: int | None) -> Tensor:
    if isinstance(shown, FrameFolder):
        return shown.pictures(numbers, short_side)
    record = record_of(path)
    # Pictures that are known by their count alone are counted to the end, once.
    uncounted = shown.stamps is None and record.settled is None and not record.counted
    found = pictures(path, shown, numbers, short_side, to_end=uncounted)
    record.counted = record.counted or uncounted
    return found


def refuse_beyond(path: Path, last_s: float, end_s: float, timestamp_s: float) -> None:
    """Raise VideoReadError for a frame wanted after a file's end.

    Its last frame appears at `last_s` and disappears at `end_s`.
    """
    # Lists round their times: a clip may seem to end up to a frame after its file does.
    if timestamp_s >= end_s + (end_s - last_s):
        raise VideoReadError(
            f"{path} ends after {end_s:.3f} s, but the frame at {timestamp_s:.3f} s is "
            f"requested. The list was made from a longer video: correct it, or cut the clip again."
        )


def probe(path: Path) -> VideoInfo:
    """Length, times and oddities of a video, from its packets and, for the angle, one picture.
    VideoReadError if it is missing, empty or no video, or the first picture does not decode.
    """
    if path.is_dir():
        return probe_folder(open_folder(path))
    marks: list[Mark] = []
    first: VideoFrame | None = None
    false_keyframes = False
    with opened(path) as (container, stream):
        hides = hides_frames(stream)
        for packet in packets_of(container, stream):
            marks.append(mark_of(packet, hides=hides))
            first = first or first_picture(path, stream, packet)
            false_keyframes = false_keyframes or is_false_keyframe(packet)
        first = first or first_picture(path, stream, None)
        if first is None:
            raise VideoReadError(f"cannot decode {path}: no frame comes out of it. {FIX}")
        shown = frame_index.outline(marks, container, stream, first=first.pts)
        if settled := record_of(path).settled:
            shown = replace(settled, stream=stream)
        return info_of(shown, first, false_keyframes=false_keyframes)


def first_picture(path: Path, stream: VideoStream, packet: Packet | None) -> VideoFrame | None:
    """The first frame that comes out of the decoder with this packet, or at the end (None).
    VideoReadError if the packet cannot be decoded.
    """
    try:
        return next(iter(stream.decode(packet)), None)
    except av.FFmpegError as cause:
        raise VideoReadError(f"cannot decode {path}: {cause} at its first frame. {FIX}") from cause


def info_of(shown: Timeline, first: VideoFrame, *, false_keyframes: bool) -> VideoInfo:
    """The facts in the packets of an open file and in its first picture, decoded.

    `false_keyframes`: packets are marked as keyframes that need pictures before them.
    """
    stream = shown.stream
    duration_s = shown.end_s - float(shown.times_s[0])
    turns, mirrored = orientation_of(first)
    width, height = upright_size(first)
    flagged = [mark.is_keyframe for mark in shown.marks]
    tests = {
        "false_keyframes": false_keyframes or index_is_false(stream, flagged),
        "rotated": turns != 0,
        "mirrored": mirrored,
        "pixels_not_square": (stream.sample_aspect_ratio or 1) != 1,
    }
    return VideoInfo(
        num_frames=len(shown.times_s),
        times_s=tuple(shown.times_s.tolist()),
        duration_s=duration_s,
        fps=len(shown.times_s) / duration_s,
        width=width,
        height=height,
        rotation=turns * 90,
        codec=stream.codec_context.name,
        container=stream.container.format.name,
        flags=oddities(shown) + tuple(name for name, holds in tests.items() if holds),
    )
