"""When each frame of a video is shown, read from its packets without decoding one.

A file's own count of frames cannot be trusted: a clip cut without re-encoding still counts the
frames before the cut. Packets can: those not marked for discarding are the frames that are shown,
and their timestamps, sorted, say when. Decoding in order and counting then names each frame.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

ROUNDING_S = 1e-6
"""Forgiven when a moment meant to be k / fps falls just short of it."""


class Mark(NamedTuple):
    """What a packet says of its frame, without the frame: see `av.Packet`."""

    pts: int | None
    dts: int | None
    duration: int | None
    is_keyframe: bool
    is_discard: bool
    is_corrupt: bool


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The frames shown in a file or in a stretch of it.

    Attributes:
        marks: of every packet, in decoding order, from a keyframe on.
        packets: the same, to be decoded; empty in an outline.
        times_s: when each frame appears, ascending, seconds from the file's first shown frame.
        end_s: when the last of them disappears.
        stamps: the timestamp of each frame, ascending; none where they do not name each frame.
        constant_rate: the frames follow one another evenly, at the rate that the file states.
    """

    marks: list[Mark]
    packets: list[Packet]
    times_s: np.ndarray
    end_s: float
    stamps: np.ndarray | None
    constant_rate: bool

    def shown_at(self, moments_s: np.ndarray) -> np.ndarray:
        """Number of the frame (0-based, within the timeline) shown at each moment."""
        return np.searchsorted(self.times_s, moments_s + ROUNDING_S, side="right") - 1

    def decode(self) -> Iterator[VideoFrame]:
        """The shown frames in order, as the decoder counts them.

        It leaves out what is marked for discarding and, by itself, frames shown before the first
        keyframe, whose references are missing; `times_s` has neither.
        """
        for packet in self.packets:
            yield from packet.decode()
        yield from self.packets[0].stream.decode(None)


def whole(container: InputContainer, stream: VideoStream) -> Timeline:
    """Every frame of the file.

    Raises:
        av.FFmpegError: the packets cannot be read.
        EOFError: there is none.
    """
    packets = list(packets_of(container, stream))
    return _timeline([mark_of(packet) for packet in packets], packets, stream, origin=None)


def outline(marks: list[Mark], stream: VideoStream) -> Timeline:
    """As `whole`, but nothing is kept that could be decoded: hours of video take some megabytes.

    Args:
        marks: of all packets of the file.
        stream: that they are of.

    Raises:
        EOFError: there is none.
    """
    return _timeline(marks, [], stream, origin=None)


def stretch(
    container: InputContainer, stream: VideoStream, start_s: float, end_s: float | None
) -> Timeline:
    """The frames from the last keyframe at or before `start_s` to `end_s` (None: the file's end).

    Raises:
        av.FFmpegError: the packets cannot be read, or the format cannot seek.
        EOFError: there is none.
    """
    first_packet, origin = _beginning(container, stream)
    ticks_per_s = 1 / float(_time_base(stream))
    target = origin + start_s * ticks_per_s
    stop = None if end_s is None else origin + end_s * ticks_per_s
    seek_to, step_back = target, ticks_per_s
    while True:
        container.seek(max(int(seek_to), first_packet), stream=stream)
        packets, goes_on = _until(packets_of(container, stream), stop)
        if seek_to <= first_packet or (packets and _shown(packets[0]) <= target):
            marks = [mark_of(packet) for packet in packets]
            found = _timeline(marks, packets, stream, origin=origin)
            # What comes later is shown later: until then there is no end.
            return replace(found, end_s=max(found.end_s, end_s)) if goes_on and end_s else found
        # An index by decoding time, or none, can lead to a keyframe that is shown too late.
        seek_to -= step_back
        step_back *= 2


def oddities(stream: VideoStream, shown: Timeline, *, rotated: bool) -> tuple[str, ...]:
    """What readers that trust a file's header or index stumble over, by name.

    - `truncated`: the header counts more frames than are stored;
    - `edit_list`: frames are stored that are not shown;
    - `open_gop`: a frame is shown before the keyframe that it is decoded after;
    - `corrupt`: the container marks packets as damaged;
    - `variable_rate`: frames do not follow one another evenly;
    - `rotated`: the picture is stored lying or upside down.
    """
    tests = {
        "truncated": stream.frames > len(shown.marks),
        "edit_list": any(mark.is_discard for mark in shown.marks),
        "open_gop": _has_open_gop(shown.marks),
        "corrupt": any(mark.is_corrupt for mark in shown.marks),
        "variable_rate": not shown.constant_rate,
        "rotated": rotated,
    }
    return tuple(name for name, holds in tests.items() if holds)


def mark_of(packet: Packet) -> Mark:
    """What a packet says of its frame."""
    return Mark(
        packet.pts,
        packet.dts,
        packet.duration,
        packet.is_keyframe,
        packet.is_discard,
        packet.is_corrupt,
    )


def _has_open_gop(marks: list[Mark]) -> bool:
    keyframe_pts = 0
    for mark in marks:
        if mark.pts is None:
            return False
        if mark.is_keyframe:
            keyframe_pts = mark.pts
        elif mark.pts < keyframe_pts:
            return True
    return False


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets with data, from the first keyframe on."""
    started = False
    for packet in container.demux(stream):
        started = started or packet.is_keyframe
        if started and packet.size:
            yield packet


def _until(packets: Iterable[Packet], stop: float | None) -> tuple[list[Packet], bool]:
    """The packets of frames that may be shown before `stop` (none is shown before its decoding),
    and whether others follow.
    """
    before: list[Packet] = []
    for packet in packets:
        if stop is not None and packet.dts is not None and packet.dts >= stop:
            return before, True
        before.append(packet)
    return before, False


def _beginning(container: InputContainer, stream: VideoStream) -> tuple[int, int]:
    """When the first packet is decoded and when the first frame is shown, in ticks."""
    first_packet: int | None = None
    origin: int | None = None
    for packet in packets_of(container, stream):
        decoded = packet.dts if packet.dts is not None else _shown(packet)
        first_packet = decoded if first_packet is None else first_packet
        if origin is not None and decoded >= origin:
            break
        if not packet.is_discard:
            origin = _shown(packet) if origin is None else min(origin, _shown(packet))
    if first_packet is None or origin is None:
        raise EOFError("it holds no frame")
    return first_packet, origin


def _shown(packet: Packet | Mark) -> int:
    """When a packet's frame is shown, in ticks; old AVI files only say when it is decoded."""
    if packet.pts is not None:
        return packet.pts
    return packet.dts if packet.dts is not None else 0


def _time_base(stream: VideoStream):
    if stream.time_base is None:
        raise EOFError("it has no time base")
    return stream.time_base


def _timeline(
    marks: list[Mark], packets: list[Packet], stream: VideoStream, *, origin: int | None
) -> Timeline:
    shown = [mark for mark in marks if not mark.is_discard]
    if not shown:
        raise EOFError("it holds no frame")
    tick = float(_time_base(stream))
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    stamps = np.sort([_shown(mark) for mark in shown])
    stamps = stamps[stamps >= _shown(marks[0])]
    times_s = (stamps - (stamps[0] if origin is None else origin)) * tick
    count = np.round(times_s * rate)
    # Some formats round times to a millisecond: what lies that near to k / rate is k / rate.
    if rate and (np.diff(count) == 1).all() and (abs(count / rate - times_s) <= 1.01 * tick).all():
        times_s, step_s, constant_rate = count / rate, 1 / rate, True
    else:
        last = max(shown, key=_shown)
        step_s, constant_rate = (last.duration or 0) * tick or _usual_step(times_s), False
    return Timeline(
        marks=marks,
        packets=packets,
        times_s=times_s,
        end_s=float(times_s[-1] + step_s),
        stamps=stamps if _name_each_frame(marks) else None,
        constant_rate=constant_rate,
    )


def _name_each_frame(marks: list[Mark]) -> bool:
    """Each packet has a timestamp of its own, not before its decoding."""
    return len({mark.pts for mark in marks}) == len(marks) and all(
        mark.pts is not None and (mark.dts is None or mark.dts <= mark.pts) for mark in marks
    )


def _usual_step(times_s: np.ndarray) -> float:
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0
