"""CLIP and EVA-CLIP with a linear map of their tokens, trained on the labels that SeFAR had.

The map, dim -> dim, is trained through a classifier on the same labeled clips. Without it a
comparison with SeFAR's recognizer would measure who had labels. The map is applied to each token
before pooling; since pooling is a mean, mapping the pooled tokens gives the same result.
`linear_probe.py` writes the folder of a probe: config.json and probe.safetensors.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sefar_core.checkpoint import CheckpointError, read_weights, refuse_misfits
from sefar_core.shapes import FrameTokens
from sefar_mllm.encoders.base import Encoder, digest_of, origin_of
from sefar_mllm.encoders.image_models import clip, eva
from sefar_mllm.model_config import recorded_folder

SETTINGS = "config.json"
WEIGHTS = "probe.safetensors"
BASES = {build.__name__: build for build in (clip, eva)}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A map of an encoder's tokens, and the classifier of the mean mapped token that it was
    trained through.
    """

    base: str
    """Name of the encoder."""
    base_digest: str
    """Hash of the encoder's weights, see `Encoder.digest`."""
    base_origin: dict[str, Any]
    """Folder and seed that it was made from, and what is known of its weights."""
    labels: tuple[int, ...]
    """Class of each row of the classifier, ascending."""
    map: Float[Tensor, "dim dim"]
    """Applied to each token of the encoder."""
    weight: Float[Tensor, "class dim"]
    """Of the classifier, which scores the mean mapped token of a clip."""
    bias: Float[Tensor, "class"]

    @property
    def name(self) -> str:
        return f"{self.base}_probe"

    @property
    def digest(self) -> str:
        """Hash of everything that the mapped tokens depend on."""
        return digest_of({"map": self.map}, {"base digest": self.base_digest})

    def mapped(self, tokens: Float[Tensor, "*place dim"]) -> Float[Tensor, "*place dim"]:
        """The tokens that the language model sees in place of the encoder's."""
        return tokens @ self.map.T

    def logits(self, features: Float[Tensor, "clip dim"]) -> Float[Tensor, "clip class"]:
        """Class scores of clips, columns in the order of `labels`.

        `features` are the mean of all tokens of each clip, as the base encoder gives them.
        """
        return self.mapped(features) @ self.weight.T + self.bias


def clip_probe(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """`clip` with the map in `folder`.

    `folder` is what scripts/fit_probe.py wrote. The seed is not used: the weights are given.
    CheckpointError if there is no such probe, it is another encoder's, or the encoder that it names
    is not the one that it was trained on.
    """
    return _probed("clip", folder, seed, device)


def eva_probe(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """`eva` with the map in `folder`. See `clip_probe`."""
    return _probed("eva", folder, seed, device)


def on_top(base: Encoder, probe: Probe, origin: dict[str, Any]) -> Encoder:
    """The base encoder with its tokens mapped by the probe.

    The origin of the probe gets what is known of the base's weights. CheckpointError if the probe
    was trained on the tokens of another encoder.
    """
    if (probe.base, probe.base_digest) != (base.name, base.digest):
        raise CheckpointError(
            f"the probe in {origin['folder']} was trained on {probe.base} with digest "
            f"{probe.base_digest}, but {base.origin['folder']} holds {base.name} with digest "
            f"{base.digest}; give the weights that it was trained on, or fit it again with "
            f"scripts/fit_probe.py"
        )

    def encode(frames: UInt8[Tensor, "batch frame height width 3"]) -> FrameTokens:
        return probe.mapped(base.encode(frames))

    origin = origin | {"weights": base.origin["weights"]}
    return replace(base, name=probe.name, digest=probe.digest, origin=origin, encode=encode)


def read_probe(folder: Path) -> Probe:
    """The probe in a folder. CheckpointError if settings or weights are missing, damaged, or do not
    belong together.
    """
    folder = Path(folder)
    if not (folder / SETTINGS).is_file():
        raise CheckpointError(
            f"{folder} is not a probe: it has no {SETTINGS}; fit one with scripts/fit_probe.py"
        )
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        base, labels = settings["base"], tuple(settings["labels"])
        name, digest, dim = base["encoder"], base["digest"], base["dim"]
        origin = {fact: base[fact] for fact in ("folder", "seed", "weights")}
    except (ValueError, KeyError, TypeError) as cause:
        raise CheckpointError(
            f"{folder / SETTINGS} has no settings of a probe ({cause!r}); fit it again with "
            f"scripts/fit_probe.py"
        ) from cause
    state = read_weights(folder / WEIGHTS)
    expected = {
        "map": torch.empty(dim, dim, device="meta"),
        "weight": torch.empty(len(labels), dim, device="meta"),
        "bias": torch.empty(len(labels), device="meta"),
    }
    fix = "fit it again with scripts/fit_probe.py"
    refuse_misfits(expected, state, folder / WEIGHTS, fix=fix)
    return Probe(base=name, base_digest=digest, base_origin=origin, labels=labels, **state)


def _probed(base: str, folder: Path, seed: int, device: str) -> Encoder:
    probe = read_probe(folder)
    if probe.base != base:
        raise CheckpointError(
            f"the probe in {folder} was trained on {probe.base}, not on {base}; give a folder that "
            f"scripts/fit_probe.py made from the tokens of {base}"
        )
    recorded = probe.base_origin["folder"]
    weights = recorded_folder(recorded, Path(folder)) or Path(recorded)
    encoder = BASES[base](weights, device=device)
    return on_top(encoder, probe, origin_of(folder, seed))
