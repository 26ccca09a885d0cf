"""What the student sees and the teacher does not: time perturbed, color planes dropped.

Source: SeFAR (arXiv:2501.01245), "moderate temporal perturbation"; each name in PERTURBATIONS is a
row of its Table 4 or of the public code. The public code (train_net_emamix.py:322, d0435a9) flips
axis 1 of (batch, channel, frame, height, width), the color axis, where the paper reverses time; it
is kept as `swap_red_blue`, so that the run of the paper and the run of the code can both be made.
Rows named after other papers follow them: slow and half Zou et al. 2021 (arXiv:2103.16565), warping
SVFormer (arXiv:2211.13222); all work inside each element. docs/paper_map.md, row 3.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from sefar_core.shapes import CHANNEL_AXIS, FRAME_AXIS, Clip


def reverse_time(clip: Clip) -> Clip:
    """The same frames, last one first. Colors and pixels stay where they are."""
    return clip.flip(FRAME_AXIS)


def permute_frames(clip: Clip, generator: torch.Generator) -> Clip:
    """The frames of each clip in a random order of its own."""
    draws = torch.rand(len(clip), clip.shape[FRAME_AXIS], generator=generator)
    return pick_frames(clip, draws.argsort(dim=1))


def pick_frames(clip: Clip, order: Int[Tensor, "batch frame"]) -> Clip:
    """For each clip, the frames with these numbers."""
    index = order.to(clip.device)[:, None, :, None, None]
    return clip.gather(FRAME_AXIS, index.expand_as(clip))


def unchanged(elements: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Table 4's spatial-only row: time stays as it is."""
    return list(elements)


def reverse_fine(elements: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """The paper's moderate perturbation: reverse the fine elements, leave the context, the last."""
    *fine, context = elements
    return [*map(reverse_time, fine), context]


def reverse_all(elements: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Table 4's all-reverse row: every element, the context too."""
    return [reverse_time(clip) for clip in elements]


def shuffle_fine(elements: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Table 4's local shuffle: permute the frames inside each fine element, for each clip anew."""
    *fine, context = elements
    return [*(permute_frames(clip, generator) for clip in fine), context]


def shuffle_all(elements: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Table 4's all-shuffle row: permute the frames inside every element, for each clip anew."""
    return [permute_frames(clip, generator) for clip in elements]


def slow(elements: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Table 4's slow row, T-Drop: half of the frames, at random, show the one before them again.

    The frame before may itself be a repetition, so that motion halts for a while and then jumps.
    """

    def order(batch: int, num_frames: int) -> Tensor:
        halted = torch.rand(batch, num_frames, generator=generator) < 0.5
        own = torch.arange(num_frames).expand(batch, -1).masked_fill(halted, 0)
        return own.cummax(dim=1).values

    return reorder(elements, order)


def repeat_half(elements: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Table 4's T-Half row: one half of each element, by a coin for each clip, is shown twice.

    Of an odd number of frames, the middle one stays.
    """

    def order(batch: int, num_frames: int) -> Tensor:
        half, rest = num_frames // 2, num_frames - num_frames // 2
        frames = torch.arange(num_frames)
        first_twice = torch.where(frames >= rest, frames - rest, frames)
        last_twice = torch.where(frames < half, frames + rest, frames)
        coin = torch.rand(batch, 1, generator=generator) < 0.5
        return torch.where(coin, first_twice, last_twice)

    return reorder(elements, order)


def warp(elements: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Table 4's warping row, SVFormer's: a few frames fill the places of all, the same in a whole
    batch.

    A quarter, half or all of an element's frames, with equal odds, are anchors. Places before the
    first anchor show the first, after the last the last; between two anchors the change from one
    to the other falls at random.
    """
    return reorder(elements, lambda batch, num: warped_order(num, generator).expand(batch, -1))


def reorder(
    elements: Sequence[Tensor], order: Callable[[int, int], Int[Tensor, "batch frame"]]
) -> list[Tensor]:
    """Each element with the frames that an order draws for (clips, frames)."""
    return [pick_frames(clip, order(len(clip), clip.shape[FRAME_AXIS])) for clip in elements]


def warped_order(num_frames: int, generator: torch.Generator) -> Int[Tensor, "frame"]:
    """The frame that each place shows, under warping."""
    divisor = (4, 2, 1)[int(torch.randint(3, (), generator=generator))]
    num_anchors = max(1, num_frames // divisor)
    anchors = torch.randperm(num_frames, generator=generator)[:num_anchors].sort().values.tolist()
    order = torch.full((num_frames,), anchors[0])
    for before, after in zip(anchors, anchors[1:], strict=False):
        change = int(torch.randint(before, after + 1, (), generator=generator))
        order[max(change, before + 1) :] = after
    return order


def swap_red_blue(elements: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """What the public code does in place of `reverse_fine`."""
    *fine, context = elements
    return [*(clip.flip(CHANNEL_AXIS) for clip in fine), context]


Perturbation = Callable[[Sequence[Tensor], torch.Generator], list[Tensor]]

# One signature for all: half of the table's rows draw, and what draws takes its generator.
PERTURBATIONS: dict[str, Perturbation] = {
    perturbation.__name__: perturbation
    for perturbation in (
        unchanged,
        reverse_fine,
        reverse_all,
        shuffle_fine,
        shuffle_all,
        slow,
        repeat_half,
        warp,
        swap_red_blue,
    )
}


def drop_color_planes(
    elements: Sequence[Tensor], generator: torch.Generator, *, drop: float
) -> list[Tensor]:
    """Set whole color planes of a clip to zero, in all of its frames, and rescale the others.

    The public code, as SVFormer before it, does so with probability 0.2 to each element's planes;
    zero is the mean color here. Paper: not mentioned. `drop` is the probability of each (clip,
    element, color), in [0, 1).
    """
    if drop == 0:
        return list(elements)
    dropped = []
    for clip in elements:
        kept = torch.rand(clip.shape[:2], generator=generator) >= drop
        dropped.append(clip * kept.to(clip.device)[:, :, None, None, None] / (1 - drop))
    return dropped
