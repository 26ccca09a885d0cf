"""The order in which a clip's frames are shown to an encoder: as they are, or as a control.

An encoder that reads motion must lose under every order but the first; one that reads scenes and
poses need not. Each order is a pure function of the frames and the clip's id.
"""

import hashlib
from collections.abc import Callable, Mapping
from math import factorial

from jaxtyping import UInt8
from torch import Tensor

Frames = UInt8[Tensor, "frame height width 3"]


def in_order(frames: Frames, clip_id: str) -> Frames:
    """The frames as time shows them."""
    return frames


def reversed_order(frames: Frames, clip_id: str) -> Frames:
    """The last frame first."""
    return frames.flip(0)


def shuffled(frames: Frames, clip_id: str) -> Frames:
    """The frames in a permutation that hangs on the clip's id alone.

    All permutations but the identity are equally likely over the ids.
    """
    count = len(frames)
    drawn = int.from_bytes(hashlib.sha512(clip_id.encode()).digest())
    number = 1 + drawn % (factorial(count) - 1) if count > 1 else 0
    return frames[permutation(number, count)]


def middle(frames: Frames, clip_id: str) -> Frames:
    """Frame number_of_frames // 2, from zero, as often as there are frames."""
    return frames[[len(frames) // 2] * len(frames)]


FRAME_ORDERS: Mapping[str, Callable[[Frames, str], Frames]] = {
    "in_order": in_order,
    "reversed": reversed_order,
    "shuffled": shuffled,
    "middle": middle,
}


def permutation(number: int, count: int) -> list[int]:
    """The permutation of 0..count-1 of this number, 0 to count! - 1, in dictionary order.

    Number 0 is the identity.
    """
    left = list(range(count))
    chosen = []
    for remaining in range(count - 1, -1, -1):
        place, number = divmod(number, factorial(remaining))
        chosen.append(left.pop(place))
    return chosen
