"""Encoders made from the recognizer: the one that SeFAR trained, and controls.

`sefar` and `supervised` differ only in their checkpoint. `sefar_elements` and `sefar_fused` give
what the classifier sees in place of the patches, to show whether the patches matter. `random` is
the same network without training; `constant` is blind.

Where the settings of a training run show how a checkpoint was trained, `sefar` and `supervised`
refuse each other's. A bare encoder folder does not show it, and is accepted under either name.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from sefar_core import load_encoder
from sefar_core.checkpoint import CheckpointError, build_model, encoder_in, read_architecture
from sefar_core.config import ModelConfig
from sefar_core.data.transforms import Pixels, fixed_placements, normalized_crop
from sefar_core.model import SefarModel
from sefar_core.run_dir import run_of
from sefar_core.sampling import places_in_time
from sefar_core.shapes import FrameTokens
from sefar_mllm.encoders.base import Encoder, digest_of, origin_of

Seen: TypeAlias = Float[Tensor, "batch seen row column dim"]
See = Callable[[SefarModel, Sequence[Tensor]], Seen]
"""The features that are taken from a network, given the elements of some clips."""

ONLY_FOR_TRAINING = ("pretrained", "drop_path_rate", "dropout")
"""Settings of a network that its tokens do not depend on."""


class Network(NamedTuple):
    """A recognizer, and what identifies it besides its weights."""

    model: SefarModel
    config: ModelConfig
    origin: dict[str, Any]


def sefar(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The recognizer in `folder`, trained with SeFAR.

    `folder` is what scripts/train_ssl.py wrote: a run, or an encoder in it; one without its run is
    accepted as it is. The seed is not used: the weights are given. CheckpointError if there is no
    such network, or it was trained on labels alone.
    """
    return _recognizer("sefar", _trained_with_sefar(folder, seed), device)


def supervised(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The recognizer in `folder`, trained on the same labels without SeFAR. See `sefar`.
    CheckpointError if there is no such network, or it was trained on unlabeled clips, too.
    """
    network = _trained(folder, seed)
    if _labels_alone(Path(folder)) is False:
        raise CheckpointError(
            f"{folder} was trained on unlabeled clips, too, but supervised is the network of the "
            f"labels alone; give a run of train_ssl.py's preset supervised, and this one as sefar"
        )
    return _recognizer("supervised", network, device)


def sefar_elements(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The class token of each element of `sefar`, fine elements first, as frames of one token."""

    def see(model: SefarModel, elements: Sequence[Tensor]) -> Seen:
        seen = torch.stack(model.backbone.class_tokens(elements), dim=1)
        return rearrange(seen, "batch element dim -> batch element 1 1 dim")

    return _recognizer("sefar_elements", _trained_with_sefar(folder, seed), device, see=see)


def sefar_fused(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The feature that `sefar` makes of all elements before its class scores, as one token."""

    def see(model: SefarModel, elements: Sequence[Tensor]) -> Seen:
        return rearrange(model.features(elements), "batch dim -> batch 1 1 1 dim")

    network = _trained_with_sefar(folder, seed)
    dim = network.model.classifier.in_features
    return _recognizer("sefar_fused", network, device, see=see, dim=dim)


def random(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The architecture of the recognizer in `folder` with random weights, drawn from `seed`."""
    config, num_classes = read_architecture(encoder_in(folder))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(config, num_classes)
    model.requires_grad_(False).eval()
    return _recognizer("random", Network(model, config, origin_of(folder, seed)), device)


def constant(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """The blind control: the shape of the tokens of the recognizer in `folder`, and one value."""
    model = load_encoder(folder)
    pattern = torch.linspace(-1, 1, model.dim)

    def encode(frames: UInt8[Tensor, "batch frame height width 3"]) -> FrameTokens:
        rows = model.backbone.grid
        return pattern.expand(*frames.shape[:2], rows, rows, model.dim)

    return Encoder(
        name="constant",
        digest=digest_of({"pattern": pattern}, {}),
        moments=_moments(model),
        dim=model.dim,
        origin=origin_of(folder, seed),
        encode=encode,
    )


def recognizer_moments(folder: Path) -> tuple[float, ...]:
    """The moments of the recognizer in `folder`, however it was trained."""
    return _moments(load_encoder(folder))


def _recognizer(
    name: str,
    network: Network,
    device: str,
    *,
    see: See = SefarModel.frame_tokens,
    dim: int | None = None,
) -> Encoder:
    model = network.model.to(device)
    pixels = Pixels(model.image_size, model.mean, model.std)
    (center,) = fixed_placements(model.image_size, num_crops=1)
    in_time = places_in_time(model.sampling.center(model.sizes))

    @torch.inference_mode()
    def encode(frames: UInt8[Tensor, "batch frame height width 3"]) -> Seen:
        clips = torch.stack([normalized_crop(clip, center, pixels) for clip in frames]).to(device)
        return see(model, [clips[:, :, places] for places in in_time]).float().cpu()

    settings = asdict(network.config)
    return Encoder(
        name=name,
        digest=digest_of(
            model.state_dict(), {n: v for n, v in settings.items() if n not in ONLY_FOR_TRAINING}
        ),
        moments=_moments(model),
        dim=dim or model.dim,
        origin=network.origin,
        encode=encode,
    )


def _moments(model: SefarModel) -> tuple[float, ...]:
    """The moments of all elements in the order of time."""
    return tuple(sorted(float(f) for part in model.sampling.center(model.sizes) for f in part))


def _trained(folder: Path, seed: int) -> Network:
    return Network(
        load_encoder(folder), read_architecture(encoder_in(folder))[0], origin_of(folder, seed)
    )


def _trained_with_sefar(folder: Path, seed: int) -> Network:
    network = _trained(folder, seed)
    if _labels_alone(Path(folder)):
        raise CheckpointError(
            f"{folder} was trained on labels alone, but sefar is a network that saw unlabeled "
            f"clips, too; give a run with warmup_epochs below epochs, and this one as supervised"
        )
    return network


def _labels_alone(folder: Path) -> bool | None:
    """Whether a run, or an encoder in it, was trained on labels alone; None if unknown."""
    path = run_of(folder) / "config.json"
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise CheckpointError(
            f"{path} is damaged ({cause}); train again or fetch the file again"
        ) from cause
    if "warmup_epochs" not in settings:  # of a bare encoder
        return None
    return settings["warmup_epochs"] >= settings["epochs"]
