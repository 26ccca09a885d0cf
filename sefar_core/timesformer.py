"""TimeSformer with divided space-time attention, the backbone of every element.

Source: Bertasius et al. 2021 (arXiv:2102.05095) as SeFAR uses it: one network shared by all
elements, with a time embedding of its own for each. Names of parameters are timm's names of a 2-D
ViT where the two networks share a part, so that a ViT's weights load by name. Tokens are kept as a
class token (batch, dim) and patch tokens (batch, frame, token, dim), not as one flat sequence.
Elements of equal length share a pass, and nothing is computed that the result does not need;
benchmarks/public_schedule.py has the plain form, which this one equals. docs/paper_map.md, row 2.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sefar_core.block import LAYER_NORM_EPS, Block
from sefar_core.shapes import FRAME_AXIS, Element, Feature, PatchTokens


class PatchEmbed(nn.Module):
    """Frames -> patch tokens: a convolution whose stride equals its kernel."""

    def __init__(self, patch_size: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, clip: Element) -> PatchTokens:
        num_frames = clip.shape[2]
        frames = rearrange(
            clip, "batch channel frame height width -> (batch frame) channel height width"
        )
        return rearrange(
            self.proj(frames),
            "(batch frame) dim row column -> batch frame (row column) dim",
            frame=num_frames,
        )


class TimeSformer(nn.Module):
    """One backbone for all elements of a clip.

    Each element, of so many frames in `sizes`, gets a time embedding of its own. Frames and patches
    are square, their sides in pixels. `mlp_ratio` is the hidden width of the MLP over `dim`;
    `drop_path_rate` is the stochastic depth of the last block, rising linearly from 0 at the first.
    The attribute `recompute`, off at first, makes the inner activations of two blocks of three
    again in the backward pass, which takes less memory and more time.
    """

    def __init__(  # noqa: PLR0913 - the sizes of the published network
        self,
        sizes: tuple[int, ...],
        *,
        image_size: int,
        patch_size: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
    ):
        super().__init__()
        self.recompute = False
        self.image_size = image_size
        self.patch_size = patch_size
        self.grid = image_size // patch_size
        self.patch_embed = PatchEmbed(patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, dim))
        self.time_embed = nn.ParameterList(torch.zeros(1, size, dim) for size in sizes)
        drops = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio, drop) for drop in drops)
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.apply(init_weights)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("temporal_fc.weight"):
                nn.init.zeros_(parameter)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def class_tokens(self, elements: Sequence[Tensor]) -> list[Feature]:
        """The class token of each of the normalized elements, after the last layer norm."""
        found: list[Feature] = [elements[0]] * len(elements)
        for places in places_by_length(elements):
            cls, patches = self.embed([elements[place] for place in places], places)
            *blocks, last = self.blocks
            assert isinstance(last, Block)
            for number, block in enumerate(blocks):
                cls, patches = self.through(block, number, cls, patches)
            cls = self.norm(last.class_token(cls, patches))
            for place, feature in zip(places, cls.chunk(len(places)), strict=True):
                found[place] = feature
        return found

    def forward(self, clip: Element, element: int) -> tuple[Feature, PatchTokens]:
        """Class token and patch tokens of one element, after the last layer norm.

        The clip is normalized; `element` is its place in `sizes`, which decides its time embedding.
        """
        cls, patches = self.embed([clip], [element])
        for block in self.blocks:
            cls, patches = block(cls, patches)
        return self.norm(cls), self.norm(patches)

    def embed(
        self, elements: Sequence[Tensor], places: Sequence[int]
    ) -> tuple[Feature, PatchTokens]:
        """Tokens of elements of equal length, along the batch, by their places in `sizes`."""
        patches = self.patch_embed(torch.cat(list(elements)))
        batch = len(elements[0])
        time = torch.cat([self.time_embed[place].expand(batch, -1, -1) for place in places])
        patches = patches + self.pos_embed[:, None, 1:] + time[:, :, None]
        cls = (self.cls_token + self.pos_embed[:, :1])[:, 0].expand(len(patches), -1)
        return cls, patches

    def through(self, block: nn.Module, number: int, cls: Feature, patches: PatchTokens):
        """A block, which recomputes its activations in the backward pass if `recompute` is set.

        Every third keeps them: nearly as little memory for a third less recomputation. The last
        block would recompute them at once.
        """
        if self.recompute and torch.is_grad_enabled() and number % 3 != 2:
            return checkpoint(block, cls, patches, use_reentrant=False)
        return block(cls, patches)


def places_by_length(elements: Sequence[Tensor]) -> list[list[int]]:
    """Positions of the elements, those of equal numbers of frames together."""
    groups: dict[int, list[int]] = {}
    for place, clip in enumerate(elements):
        groups.setdefault(clip.shape[FRAME_AXIS], []).append(place)
    return list(groups.values())


def init_weights(module: nn.Module) -> None:
    """As published: truncated normal of width 0.02 for linear weights, zero biases.

    The temporal projection is set to zero afterwards, so that a fresh network sees each frame
    alone and a ViT's weights mean the same in it.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
