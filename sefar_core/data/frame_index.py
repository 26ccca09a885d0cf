"""When each picture of a video is shown, by its packets.

A file's own count of frames cannot be trusted: a clip cut without re-encoding still counts the
frames before the cut. Packets announce pictures: those not marked for discarding, nor hidden by
their codec, are shown, and their timestamps, sorted, say when. What packets announce is compared
with what the decoder gives whenever pictures are read (decode.py). `oddities` names what readers
that trust a file's header, index or timestamps stumble over.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from av.container import Container, InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sefar_core.data.packets import (
    Mark,
    hides_frames,
    is_joined,
    known,
    mark_of,
    packets_of,
    parts_of,
    shown_marks,
)

REORDERING = ("h264", "hevc")
"""Codecs of which a stream need not say beforehand that its pictures are reordered."""
ROUNDING_S = 1e-6
"""Forgiven when a time meant to be k / fps falls just short of it."""
LAST_TICK = 2.0**62
"""The latest timestamp that FFmpeg accepts in a seek."""
MICROSECOND = 1e-6
"""Unit of a container's start time."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """The facts in the packets and the first picture of a file; sizes in pixels, upright."""

    num_frames: int
    """Frames that are shown, which can be fewer than the file's header says."""
    times_s: tuple[float, ...]
    """When each appears, seconds from the file's beginning, as players count."""
    duration_s: float
    """From the first frame's appearance to the last one's end."""
    fps: float
    """Shown frames per second, on average."""
    width: int
    height: int
    rotation: int
    """Degrees counterclockwise that turn the stored picture upright: 0, 90, 180, 270."""
    codec: str
    container: str
    flags: tuple[str, ...]
    """What readers that trust the header stumble over; see `oddities`."""

    @property
    def end_s(self) -> float:
        """When the last frame disappears, seconds from the file's beginning."""
        return self.times_s[0] + self.duration_s


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The pictures shown in a file, or in a stretch of it."""

    marks: list[Mark]
    """Of every packet, in decoding order, from a keyframe on."""
    packets: list[Packet]
    """The same, to be decoded; empty in an outline."""
    stream: VideoStream
    times_s: np.ndarray
    """When each picture appears, ascending; as players count, from the container's beginning."""
    end_s: float
    """When the last of them disappears."""
    stamps: np.ndarray | None
    """The timestamp that the decoder gives with each picture, ascending; None where packets leave
    it open, so that pictures can only be counted."""
    constant_rate: bool
    """The pictures follow one another evenly, at the rate that the file states."""
    joined: bool = False
    """Times begin again, once or more; the parts follow one another."""
    jumped: bool = False
    """Decoding begins in the middle of the file."""
    goes_on: bool = False
    """There are packets behind the last one."""

    @property
    def begins_in_doubt(self) -> bool:
        """Pictures are announced before the first keyframe's, which may or may not come out."""
        first = self.marks[0]
        if self.stamps is None or first.is_discard or first.pts is None:
            return False
        return any(
            mark.pts is not None and mark.pts < first.pts for mark in shown_marks(self.marks)
        )

    @property
    def is_cut_off(self) -> bool:
        """The file's index lists packets behind the last one, which are not there."""
        last = self.marks[-1].dts
        if "mov" not in self.stream.container.format.name or last is None or self.goes_on:
            return False
        index = self.stream.index_entries
        behind = (index[place] for place in range(len(index) - 1, -1, -1))
        # An entry without bytes holds nothing that could be lost.
        return next((entry.timestamp > last for entry in behind if entry.size), False)

    def numbers_at(self, timestamps_s: np.ndarray) -> np.ndarray:
        """Number of the picture (0-based, within the timeline) shown at each time."""
        return numbers_at(self.times_s, timestamps_s)

    @property
    def may_tell_decoding(self) -> bool:
        """Timestamps follow the order of the packets although the decoder may reorder them: they
        may say when pictures are decoded.
        """
        if not self.stream.codec_context.has_b_frames or len(self.marks) == 1:
            return False
        if all(mark.is_keyframe for mark in self.marks):
            return False
        stamps = [mark.pts for mark in self.marks if mark.pts is not None]
        return all(one < other for one, other in zip(stamps, stamps[1:], strict=False))


def numbers_at(times_s: np.ndarray | Sequence[float], timestamps_s: np.ndarray) -> np.ndarray:
    """Number of the last picture that has appeared at each time, or of the first before it has.

    `times_s` says when each picture appears, ascending; timestamps come in any order.
    """
    numbers = np.searchsorted(times_s, timestamps_s + ROUNDING_S, side="right") - 1
    return np.maximum(numbers, 0)


def whole(container: InputContainer, stream: VideoStream, *, keep: bool = True) -> Timeline:
    """Every picture of the file; with `keep` the packets too, to be decoded: hours of video take
    as much memory as their file. FFmpegError if the packets cannot be read; EOFError as `outline`.
    """
    packets, marks, hides = [], [], hides_frames(stream)
    for packet in packets_of(container, stream):
        marks.append(mark_of(packet, hides=hides))
        if keep:
            packets.append(packet)
    return replace(outline(marks, container, stream), packets=packets)


def outline(
    marks: list[Mark], container: InputContainer, stream: VideoStream, *, first: int | None = None
) -> Timeline:
    """As `whole`, by the marks of all packets: hours of video take some megabytes.

    `first` is the timestamp of the first picture that came out, if one was decoded. EOFError if
    there is none, or nothing says when pictures are shown.
    """
    if not marks:
        raise EOFError("it holds no frame")
    joined = is_joined(marks, container)
    named = None if joined else _named(marks, container, stream)
    if named is not None and first is not None:
        # Pictures shown before the first keyframe come out where they can be decoded without it.
        named = np.sort([m.pts for m in shown_marks(marks) if m.pts is not None and m.pts >= first])
    stamps = _counted(marks, container, stream) if named is None else named
    origin = origin_of(container, stream, int(stamps[0]))
    return replace(_timeline(marks, stream, stamps, named, origin), joined=joined)


def stretch(
    container: InputContainer, stream: VideoStream, start_s: float, end_s: float | None
) -> Timeline | None:
    """The pictures from the last keyframe at or before `start_s` to `end_s` (None: the file's end).

    None if timestamps do not name the pictures there; decoding then begins at the beginning.
    FFmpegError if the packets cannot be read, or the format cannot seek; EOFError if there is none.
    """
    found_first = beginning(container, stream)
    if found_first is None:
        return None
    first, first_stamp = found_first
    first_packet = known(first.pts if first.dts is None else first.dts)
    origin = origin_of(container, stream, first_stamp)
    ticks_per_s = 1 / float(time_base_of(stream))
    target = min(origin + start_s * ticks_per_s, LAST_TICK)
    stop = None if end_s is None else origin + end_s * ticks_per_s
    packets, goes_on = _from_keyframe(container, stream, first_packet, target, stop)
    hides = hides_frames(stream)
    marks = [mark_of(packet, hides=hides) for packet in packets]
    if not marks or is_joined(marks, container):
        return None
    stamps = _named(marks, container, stream)
    if stamps is None:
        return None
    found = _timeline(marks, stream, stamps, stamps, origin, first_stamp=first_stamp)
    # What comes later is shown later: until then there is no end.
    last_s = max(found.end_s, end_s) if goes_on and end_s else found.end_s
    found = replace(found, packets=packets, end_s=last_s, jumped=marks[0] != first, goes_on=goes_on)
    return None if found.may_tell_decoding else found


def _from_keyframe(
    container: InputContainer,
    stream: VideoStream,
    first_packet: int,
    target: float,
    stop: float | None,
) -> tuple[list[Packet], bool]:
    """The packets from the last keyframe shown at or before `target`, as `_until` gives them."""
    seek_to, step_back = target, 1 / float(time_base_of(stream))
    while True:
        container.seek(max(int(seek_to), first_packet), stream=stream)
        packets, goes_on = _until(packets_of(container, stream), stop)
        reached = packets and packets[0].pts is not None and packets[0].pts <= target
        if seek_to <= first_packet or reached:
            return packets, goes_on
        # An index by decoding time, or none, can lead to a keyframe that is shown too late.
        seek_to -= step_back
        step_back *= 2


def _until(packets: Iterable[Packet], stop: float | None) -> tuple[list[Packet], bool]:
    """The packets of frames that may be shown before `stop` (none is shown before its decoding),
    and whether others follow.
    """
    before: list[Packet] = []
    for packet in packets:
        decoded_at = None if packet.is_discard else packet.dts
        if stop is not None and decoded_at is not None and decoded_at >= stop:
            return before, True
        before.append(packet)
    return before, False


def beginning(container: InputContainer, stream: VideoStream) -> tuple[Mark, int] | None:
    """The first packet, and when the first picture is shown, in ticks; None if packets do not say
    so, or announce pictures before the first keyframe's, which may or may not come out.
    """
    first: Mark | None = None
    first_stamp: int | None = None
    hides = hides_frames(stream)
    for packet in packets_of(container, stream):
        mark = mark_of(packet, hides=hides)
        if mark.pts is None:
            return None
        first = first or mark
        if first_stamp is not None and (mark.pts if mark.dts is None else mark.dts) >= first_stamp:
            break
        if mark.is_discard or mark.is_hidden:
            continue
        if not first.is_discard and mark.pts < known(first.pts):
            return None
        first_stamp = mark.pts if first_stamp is None else min(first_stamp, mark.pts)
    return None if first is None or first_stamp is None else (first, first_stamp)


def origin_of(container: InputContainer, stream: VideoStream, first_stamp: int) -> int:
    """The time that players and annotators call 0, in ticks of the stream.

    It is the beginning of the container: sound can begin before the first picture. A beginning
    below 0 is sound that only prepares its decoder, and is not played.
    """
    if container.start_time is None or _tells_decoding_only(container):
        return first_stamp
    beginning = round(container.start_time * MICROSECOND / float(time_base_of(stream)))
    return min(first_stamp, max(beginning, 0))


def time_base_of(stream: VideoStream):
    """Seconds a tick of the stream lasts."""
    if stream.time_base is None:
        raise EOFError("it has no time base")
    return stream.time_base


def _rate(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 0)


def _tells_decoding_only(container: InputContainer) -> bool:
    """Whether a container stores decoding times alone, so that times of display are guessed."""
    return container.format.name == "avi"


def _named(
    marks: Sequence[Mark], container: InputContainer, stream: VideoStream
) -> np.ndarray | None:
    """The timestamp of each picture shown in one recording, ascending; None if packets leave it
    open.
    """
    context = stream.codec_context
    if _tells_decoding_only(container) and (context.has_b_frames or context.name in REORDERING):
        return None
    shown = shown_marks(marks)
    stamps = {mark.pts for mark in shown}
    if None in stamps or len(stamps) < len(shown):
        return None
    if any(mark.dts is not None and mark.pts < mark.dts for mark in shown if mark.pts is not None):
        return None
    kept = np.sort([mark.pts for mark in shown if mark.pts is not None])
    if not marks[0].is_discard:
        # Without the keyframe before them the decoder drops what is shown earlier.
        kept = kept[kept >= known(marks[0].pts)]
    return kept if len(kept) else None


def _counted(marks: Sequence[Mark], container: InputContainer, stream: VideoStream) -> np.ndarray:
    """When pictures are shown that can only be counted, ascending, in ticks.

    By their timestamps if each has one of its own, part after part where times begin again; else,
    evenly at the stream's rate.
    """
    shown = shown_marks(marks)
    if not shown:
        raise EOFError("it holds no frame")
    by_decoding = _tells_decoding_only(container)
    step = _step_ticks(shown, stream)
    parts: list[np.ndarray] = []
    for part in parts_of(shown, container):
        stamps = [mark.dts if by_decoding else mark.pts for mark in part]
        if None in stamps or len(set(stamps)) < len(stamps):
            if not _rate(stream):
                raise EOFError("its packets have no times, and it states no rate")
            return (shown[0].pts or 0) + np.round(np.arange(len(shown)) * step).astype(np.int64)
        ascending = np.sort(np.array(stamps, np.int64))
        moved = round(parts[-1][-1] + step - ascending[0]) if parts else 0
        parts.append(ascending + moved)
    return np.concatenate(parts)


def _timeline(
    marks: list[Mark],
    stream: VideoStream,
    stamps: np.ndarray,
    named: np.ndarray | None,
    origin: int,
    *,
    first_stamp: int | None = None,
) -> Timeline:
    """The timeline of pictures shown at `stamps`, in ticks; `origin` is time 0."""
    tick, rate = float(time_base_of(stream)), _rate(stream)
    first = int(stamps[0]) if first_stamp is None else first_stamp
    times_s, even = on_grid((stamps - first) * tick, rate, tick)
    last = max(shown_marks(marks), key=lambda mark: mark.pts or 0)
    step_s = (last.duration or 0) * tick
    if rate and (not step_s or abs(step_s - 1 / rate) <= 1.01 * tick):
        step_s = 1 / rate
    late_s = (first - origin) * tick
    return Timeline(
        marks=marks,
        packets=[],
        stream=stream,
        times_s=times_s + late_s,
        end_s=float(times_s[-1] + (step_s or _usual_step(times_s)) + late_s),
        stamps=named,
        constant_rate=even,
    )


def on_grid(times_s: np.ndarray, rate: float, tick: float) -> tuple[np.ndarray, bool]:
    """Times brought to multiples of 1 / rate, and whether they follow one another so, evenly.

    Some formats round times to a millisecond: a time that near to k / rate is k / rate. Each
    time by itself, so that a stretch of a file has the times that the whole file has.
    """
    if not rate:
        return times_s, False
    count = np.round(times_s * rate)
    near = abs(count / rate - times_s) <= 1.01 * tick
    even = bool(near.all() and (np.diff(count) == 1).all())
    moved = np.where(near, count / rate, times_s)
    meet = np.diff(moved) <= 0  # pictures nearer to one another than the rate says
    near &= ~(np.append(meet, False) | np.append(False, meet))
    return np.where(near, moved, times_s), even


def _usual_step(times_s: np.ndarray) -> float:
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0


def _step_ticks(shown: Sequence[Mark], stream: VideoStream) -> float:
    """The usual distance between pictures."""
    if rate := _rate(stream):
        return 1 / rate / float(time_base_of(stream))
    return float(np.median([mark.duration or 1 for mark in shown]))


def decoded(packets: Iterable[Packet], stream: VideoStream) -> Iterator[VideoFrame]:
    """The pictures of packets, in the order in which the decoder gives them.

    It leaves out, by itself, what is marked for discarding and pictures whose references are
    missing.
    """
    for packet in packets:
        yield from packet.decode()
    yield from stream.decode(None)


def settled(announced: Timeline, stamps: Sequence[int | None]) -> Timeline | None:
    """The timeline of the pictures that came out of a full decode, with these timestamps in this
    order, of a file that announced others; None if some are lost.
    """
    if len(stamps) == len(announced.times_s):
        return replace(announced, stamps=None)
    given = np.array([stamp for stamp in stamps if stamp is not None], np.int64)
    ascending = announced.joined or (np.diff(given) > 0).all()
    if len(given) < len(stamps) or len(given) == 0 or not ascending:
        return None
    tick = float(time_base_of(announced.stream))
    step = _step_ticks(shown_marks(announced.marks), announced.stream)
    if announced.joined:
        given = _in_order(given, step)
    elif _lost(announced.marks, given):
        return None
    rate = _rate(announced.stream)
    times_s, even = on_grid((given - given[0]) * tick, rate, tick)
    late_s = float(announced.times_s[0])
    if announced.stamps is not None:  # pictures may come out before the first one announced
        late_s = max(late_s + float(given[0] - announced.stamps[0]) * tick, 0.0)
    step_s = 1 / rate if even else _usual_step(times_s)
    return replace(
        announced,
        times_s=times_s + late_s,
        end_s=float(times_s[-1] + step_s + late_s),
        stamps=None,
        constant_rate=even,
    )


def _in_order(stamps: np.ndarray, step: float) -> np.ndarray:
    """Timestamps of which those that jump back are moved behind what came before."""
    moves = np.where(np.diff(stamps) <= 0, round(step) - np.diff(stamps), 0)
    return stamps + np.concatenate([[0], np.cumsum(moves)])


def _lost(marks: Sequence[Mark], stamps: np.ndarray) -> bool:
    """Whether a picture that packets announce is missing among those that came out.

    Frames that are never shown, and second fields, share the time of a picture; a lost picture
    leaves a gap.
    """
    usual = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
    announced = np.array([mark.pts for mark in shown_marks(marks) if mark.pts is not None])
    missing = np.setdiff1d(announced[announced > stamps[0]], stamps)
    before = np.searchsorted(stamps, missing) - 1
    ends = np.append(stamps[1:], stamps[-1] + usual)
    return bool((ends[before] - stamps[before] > 1.5 * usual).any() or (missing >= ends[-1]).any())


def oddities(shown: Timeline) -> tuple[str, ...]:
    """By name; docs/damage.md says what each means."""
    marks, stream, container = shown.marks, shown.stream, shown.stream.container
    is_edited = "mov" in container.format.name and stream.frames > len(stream.index_entries)
    tests = {
        "truncated": shown.is_cut_off or _promises_more(shown, container),
        "edit_list": is_edited or any(mark.is_discard for mark in marks),
        "open_gop": _has_open_gop(marks),
        "corrupt": any(mark.is_corrupt for mark in marks),
        "variable_rate": not shown.constant_rate,
        "hidden_frames": any(mark.is_hidden for mark in marks),
        "no_display_times": shown.stamps is None and not shown.joined,
        "undecided_order": shown.stamps is not None and shown.may_tell_decoding,
        "times_jump_back": shown.joined,
        "late_start": shown.times_s[0] > 0,
        "many_streams": len(container.streams.video) > 1,
    }
    return tuple(name for name, holds in tests.items() if holds)


def _promises_more(shown: Timeline, container: Container) -> bool:
    """Whether a file ends before its header says.

    The header of an AVI also counts times at which nothing new is shown, but holds its size. That
    of an MP4 counts what an edit list leaves out; its index is exact (Timeline.is_cut_off).
    """
    if "mov" in container.format.name:
        return False
    if container.format.name != "avi":
        return shown.stream.frames > len(shown.marks)
    path = Path(container.name.removeprefix("file:"))
    with path.open("rb") as file:
        stated = int.from_bytes(file.read(8)[4:], "little")
    return stated + 8 > path.stat().st_size


def _has_open_gop(marks: Sequence[Mark]) -> bool:
    keyframe_pts = 0
    for mark in marks:
        if mark.pts is None:
            return False
        if mark.is_keyframe:
            keyframe_pts = mark.pts
        elif mark.pts < keyframe_pts and not mark.is_hidden:
            return True
    return False
