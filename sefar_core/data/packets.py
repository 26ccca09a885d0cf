"""What packets announce about their pictures, before any is decoded.

Also whether a packet that its container marks as a keyframe needs no earlier ones, by its bytes:
containers mark recovery points too, from which pictures become whole little by little, and some
mark every packet.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
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
START_CODE = b"\x00\x00\x01"
IDR_SLICE = 5
H264_SLICES = range(1, 6)
SUPPLEMENT = 6
RECOVERY_POINT = 6
HEVC_SLICES = range(32)
HEVC_KEYFRAMES = range(16, 24)
MPEG4_PICTURE = b"\x00\x00\x01\xb6"
MPEG2_PICTURE = b"\x00\x00\x01\x00"


class Mark(NamedTuple):
    """What a packet announces about its picture: see `av.Packet`."""

    pts: int | None
    dts: int | None
    duration: int | None
    size: int
    place: int | None
    """Where its bytes begin in the file, if the container stores that."""
    is_keyframe: bool
    is_discard: bool
    is_corrupt: bool
    is_hidden: bool
    """Its picture is never shown: others refer to it."""


def mark_of(packet: Packet, *, hides: bool) -> Mark:
    """The mark of a packet. Where a stream hides frames its first byte says so (RFC 6386, 9.1)."""
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


def hides_frames(stream: VideoStream) -> bool:
    """Whether a stream keeps frames that are never shown in packets of their own, as VP8 does."""
    return stream.codec_context.name == "vp8"


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets with data, from the first keyframe on. FFmpegError if they cannot be read;
    EOFError if streams turn up that were not there when the file was opened.
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
    if keyframe.pts is None or not stamps:
        return False
    return min(stamps) >= keyframe.pts and max(stamps) > keyframe.pts


def known(stamp: int | None) -> int:
    """A timestamp that an earlier check found to be there."""
    assert stamp is not None
    return stamp


def begins_anew(packet: Packet) -> bool:
    """Whether decoding may begin at a packet: all that is shown from it on comes out right.

    What is shown before it may need earlier pictures all the same. For a codec that is not parsed
    here, the container's mark counts.
    """
    if not packet.is_keyframe:
        return False
    match packet.stream.codec_context.name:
        case "h264":
            return _h264_is_whole_at_once(packet)
        case "hevc":
            kinds = (data[0] >> 1 & 0x3F for data in _units(packet) if data)
            return next((kind for kind in kinds if kind in HEVC_SLICES), -1) in HEVC_KEYFRAMES
        case "mpeg4":
            return _byte_after(packet, MPEG4_PICTURE, 0) >> 6 == 0
        case "mpeg1video" | "mpeg2video":
            return _byte_after(packet, MPEG2_PICTURE, 1) >> 3 & 7 == 1
    return True


def is_false_keyframe(packet: Packet) -> bool:
    """Whether decoding cannot begin at a packet that is marked as a keyframe."""
    return packet.is_keyframe and not begins_anew(packet)


def index_is_false(stream: VideoStream, flagged: Sequence[bool]) -> bool:
    """Whether the file's index has more keyframes than its packets, which are flagged so or not."""
    indexed = islice(stream.index_entries, len(flagged))
    return sum(entry.is_keyframe for entry in indexed) > sum(flagged)


def is_idr(packet: Packet) -> bool:
    """Whether a packet of H.264 makes the decoder forget everything before it."""
    if not packet.is_keyframe:
        return False
    return next((kind for kind, _ in h264_units(packet) if kind in H264_SLICES), 0) == IDR_SLICE


def _h264_is_whole_at_once(packet: Packet) -> bool:
    """An IDR picture, or one whose supplement states that recovery takes no further frames.

    Source: ITU-T H.264, D.2.8: periodic intra refresh takes many.
    """
    for kind, payload in h264_units(packet):
        if kind in H264_SLICES:
            return kind == IDR_SLICE
        if kind == SUPPLEMENT and _recovers_at_once(payload):
            return True
    return False


def _recovers_at_once(supplement: memoryview) -> bool:
    at = 0
    while at + 2 < len(supplement):
        kind, size = supplement[at], supplement[at + 1]
        if kind == RECOVERY_POINT:
            return bool(supplement[at + 2] & 0x80)  # 0 as an Exp-Golomb code is a single 1
        if 255 in (kind, size):
            return False
        at += 2 + size
    return False


def h264_units(packet: Packet) -> Iterator[tuple[int, memoryview]]:
    """Type and payload of the units (ITU-T H.264, 7.3.1) that a packet consists of."""
    return ((data[0] & 0x1F, data[1:]) for data in _units(packet) if data)


def _units(packet: Packet) -> Iterator[memoryview]:
    """The units of a packet of H.264 or HEVC."""
    context = packet.stream.codec_context
    data, extra = bytes(packet), context.extradata or b""
    view = memoryview(data)
    if extra[:1] == b"\x01":  # lengths, as in MP4 and Matroska
        place = 21 if context.name == "hevc" else 4
        length_size = (extra[place] & 3) + 1 if place < len(extra) else 4
        at = 0
        while at + length_size < len(data):
            size = int.from_bytes(data[at : at + length_size], "big")
            at += length_size
            yield view[at : at + size]
            at += size
        return
    at = data.find(START_CODE)  # start codes, as in a transport stream
    while at >= 0:
        behind = data.find(START_CODE, at + 3)
        yield view[at + 3 : behind if behind >= 0 else len(data)]
        at = behind


def _byte_after(packet: Packet, code: bytes, further: int) -> int:
    """A byte behind a start code; 255, which fits no keyframe, if there is none."""
    data = bytes(packet)
    at = data.find(code)
    place = at + len(code) + further
    return data[place] if at >= 0 and place < len(data) else 255
