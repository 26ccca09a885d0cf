"""The two published image models, and what must hold before weights go by their names.

Without a network nothing proves whose weights a file holds: architecture, training set and colors
must be those that were published, and the weights must have been trained. A fine-tune of the same
architecture passes. Every row therefore carries the file's SHA-256, which the hub shows beside its
own file, and the words that it was not verified.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sefar_core.checkpoint import CheckpointError
from sefar_mllm.encoders.weight_folders import WeightFolder


def quick_gelu(x: Tensor) -> Tensor:
    """The activation that OpenAI trained CLIP with."""
    return x * torch.sigmoid(1.702 * x)


@dataclass(frozen=True, kw_only=True)
class ImageModel:
    """A published image model.

    Attributes:
        name: key of `ENCODERS`.
        architecture: timm's name of the network.
        sizes: of the network, by timm's names of its arguments.
        tag: timm's name of what the weights were trained on.
        activation: what the network was trained with.
        wanted: what the user is to put into the folder.
    """

    name: str
    architecture: str
    sizes: Mapping[str, int | float]
    tag: str
    activation: Callable[[Tensor], Tensor]
    wanted: str


CLIP = ImageModel(
    name="clip",
    architecture="vit_large_patch14_clip_quickgelu_224",
    sizes={
        "img_size": 224,
        "patch_size": 14,
        "in_chans": 3,
        "embed_dim": 1024,
        "depth": 24,
        "num_heads": 16,
        "mlp_ratio": 4.0,
    },
    tag="openai",
    activation=quick_gelu,
    wanted="config.json, preprocessor_config.json and model.safetensors of the hub's "
    "openai/clip-vit-large-patch14, or config.json and model.safetensors of timm's "
    "vit_large_patch14_clip_quickgelu_224.openai",
)
EVA = ImageModel(
    name="eva",
    architecture="eva_giant_patch14_clip_224",
    sizes={
        "img_size": 224,
        "patch_size": 14,
        "in_chans": 3,
        "embed_dim": 1408,
        "depth": 40,
        "num_heads": 16,
        "mlp_ratio": 6144 / 1408,
    },
    tag="laion400m",
    activation=F.gelu,
    wanted="config.json and model.safetensors of the hub's "
    "timm/eva_giant_patch14_clip_224.laion400m, or open_clip_config.json and "
    "open_clip_model.safetensors of timm/eva_giant_patch14_clip_224.laion400m_s11b_b41k",
)


def refuse_other_model(published: ImageModel, found: WeightFolder) -> None:
    """Raise CheckpointError if a folder's settings are not those of the published model."""
    where = found.file.parent
    if found.architecture != published.architecture:
        plain = published.architecture.replace("quickgelu_", "")
        mend = (
            f'if the weights are OpenAI\'s, set "architecture" to "{published.architecture}" in '
            f'config.json ("hidden_act" to "quick_gelu" in one of transformers): with plain GELU '
            f"they compute something else"
            if found.architecture == plain
            else f"put {published.wanted} there"
        )
        raise CheckpointError(
            f"{where} holds {found.architecture}, but {published.name} is "
            f"{published.architecture}; {mend}"
        )
    _refuse_other_sizes(published, found)
    if found.tag not in (None, published.tag):
        raise CheckpointError(
            f"{where} holds {found.architecture} trained on {found.tag}, but {published.name} is "
            f"trained on {published.tag}; put {published.wanted} there"
        )
    _refuse_other_colors(published, found)


def _refuse_other_sizes(published: ImageModel, found: WeightFolder) -> None:
    where, expected = found.file.parent, published.sizes
    unlike = [name for name, value in found.sizes.items() if value != expected.get(name, value)]
    if unlike:
        told = " and ".join(f"{name} = {found.sizes[name]}" for name in unlike)
        own = " and ".join(f"{expected[name]}" for name in unlike)
        raise CheckpointError(
            f"{where} holds a network with {told}, but {published.name} has {own}; "
            f"put {published.wanted} there"
        )
    if found.image_size != expected["img_size"]:
        raise CheckpointError(
            f"{where} speaks of images of {found.image_size} px, but {published.name} takes "
            f"{expected['img_size']} px; put {published.wanted} there"
        )


def _refuse_other_colors(published: ImageModel, found: WeightFolder) -> None:
    import timm  # which takes seconds

    settings: Any = timm.get_pretrained_cfg(f"{published.architecture}.{published.tag}")
    if (found.mean, found.std) != (tuple(settings.mean), tuple(settings.std)):
        raise CheckpointError(
            f"{found.file.parent} scales colors by mean {found.mean} and std {found.std}, but "
            f"{published.name} was trained with {settings.mean} and {settings.std}; correct them "
            f"in its settings"
        )


def refuse_other_activation(published: ImageModel, model: Any, found: WeightFolder) -> None:
    """Raise CheckpointError if timm's network of the folder computes another activation."""
    values = torch.linspace(-3, 3, 13)
    for number, block in enumerate(model.blocks):
        if not torch.allclose(block.mlp.act(values), published.activation(values), atol=1e-5):
            raise CheckpointError(
                f"block {number} of the network in {found.file.parent} computes "
                f"{block.mlp.act}, but {published.name} was trained with "
                f"{published.activation.__name__}; take act_layer out of its settings"
            )


def refuse_untrained(published: ImageModel, found: WeightFolder) -> None:
    """Raise CheckpointError for weights as a network begins with: layer norms that scale by one
    number each. Training moves them apart."""
    scales = [value for name, value in found.state.items() if name.endswith("norm1.weight")]
    if all(bool((scale == scale[0]).all()) for scale in scales):
        raise CheckpointError(
            f"{found.file} holds weights that were never trained: each layer norm scales by one "
            f"number; random weights do not go by the name {published.name}: put "
            f"{published.wanted} there"
        )


def unverified(file: Path) -> str:
    """What is known of the authenticity of weights, to be shown with every number from them."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return f"weights not verified against a published hash: {file.name} has sha256 {digest}"
