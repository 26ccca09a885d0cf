"""Pictures that bear their number, and video files made of them in many ways.

A picture is read back as a fact: what comes out of a reader is the number of the picture, whatever
the file's timestamps, index or header say. The number is there twice, as eight black or white
cells and as their complement beneath, so that a damaged or blended picture is noticed and not
misread. Four colors above the cells give a turned or mirrored picture away.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 8
COLORS = ((200, 40, 40), (40, 160, 60), (50, 60, 200), (220, 200, 60))
COLOR_TOLERANCE = 60
"""Of 255. Chroma at half the size and a coarse quantizer shift a small patch that far."""
RATE = 25
SIZE = (96, 64)
"""Width and height."""
TICK_S = Fraction(1, 8 * RATE)
"""Unit of uneven times."""
SOUND_RATE = 48_000

FIRST_ROW_AND_COLUMN = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
TURNS = {
    1: (0, False, False),
    2: (0, True, False),
    3: (180, False, False),
    4: (0, False, True),
    5: (90, False, True),
    6: (-90, False, False),
    7: (-90, False, True),
    8: (90, False, False),
}
"""Degrees counterclockwise, then mirrored left to right, then top to bottom: what shows a picture
upright that is stored in an orientation.
"""

Options = Mapping[str, str]


class UnreadableNumber(Exception):
    """A picture that bears no number, or not upright."""


def numbered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The picture with this number, from 0 to 255: RGB, of an even width and height."""
    width, height = size
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    top, middle, bottom = _rows(height)
    for place, color in zip(_parts(width, len(COLORS)), COLORS, strict=True):
        picture[top, place] = color
    for bit, place in enumerate(_parts(width, BITS)):
        white = number >> bit & 1
        picture[middle, place] = 255 * white
        picture[bottom, place] = 255 * (1 - white)
    return picture


def read_number(picture: np.ndarray) -> int:
    """The number that a picture bears, at any size.

    Raises:
        UnreadableNumber: a cell is gray, the two rows contradict, or the colors are out of place.
    """
    height, width = picture.shape[:2]
    top, middle, bottom = _rows(height)
    for place, color in zip(_parts(width, len(COLORS)), COLORS, strict=True):
        found = _inside(picture[top, place]).reshape(-1, 3).mean(axis=0)
        if abs(found - color).max() > COLOR_TOLERANCE:
            raise UnreadableNumber(f"a color of {found.round()} in place of {color}")
    number = 0
    for bit, place in enumerate(_parts(width, BITS)):
        white, black = (_inside(picture[rows, place]).mean() for rows in (middle, bottom))
        if abs(white - black) < 128:
            raise UnreadableNumber(f"bit {bit} is {white:.0f} and its complement {black:.0f}")
        number |= int(white > black) << bit
    return number


def read_numbers(pictures: Iterable[np.ndarray]) -> list[int]:
    """The number of each picture."""
    return [read_number(np.asarray(picture)) for picture in pictures]


def _rows(height: int) -> tuple[slice, slice, slice]:
    top, middle, bottom = _parts(height, 3)
    return top, middle, bottom


def _parts(length: int, count: int) -> list[slice]:
    edges = [round(length * part / count) for part in range(count + 1)]
    return [slice(start, stop) for start, stop in zip(edges, edges[1:], strict=False)]


def _inside(cell: np.ndarray) -> np.ndarray:
    height, width = cell.shape[:2]
    return cell[height // 4 : -(height // 4), width // 4 : -(width // 4)]


def write(
    path: Path,
    codec: str,
    numbers: Iterable[int],
    options: Options,
    *,
    begins: Fraction | int = 0,
    muxer: Options | None = None,
    **how: Any,
) -> Path:
    """Encode the numbered pictures into a file.

    Args:
        path: of the result; its ending chooses the container unless `how` has a `format`.
        codec: name of an encoder.
        numbers: of the pictures, in the order of display.
        options: of the encoder.
        begins: when the first picture is shown, seconds.
        muxer: options of the container.
        how: `format`: the container's name; `rate`: pictures a second; `ticks`: the time of each
            picture in units of TICK_S, where they are not even; `size`; `sound`: the encoder of a
            sound track that begins at 0; `aspect`: of a pixel; `exif`: the number of the
            orientation in which pictures are stored.
    """
    ticks = how.get("ticks")
    base = TICK_S if ticks else 1 / Fraction(how.get("rate", RATE))
    with av.open(str(path), "w", format=how.get("format"), options=dict(muxer or {})) as output:
        stream = add_film(output, codec, options, how)
        stream.codec_context.time_base = base
        sound = output.add_stream(how["sound"], rate=SOUND_RATE) if "sound" in how else None
        for place, number in enumerate(numbers):
            frame = video_frame(number, stream, how.get("exif", 1))
            frame.time_base = base
            frame.pts = int(begins / base) + (ticks[place] if ticks else place)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if sound is not None:
            output.mux(list(silence(sound, frame.pts * base)))
    return path


def add_film(
    output: av.container.OutputContainer, codec: str, options: Options, how: Mapping[str, Any]
) -> av.VideoStream:
    stream = output.add_stream(codec, rate=how.get("rate", RATE), options=dict(options))
    stream.width, stream.height = how.get("size", SIZE)
    stream.pix_fmt = how.get("pix_fmt", "yuv420p")
    stream.codec_context.thread_count = 1
    if "aspect" in how:
        stream.codec_context.sample_aspect_ratio = how["aspect"]
    if "exif" in how:
        stream.set_display_rotation(*TURNS[how["exif"]])
    return stream


def video_frame(number: int, stream: av.VideoStream, exif: int = 1) -> av.VideoFrame:
    """A numbered picture in the stream's size and pixel format, stored in an orientation."""
    size = (stream.width, stream.height)
    picture = stored(numbered(number, size[::-1] if exif >= 5 else size), exif)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return frame.reformat(format=stream.pix_fmt)


def stored(picture: np.ndarray, exif: int) -> np.ndarray:
    """An upright picture as a file stores it that gives its EXIF orientation by this number.

    The first row and column stored are the named sides of the upright picture: top and left for
    1, top and right for 2, and so on in the order of `FIRST_ROW_AND_COLUMN` (Exif 2.32, 4.6.4).
    """
    sides = FIRST_ROW_AND_COLUMN[exif]
    if "bottom" in sides:
        picture = picture[::-1]
    if "right" in sides:
        picture = picture[:, ::-1]
    return picture if sides[0] in ("top", "bottom") else picture.transpose(1, 0, 2)


def silence(stream: av.AudioStream, seconds: Fraction) -> Iterator[av.Packet]:
    """Packets of a silent sound track."""
    context = stream.codec_context
    if not context.is_open:
        context.open()
    size = context.frame_size or 1024
    channels = len(context.layout.channels)
    for start in range(0, int(seconds * SOUND_RATE), size):
        shape = (channels, size) if context.format.is_planar else (1, channels * size)
        dtype = np.float32 if context.format.name.startswith("flt") else np.int16
        frame = av.AudioFrame.from_ndarray(
            np.zeros(shape, dtype), format=context.format.name, layout=context.layout.name
        )
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
        yield from stream.encode(frame)
    yield from stream.encode()


def remux(
    source: Path,
    path: Path,
    change: Callable[[list[av.Packet]], Sequence[av.Packet]],
    *,
    muxer: Options | None = None,
) -> Path:
    """Copy the film's packets, changed, into another file without encoding them anew."""
    with av.open(str(source)) as whole:
        template = whole.streams.video[0]
        packets = [packet for packet in whole.demux(template) if packet.size]
        with av.open(str(path), "w", options=dict(muxer or {})) as output:
            copy = output.add_stream_from_template(template)
            for packet in change(packets):
                packet.stream = copy
                output.mux(packet)
    return path


def repacked(packet: av.Packet, data: bytes) -> av.Packet:
    """Another packet's place in time with other bytes."""
    made = av.Packet(data)
    made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
    made.time_base, made.is_keyframe = packet.time_base, packet.is_keyframe
    return made


def decoded_in_order(path: Path) -> list[int]:
    """Numbers of all pictures that a bare decoder gives, in the order in which they come out."""
    with av.open(str(path)) as container:
        return read_numbers(f.to_ndarray(format="rgb24") for f in container.decode(video=0))
