"""Frames -> a real H.264 file."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

CODEC: Final = "libx264"
CODEC_OPTIONS = {
    "preset": "veryfast",
    "crf": "20",
    "threads": "1",
    "x264-params": "rc-lookahead=4:mbtree=0",  # a quarter faster; a clip is one group of pictures
}


def write_video(path: Path, frames: NDArray[np.uint8], fps: int) -> None:
    """Write RGB frames (frame, height, width, 3) as mp4; the file appears complete or not at all.

    One encoder thread, so that the same frames give the same bytes on one machine.
    """
    partial = path.with_name(f".{path.name}.partial")
    height, width = frames.shape[1:3]
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream(CODEC, rate=Fraction(fps), options=CODEC_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    os.replace(partial, path)
