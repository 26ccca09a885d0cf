"""From a painted scene to a picture with a camera's exposure and grain."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from qa_data.synthetic.drawing import Picture

SUPERSAMPLING = 2
"""Figure and apparatus are painted this many times larger, then averaged."""

GRAIN_DEVIATION = 16
_GRAIN_SIDE = 512
_GRAIN = np.random.default_rng(20250101).normal(
    0, GRAIN_DEVIATION, size=(_GRAIN_SIDE, 3 * _GRAIN_SIDE)
)
GRAIN_TILE = np.clip(np.rint(_GRAIN), -100, 100).astype(np.int8)
"""One fixed tile of noise; frames take windows of it at random."""


def enlarge(picture: Picture) -> Picture:
    """The canvas to paint on: each pixel becomes a block, so averaging gives it back exactly."""
    side = SUPERSAMPLING * picture.shape[0]
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_NEAREST), np.uint8)


def reduce(canvas: Picture) -> Picture:
    """The picture of a painted canvas: the mean of each block."""
    side = canvas.shape[0] // SUPERSAMPLING
    return np.asarray(cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """How the camera records the light."""

    gain: float
    """Contrast factor."""
    lift: float
    """Added brightness, in gray levels."""
    grain: float
    """Standard deviation of the noise, in gray levels."""
    corners: NDArray[np.int64]
    """Upper left corner of each frame's window in the noise tile, (frame, 2)."""


def random_exposure(rng: np.random.Generator, num_frames: int, size: int) -> Exposure:
    """Exposure of a clip (or of one picture) of `size` pixels."""
    free = (_GRAIN_SIDE - size, 3 * (_GRAIN_SIDE - size))
    return Exposure(
        gain=rng.uniform(0.8, 1.15),
        lift=rng.uniform(-15, 20),
        grain=rng.uniform(0, 5),
        corners=rng.integers(free, size=(num_frames, 2)),
    )


def expose(picture: Picture, exposure: Exposure, frame: int) -> Picture:
    """The picture (height, width, 3) as the camera records it at that frame of the clip."""
    height, width, _ = picture.shape
    top, left = exposure.corners[frame]
    noise = GRAIN_TILE[top : top + height, left : left + 3 * width]
    lit = cv2.addWeighted(
        picture.reshape(height, -1),
        exposure.gain,
        noise,
        exposure.grain / GRAIN_DEVIATION,
        exposure.lift,
        dtype=cv2.CV_8U,
    )
    return np.asarray(lit, np.uint8).reshape(picture.shape)
