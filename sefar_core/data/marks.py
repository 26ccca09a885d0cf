"""What packets say of their pictures, before any is decoded."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

SHOW_FRAME = 0x10
HELD_BACK = 17
"""One more than the pictures that a decoder can hold back (H.264 and HEVC: 16)."""
ORDERED = ("mov",)
"""Containers whose index puts packets in order, also where an edit list repeats some of them."""
FILLED_IN = ("matroska",)
"""Containers that store no decoding times: FFmpeg fills them in, not always rightly."""


class Mark(NamedTuple):
    """What a packet says of its picture, without the picture: see `av.Packet`."""

    pts: int | None
    dts: int | None
    duration: int | None
    size: int
    place: int | None
    """Where its bytes begin in the file, if the container tells."""
    is_keyframe: bool
    is_discard: bool
    is_corrupt: bool
    is_hidden: bool
    """Its picture is never shown: others refer to it."""


def hides_frames(stream: VideoStream) -> bool:
    """Whether a stream keeps frames that are never shown in packets of their own, as VP8 does."""
    return stream.codec_context.name == "vp8"


def mark_of(packet: Packet, *, hides: bool) -> Mark:
    """What a packet says of its picture.

    Args:
        packet: with data.
        hides: see `hides_frames`; its first byte tells whether this one is shown (RFC 6386,
            9.1).
    """
    return Mark(
        packet.pts,
        packet.dts,
        packet.duration,
        packet.size,
        packet.pos,
        packet.is_keyframe,
        packet.is_discard,
        packet.is_corrupt,
        hides and not memoryview(packet)[0] & SHOW_FRAME,
    )


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets with data, from the first keyframe on.

    Raises:
        av.FFmpegError: the packets cannot be read.
        EOFError: streams turn up that were not there when the file was opened.
    """
    started = False
    try:
        for packet in container.demux(stream):
            started = started or packet.is_keyframe
            if started and packet.size:
                yield packet
    except IndexError as cause:  # PyAV counts on the streams that it found first
        raise EOFError("its streams change on the way") from cause


def shown_marks(marks: Iterable[Mark]) -> list[Mark]:
    """Those whose pictures are shown."""
    return [mark for mark in marks if not mark.is_discard and not mark.is_hidden]


def parts_of(marks: Sequence[Mark], container: InputContainer) -> list[list[Mark]]:
    """Packets, parted where times begin again, as in files that were joined byte by byte.

    Decoding times never run backward within one recording, and no keyframe is shown before all of
    the packets that a decoder can hold back.
    """
    if any(name in container.format.name for name in ORDERED):
        return [list(marks)]
    filled_in = any(name in container.format.name for name in FILLED_IN)
    parts: list[list[Mark]] = [[]]
    for mark in marks:
        if parts[-1]:
            back = not filled_in and _is_before(mark.dts, parts[-1][-1].dts)
            if back or (mark.is_keyframe and _begins_again(mark, parts[-1][-HELD_BACK:])):
                parts.append([])
        parts[-1].append(mark)
    return parts


def is_joined(marks: Sequence[Mark], container: InputContainer) -> bool:
    """Whether times begin again."""
    return len(parts_of(shown_marks(marks), container)) > 1


def _is_before(stamp: int | None, other: int | None) -> bool:
    return stamp is not None and other is not None and stamp < other


def _begins_again(keyframe: Mark, before: Sequence[Mark]) -> bool:
    stamps = [mark.pts for mark in before if mark.pts is not None]
    return (
        keyframe.pts is not None
        and bool(stamps)
        and min(stamps) >= keyframe.pts
        and max(stamps) > keyframe.pts
    )


def known(stamp: int | None) -> int:
    """A timestamp of which it was found out before that there is one."""
    assert stamp is not None
    return stamp
