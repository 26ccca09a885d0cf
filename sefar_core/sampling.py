"""Which frames become the dual-level temporal elements.

Source: SeFAR (arXiv:2501.01245), "dual-level temporal elements", written 2-2-4 for two fine
elements of two frames and one context element of four. Its public code (multisample.py, d0435a9)
cuts the clip into as many equal segments as there are frames in all elements and distributes
the segments, the last element first; that is `element_segments`. Time is a fraction of the clip's
length here, not a frame number, so sources of 25, 30, 50 and 60 frames a second are seen at the
same moments, and a clip with fewer frames than segments repeats frames.

In that way of sampling, `interleaved`, the frames of a fine element lie half a clip apart. The
paper's words, local and rapid against broad, fit `local_window` as well: there they follow closely
upon one another. docs/paper_map.md, row 1.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Moments = list[Float[Tensor, "_"]]
"""For each element, the fractions of the clip's length, in [0, 1), that it samples."""


def element_segments(sizes: Sequence[int]) -> list[list[int]]:
    """The segments of time that each element samples, ascending, elements in the order of `sizes`.

    The last element (the context) chooses first. An element of n frames walks through the S =
    sum(sizes) segments and takes each free one at or after its next multiple of S / n.

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


def sample_fractions(sizes: Sequence[int], generator: torch.Generator) -> Moments:
    """One random moment in each segment of each element, as fractions of the clip in [0, 1)."""
    num_segments = sum(sizes)
    return [
        (torch.tensor(segments) + torch.rand(len(segments), generator=generator)) / num_segments
        for segments in element_segments(sizes)
    ]


def center_fractions(sizes: Sequence[int], offset: float = 0.5) -> Moments:
    """The same moments every time: `offset` (in [0, 1)) of the way through each segment. ValueError
    for an offset outside [0, 1).
    """
    check_offset(offset)
    num_segments = sum(sizes)
    return [
        (torch.tensor(segments) + offset) / num_segments for segments in element_segments(sizes)
    ]


def sample_windows(sizes: Sequence[int], generator: torch.Generator) -> Moments:
    """A random short window for each fine element; for the context, a moment in each segment.

    Each of the M fine elements has its window in one of M equal parts of the clip, so that together
    they can show every phase of the action. Frames of a window are half a segment (of S = sum of
    `sizes`) apart.
    """
    *fine, context = sizes
    starts = torch.rand(len(fine), generator=generator).tolist()
    broad = torch.arange(context) + torch.rand(context, generator=generator)
    return [*windows(sizes, starts), broad / context]


def center_windows(sizes: Sequence[int], offset: float = 0.5) -> Moments:
    """The same moments every time: windows and context moments `offset` of the way along.
    ValueError for an offset outside [0, 1).
    """
    check_offset(offset)
    *fine, context = sizes
    return [*windows(sizes, [offset] * len(fine)), (torch.arange(context) + offset) / context]


def windows(sizes: Sequence[int], starts: Sequence[float]) -> Moments:
    """Moments of the fine elements; `starts` (in [0, 1)) place each window inside its part."""
    *fine, _ = sizes
    moments = []
    for part, (size, start) in enumerate(zip(fine, starts, strict=True)):
        step = min(1 / (2 * sum(sizes)), 1 / (len(fine) * size))
        first = (part + start * (1 - len(fine) * size * step)) / len(fine)
        moments.append(first + (torch.arange(size) + 0.5) * step)
    return moments


class Sampling(NamedTuple):
    """A way of choosing frames: at random in training, the same every time in evaluation."""

    draw: Callable[[Sequence[int], torch.Generator], Moments]
    center: Callable[..., Moments]


SAMPLINGS = {
    "interleaved": Sampling(sample_fractions, center_fractions),
    "local_window": Sampling(sample_windows, center_windows),
}


def time_order(moments: Moments) -> list[int]:
    """Positions of the frames of all elements, joined in their order, sorted by time.

    >>> time_order(center_fractions((2, 2, 4)))
    [4, 2, 5, 0, 6, 3, 7, 1]
    """
    return torch.cat(moments).argsort(stable=True).tolist()


def places_in_time(moments: Moments) -> list[list[int]]:
    """For each element, the ranks in time of its frames among the frames of all elements.

    >>> places_in_time(center_fractions((2, 2, 4)))
    [[3, 7], [1, 5], [0, 2, 4, 6]]
    """
    ranks = torch.tensor(time_order(moments)).argsort()
    return [part.tolist() for part in ranks.split([len(element) for element in moments])]


def check_offset(offset: float) -> None:
    """Raise ValueError for an offset that is not in [0, 1)."""
    if not 0 <= offset < 1:
        raise ValueError(f"offset is a place inside a segment, in [0, 1), got {offset}")
