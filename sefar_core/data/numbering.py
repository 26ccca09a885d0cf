"""What the readers that ask by frame number share: which frames, and how large.

The numbers come from a file's packets, so that every reader shows the same frames at the same
moments.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from sefar_core.data.decoding import fitted_size
from sefar_core.data.timeline import numbers_at
from sefar_core.data.video import VideoInfo, VideoReadError, places_of, probe, refuse_beyond

MEND = "Set data.reader to auto, which reads every file that plays and folders of pictures."


def known(path: Path) -> VideoInfo:
    """What `probe` tells of a file, remembered for the files that were asked for last.

    Raises:
        VideoReadError: the file is unreadable, or a folder of pictures.
    """
    if path.is_dir():
        raise VideoReadError(f"{path} is a folder of pictures, not a video file. {MEND}")
    if not path.is_file():
        return probe(path)
    found = path.stat()
    return _probed(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _probed(path: Path, size: int, changed_ns: int) -> VideoInfo:
    return probe(path)


def frame_numbers(
    path: Path,
    info: VideoInfo,
    fractions: Sequence[float],
    *,
    start_s: float | None,
    end_s: float | None,
) -> list[int]:
    """Numbers of the frames that `video.read_fractions` gives.

    Raises:
        VideoReadError: the file ends before the clip does.
        ValueError: a fraction outside [0, 1], or a clip that ends before it starts.
    """
    places = places_of(fractions)
    whole = start_s is None and end_s is None
    start = info.times_s[0] if whole else start_s or 0.0
    end = info.end_s if end_s is None else end_s
    if end <= start:
        raise ValueError(f"{path}: a clip from {start} s to {end} s has no length")
    moments = start + places * (end - start)
    refuse_beyond(path, info.times_s[-1], info.end_s, float(moments.max()))
    return numbers_at(info.times_s, moments).tolist()


def shrunk(
    frames: UInt8[np.ndarray, "frame height width 3"], short_side: int | None
) -> UInt8[np.ndarray, "frame smaller_height smaller_width 3"]:
    """Larger frames scaled down so that their shorter side has `short_side` pixels."""
    height, width = frames.shape[1:3]
    size = fitted_size(width, height, short_side)
    if size == (width, height):
        return frames
    pictures = (VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames)
    small = (frame.reformat(width=size[0], height=size[1]).to_ndarray() for frame in pictures)
    return np.stack(list(small))
