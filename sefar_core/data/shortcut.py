"""Which packets a few frames of an H.264 video need, so that the others are never decoded.

An IDR picture forgets everything before it: decoding may begin at the last one before a wanted
frame. A picture that no other refers to (half of them, in common files) may be left out. Both are
exact by the standard, and both are told by the first bytes of a packet or by the decoder itself.
Other codecs, and files whose timestamps do not name each frame, are decoded from their beginning.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

IDR_SLICE = 5
SLICES = range(1, 6)
SUPPLEMENT = 6
RECOVERY_POINT = 6
START_CODE = b"\x00\x00\x01"


def stamped_frames(
    packets: Sequence[Packet], stamps: Sequence[int], stream: VideoStream
) -> Iterator[VideoFrame]:
    """The frames with the given timestamps, as many of them as come out, ascending.

    A damaged frame is given too, wanted or not: what it is patched with, and so what the frames
    that refer to it look like, depends on frames that may have been left out.

    Args:
        packets: of a stretch of the file in decoding order, the first one a keyframe.
        stamps: timestamps of frames shown in it, ascending.
        stream: of the packets. Its decoder is left as if fresh.
    """
    decoder = stream.codec_context
    wanted = set(stamps)
    for start, stop in runs(packets, stamps, stream):
        for packet in packets[start:stop]:
            decoder.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            yield from (f for f in packet.decode() if f.pts in wanted or f.is_corrupt)
        decoder.skip_frame = "DEFAULT"
        yield from (f for f in stream.decode(None) if f.pts in wanted or f.is_corrupt)
        decoder.flush_buffers()


def runs(
    packets: Sequence[Packet], stamps: Sequence[int], stream: VideoStream
) -> list[tuple[int, int]]:
    """First and one-past-last packet of each stretch that has to be decoded, in order."""
    place = {packet.pts: number for number, packet in enumerate(packets)}
    begins = [n for n, packet in enumerate(packets) if n == 0 or _is_fresh_start(packet, stream)]
    found: list[tuple[int, int]] = []
    for needed in sorted(place[stamp] for stamp in stamps):
        start = begins[int(np.searchsorted(begins, needed, side="right")) - 1]
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], needed + 1)
        else:
            found.append((start, needed + 1))
    return found


def _is_fresh_start(packet: Packet, stream: VideoStream) -> bool:
    """Whether decoding may begin here: the keyframe of an open group of pictures will not do."""
    if not packet.is_keyframe:
        return False
    first = next((kind for kind, _ in _units(packet, stream) if kind in SLICES), None)
    return first == IDR_SLICE


def is_whole_at_once(packet: Packet, stream: VideoStream) -> bool:
    """Whether a keyframe of H.264, and all that is shown after it, needs nothing before it.

    An IDR picture does not, nor does one whose supplement (ITU-T H.264, D.2.8) says that recovery
    takes no further frames; periodic intra refresh takes many.
    """
    for kind, payload in _units(packet, stream):
        if kind in SLICES:
            return kind == IDR_SLICE
        if kind == SUPPLEMENT and _recovers_at_once(payload):
            return True
    return False


def _recovers_at_once(supplement: bytes) -> bool:
    at = 0
    while at + 2 < len(supplement):
        kind, size = supplement[at], supplement[at + 1]
        if kind == RECOVERY_POINT:
            return bool(supplement[at + 2] & 0x80)  # 0 as an Exp-Golomb code is a single 1
        if 255 in (kind, size):
            return False
        at += 2 + size
    return False


def _units(packet: Packet, stream: VideoStream) -> Iterator[tuple[int, bytes]]:
    """Type and payload of the units (ITU-T H.264, 7.3.1) that a packet consists of."""
    data = bytes(packet)
    extra = stream.codec_context.extradata or b""
    if extra[:1] == b"\x01":  # lengths, as in MP4 and Matroska
        length_size = (extra[4] & 3) + 1
        at = 0
        while at + length_size < len(data):
            size = int.from_bytes(data[at : at + length_size], "big")
            at += length_size
            yield data[at] & 31, data[at + 1 : at + size]
            at += size
        return
    at = data.find(START_CODE)  # start codes, as in a transport stream
    while at >= 0 and at + 3 < len(data):
        behind = data.find(START_CODE, at + 3)
        yield data[at + 3] & 31, data[at + 4 : behind if behind >= 0 else len(data)]
        at = behind
