"""What an encoder is, how its tokens are pooled, and which encoders may be compared."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, reduce
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from sefar_core.shapes import FrameTokens


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A frozen encoder and what identifies it."""

    name: str
    """Key of `ENCODERS`."""
    digest: str
    """Hash of the weights, the architecture and all else that changes the tokens."""
    moments: tuple[float, ...]
    """Fractions of the clip, in [0, 1) and ascending, of the frames that it takes."""
    dim: int
    origin: dict[str, Any]
    """Folder, an absolute path, and seed that it was made from; of image models `weights`, too:
    what is known of their authenticity, to be shown with every result."""
    encode: Callable[[UInt8[Tensor, "batch frame height width 3"]], FrameTokens]
    """From frames, RGB and upright, to tokens on the CPU."""
    any_moments: bool = False
    """It encodes each frame by itself and may be shown other moments."""

    def key(self, grid: int) -> dict[str, Any]:
        """What the tokens depend on, pooled to grid x grid: the key of a cache."""
        return {
            "encoder": self.name,
            "digest": self.digest,
            "moments": list(self.moments),
            "dim": self.dim,
            "grid": grid,
        }


def with_frame_times(encoder: Encoder, moments: Sequence[float]) -> Encoder:
    """The encoder with the moments of another, so that the two can be compared.

    The moments are taken as they are: rounded ones could show the frame before. ValueError if it is
    made for moments of its own.
    """
    moments = tuple(moments)
    if moments == encoder.moments:
        return encoder
    if not encoder.any_moments:
        raise ValueError(
            f"{encoder.name} is made for the moments {list(encoder.moments)}, and cannot be shown "
            f"{list(moments)}; compare networks of the same sampling"
        )
    return replace(encoder, moments=moments)


def pool(tokens: FrameTokens, grid: int) -> Float[Tensor, "batch frame {grid} {grid} dim"]:
    """Mean tokens of a grid x grid of areas in each frame. ValueError if the grid is below 1, or
    larger than the grid of tokens.
    """
    rows, columns = tokens.shape[2:4]
    if grid < 1:
        raise ValueError(f"tokens are pooled to a grid of at least 1, got {grid}")
    if grid > min(rows, columns):
        raise ValueError(
            f"the encoder gives {rows} x {columns} tokens a frame, which cannot be pooled to "
            f"{grid} x {grid}; give grid {min(rows, columns)}"
        )
    if rows % grid == 0 and columns % grid == 0:
        return reduce(
            tokens,
            "batch frame (row tall) (column wide) dim -> batch frame row column dim",
            "mean",
            row=grid,
            column=grid,
        )
    frames = rearrange(tokens, "batch frame row column dim -> (batch frame) dim row column")
    pooled = F.adaptive_avg_pool2d(frames, grid)
    return rearrange(
        pooled, "(batch frame) dim row column -> batch frame row column dim", batch=len(tokens)
    )


def refuse_unequal_moments(keys: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to compare encoders that were shown different moments of a clip.

    `keys` are `Encoder.key`, or keys of token caches, by name in the comparison. ValueError if two
    of them differ; the message names all, with their moments.
    """
    seen: dict[tuple[float, ...], list[str]] = {}
    for name, key in keys.items():
        seen.setdefault(tuple(key["moments"]), []).append(name)
    if len(seen) > 1:
        shown = "; ".join(f"{', '.join(names)}: {list(each)}" for each, names in seen.items())
        raise ValueError(
            f"encoders that saw different moments of a clip cannot be compared: {shown}; "
            f"extract the tokens of all from networks of the same sampling"
        )


def origin_of(folder: Path, seed: int) -> dict[str, Any]:
    """`Encoder.origin`, from which the encoder can be made again."""
    return {"folder": os.path.abspath(folder), "seed": seed}


def digest_of(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """A hash of tensors (names, shapes and values) and settings, short enough to read.

    `settings` are what the weights do not show, such as the number of heads; they must be JSON.
    """
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]
