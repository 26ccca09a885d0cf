"""The square of each view of a clip: scaled, cropped, flipped; drawn apart from being applied.

Source: SeFAR's loaders scale the short side at random, crop a square and flip, per temporal
element in the public code (multisample.py, d0435a9), per clip here by default, since an action is
one scene: `one_for_all` and `one_each`. docs/paper_map.md, row 2.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

# Loader processes are many already, and OpenCV's threads do not survive a fork.
cv2.setNumThreads(1)


class Placement(NamedTuple):
    """A square cut out of scaled frames."""

    short_side: int
    """Pixels that the frames' shorter side is scaled to."""
    top: float
    """Where the square is between the top (0) and the bottom (1) of the scaled frames."""
    left: float
    flip: bool
    """Mirrored left to right."""


class Augmentation(NamedTuple):
    """What one stream of clips draws its placements from."""

    short_side: tuple[int, int]
    """Range of the scaled short side, pixels, ends included."""
    flip: bool
    """Mirror half of the clips."""
    share: Callable[[Callable[[], Placement], int], list[Placement]]
    """`one_for_all` or `one_each`."""

    def draw(self, num_elements: int, generator: torch.Generator) -> list[Placement]:
        """One placement for each element of a clip."""
        draw = partial(draw_placement, self.short_side, self.flip, generator)
        return self.share(draw, num_elements)


class Pixels(NamedTuple):
    """The squares that a network takes: their side in pixels, and the scale of their colors."""

    crop_size: int
    mean: tuple[float, float, float]
    """Subtracted from each color, after scaling to [0, 1]."""
    std: tuple[float, float, float]
    """Divides each color after that."""


def draw_placement(
    short_side: tuple[int, int], flip: bool, generator: torch.Generator
) -> Placement:
    """Scale and place uniformly at random, mirrored half of the time if `flip`."""
    scale, top, left, coin = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    low, high = short_side
    return Placement(
        short_side=low + int(scale * (high - low + 1)), top=top, left=left, flip=flip and coin < 0.5
    )


def fixed_placements(short_side: int, num_crops: int) -> list[Placement]:
    """Crops for evaluation: the center one, or three from end to end of the longer side.
    ValueError for another number.
    """
    ends = {1: [0.5], 3: [0.0, 0.5, 1.0]}
    if num_crops not in ends:
        raise ValueError(f"evaluation takes 1 or 3 crops, got {num_crops}")
    return [Placement(short_side, end, end, flip=False) for end in ends[num_crops]]


def normalized_crop(
    frames: UInt8[Tensor, "frame height width 3"], placement: Placement, pixels: Pixels
) -> Float[Tensor, "3 frame side side"]:
    """The normalized square that a placement names."""
    return normalize(crop(frames, placement, pixels.crop_size), pixels.mean, pixels.std)


def crop(
    frames: UInt8[Tensor, "frame height width 3"], placement: Placement, crop_size: int
) -> Float[Tensor, "3 frame side side"]:
    """The square of the scaled frames that a placement names, colors in [0, 255].

    Bilinear between pixel centers, without antialiasing, as in the public code. ValueError if the
    scaled frames are smaller than the square.
    """
    size, top, left = _square_of(frames, placement, crop_size)
    seen = []
    # Color by color: floats of all colors of large frames take more memory than a chat may.
    for color in rearrange(frames, "frame height width color -> color frame height width"):
        clip = color[None].float()
        if size != tuple(frames.shape[1:3]):
            clip = F.interpolate(clip, size=size, mode="bilinear", align_corners=False)
        seen.append(clip[..., top : top + crop_size, left : left + crop_size])
    square = torch.cat(seen)
    return square.flip(-1) if placement.flip else square


def squares(
    frames: UInt8[Tensor, "frame height width 3"], placement: Placement, crop_size: int
) -> UInt8[Tensor, "frame side side 3"]:
    """What `crop` gives, rounded to whole colors: a quarter of the bytes, a fifth of the time.

    OpenCV's interpolation weights have 11 bits: no color is further off than 0.8 of 255, on average
    0.27, of which plain rounding takes 0.25. Training travels on these; evaluation does not.
    ValueError if the scaled frames are smaller than the square.
    """
    size, top, left = _square_of(frames, placement, crop_size)
    seen = np.empty((len(frames), crop_size, crop_size, 3), np.uint8)
    for picture, square in zip(frames.numpy(), seen, strict=True):
        if size != picture.shape[:2]:
            picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
        part = picture[top : top + crop_size, left : left + crop_size]
        if placement.flip:
            cv2.flip(part, 1, dst=square)
        else:
            square[:] = part
    return torch.from_numpy(seen)


def to_network(
    seen: UInt8[Tensor, "*batch frame height width 3"], pixels: Pixels
) -> Float[Tensor, "*batch 3 frame height width"]:
    """Whole colors as they travel to what a network takes, on the device that they are on."""
    gain, shift = _gain_and_shift(pixels.mean, pixels.std, seen.device)
    channels_first = rearrange(seen, "... frame height width color -> ... color frame height width")
    # Turned while it is small, scaled where it is: a quarter of the time on a CPU.
    return channels_first.contiguous().float().mul_(gain).add_(shift)


def normalize(
    clip: Float[Tensor, "3 frame height width"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "3 frame height width"]:
    """Colors from [0, 255] to (color / 255 - mean) / std."""
    gain, shift = _gain_and_shift(mean, std, clip.device)
    return torch.addcmul(shift, clip, gain)


def _gain_and_shift(
    mean: Sequence[float], std: Sequence[float], device: torch.device
) -> tuple[Tensor, Tensor]:
    gain = [1 / (255 * deviation) for deviation in std]
    shift = [-middle / deviation for middle, deviation in zip(mean, std, strict=True)]
    # Made here and sent: a tensor that is made on a GPU waits for all that the GPU has to do.
    factors = torch.tensor([gain, shift]).view(2, 3, 1, 1, 1).to(device, non_blocking=True)
    return factors[0], factors[1]


def _square_of(
    frames: Tensor, placement: Placement, crop_size: int
) -> tuple[tuple[int, int], int, int]:
    """Height and width of the scaled frames, and where in them the square begins."""
    if placement.short_side < crop_size:
        raise ValueError(
            f"a square of {crop_size} px does not fit frames scaled to a short side of "
            f"{placement.short_side} px; raise data.short_side to at least model.image_size"
        )
    height, width = frames.shape[1:3]
    scale = placement.short_side / min(height, width)
    size = (round(height * scale), round(width * scale))
    top = _offset(placement.top, size[0] - crop_size)
    left = _offset(placement.left, size[1] - crop_size)
    return size, top, left


def _offset(place: float, slack: int) -> int:
    """A pixel in [0, slack]: uniform if `place` is, the middle one at 0.5, the last at 1."""
    return min(int(place * (slack + 1)), slack)
