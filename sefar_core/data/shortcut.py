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

from sefar_core.data.keyframes import is_idr


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
    for start, stop in runs(packets, stamps):
        for packet in packets[start:stop]:
            decoder.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            yield from (f for f in packet.decode() if f.pts in wanted or f.is_corrupt)
        decoder.skip_frame = "DEFAULT"
        yield from (f for f in stream.decode(None) if f.pts in wanted or f.is_corrupt)
        decoder.flush_buffers()


def runs(packets: Sequence[Packet], stamps: Sequence[int]) -> list[tuple[int, int]]:
    """First and one-past-last packet of each stretch that has to be decoded, in order."""
    place = {packet.pts: n for n, packet in enumerate(packets) if not packet.is_discard}
    begins = [n for n, packet in enumerate(packets) if n == 0 or is_idr(packet)]
    found: list[tuple[int, int]] = []
    for needed in sorted(place[stamp] for stamp in stamps):
        start = begins[int(np.searchsorted(begins, needed, side="right")) - 1]
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], needed + 1)
        else:
            found.append((start, needed + 1))
    return found
