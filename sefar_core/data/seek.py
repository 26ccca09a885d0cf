"""Whether a stretch of a file can be decoded from a keyframe in its middle.

It saves decoding everything before the stretch, and is done only where it shows the pictures of a
decode from the beginning: in containers that store or repeat each picture's time, at keyframes that
need nothing before them, and in files whose second group of pictures came out alike both ways, in
every byte.
"""

import hashlib
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sefar_core.data import frame_index
from sefar_core.data.decode import FileVersion, Misnamed, opened, verified, version_of
from sefar_core.data.frame_index import Timeline
from sefar_core.data.packets import Mark, begins_anew, packets_of

STORED = ("mov", "matroska")
"""Containers that store the time of display beside each packet."""
REPEATED = ("mpegts", "flv", "avi")
"""Containers whose times after a jump are compared with those read in order."""
COMPARED_PICTURES = 32
"""Of a group, beginning at its keyframe."""


class NeverJumps(Misnamed):
    """No stretch of a file can be decoded from a keyframe in its middle."""


def jump(
    path: Path, file: tuple[InputContainer, VideoStream], start_s: float, end_s: float | None
) -> Timeline | None:
    """The stretch of an open file as `frame_index.stretch` finds it; None where its times cannot be
    trusted. NeverJumps if times of no stretch of this file can be trusted.
    """
    container, stream = file
    if not any(name in container.format.name for name in STORED + REPEATED):
        raise NeverJumps(f"{path}: the times of its format need the whole file")
    try:
        shown = frame_index.stretch(container, stream, start_s, end_s)
    except (av.FFmpegError, EOFError):
        return None  # the format cannot seek; whether the file can be read shows in order
    stored = any(name in container.format.name for name in STORED)
    if shown is None or not (stored or _as_in_order(path, shown.marks)):
        return None
    return shown if not shown.jumped or begins_anew(shown.packets[0]) else None


def leads_right(path: Path) -> bool:
    """Whether the second group of pictures comes out of a jump as it does in order, byte by byte.

    For files with a keyframe to jump to. Where the first group is damaged nothing can be compared:
    pictures after the damage are then trusted by their timestamps. VideoReadError if the file does
    not open.
    """
    with opened(path) as (container, stream):
        beginning = frame_index.beginning(container, stream)
    with opened(path) as (container, stream):
        try:
            at_ticks, in_order = _second_group(container, stream)
        except av.FFmpegError:
            return True
        if beginning is None or at_ticks is None:
            return False
        origin = frame_index.origin_of(container, stream, beginning[1])
        at_s = (at_ticks - origin) * float(frame_index.time_base_of(stream))
    with opened(path) as (container, stream):
        try:
            shown = jump(path, (container, stream), at_s, None)
            if shown is None or not shown.jumped:
                return False
            return in_order == [_signed(f) for f in islice(verified(path, shown), len(in_order))]
        except Misnamed:
            return False


def _second_group(
    container: InputContainer, stream: VideoStream
) -> tuple[int | None, list[tuple[int | None, str]]]:
    """When the second keyframe is shown, in ticks, and the first pictures from it on."""
    at_ticks: int | None = None
    found: list[tuple[int | None, str]] = []
    packets = packets_of(container, stream)
    first = next(packets)
    for packet in chain([first], packets, [None]):
        if at_ticks is None and packet is not first and packet and begins_anew(packet):
            at_ticks = packet.pts
        for frame in stream.decode(packet):
            if at_ticks is not None and frame.pts is not None and frame.pts >= at_ticks:
                found.append(_signed(frame))
        if len(found) >= COMPARED_PICTURES:
            break
    return at_ticks, found[:COMPARED_PICTURES]


def _signed(frame: VideoFrame) -> tuple[int | None, str]:
    """The timestamp of a picture and a hash of its pixels, in the form in which they are read."""
    return frame.pts, hashlib.sha1(frame.to_ndarray(format="rgb24").tobytes()).hexdigest()


def _as_in_order(path: Path, marks: list[Mark]) -> bool:
    """Whether packets announce here what they announce when the whole file is read, whose times
    must not begin again.
    """
    in_order, number_at = _marks_in_order(version_of(path))
    if not in_order:
        raise NeverJumps(f"{path}: its times begin again")
    first = number_at.get(marks[0].place) if marks[0].place is not None else None
    if first is None:
        return False
    expected = in_order[first : first + len(marks)]
    return list(map(_announced, expected)) == list(map(_announced, marks))


def _announced(mark: Mark) -> tuple[int | None, int | None, int, bool]:
    return mark.place, mark.pts, mark.size, mark.is_keyframe


@lru_cache(maxsize=8)
def _marks_in_order(file: FileVersion) -> tuple[list[Mark], dict[int | None, int]]:
    """The marks of a whole file, and the number of the one at each place; none of a file whose
    times begin again.
    """
    with opened(file.path) as (container, stream):
        shown = frame_index.whole(container, stream, keep=False)
    marks = [] if shown.joined else shown.marks
    return marks, {mark.place: number for number, mark in enumerate(marks)}
