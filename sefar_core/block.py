"""One block of divided space-time attention: over time, over space, the MLP.

Source: Bertasius et al. 2021 (arXiv:2102.05095). Names of parameters are timm's names of a 2-D ViT
where the two networks share a part. Tokens are kept as a class token (batch, dim) and patch tokens
(batch, frame, token, dim), not as one flat sequence. docs/paper_map.md, row 2.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sefar_core.shapes import Feature, PatchTokens

Heads: TypeAlias = Float[Tensor, "row head _ d"]

LAYER_NORM_EPS = 1e-6
FEW_KEYS = 16
"""At most; elements have 2 to 8 frames, and a frame of 224 pixels has 197 tokens."""
MAX_ROWS = 65_535
"""That a fused kernel takes on CUDA (pytorch issue 146704)."""


def drop_path(residual: Tensor, drop: float, training: bool) -> Tensor:
    """Stochastic depth: drop the residual of whole rows, all but the last two axes, and rescale."""
    if drop == 0 or not training:
        return residual
    rows = residual.shape[:-2] + (1, 1)
    kept = torch.rand(rows, device=residual.device) >= drop
    return (residual * kept).div_(1 - drop)


def attention(q: Heads, k: Heads, v: Heads) -> Heads:
    """softmax(q k / sqrt(d)) v, fused where that is possible and faster."""
    if is_fused(q.device.type, q.dtype, num_rows=len(q), num_keys=k.shape[-2]):
        return F.scaled_dot_product_attention(q, k, v)
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v


def is_fused(device: str, dtype: torch.dtype, *, num_rows: int, num_keys: int) -> bool:
    """Whether attention over so many keys in so many rows goes to a fused kernel.

    On CUDA not among the few frames at a place: their rows are many, more than the kernels take,
    or than the backward pass of flash attention can index, and nearly all of its tile of
    128 x 128 would be padding. On a CPU the fused backward pass takes twice the time of the same
    spelled out in bf16.
    """
    if device == "cuda":
        return num_keys > FEW_KEYS and num_rows <= MAX_ROWS
    return dtype == torch.float32


def linear_after(
    light: Callable[[Tensor], Tensor], linear: nn.Linear, tokens: Float[Tensor, "*batch token _"]
) -> Float[Tensor, "*batch token _"]:
    """linear(light(tokens)), keeping `tokens` alone for the backward pass.

    Norms and GELU cost little to make again, and their results as much memory as any other.
    """
    if not torch.is_grad_enabled():
        return linear(light(tokens))
    return checkpoint(
        lambda given: linear(light(given)), tokens, use_reentrant=False, preserve_rng_state=False
    )


class Attention(nn.Module):
    """Multi-head self-attention over the next-to-last axis; every axis before it is batch."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, tokens: Float[Tensor, "*batch token dim"], norm: nn.LayerNorm
    ) -> Float[Tensor, "*batch token dim"]:
        return self.proj(self.attend(tokens, norm))

    def attend(
        self, tokens: Float[Tensor, "*batch token dim"], norm: nn.LayerNorm
    ) -> Float[Tensor, "*batch token dim"]:
        """What the heads gather, side by side, before the output projection.

        `tokens` are not yet normalized.
        """
        rows = tokens.reshape(-1, *tokens.shape[-2:])  # the fused kernels take one batch axis
        q, k, v = rearrange(
            linear_after(norm, self.qkv, rows),
            "row token (three head d) -> three row head token d",
            three=3,
            head=self.num_heads,
        )
        gathered = attention(q, k, v)
        return rearrange(gathered, "row head token d -> row token (head d)").view_as(tokens)

    def first(
        self, tokens: Float[Tensor, "*batch token dim"], norm: nn.LayerNorm
    ) -> Float[Tensor, "*batch 1 dim"]:
        """The first token of `forward`, at the cost of its keys and values alone."""
        rows = norm(tokens).reshape(-1, *tokens.shape[-2:])
        dim = tokens.shape[-1]
        q = F.linear(rows[:, :1], self.qkv.weight[:dim], self.qkv.bias[:dim])
        kv = F.linear(rows, self.qkv.weight[dim:], self.qkv.bias[dim:])
        heads = {"head": self.num_heads}
        q = rearrange(q, "row token (head d) -> row head token d", **heads)
        k, v = rearrange(kv, "row token (two head d) -> two row head token d", two=2, **heads)
        gathered = attention(q, k, v)
        gathered = rearrange(gathered, "row head token d -> row token (head d)")
        return self.proj(gathered).view(*tokens.shape[:-2], 1, dim)


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(
        self, tokens: Float[Tensor, "*batch token dim"], norm: nn.LayerNorm
    ) -> Float[Tensor, "*batch token dim"]:
        return linear_after(F.gelu, self.fc2, linear_after(norm, self.fc1, tokens))


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

    def class_token(self, cls: Feature, patches: PatchTokens) -> Feature:
        """The class token of `forward`: all that recognition needs of the last block."""
        patches = patches + self.over_time(patches)
        tokens = with_class_token(cls, patches)
        residual = drop_path(self.attn.first(tokens, self.norm1), self.drop, self.training)
        cls = cls + reduce(residual, "batch frame 1 dim -> batch dim", "mean")
        token = rearrange(cls, "batch dim -> batch 1 dim")
        return cls + drop_path(self.mlp(token, self.norm2), self.drop, self.training)[:, 0]

    def over_time(self, patches: PatchTokens) -> PatchTokens:
        """Residual of attention among the frames at each place. The class token takes no part.

        The attention's projection P and `temporal_fc` F follow one another, with nothing but
        stochastic depth between them, which F's bias escapes: F(drop(P(x))) = drop((F P)(x)) + b.
        One product of small matrices saves one product a token.
        """
        tracks = rearrange(patches, "batch frame token dim -> batch token frame dim")
        gathered = self.temporal_attn.attend(tracks, self.temporal_norm1)
        inner, outer = self.temporal_attn.proj, self.temporal_fc
        residual = F.linear(gathered, outer.weight @ inner.weight, outer.weight @ inner.bias)
        residual = drop_path(residual, self.drop, self.training) + outer.bias
        return rearrange(residual, "batch token frame dim -> batch frame token dim")

    def over_space(self, cls: Feature, patches: PatchTokens) -> tuple[Feature, PatchTokens]:
        """Attention inside each frame; each frame has a copy of the class token, then averaged."""
        tokens = with_class_token(cls, patches)
        residual = drop_path(self.attn(tokens, self.norm1), self.drop, self.training)
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
        tokens = tokens + drop_path(self.mlp(tokens, self.norm2), self.drop, self.training)
        num_frames = patches.shape[1]
        return tokens[:, 0], rearrange(
            tokens[:, 1:], "batch (frame token) dim -> batch frame token dim", frame=num_frames
        )


def with_class_token(
    cls: Feature, patches: PatchTokens
) -> Float[Tensor, "batch frame one_and_token dim"]:
    """A copy of the class token before the patch tokens of each frame."""
    copies = repeat(cls, "batch dim -> batch frame 1 dim", frame=patches.shape[1])
    return torch.cat([copies, patches], dim=-2)
