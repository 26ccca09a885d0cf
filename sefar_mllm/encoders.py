"""One contract for every encoder: frames of a clip -> tokens (batch frame row column dim).

All see the same moments of a clip, the centers of its equal segments in the order of time, and
give the same number of tokens. Each scales, crops and normalizes the frames for itself. `sefar`
and `supervised` differ only in the checkpoint that they are given; `random` and `constant` are
controls: the same network without training, and no sight at all.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, reduce
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from sefar_core import load_encoder
from sefar_core.checkpoint import build_model, read_settings
from sefar_core.config import ModelConfig
from sefar_core.data.transforms import Pixels, fixed_placements, look
from sefar_core.model import SefarModel
from sefar_core.sampling import places_in_time
from sefar_core.shapes import FrameTokens


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A frozen encoder and what tells it apart.

    Attributes:
        name: key of `ENCODERS`.
        digest: hash of the weights and of everything else that changes the tokens.
        moments: fractions of the clip, in [0, 1) and ascending, that it is to be shown.
        dim: width of a token.
        origin: folder and seed that it was made from.
        encode: frames UInt8 (batch frame height width channel), RGB and upright, to tokens
            (batch frame row column dim) on the CPU.
    """

    name: str
    digest: str
    moments: tuple[float, ...]
    dim: int
    origin: dict[str, Any]
    encode: Callable[[UInt8[Tensor, "batch frame height width 3"]], FrameTokens]

    def key(self, grid: int) -> dict[str, Any]:
        """What a cache of tokens, pooled to grid x grid, must agree on."""
        return {
            "encoder": self.name,
            "digest": self.digest,
            "moments": [round(moment, 6) for moment in self.moments],
            "dim": self.dim,
            "grid": grid,
        }


def sefar(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The recognizer in `folder`, trained with SeFAR.

    Args:
        folder: what scripts/train_ssl.py wrote.
        seed: not used; the weights are given.
        device: where it runs.
    """
    return _recognizer("sefar", load_encoder(folder), _origin(folder, seed), device)


def supervised(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The recognizer in `folder`, trained on the same labels without SeFAR. See `sefar`."""
    return _recognizer("supervised", load_encoder(folder), _origin(folder, seed), device)


def random(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The architecture of the recognizer in `folder` with random weights, drawn from `seed`."""
    settings = read_settings(_settings_file(folder))
    num_classes = settings.pop("num_classes")
    listed = {name: tuple(v) for name, v in settings.items() if isinstance(v, list)}
    config = ModelConfig(**{**settings, **listed, "pretrained": None})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(config, num_classes)
    model.requires_grad_(False).eval()
    return _recognizer("random", model, _origin(folder, seed), device)


def constant(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The blind control: the shape of the tokens of the recognizer in `folder`, and one value."""
    model = load_encoder(folder)
    pattern = torch.linspace(-1, 1, model.dim)

    def encode(frames: UInt8[Tensor, "batch frame height width 3"]) -> FrameTokens:
        rows = model.backbone.grid
        return pattern.expand(*frames.shape[:2], rows, rows, model.dim)

    return Encoder(
        name="constant",
        digest=_digest({"pattern": pattern}),
        moments=_moments(model),
        dim=model.dim,
        origin=_origin(folder, seed),
        encode=encode,
    )


ENCODERS: Mapping[str, Callable[..., Encoder]] = {
    build.__name__: build for build in (sefar, supervised, random, constant)
}


def pool(tokens: FrameTokens, grid: int) -> Float[Tensor, "batch frame {grid} {grid} dim"]:
    """Mean tokens of a grid x grid of places in each frame.

    Raises:
        ValueError: a grid of no places.
    """
    if grid < 1:
        raise ValueError(f"tokens are pooled to a grid of at least 1, got {grid}")
    if tokens.shape[2] % grid == 0 and tokens.shape[3] % grid == 0:
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


def _recognizer(name: str, model: SefarModel, origin: dict[str, Any], device: str) -> Encoder:
    model.to(device)
    pixels = Pixels(model.image_size, model.mean, model.std)
    (center,) = fixed_placements(model.image_size, num_crops=1)
    in_time = places_in_time(model.sampling.center(model.sizes))

    @torch.inference_mode()
    def encode(frames: UInt8[Tensor, "batch frame height width 3"]) -> FrameTokens:
        clips = torch.stack([look(clip, center, pixels) for clip in frames]).to(device)
        return model.frame_tokens([clips[:, :, places] for places in in_time]).float().cpu()

    return Encoder(
        name=name,
        digest=_digest(
            {**model.state_dict(), "color scale": torch.tensor([model.mean, model.std])}
        ),
        moments=_moments(model),
        dim=model.dim,
        origin=origin,
        encode=encode,
    )


def _origin(folder: Path, seed: int) -> dict[str, Any]:
    return {"folder": str(folder), "seed": seed}


def _moments(model: SefarModel) -> tuple[float, ...]:
    """The moments of all elements in the order of time."""
    return tuple(sorted(float(f) for part in model.sampling.center(model.sizes) for f in part))


def _settings_file(folder: Path) -> Path:
    """config.json of an encoder, or of the student in the folder of a run."""
    inner = Path(folder) / "student" / "config.json"
    return inner if inner.exists() else Path(folder) / "config.json"


def _digest(state: Mapping[str, Tensor]) -> str:
    """A hash of names, shapes and values, short enough to read."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]
