"""Whether a packet that its container calls a keyframe needs nothing before it, by its bytes.

Containers also flag recovery points, from which pictures become whole little by little, and some
flag every packet.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from av.packet import Packet
from av.video.stream import VideoStream

START_CODE = b"\x00\x00\x01"
IDR_SLICE = 5
H264_SLICES = range(1, 6)
SUPPLEMENT = 6
RECOVERY_POINT = 6
HEVC_SLICES = range(32)
HEVC_KEYFRAMES = range(16, 24)
MPEG4_PICTURE = b"\x00\x00\x01\xb6"
MPEG2_PICTURE = b"\x00\x00\x01\x00"


def begins_anew(packet: Packet) -> bool:
    """Whether decoding may begin at a packet: all that is shown from it on comes out right.

    What is shown before it may need earlier pictures all the same. Of a codec that is not looked
    into, the container's word is taken.
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
    """Whether a packet that is marked as a keyframe is none to begin at."""
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
    """An IDR picture, or one whose supplement says that recovery takes no further frames.

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
