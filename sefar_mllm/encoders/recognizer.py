"""Encoders made of the recognizer: what SeFAR trained, and the controls of its architecture.

`sefar` and `supervised` differ only in the checkpoint that they are given. `sefar_elements` and
`sefar_fused` give what the classifier sees in place of the patches, for the question whether the
patches matter. `random` is the same network without training, `constant` no sight at all.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from sefar_core import load_encoder
from sefar_core.checkpoint import build_model, read_settings
from sefar_core.config import ModelConfig
from sefar_core.data.transforms import Pixels, fixed_placements, look
from sefar_core.model import SefarModel
from sefar_core.sampling import places_in_time
from sefar_core.shapes import FrameTokens
from sefar_mllm.encoders.contract import Encoder, digest_of, origin_of

Seen: TypeAlias = Float[Tensor, "batch seen row column dim"]
See = Callable[[SefarModel, Sequence[Tensor]], Seen]
"""What is taken from a network that is given the elements of some clips."""


def sefar(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The recognizer in `folder`, trained with SeFAR.

    Args:
        folder: what scripts/train_ssl.py wrote.
        seed: not used; the weights are given.
        device: where it runs.
    """
    return _recognizer("sefar", load_encoder(folder), origin_of(folder, seed), device)


def supervised(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The recognizer in `folder`, trained on the same labels without SeFAR. See `sefar`."""
    return _recognizer("supervised", load_encoder(folder), origin_of(folder, seed), device)


def sefar_elements(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The class token of each element of `sefar`, fine elements first, as frames of one token."""

    def see(model: SefarModel, elements: Sequence[Tensor]) -> Seen:
        seen = torch.stack(model.backbone.class_tokens(elements), dim=1)
        return rearrange(seen, "batch element dim -> batch element 1 1 dim")

    origin = origin_of(folder, seed)
    return _recognizer("sefar_elements", load_encoder(folder), origin, device, see=see)


def sefar_fused(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The feature that `sefar` makes of all elements before its class scores, as one token."""

    def see(model: SefarModel, elements: Sequence[Tensor]) -> Seen:
        return rearrange(model.features(elements), "batch dim -> batch 1 1 1 dim")

    model = load_encoder(folder)
    dim = model.classifier.in_features
    return _recognizer("sefar_fused", model, origin_of(folder, seed), device, see=see, dim=dim)


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
    return _recognizer("random", model, origin_of(folder, seed), device)


def constant(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The blind control: the shape of the tokens of the recognizer in `folder`, and one value."""
    model = load_encoder(folder)
    pattern = torch.linspace(-1, 1, model.dim)

    def encode(frames: UInt8[Tensor, "batch frame height width 3"]) -> FrameTokens:
        rows = model.backbone.grid
        return pattern.expand(*frames.shape[:2], rows, rows, model.dim)

    return Encoder(
        name="constant",
        digest=digest_of({"pattern": pattern}),
        moments=_moments(model),
        dim=model.dim,
        origin=origin_of(folder, seed),
        encode=encode,
    )


def _recognizer(  # noqa: PLR0913 - two of them are only for what is not the patches
    name: str,
    model: SefarModel,
    origin: dict[str, Any],
    device: str,
    *,
    see: See = SefarModel.frame_tokens,
    dim: int | None = None,
) -> Encoder:
    model.to(device)
    pixels = Pixels(model.image_size, model.mean, model.std)
    (center,) = fixed_placements(model.image_size, num_crops=1)
    in_time = places_in_time(model.sampling.center(model.sizes))

    @torch.inference_mode()
    def encode(frames: UInt8[Tensor, "batch frame height width 3"]) -> Seen:
        clips = torch.stack([look(clip, center, pixels) for clip in frames]).to(device)
        return see(model, [clips[:, :, places] for places in in_time]).float().cpu()

    return Encoder(
        name=name,
        digest=digest_of(
            {**model.state_dict(), "color scale": torch.tensor([model.mean, model.std])}
        ),
        moments=_moments(model),
        dim=dim or model.dim,
        origin=origin,
        encode=encode,
    )


def _moments(model: SefarModel) -> tuple[float, ...]:
    """The moments of all elements in the order of time."""
    return tuple(sorted(float(f) for part in model.sampling.center(model.sizes) for f in part))


def _settings_file(folder: Path) -> Path:
    """config.json of an encoder, or of the student in the folder of a run."""
    inner = Path(folder) / "student" / "config.json"
    return inner if inner.exists() else Path(folder) / "config.json"
