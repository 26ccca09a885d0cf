"""What `video_backends.read_decord` does in a process of its own, since decord can hang forever.

This file is separate so that the process imports numpy and decord alone: no torch, and no second
FFmpeg beside the one that decord brings.
"""

from typing import NamedTuple

import numpy as np

from sefar_core.data.worker_pool import Heartbeat


class Request(NamedTuple):
    """Frames by number, of a file that is known to show `num_frames` frames."""

    path: str
    numbers: list[int]
    num_frames: int


def read_frames(request: Request, heartbeat: Heartbeat) -> np.ndarray | str:
    """The frames (frame, height, width, color), or why decord refuses them."""
    import decord

    try:
        video = decord.VideoReader(request.path, num_threads=1)
        if len(video) != request.num_frames:
            return f"decord counts {len(video)} frames, its packets {request.num_frames}"
        return video.get_batch(request.numbers).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError, OSError, ValueError) as cause:
        return (str(cause).strip() or repr(cause)).splitlines()[0]
