"""What is done to the packets or the bytes of a numbered video after it is encoded.

Real files get these structures from programs that cut, join and repair without decoding, and from
encoders that PyAV does not have.
"""

from collections.abc import Callable, Sequence

import av

from tests.oracles.numbered_videos import RATE, repacked

MP4_TICKS = 12_800
"""A second of the film's track in an MP4 of 25 pictures a second, as FFmpeg writes it."""
HIDDEN = (4, 13, 14, 31)
"""Places of pictures that are never shown."""
SHOW_FRAME = 0x10
"""Bit of the first byte of a VP8 picture (RFC 6386, 9.1)."""
PICTURE = b"\x00\x00\x01\xb6"
"""Start code of an MPEG-4 picture (ISO/IEC 14496-2, 6.2.5)."""
B_PICTURE = 2

Packets = list[av.Packet]
Change = Callable[[Packets], Sequence[av.Packet]]


def from_second_keyframe(packets: Packets) -> Packets:
    keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
    return packets[keys[1] :]


def from_inside_a_group(packets: Packets) -> Packets:
    return packets[5:]


def flagged(is_key: Callable[[int], bool]) -> Change:
    """Packets called keyframes by their place, whatever they are."""

    def change(packets: Packets) -> Packets:
        for place, packet in enumerate(packets):
            packet.is_keyframe = is_key(place)
        return packets

    return change


def earlier_by(count: int) -> Change:
    """Times before 0 for the first `count` pictures, which an edit list then hides."""

    def change(packets: Packets) -> Packets:
        for packet in packets:
            shift = round(count / RATE / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        return packets

    return change


def edited(*parts: tuple[int, int]) -> Callable[[bytes], bytes]:
    """The entries of an MP4's edit list made to show, one after another, so many pictures (second
    number of a part) from one on (first number). The file has to have as many entries.
    """

    def patch(content: bytes) -> bytes:
        at = content.index(b"elst") + 8
        count = int.from_bytes(content[at : at + 4], "big")
        assert count == len(parts), f"{count} entries"
        entries = at + 4
        size = 12
        last = entries + size * (count - 1)
        origin = int.from_bytes(content[last + 4 : last + 8], "big")
        made = b""
        for first, number in parts:
            begins = origin + first * MP4_TICKS // RATE
            made += (1000 * number // RATE).to_bytes(4, "big") + begins.to_bytes(4, "big")
            made += (1 << 16).to_bytes(4, "big")  # speed
        return content[:entries] + made + content[entries + len(made) :]

    return patch


def without_sync_table(content: bytes) -> bytes:
    """An MP4 in which every picture counts as one to start from."""
    return content.replace(b"stss", b"free")


def first_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def hidden(packets: Packets) -> Packets:
    """VP8 pictures at the places `HIDDEN` decoded and not shown, as alternate references are; they
    bear the time of the picture behind them.
    """
    made: Packets = []
    shown = 0
    for place, packet in enumerate(packets):
        data = bytes(packet)
        if place in HIDDEN:
            data = bytes([data[0] & ~SHOW_FRAME]) + data[1:]
        made.append(repacked(packet, data))
        made[-1].pts = made[-1].dts = round(shown / RATE / packet.time_base)
        shown += place not in HIDDEN
    return made


def packed(packets: Packets) -> Packets:
    """MPEG-4 as DivX stores it in AVI: a B-picture in the packet of the picture that it refers to,
    and an empty picture in the next packet.
    """
    made: Packets = []
    for place, packet in enumerate(packets):
        data = _signed_as_divx(bytes(packet))
        if data[data.index(PICTURE) + 4] >> 6 == B_PICTURE:
            later = bytes(made[-1])
            made[-1] = repacked(made[-1], later + data)
            data = _empty_picture(later)
        made.append(repacked(packet, data))
        made[-1].pts = made[-1].dts = place
    return made


def _signed_as_divx(data: bytes) -> bytes:
    """The `p` in the encoder's name marks B-pictures as packed."""
    start = data.find(b"Lavc")
    if start < 0:
        return data
    return data[:start] + b"DivX503b1393p" + data[data.index(b"\x00\x00\x01", start) :]


def _empty_picture(data: bytes) -> bytes:
    """A picture with the time of `data`, whose bit "coded" is 0."""
    start = data.index(PICTURE) + len(PICTURE)
    bits = "".join(f"{byte:08b}" for byte in data[start : start + 4])
    seconds_end = bits.index("0", 2) + 1
    marker, ticks = 1, 5  # bits; a tick is 1/25 s
    bits = bits[: seconds_end + marker + ticks + marker] + "0"
    bits += "0" + "1" * (-(len(bits) + 1) % 8)
    return PICTURE + int(bits, 2).to_bytes(len(bits) // 8, "big")
