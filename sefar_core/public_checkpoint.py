"""Checkpoints of the public SeFAR code, read and written.

Source: KyleHuang9/SeFAR at d0435a9, `multi_granular_vit`: a `torch.save` dict with `epoch`,
`model_state`, `optimizer_state` and `cfg`, the settings as YAML text. Of these `model_state` is
loaded, and `cfg` gives what tensors cannot tell: the mean and deviation of the colors. Sizes are
told from shapes. The number of heads leaves no trace in a shape; both published sizes, S and B,
have heads of 64, and so have the models read here. docs/paper_map.md, row 13.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from sefar_core.checkpoint import (
    CheckpointError,
    build_model,
    contiguous,
    refuse_misfits,
)
from sefar_core.config import ModelConfig
from sefar_core.model import SefarModel
from sefar_core.torch_file import named_tensors, read_torch, unwrapped

# The modules of ours and of the public code that hold the same tensors.
RENAMED = {
    "backbone": "vit.model",
    "pair.linear": "post_fusion1",
    "pair.norm": "ln1",
    "single.linear": "post_fusion0",
    "single.norm": "ln2",
    "joint.linear": "global_fusion",
    "joint.norm": "ln3",
    "classifier": "fc",
}
HEAD_DIM = 64
MODEL_TYPES = {(384, 12): "small", (768, 12): "base"}  # by width and depth
PUBLIC_MEND = "it must be a whole checkpoint of the public SeFAR code, as its training wrote it"


def load_released_checkpoint(path: Path | str) -> SefarModel:
    """The recognizer in a checkpoint of the public code, frozen and in evaluation mode.

    Its logits are the public model's on frames of the size that the position embeddings were made
    for, 224 pixels in every published setting. No object but tensors, numbers and text is read
    from the file.

    Raises:
        CheckpointError: the file is missing, damaged, no such checkpoint or asks for other
            objects, or a tensor is missing, unknown, of another shape, or not finite.
    """
    return read_released_checkpoint(Path(path))[0]


def read_released_checkpoint(path: Path) -> tuple[SefarModel, ModelConfig]:
    """As `load_released_checkpoint`, with the settings that describe the network."""
    state, text = read_parts(path)
    config, num_classes = read_sizes(state, path)
    mean, std = read_colors(text, path)
    config = replace(config, mean=mean, std=std)
    with torch.random.fork_rng(devices=[]):  # loading draws nothing from the caller's numbers
        model = build_model(config, num_classes)
    refuse_misfits(released_state(model), state, path, mend=PUBLIC_MEND)
    model.load_state_dict({name: state[released_name(name)] for name in model.state_dict()})
    return model.requires_grad_(False).eval(), config


def export_released_checkpoint(model: SefarModel, path: Path | str) -> None:
    """Write a checkpoint for the public code to test or to fine-tune; all or nothing.

    The file is a pickle, since the public code reads nothing else; it is meant for that code, and
    encoders for everybody else. It holds no optimizer's state, so a run cannot be resumed from it.

    Raises:
        ValueError: a network that the public code cannot build.
    """
    path = Path(path)
    checkpoint = {
        "epoch": 0,
        "model_state": released_state(model),
        "optimizer_state": {},
        "cfg": released_settings(model),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(checkpoint, fresh)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def released_name(name: str) -> str:
    """The public code's name of a tensor of ours."""
    module = next(module for module in RENAMED if name.startswith(f"{module}."))
    return RENAMED[module] + name.removeprefix(module)


def released_state(model: SefarModel) -> dict[str, Tensor]:
    """The tensors of a network under the public code's names."""
    return {released_name(name): t for name, t in contiguous(model.state_dict()).items()}


def released_settings(model: SefarModel) -> str:
    """The public code's settings for a network, as YAML text.

    Raises:
        ValueError: a network that the public code cannot build.
    """
    backbone = model.backbone
    depth, fusion_dim = len(backbone.blocks), model.classifier.in_features
    attention: Any = backbone.get_submodule("blocks.0.attn")
    found = {
        "a width and depth of 384 and 12 or 768 and 12": (model.dim, depth) in MODEL_TYPES,
        "heads of 64": model.dim == HEAD_DIM * attention.num_heads,
        "14 x 14 patches of 16 pixels": (backbone.grid, backbone.patch_size) == (14, 16),
        "a fused feature of 256": fusion_dim == 256,
        "two elements or more": len(model.sizes) > 1,
    }
    if missing := [wanted for wanted, true in found.items() if not true]:
        raise ValueError(
            f"the public code cannot build this network: it asks for {', '.join(missing)}; train "
            f"with the sizes of the presets vit_s or vit_b"
        )
    settings = {
        "DATA": {
            "MEAN": list(model.mean),
            "SAMPLE_FRAMES": list(model.sizes),
            "STD": list(model.std),
            "TEST_CROP_SIZE": model.image_size,
            "TRAIN_CROP_SIZE": model.image_size,
        },
        "MODEL": {
            "MODEL_NAME": "multi_granular_vit",
            "MODEL_TYPE": MODEL_TYPES[model.dim, depth],
            "NUM_CLASSES": model.classifier.out_features,
        },
        "TIMESFORMER": {"ATTENTION_TYPE": "divided_space_time"},
    }
    return yaml.safe_dump(settings)


def read_parts(path: Path) -> tuple[dict[str, Tensor], str]:
    """`model_state`, without the names of wrappers, and `cfg`.

    Raises:
        CheckpointError: either is missing or something else.
    """
    parts = read_torch(path)
    if not isinstance(parts, Mapping) or not {"model_state", "cfg"} <= parts.keys():
        found = sorted(map(str, parts)) if isinstance(parts, Mapping) else type(parts).__name__
        raise CheckpointError(
            f"{path} is no checkpoint of the public SeFAR code: it holds {found}, not "
            f"model_state and cfg; {PUBLIC_MEND}"
        )
    if not isinstance(parts["cfg"], str):
        raise CheckpointError(
            f"{path}: cfg is a {type(parts['cfg']).__name__}, not text; {PUBLIC_MEND}"
        )
    return unwrapped(named_tensors(parts["model_state"], path)), parts["cfg"]


def read_sizes(state: Mapping[str, Tensor], path: Path) -> tuple[ModelConfig, int]:
    """Settings of the network and number of classes, by the shapes of a few tensors.

    Raises:
        CheckpointError: one of them is missing, or tells of no such network.
    """

    def shape(name: str, num_axes: int) -> tuple[int, ...]:
        if name not in state:
            raise CheckpointError(f"{path}: {name} is missing; {PUBLIC_MEND}")
        if state[name].ndim != num_axes:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, not one of {num_axes} "
                f"axes; {PUBLIC_MEND}"
            )
        return tuple(state[name].shape)

    dim, _, patch_size, _ = shape("vit.model.patch_embed.proj.weight", 4)
    num_positions = shape("vit.model.pos_embed", 3)[1]
    grid = math.isqrt(max(num_positions - 1, 0))
    fusion_dim, joined = shape("global_fusion.weight", 2)
    # n elements are joined as n singles and n (n - 1) / 2 pairs.
    num_elements = (math.isqrt(8 * (joined // max(fusion_dim, 1)) + 1) - 1) // 2
    num_classes = shape("fc.weight", 2)[0]
    if 1 + grid**2 != num_positions or dim % HEAD_DIM:
        raise CheckpointError(
            f"{path} has {num_positions} positions of width {dim}; it must have a class token and "
            f"a square of positions, and a multiple of {HEAD_DIM}, the width of a head in both "
            f"published sizes"
        )
    try:
        config = ModelConfig(
            sizes=tuple(shape(f"vit.model.time_embed.{i}", 3)[1] for i in range(num_elements)),
            image_size=grid * patch_size,
            patch_size=patch_size,
            dim=dim,
            depth=count_blocks(state),
            num_heads=dim // HEAD_DIM,
            fusion_dim=fusion_dim,
        )
    except ValueError as cause:
        raise CheckpointError(f"{path} describes no network: {cause}; {PUBLIC_MEND}") from cause
    return config, num_classes


def count_blocks(state: Mapping[str, Tensor]) -> int:
    """Blocks up to the last that is named, and never more than there are tensors."""
    named = [name.split(".")[3] for name in state if name.startswith("vit.model.blocks.")]
    last = max((int(number) for number in named if number.isdecimal()), default=-1)
    return min(last + 1, len(state))


def read_colors(text: str, path: Path) -> tuple[Any, Any]:
    """Mean and deviation of the colors in `cfg`; the public code's own where it names none.

    Raises:
        CheckpointError: no YAML, or no three numbers, those of the deviation above 0.
    """
    try:
        data = (yaml.safe_load(text) or {}).get("DATA") or {}
        mean = tuple(float(value) for value in data.get("MEAN", ModelConfig.mean))
        std = tuple(float(value) for value in data.get("STD", ModelConfig.std))
    except (yaml.YAMLError, AttributeError, RecursionError, TypeError, ValueError) as cause:
        raise CheckpointError(f"{path}: cfg cannot be read ({cause!r}); {PUBLIC_MEND}") from cause
    if not (len(mean) == len(std) == 3 and all(map(math.isfinite, mean + std)) and min(std) > 0):
        raise CheckpointError(
            f"{path}: cfg has DATA.MEAN {mean} and DATA.STD {std}, not three numbers each, those "
            f"of STD above 0; {PUBLIC_MEND}"
        )
    return mean, std
