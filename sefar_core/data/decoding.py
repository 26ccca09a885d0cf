"""An open video file and the pictures of its frames by number, upright, RGB.

Decoding in order and counting what comes out is the only way that gives the right frame for every
file that plays: seeking by frame number goes wrong without a word on clips cut without re-encoding
and on open groups of pictures. Where a file allows it, packets that no wanted frame needs are left
out (shortcut.py); the frames are the same.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from sefar_core.data.shortcut import stamped_frames
from sefar_core.data.timeline import Timeline

MEND = "Fetch or cut the file again; scripts/check_videos.py lists every broken file of a manifest."


class VideoReadError(Exception):
    """A video that cannot give the frames asked of it. The message names file, cause and mend."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its video stream, for as long as the `with` lasts.

    Raises:
        VideoReadError: missing, empty, not a video, without pictures; or reading fails inside.
    """
    if not path.is_file():
        raise VideoReadError(f"{path} does not exist or is not a file. Check the video folder.")
    if path.stat().st_size == 0:
        raise VideoReadError(f"{path} is empty (0 bytes). {MEND}")
    try:
        # A title in another encoding than UTF-8 is no reason to refuse the pictures.
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise VideoReadError(f"{path} has no video stream. {MEND}")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoReadError(f"{path} has a video stream that no decoder reads. {MEND}")
            # A second thread costs a fifth more CPU time a clip; more loader processes do not.
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.FFmpegError, OSError, EOFError) as cause:
        raise VideoReadError(f"cannot read {path} as a video: {cause}. {MEND}") from cause


def counted(path: Path, shown: Timeline) -> Iterator[VideoFrame]:
    """The shown frames in order.

    Raises:
        VideoReadError: the decoder refuses a frame, which is named by its number.
    """
    decoded = 0
    try:
        for frame in shown.decode():
            yield frame
            decoded += 1
    except av.FFmpegError as cause:
        raise VideoReadError(
            f"cannot decode {path}: {cause}; {decoded} of {len(shown.times_s)} frames were read "
            f"before that. {MEND}"
        ) from cause


def pictures(
    path: Path, shown: Timeline, numbers: np.ndarray, short_side: int | None
) -> UInt8[Tensor, "frame height width 3"]:
    """The frames with these numbers, in any order, repeats allowed.

    Raises:
        VideoReadError: fewer frames come out than the packets promise, or of different sizes.
    """
    wanted, places = np.unique(numbers, return_inverse=True)
    kept = _by_stamp(shown, wanted, short_side) or _by_count(path, shown, wanted, short_side)
    if len({picture.shape for picture in kept}) > 1:
        raise VideoReadError(f"{path} changes its picture size between frames. {MEND}")
    return torch.from_numpy(np.stack([kept[place] for place in places]))


def _by_stamp(shown: Timeline, wanted: np.ndarray, short_side: int | None) -> list[np.ndarray]:
    """The wanted frames, told by their timestamps; none if that does not give every one in order,
    in which case `_by_count` has the last word.
    """
    stream = shown.packets[0].stream
    if shown.stamps is None or stream.codec_context.name != "h264":
        return []
    stamps = shown.stamps[wanted].tolist()
    convert = converter(short_side)
    kept: list[np.ndarray] = []
    try:
        for frame in stamped_frames(shown.packets, stamps, stream):
            done = len(kept) == len(stamps)
            if frame.is_corrupt or done or frame.pts != stamps[len(kept)]:
                return []
            kept.append(convert(frame))
    except av.FFmpegError:
        return []
    finally:
        stream.codec_context.skip_frame = "DEFAULT"
        stream.codec_context.flush_buffers()
    return kept if len(kept) == len(stamps) else []


def _by_count(
    path: Path, shown: Timeline, wanted: np.ndarray, short_side: int | None
) -> list[np.ndarray]:
    """The wanted frames, counted out in order; nothing behind the last is decoded."""
    convert = converter(short_side)
    kept: list[np.ndarray] = []
    for number, frame in enumerate(counted(path, shown)):
        if number == wanted[len(kept)]:
            kept.append(convert(frame))
            if len(kept) == len(wanted):
                return kept
    raise VideoReadError(
        f"{path} lists {len(shown.times_s)} frames, but frame {wanted[len(kept)]} does not "
        f"come out of the decoder: data is missing. {MEND}"
    )


def quarter_turns(frame: VideoFrame) -> int:
    """How often the stored picture is turned by 90 degrees, counterclockwise, to stand upright."""
    return round(frame.rotation / 90)


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """Width and height of the picture once it stands upright."""
    lying = quarter_turns(frame) % 2
    return (frame.height, frame.width) if lying else (frame.width, frame.height)


def fitted_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height of a picture whose shorter side is brought down to `short_side` pixels."""
    scale = 1.0 if short_side is None else min(1.0, short_side / min(width, height))
    return round(width * scale), round(height * scale)


def converter(short_side: int | None) -> Callable[[VideoFrame], np.ndarray]:
    """From decoded frame to upright RGB picture, through one converter for a whole clip."""
    reformatter = VideoReformatter()

    def convert(frame: VideoFrame) -> np.ndarray:
        width, height = fitted_size(frame.width, frame.height, short_side)
        color = reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        return np.rot90(color.to_ndarray(), quarter_turns(frame))

    return convert
