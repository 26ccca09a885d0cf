"""What the student sees and the teacher does not: temporal perturbation and tube mixing.

Source: SeFAR (arXiv:2501.01245), "moderate temporal perturbation"; each name in PERTURBATIONS is a
row of its Table 4 or of the public code. The public code (train_net_emamix.py:322, d0435a9) flips
axis 1 of (batch, channel, frame, height, width), the color axis, where the paper reverses time; it
is kept as `swap_red_blue`, so that the run of the paper and the run of the code can both be made.
Tube mixing is SVFormer's "tube TokenMix" as SeFAR uses it. docs/paper_map.md, rows 3 and 4.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from einops import repeat
from jaxtyping import Int
from torch import Tensor

from sefar_core.shapes import CHANNEL_AXIS, FRAME_AXIS, Clip, KeepMask


def reverse_time(clip: Clip) -> Clip:
    """The same frames, last one first. Colors and pixels stay where they are."""
    return clip.flip(FRAME_AXIS)


def permute_frames(clip: Clip, generator: torch.Generator) -> Clip:
    """The frames of each clip in a random order of its own."""
    batch, num_frames = clip.shape[0], clip.shape[FRAME_AXIS]
    order = torch.rand(batch, num_frames, generator=generator).argsort(dim=1).to(clip.device)
    index = order.view(batch, 1, num_frames, 1, 1).expand_as(clip)
    return clip.gather(FRAME_AXIS, index)


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
        swap_red_blue,
    )
}


class MixPlan(NamedTuple):
    """Who is mixed with whom, and where: drawn once a step, so that clips and targets agree."""

    partner: Int[Tensor, "batch"]
    """Position in the batch of each clip's partner; one permutation for all elements."""
    share: float
    """Part of the mixture that belongs to the clip itself, in [0, 1]."""
    keep: list[KeepMask]
    """For each element, the patches that stay the clip's own, in all frames alike."""


def draw_mix_plan(
    batch: int, grid: int, num_elements: int, share: float, generator: torch.Generator
) -> MixPlan:
    """Draw the partners and masks of one step.

    Args:
        batch: clips in the unlabeled batch.
        grid: patches along each side of a frame.
        num_elements: one mask is drawn for each.
        share: part of the mixture that is the clip's own, in [0, 1] (paper: Beta(10, 10)).
        generator: source of all draws.

    Returns:
        The plan. Each mask keeps floor(share * grid * grid) patches; the targets use the share
        itself, as published.

    Raises:
        ValueError: a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is the clip's own part of the mixture, in [0, 1], got {share}")
    num_kept = int(share * grid * grid)
    masks = []
    for _ in range(num_elements):
        mask = torch.zeros(grid * grid, dtype=torch.bool)
        mask[torch.randperm(grid * grid, generator=generator)[:num_kept]] = True
        masks.append(mask.view(grid, grid))
    return MixPlan(torch.randperm(batch, generator=generator), share, masks)


def tube_mix(clip: Clip, partner: Clip, keep: KeepMask, *, patch: int) -> Clip:
    """`clip` where `keep` is true and `partner` elsewhere, the same patches in every frame.

    Mixing pixels by whole patches equals mixing patch tokens, since the patch embedding has its
    stride equal to its kernel.

    Args:
        clip: the clips of the batch.
        partner: the clips they are mixed with.
        keep: patch grid; must tile the frame.
        patch: side of a patch, in pixels.

    Raises:
        ValueError: the mask's patches do not tile the frame.
    """
    pixels = repeat(keep, "row column -> (row high) (column wide)", high=patch, wide=patch)
    if pixels.shape != clip.shape[-2:]:
        raise ValueError(
            f"a mask of {tuple(keep.shape)} patches of {patch} pixels covers "
            f"{tuple(pixels.shape)} pixels, but the frames have {tuple(clip.shape[-2:])}"
        )
    return torch.where(pixels.to(clip.device), clip, partner)
