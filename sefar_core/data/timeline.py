"""When each frame of a video is shown, read from its packets without decoding one.

A file's own count of frames cannot be trusted: a clip cut without re-encoding still counts the
frames before the cut. Packets can: those not marked for discarding are the frames that are shown,
and their timestamps, sorted, say when. Decoding in order and counting then names each frame.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

ROUNDING_S = 1e-6
"""Forgiven when a moment meant to be k / fps falls just short of it."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The frames shown in a file or in a stretch of it.

    Attributes:
        packets: what has to be decoded, in decoding order, from a keyframe on.
        times_s: when each frame appears, ascending, seconds from the file's first shown frame.
        end_s: when the last of them disappears.
        stamps: the timestamp of each frame, ascending; none where they do not name each frame.
        constant_rate: the frames follow one another evenly, at the rate that the file states.
    """

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
    return _timeline(list(_packets(container, stream)), stream, origin=None)


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
        packets, goes_on = _until(_packets(container, stream), stop)
        if seek_to <= first_packet or (packets and _shown(packets[0]) <= target):
            found = _timeline(packets, stream, origin=origin)
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
        "truncated": stream.frames > len(shown.packets),
        "edit_list": any(packet.is_discard for packet in shown.packets),
        "open_gop": _has_open_gop(shown.packets),
        "corrupt": any(packet.is_corrupt for packet in shown.packets),
        "variable_rate": not shown.constant_rate,
        "rotated": rotated,
    }
    return tuple(name for name, holds in tests.items() if holds)


def _has_open_gop(packets: list[Packet]) -> bool:
    keyframe_pts = 0
    for packet in packets:
        if packet.pts is None:
            return False
        if packet.is_keyframe:
            keyframe_pts = packet.pts
        elif packet.pts < keyframe_pts:
            return True
    return False


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
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
    for packet in _packets(container, stream):
        decoded = packet.dts if packet.dts is not None else _shown(packet)
        first_packet = decoded if first_packet is None else first_packet
        if origin is not None and decoded >= origin:
            break
        if not packet.is_discard:
            origin = _shown(packet) if origin is None else min(origin, _shown(packet))
    if first_packet is None or origin is None:
        raise EOFError("it holds no frame")
    return first_packet, origin


def _shown(packet: Packet) -> int:
    """When a packet's frame is shown, in ticks; old AVI files only say when it is decoded."""
    if packet.pts is not None:
        return packet.pts
    return packet.dts if packet.dts is not None else 0


def _time_base(stream: VideoStream):
    if stream.time_base is None:
        raise EOFError("it has no time base")
    return stream.time_base


def _timeline(packets: list[Packet], stream: VideoStream, *, origin: int | None) -> Timeline:
    shown = [packet for packet in packets if not packet.is_discard]
    if not shown:
        raise EOFError("it holds no frame")
    tick = float(_time_base(stream))
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    stamps = np.sort([_shown(packet) for packet in shown])
    stamps = stamps[stamps >= _shown(packets[0])]
    times_s = (stamps - (stamps[0] if origin is None else origin)) * tick
    count = np.round(times_s * rate)
    # Some formats round times to a millisecond: what lies that near to k / rate is k / rate.
    if rate and (np.diff(count) == 1).all() and (abs(count / rate - times_s) <= 1.01 * tick).all():
        times_s, step_s, constant_rate = count / rate, 1 / rate, True
    else:
        last = max(shown, key=_shown)
        step_s, constant_rate = (last.duration or 0) * tick or _usual_step(times_s), False
    return Timeline(
        packets=packets,
        times_s=times_s,
        end_s=float(times_s[-1] + step_s),
        stamps=stamps if _name_each_frame(packets) else None,
        constant_rate=constant_rate,
    )


def _name_each_frame(packets: list[Packet]) -> bool:
    """Each packet has a timestamp of its own, not before its decoding."""
    stamps = {packet.pts for packet in packets}
    return len(stamps) == len(packets) and all(
        packet.pts is not None and (packet.dts is None or packet.dts <= packet.pts)
        for packet in packets
    )


def _usual_step(times_s: np.ndarray) -> float:
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0
