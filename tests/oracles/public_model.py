"""The public SeFAR network under its own names of parameters, slow and plain.

One clip at a time, one flat list of tokens [class, place by place with time running fastest],
every product, norm and softmax spelled out. Imports nothing of the package. Written from the facts
of KyleHuang9/SeFAR at d0435a9 (multi_granular_vit).
"""

import math
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor, nn

HEAD_WIDTH = 64


def affine(layer: nn.Linear, x: Tensor) -> Tensor:
    return x @ layer.weight.T + layer.bias


def normed(layer: nn.LayerNorm, x: Tensor, eps: float) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    variance = (centered**2).mean(-1, keepdim=True)
    return centered / (variance + eps).sqrt() * layer.weight + layer.bias


def gelu(x: Tensor) -> Tensor:
    return x / 2 * (1 + torch.erf(x / math.sqrt(2)))


def attended(layer: nn.Module, tokens: Tensor) -> Tensor:
    """Self-attention over the rows of a matrix (token, width)."""
    width = tokens.shape[1]
    q, k, v = affine(layer.qkv, tokens).split(width, dim=1)
    heads = []
    for start in range(0, width, HEAD_WIDTH):
        part = slice(start, start + HEAD_WIDTH)
        scores = (q[:, part] @ k[:, part].T / math.sqrt(HEAD_WIDTH)).exp()
        heads.append(scores / scores.sum(1, keepdim=True) @ v[:, part])
    return affine(layer.proj, torch.cat(heads, 1))


class Named(nn.Module):
    """A place for parameters, with no computation of its own."""

    def __init__(self, **parts: nn.Module | nn.Parameter):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def block(width: int) -> Named:
    def attention() -> Named:
        return Named(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width))

    return Named(
        norm1=nn.LayerNorm(width),
        attn=attention(),
        temporal_norm1=nn.LayerNorm(width),
        temporal_attn=attention(),
        temporal_fc=nn.Linear(width, width),
        norm2=nn.LayerNorm(width),
        mlp=Named(fc1=nn.Linear(width, 4 * width), fc2=nn.Linear(4 * width, width)),
    )


class PublicModel(nn.Module):
    """`multi_granular_vit`. Width 384 is its small size, 768 its base size; both have 12 blocks."""

    def __init__(self, frames=(2, 2, 4), *, width=384, depth=12, grid=14, patch=16, classes=99):
        super().__init__()
        self.grid, self.patch = grid, patch
        n = len(frames)
        self.vit = Named(
            model=Named(
                cls_token=nn.Parameter(torch.zeros(1, 1, width)),
                pos_embed=nn.Parameter(torch.zeros(1, grid * grid + 1, width)),
                time_embed=nn.ParameterList(torch.zeros(1, t, width) for t in frames),
                patch_embed=Named(proj=nn.Conv2d(3, width, patch, stride=patch)),
                blocks=nn.ModuleList(block(width) for _ in range(depth)),
                norm=nn.LayerNorm(width),
            )
        )
        self.post_fusion1 = nn.Linear(2 * width, 256)
        self.post_fusion0 = nn.Linear(width, 256)
        self.global_fusion = nn.Linear((n + n * (n - 1) // 2) * 256, 256)
        self.ln1, self.ln2, self.ln3 = nn.LayerNorm(256), nn.LayerNorm(256), nn.LayerNorm(256)
        self.fc = nn.Linear(256, classes)

    @torch.no_grad()
    def forward(self, elements: list[Tensor]) -> Tensor:
        """Class scores of each clip, without any dropout.

        Args:
            elements: tensors (batch, color, frame, height, width).
        """
        return torch.stack(
            [self.scores([clip[i] for clip in elements]) for i in range(len(elements[0]))]
        )

    def scores(self, elements: list[Tensor]) -> Tensor:
        seen = [self.class_feature(clip, e) for e, clip in enumerate(elements)]
        joined = [
            normed(self.ln1, gelu(affine(self.post_fusion1, torch.cat([a, b]))), 1e-5)
            for a, b in combinations(seen, 2)
        ]
        joined += [normed(self.ln2, gelu(affine(self.post_fusion0, a)), 1e-5) for a in seen]
        fused = normed(self.ln3, gelu(affine(self.global_fusion, torch.cat(joined))), 1e-5)
        return affine(self.fc, fused)

    def class_feature(self, clip: Tensor, element: int) -> Tensor:
        vit, frames, places = self.vit.model, clip.shape[1], self.grid**2
        tokens = [vit.cls_token[0, 0] + vit.pos_embed[0, 0]]
        for n in range(places):
            for t in range(frames):
                place = vit.pos_embed[0, 1 + n] + vit.time_embed[element][0, t]
                tokens.append(self.patch_token(clip[:, t], n) + place)
        x = torch.stack(tokens)
        for layer in vit.blocks:
            x = after_block(layer, x, frames, places)
        return normed(vit.norm, x[0], 1e-6)

    def patch_token(self, frame: Tensor, n: int) -> Tensor:
        proj, size = self.vit.model.patch_embed.proj, self.patch
        top, left = n // self.grid * size, n % self.grid * size
        pixels = frame[:, top : top + size, left : left + size]
        return proj.weight.flatten(1) @ pixels.flatten() + proj.bias


def after_block(layer: nn.Module, x: Tensor, frames: int, places: int) -> Tensor:
    x = x.clone()
    for n in range(places):
        track = slice(1 + n * frames, 1 + (n + 1) * frames)
        moved = attended(layer.temporal_attn, normed(layer.temporal_norm1, x[track], 1e-6))
        x[track] = x[track] + affine(layer.temporal_fc, moved)
    added = torch.zeros_like(x)
    for t in range(frames):
        rows = [0, *range(1 + t, 1 + places * frames, frames)]
        looked = attended(layer.attn, normed(layer.norm1, x[rows], 1e-6))
        added[0] += looked[0] / frames
        added[rows[1:]] = looked[1:]
    x = x + added
    return x + affine(layer.mlp.fc2, gelu(affine(layer.mlp.fc1, normed(layer.norm2, x, 1e-6))))


def save_toy(path: Path, *, classes: int) -> PublicModel:
    """Write a checkpoint of a small network with colors of its own, as the public code does."""
    torch.manual_seed(0)
    model = PublicModel(width=64, depth=1, grid=2, classes=classes)
    cfg = "DATA: {MEAN: [0.4, 0.5, 0.6]}"
    parts = {"epoch": 1, "model_state": model.state_dict(), "optimizer_state": {}, "cfg": cfg}
    torch.save(parts, path)
    return model
