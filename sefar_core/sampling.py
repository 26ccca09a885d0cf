"""Which frames become the dual-level temporal elements.

Source: SeFAR (arXiv:2501.01245), "dual-level temporal elements", written 2-2-4 for two fine
elements of two frames and one context element of four. Its public code (multisample.py, d0435a9)
cuts the clip into as many equal segments as there are frames in all elements and deals the
segments out, the last element first; that is `element_segments`. Time is a fraction of the clip's
length here, not a frame number, so sources of 25, 30, 50 and 60 frames a second are seen at the
same moments, and a clip with fewer frames than segments repeats frames. docs/paper_map.md, row 1.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def element_segments(sizes: Sequence[int]) -> list[list[int]]:
    """The segments of time that each element samples, ascending, elements in the order of `sizes`.

    The last element (the context) chooses first. An element of n frames walks through the S =
    sum(sizes) segments and takes each free one that lies at or after its next multiple of S / n.

    >>> element_segments((2, 2, 4))
    [[3, 7], [1, 5], [0, 2, 4, 6]]

    Raises:
        ValueError: no element, or an element without a frame.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"every element needs at least one frame, got sizes {tuple(sizes)}")
    num_segments = sum(sizes)
    free = set(range(num_segments))
    chosen: list[list[int]] = []
    for size in reversed(sizes):
        taken: list[int] = []
        for segment in range(num_segments):
            due = segment * size >= len(taken) * num_segments
            if len(taken) < size and segment in free and due:
                taken.append(segment)
        # A late start can leave an element short of its last frames: it takes what is left.
        spare = sorted(free - set(taken))
        taken = sorted(taken + spare[: size - len(taken)])
        free -= set(taken)
        chosen.append(taken)
    return chosen[::-1]


def sample_fractions(
    sizes: Sequence[int], generator: torch.Generator
) -> list[Float[Tensor, "frame"]]:
    """One random moment in each segment of each element, as fractions of the clip in [0, 1)."""
    num_segments = sum(sizes)
    return [
        (torch.tensor(segments) + torch.rand(len(segments), generator=generator)) / num_segments
        for segments in element_segments(sizes)
    ]


def center_fractions(sizes: Sequence[int], offset: float = 0.5) -> list[Float[Tensor, "frame"]]:
    """The same moments every time: `offset` (in [0, 1)) of the way through each segment.

    Raises:
        ValueError: an offset outside [0, 1).
    """
    if not 0 <= offset < 1:
        raise ValueError(f"offset is a place inside a segment, in [0, 1), got {offset}")
    num_segments = sum(sizes)
    return [
        (torch.tensor(segments) + offset) / num_segments for segments in element_segments(sizes)
    ]


def time_order(sizes: Sequence[int]) -> list[int]:
    """Where, in the frames of all elements laid end to end, the frames of the clip stand in time.

    >>> time_order((2, 2, 4))
    [4, 2, 5, 0, 6, 3, 7, 1]
    """
    laid_out = [segment for segments in element_segments(sizes) for segment in segments]
    return sorted(range(len(laid_out)), key=laid_out.__getitem__)
