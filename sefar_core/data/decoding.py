"""An open video file and the pictures of its frames by number, upright, RGB.

Decoding in order and counting what comes out is the only way that gives the right frame for every
file that plays: seeking by frame number goes wrong without a word on clips cut without re-encoding
and on open groups of pictures.
"""

from collections.abc import Iterator
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
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoReadError(f"{path} has no video stream. {MEND}")
            stream = container.streams.video[0]
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
    path: Path, shown: Timeline, wanted: np.ndarray, short_side: int | None
) -> UInt8[Tensor, "frame height width 3"]:
    """The frames with the wanted numbers, which ascend; nothing behind the last is decoded.

    Raises:
        VideoReadError: fewer frames come out than the packets promise, or of different sizes.
    """
    kept: list[np.ndarray] = []
    reformatter = VideoReformatter()
    for number, frame in enumerate(counted(path, shown)):
        if number == wanted[len(kept)]:
            kept.append(_picture(frame, reformatter, short_side))
            if len(kept) == len(wanted):
                break
    if len(kept) < len(wanted):
        raise VideoReadError(
            f"{path} lists {len(shown.times_s)} frames, but frame {wanted[len(kept)]} does not "
            f"come out of the decoder: data is missing. {MEND}"
        )
    if len({picture.shape for picture in kept}) > 1:
        raise VideoReadError(f"{path} changes its picture size between frames. {MEND}")
    return torch.from_numpy(np.stack(kept))


def quarter_turns(frame: VideoFrame) -> int:
    """How often the stored picture is turned by 90 degrees, counterclockwise, to stand upright."""
    return round(frame.rotation / 90)


def _picture(
    frame: VideoFrame, reformatter: VideoReformatter, short_side: int | None
) -> np.ndarray:
    scale = 1 if short_side is None else short_side / min(frame.width, frame.height)
    color = reformatter.reformat(
        frame,
        width=round(frame.width * scale),
        height=round(frame.height * scale),
        format="rgb24",
        threads=1,
    )
    return np.rot90(color.to_ndarray(), quarter_turns(frame))
