"""TimeSformer with divided space-time attention, the backbone of every element.

Source: Bertasius et al. 2021 (arXiv:2102.05095) as SeFAR uses it: one network shared by all
elements, with a time embedding of its own for each. Names of parameters are timm's names of a 2-D
ViT where the two networks share a part, so that a ViT's weights load by name. Tokens are kept as a
class token (batch, dim) and patch tokens (batch, frame, token, dim), not as one flat sequence.
docs/paper_map.md, row 2.
"""

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sefar_core.shapes import Element, Feature, PatchTokens

LAYER_NORM_EPS = 1e-6


def drop_path(residual: Tensor, drop: float, training: bool) -> Tensor:
    """Stochastic depth: drop the residual of whole rows, all but the last two axes, and rescale."""
    if drop == 0 or not training:
        return residual
    rows = residual.shape[:-2] + (1, 1)
    kept = torch.rand(rows, device=residual.device) >= drop
    return residual * kept / (1 - drop)


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


class Attention(nn.Module):
    """Multi-head self-attention over the next-to-last axis; every axis before it is batch."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, tokens: Float[Tensor, "*batch token dim"]
    ) -> Float[Tensor, "*batch token dim"]:
        q, k, v = rearrange(
            self.qkv(tokens),
            "... token (three head d) -> three ... head token d",
            three=3,
            head=self.num_heads,
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(mixed, "... head token d -> ... token (head d)"))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(
        self, tokens: Float[Tensor, "*batch token dim"]
    ) -> Float[Tensor, "*batch token dim"]:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Attention over time at each place, then over space in each frame, then the MLP."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop: float):
        super().__init__()
        self.drop = drop
        self.temporal_norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.temporal_attn = Attention(dim, num_heads)
        self.temporal_fc = nn.Linear(dim, dim)
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, cls: Feature, patches: PatchTokens) -> tuple[Feature, PatchTokens]:
        patches = patches + self.over_time(patches)
        cls, patches = self.over_space(cls, patches)
        return self.through_mlp(cls, patches)

    def over_time(self, patches: PatchTokens) -> PatchTokens:
        """Residual of attention among the frames at each place. The class token takes no part."""
        tracks = rearrange(patches, "batch frame token dim -> batch token frame dim")
        residual = drop_path(
            self.temporal_attn(self.temporal_norm1(tracks)), self.drop, self.training
        )
        residual = self.temporal_fc(residual)
        return rearrange(residual, "batch token frame dim -> batch frame token dim")

    def over_space(self, cls: Feature, patches: PatchTokens) -> tuple[Feature, PatchTokens]:
        """Attention inside each frame; each frame has a copy of the class token, then averaged."""
        copies = repeat(cls, "batch dim -> batch frame 1 dim", frame=patches.shape[1])
        tokens = torch.cat([copies, patches], dim=-2)
        residual = drop_path(self.attn(self.norm1(tokens)), self.drop, self.training)
        cls_residual = reduce(residual[:, :, 0], "batch frame dim -> batch dim", "mean")
        return cls + cls_residual, patches + residual[:, :, 1:]

    def through_mlp(self, cls: Feature, patches: PatchTokens) -> tuple[Feature, PatchTokens]:
        tokens = torch.cat(
            [
                rearrange(cls, "batch dim -> batch 1 dim"),
                rearrange(patches, "batch frame token dim -> batch (frame token) dim"),
            ],
            dim=1,
        )
        tokens = tokens + drop_path(self.mlp(self.norm2(tokens)), self.drop, self.training)
        num_frames = patches.shape[1]
        return tokens[:, 0], rearrange(
            tokens[:, 1:], "batch (frame token) dim -> batch frame token dim", frame=num_frames
        )


class TimeSformer(nn.Module):
    """One backbone for all elements of a clip.

    Args:
        sizes: frames of each element; each gets a time embedding of its own.
        image_size: side of the square frames, in pixels; a multiple of `patch_size`.
        patch_size: side of a patch, in pixels.
        dim: width of a token; a multiple of `num_heads`.
        depth: number of blocks.
        num_heads: heads of every attention.
        mlp_ratio: hidden width of the MLP over `dim`.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.
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

    def forward(self, clip: Element, element: int) -> tuple[Feature, PatchTokens]:
        """Class token and patch tokens of one element, after the last layer norm.

        Args:
            clip: the element's frames, normalized.
            element: its place in `sizes`: which time embedding it gets.
        """
        patches = self.patch_embed(clip) + self.pos_embed[:, None, 1:]
        patches = patches + self.time_embed[element][:, :, None]
        cls = (self.cls_token + self.pos_embed[:, :1])[:, 0].expand(len(clip), -1)
        for block in self.blocks:
            cls, patches = block(cls, patches)
        return self.norm(cls), self.norm(patches)


def init_weights(module: nn.Module) -> None:
    """As published: truncated normal of width 0.02 for linear weights, zero biases.

    The temporal projection is set to zero afterwards, so that a fresh network sees each frame
    alone and a ViT's weights mean the same in it.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
