"""Mixing unlabeled clips by tubes of patches, and their targets with them.

Source: SVFormer's "tube TokenMix" (arXiv:2211.13222) as SeFAR (arXiv:2501.01245) uses it. The
public code (train_net_emamix.py, d0435a9) draws other partners for each element and gives the
targets of the last: `one_each`. The targets mean `one_for_all`. docs/paper_map.md, row 4.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from einops import repeat
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from sefar_core.shapes import Clip, KeepMask, PerClip, Probs

Drawn = TypeVar("Drawn")
Partners = Int[Tensor, "batch"]
"""Position in the batch of each clip's partner."""


class MixPlan(NamedTuple):
    """Who is mixed with whom, and where: drawn once a step, so that clips and targets agree."""

    partners: list[Partners]
    """For each element; the targets are mixed with the last one's."""
    share: float
    """Part of the mixture that belongs to the clip itself, in [0, 1]."""
    keep: list[KeepMask]
    """For each element, the patches that stay the clip's own, the same in all frames."""

    def blend(self, values: Tensor) -> Tensor:
        """share * own + (1 - share) * partner's, along the batch: of probabilities, or of trust."""
        return torch.lerp(values[self.partners[-1]], values, self.share)


def one_for_all(draw: Callable[[], Drawn], num_elements: int) -> list[Drawn]:
    """One draw for all elements: the same partners, so that a mixture is of two clips, as its
    target is; or the same crop (data/transforms.py), since an action is one scene."""
    return [draw()] * num_elements


def one_each(draw: Callable[[], Drawn], num_elements: int) -> list[Drawn]:
    """A draw of its own for each element, as in the public code."""
    return [draw() for _ in range(num_elements)]


ELEMENT_DRAWS = {"one_for_all": one_for_all, "one_each": one_each}


def soft_targets(probs: Probs, trust: PerClip) -> Probs:
    """The teacher's mean probabilities, whatever their trust."""
    return probs


def sharp_where_trusted(probs: Probs, trust: PerClip) -> Probs:
    """SVFormer's targets: one-hot where the trust is whole, the probabilities elsewhere."""
    one_hot = F.one_hot(probs.argmax(dim=-1), probs.shape[-1]).to(probs.dtype)
    return torch.where((trust == 1)[:, None], one_hot, probs)


MIX_TARGETS = {"soft": soft_targets, "sharp": sharp_where_trusted}


def draw_mix_plan(
    batch: int,
    grid: int,
    num_elements: int,
    share: float,
    generator: torch.Generator,
    *,
    partners: Callable[[Callable[[], Partners], int], list[Partners]] = one_for_all,
) -> MixPlan:
    """Draw the partners and masks of one step.

    `grid` counts the patches along a side of a frame. `share` is the clip's own part of the
    mixture, in [0, 1] (paper: Beta(10, 10)): each mask keeps floor(share * grid * grid) patches;
    the targets use the share itself, as published. `partners` is `one_for_all` or `one_each`.
    ValueError for a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is the clip's own part of the mixture, in [0, 1], got {share}")
    num_kept = int(share * grid * grid)
    masks = []
    for _ in range(num_elements):
        mask = torch.zeros(grid * grid, dtype=torch.bool)
        mask[torch.randperm(grid * grid, generator=generator)[:num_kept]] = True
        masks.append(mask.view(grid, grid))
    chosen = partners(lambda: torch.randperm(batch, generator=generator), num_elements)
    return MixPlan(chosen, share, masks)


def mix_elements(
    own: Sequence[Tensor], others: Sequence[Tensor], mix: MixPlan, *, patch: int
) -> list[Tensor]:
    """The mixed clips of a step: their own elements with those of others, by patches in pixels.

    The others are the same clips before color dropout, from which the plan takes the partners.
    """
    return [
        tube_mix(clip, other[partner], keep, patch=patch)
        for clip, other, partner, keep in zip(own, others, mix.partners, mix.keep, strict=True)
    ]


def tube_mix(clip: Clip, partner: Clip, keep: KeepMask, *, patch: int) -> Clip:
    """`clip` where `keep` is true and `partner` elsewhere, the same patches in every frame.

    Mixing pixels by whole patches (of `patch` pixels) equals mixing patch tokens, since the patch
    embedding has its stride equal to its kernel. ValueError if the mask's patches do not tile the
    frame.
    """
    pixels = repeat(keep, "row column -> (row high) (column wide)", high=patch, wide=patch)
    if pixels.shape != clip.shape[-2:]:
        raise ValueError(
            f"a mask of {tuple(keep.shape)} patches of {patch} pixels covers "
            f"{tuple(pixels.shape)} pixels, but the frames have {tuple(clip.shape[-2:])}"
        )
    return torch.where(pixels.to(clip.device), clip, partner)
