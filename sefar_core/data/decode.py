"""An open video file and its pictures: decoded in order, compared with what its packets announced,
upright, RGB.

Seeking by frame number silently gives wrong frames on clips cut without re-encoding and on open
groups of pictures. Here a picture is known by the timestamp that the decoder gives with it, or by
its place in a full decode.

Where an H.264 file allows it, packets that no wanted picture needs are left out; the pictures are
the same. No picture after an IDR picture refers to one before it: decoding may begin at the last
IDR picture before a wanted frame. A picture that no other refers to (half of them, in common files)
may be left out. Both are exact by the standard, and the first bytes of a packet or the decoder
itself show both.
Other codecs, and files whose timestamps do not name each frame, are decoded from their beginning.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from av.container import InputContainer
from av.filter import Graph
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from qa_data.files import SefarError
from sefar_core.data import frame_index
from sefar_core.data.frame_index import Timeline
from sefar_core.data.packets import Mark, hides_frames, is_idr, mark_of, packets_of
from sefar_core.data.pictures import side_ratio_problem

FIX = "Fetch or cut the file again; scripts/check_videos.py lists every broken file of a manifest."
PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD")
"""How files begin that name other files, which FFmpeg would read in their place."""
STILL_CODECS = ("mjpeg", "png", "bmp", "gif", "webp")
"""Of covers and thumbnails, which files carry as video streams of their own."""
DISPLAY_MATRIX = "DISPLAYMATRIX"
Sized = tuple[tuple[int, int], np.ndarray]
"""Width and height of a stored picture, and the picture."""


class VideoReadError(SefarError):
    """A video that cannot give the requested frames. The message names file, cause and fix."""


class Misnamed(VideoReadError):
    """The decoder gives other pictures than the packets announced."""


class Patched(Misnamed):
    """Decoding from a keyframe in the middle stops, or shows a picture that it patched."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its video stream, for as long as the `with` lasts. VideoReadError if it is
    missing, empty, not a video or without pictures; or reading fails inside.
    """
    if not path.is_file():
        raise VideoReadError(f"{path} does not exist or is not a file. Check the video folder.")
    if path.stat().st_size == 0:
        raise VideoReadError(f"{path} is empty (0 bytes). {FIX}")
    with path.open("rb") as file:
        if file.read(16).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(PLAYLISTS):
            raise VideoReadError(f"{path} is a list of other files, not a video. {FIX}")
    try:
        # By `file:` a colon in a name is part of the name. A title in another encoding than UTF-8
        # does not make the pictures unreadable.
        options = {"protocol_whitelist": "file"}
        name = f"file:{path}"
        with av.open(name, metadata_errors="replace", container_options=options) as container:
            if not container.streams.video:
                raise VideoReadError(f"{path} has no video stream. {FIX}")
            stream = film_stream(container)
            if stream.codec_context is None:
                raise VideoReadError(f"{path} has a video stream that no decoder reads. {FIX}")
            # A second thread costs a fifth more CPU time a clip; more loader processes do not.
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.FFmpegError, OSError, EOFError) as cause:
        raise VideoReadError(f"cannot read {path} as a video: {cause}. {FIX}") from cause


def film_stream(container: InputContainer) -> VideoStream:
    """The video stream that players show: the first one marked as default, or else the largest.

    Covers and thumbnails come last.
    """

    def rank(stream: VideoStream) -> tuple[bool, bool, bool, int]:
        context = stream.codec_context
        if context is None:
            return True, True, True, 0
        cover = Disposition.attached_pic in stream.disposition
        default = Disposition.default in stream.disposition
        area = 0 if default else context.width * context.height
        return cover, context.name in STILL_CODECS, not default, -area

    return min(container.streams.video, key=rank)


def pictures(
    path: Path, shown: Timeline, numbers: np.ndarray, short_side: int | None, *, to_end: bool
) -> UInt8[Tensor, "frame height width 3"]:
    """The pictures with these numbers (0-based, within `shown`), in any order, repeats allowed.

    With `to_end` those behind the last one wanted are decoded too, to count them all. Misnamed if
    others come out of the decoder than the packets announced; VideoReadError if it refuses a
    picture, or they are of different sizes.
    """
    wanted, places = np.unique(numbers, return_inverse=True)
    kept = _by_stamp(shown, wanted, short_side)
    kept = kept or _by_number(path, shown, wanted, short_side, to_end)
    if len({(size, picture.shape) for size, picture in kept}) > 1:
        raise VideoReadError(f"{path} changes its picture size between frames. {FIX}")
    return torch.from_numpy(np.stack([kept[place][1] for place in places]))


def _by_stamp(shown: Timeline, wanted: np.ndarray, short_side: int | None) -> list[Sized]:
    """The wanted pictures, by their timestamps; none if that does not give every one in
    order, in which case `_by_number` has the last word.
    """
    stream = shown.stream
    if shown.stamps is None or not shown.packets or shown.may_tell_decoding:
        return []
    if stream.codec_context.name != "h264":
        return []
    stamps = shown.stamps[wanted].tolist()
    convert = converter(short_side)
    kept: list[Sized] = []
    try:
        for frame in stamped_frames(shown.packets, stamps, stream):
            done = len(kept) == len(stamps)
            if frame.is_corrupt or done or frame.pts != stamps[len(kept)]:
                return []
            kept.append(((frame.width, frame.height), convert(frame)))
    except av.FFmpegError:
        return []
    finally:
        stream.codec_context.skip_frame = "DEFAULT"
        stream.codec_context.flush_buffers()
    return kept if len(kept) == len(stamps) else []


def stamped_frames(
    packets: Sequence[Packet], stamps: Sequence[int], stream: VideoStream
) -> Iterator[VideoFrame]:
    """The frames with the given timestamps, ascending, as many of them as come out of packets in
    decoding order, the first one a keyframe.

    A damaged frame is given too, wanted or not: what it is patched with, and so what the frames
    that refer to it look like, depends on frames that may have been left out.
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


def _by_number(
    path: Path, shown: Timeline, wanted: np.ndarray, short_side: int | None, to_end: bool
) -> list[Sized]:
    """The wanted pictures, in order; without need nothing behind the last is decoded."""
    convert = converter(short_side)
    kept: list[Sized] = []
    for number, frame in enumerate(verified(path, shown)):
        if len(kept) < len(wanted) and number == wanted[len(kept)]:
            kept.append(((frame.width, frame.height), convert(frame)))
        if len(kept) == len(wanted) and not to_end:
            break
    return kept


def verified(path: Path, shown: Timeline) -> Iterator[VideoFrame]:
    """The pictures shown, in order, for as long as they are those that the packets announced; else
    Misnamed. VideoReadError names the picture that the decoder refuses by its number.
    """
    if shown.packets:
        yield from _compared(path, shown, frame_index.decoded(shown.packets, shown.stream))
        return
    with opened(path) as (container, stream):
        packets = packets_of(container, stream)
        yield from _compared(path, shown, frame_index.decoded(packets, stream))


def _compared(path: Path, shown: Timeline, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    number, listed = 0, len(shown.times_s)
    try:
        for frame in frames:
            if shown.jumped and shown.stamps is not None:
                if frame.pts is not None and frame.pts < shown.stamps[0]:
                    continue  # shown before the keyframe: not of this stretch
                _refuse_unclean(frame, shown, first=number == 0)
            if number == listed or (shown.stamps is not None and frame.pts != shown.stamps[number]):
                raise Misnamed(f"{path}: picture {number} is not the one announced")
            yield frame
            number += 1
    except av.FFmpegError as cause:
        if shown.jumped:
            raise Patched(f"{path} cannot be decoded from a keyframe on: {cause}") from cause
        raise _stopped(path, cause, number, shown) from cause
    if number < listed:
        raise Misnamed(f"{path}: {number} pictures come out, {listed} are announced")


def _refuse_unclean(frame: VideoFrame, shown: Timeline, *, first: bool) -> None:
    """Raise Misnamed where decoding that began in the middle does not show what it should.

    What a damaged picture is patched with depends on what came before; and a first picture that
    others have to complete cannot be begun at.
    """
    if frame.is_corrupt:
        raise Patched(f"the picture at {frame.pts} is damaged")
    inner = frame.key_frame and frame.pict_type == PictureType.I
    if first and not inner and not shown.marks[0].is_discard:
        raise Misnamed(f"decoding does not begin cleanly at the keyframe before {frame.pts}")


def settle(path: Path, heartbeat: Callable[[], None] = lambda: None) -> Timeline:
    """The pictures that come out of a full decode, and when each is shown; a heartbeat for each.
    VideoReadError if the decoder refuses a picture, or pictures are lost.
    """
    with opened(path) as (container, stream):
        announced = frame_index.whole(container, stream, keep=False)
    marks: list[Mark] = []
    stamps: list[int | None] = []
    with opened(path) as (container, stream):
        hides = hides_frames(stream)
        try:
            for packet in packets_of(container, stream):
                marks.append(mark_of(packet, hides=hides))
                for frame in packet.decode():
                    stamps.append(frame.pts)
                    heartbeat()
            stamps += [frame.pts for frame in stream.decode(None)]
        except av.FFmpegError as cause:
            raise _stopped(path, cause, len(stamps), announced) from cause
        found = frame_index.settled(frame_index.outline(marks, container, stream), stamps)
    if found is None:
        listed = len(announced.times_s)
        raise VideoReadError(
            f"{path} lists {listed} frames, but frame {len(stamps)} does not come out of the "
            f"decoder: data is missing. {FIX}"
        )
    return found


def _stopped(path: Path, cause: av.FFmpegError, number: int, shown: Timeline) -> VideoReadError:
    listed = len(shown.times_s)
    at_s = shown.times_s[min(number, listed - 1)]
    return VideoReadError(
        f"cannot decode {path}: {cause}; {number} of {listed} frames were read before that, at "
        f"{at_s:.3f} s. {FIX}"
    )


def converter(short_side: int | None) -> Callable[[VideoFrame], np.ndarray]:
    """From decoded frame to upright RGB picture, through one converter for a whole clip."""
    reformatter = VideoReformatter()

    def convert(frame: VideoFrame) -> np.ndarray:
        width, height = fitted_size(frame.width, frame.height, short_side)
        color = reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        return upright(color.to_ndarray(), *orientation_of(frame))

    return convert


def fitted_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height of a picture whose shorter side is brought down to `short_side` pixels."""
    scale = 1.0 if short_side is None else min(1.0, short_side / min(width, height))
    return round(width * scale), round(height * scale)


def upright(picture: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    """A stored picture (row first) turned as `orientation_of` says."""
    turned = np.rot90(picture, turns)
    return turned[:, ::-1] if mirrored else turned


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """Width and height of the picture once it is upright."""
    lying = orientation_of(frame)[0] % 2
    return (frame.height, frame.width) if lying else (frame.width, frame.height)


def orientation_of(frame: VideoFrame) -> tuple[int, bool]:
    """How often the stored picture is turned by 90 degrees, counterclockwise, to be upright,
    and whether its columns are then reversed, as cameras that face their user ask.
    """
    data = _display_matrix(frame)
    if data is None:
        return 0, False
    (a, b, _), (c, d, _), _ = np.frombuffer(data, np.int32).reshape(3, 3).tolist()
    mirrored = a * d - b * c < 0
    turns = round(np.degrees(np.arctan2(-b, -a if mirrored else a)) / 90) % 4
    return turns, mirrored


def _display_matrix(frame: VideoFrame) -> Any:
    # Not by `frame.side_data`: the frame would keep what refers to it, and stay in memory until
    # Python next looks for circles.
    try:
        return SideDataContainer(frame).get(DISPLAY_MATRIX)  # type: ignore[call-arg]
    except ValueError:  # PyAV does not know every kind of data that FFmpeg puts beside a picture
        known = _without_unknown_side_data(frame)
        return SideDataContainer(known).get(DISPLAY_MATRIX)  # type: ignore[call-arg]


def _without_unknown_side_data(frame: VideoFrame) -> VideoFrame:
    """The same picture without the kinds of data that PyAV has no name for."""
    graph = Graph()
    last = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, 25),
    )
    for kind in range(len(SideData), len(SideData) + 16):
        deleting = graph.add("sidedata", f"mode=delete:type={kind}")
        last.link_to(deleting)
        last = deleting
    last.link_to(graph.add("buffersink"))
    graph.configure()
    graph.push(frame)
    found = graph.pull()
    assert isinstance(found, VideoFrame)
    return found


def refuse_elongated(path: Path, width: int, height: int) -> None:
    """Raise VideoReadError for pictures that are too elongated to be scaled."""
    if problem := side_ratio_problem(width, height):
        raise VideoReadError(f"{path} {problem}")


class FileVersion(NamedTuple):
    """A file as it is on the disk. What is found out about it can be remembered by this key."""

    path: Path
    size: int
    changed_ns: int


def version_of(path: Path) -> FileVersion:
    """The version of a file that exists."""
    now = path.stat()
    return FileVersion(path, now.st_size, now.st_mtime_ns)
