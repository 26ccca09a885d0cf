"""Weights that others trained: a ViT or TimeSformer to start from, checkpoints of SeFAR's release.

Source of `load_vit`: the public SeFAR code starts from a ViT of ImageNet in timm's naming
(helpers.py, d0435a9): each block's attention and norm are copied to their temporal twins, the
temporal projection and the time embeddings stay zero, so that the first forward pass sees each
frame as the ViT does. A TimeSformer brings its own temporal weights. docs/paper_map.md, row 12.

Source of `load_sefar_release`: KyleHuang9/SeFAR at d0435a9, `multi_granular_vit`: a `torch.save`
dict with `epoch`, `model_state`, `optimizer_state` and `cfg`, the settings as YAML text. Of these
`model_state` is loaded, and `cfg` gives what tensors cannot: the mean and deviation of the colors.
Sizes follow from shapes. The number of heads leaves no trace in a shape; both published sizes, S
and B, have heads of 64, and so have the models read here. docs/paper_map.md, row 13.

A file that `torch.save` wrote is read without running what is in it (`read_torch`).
"""

import math
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn

from sefar_core.checkpoint import (
    CheckpointError,
    build_model,
    read_weights,
    refuse_misfits,
)
from sefar_core.config import ModelConfig, shipped
from sefar_core.model import SefarModel
from sefar_core.sampling import SAMPLINGS, Moments, Sampling
from sefar_core.timesformer import TimeSformer

TIMM = "timm:"
ROUNDING = 1e-4  # of a frame: a moment on the border of two belongs to the later one
# Of the public TimeSformer, timm, DeiT, many training loops, and timm's averaged weights.
CONTAINERS = ("model_state", "state_dict", "model", "model_state_dict", "state_dict_ema")
HEADS = ("head.", "fc_norm.", "pre_logits.", "classifier.")
TWINS = {".attn.": ".temporal_attn.", ".norm1.": ".temporal_norm1."}
FIX = "it must be a ViT or a TimeSformer of the width, depth and parts that model.* sets"

# The names of transformers' TimeSformer and of ours: of the whole, and inside a block.
VIT_RENAMED = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.time_embeddings": "time_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
RENAMED_IN_BLOCK = {
    "temporal_layernorm": "temporal_norm1",
    "temporal_attention.attention.qkv": "temporal_attn.qkv",
    "temporal_attention.output.dense": "temporal_attn.proj",
    "temporal_dense": "temporal_fc",
    "layernorm_before": "norm1",
    "attention.attention.qkv": "attn.qkv",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}

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
RELEASE_FIX = "it must be a whole checkpoint of the public SeFAR code, as its training wrote it"

ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"  # torch.save's form since 1.6, and before

# What torch's reader was seen to raise on cut and altered files, and on objects that it refuses.
DAMAGE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


def load_vit(
    backbone: TimeSformer, source: Path | str, *, sampling: Sampling = SAMPLINGS["interleaved"]
) -> None:
    """Start from pretrained weights. Heads of classes are left out.

    Positions of another grid and patches of another size are resized in the plane. The number of
    heads leaves no trace in a file: give the one that the weights were trained with.

    Args:
        backbone: gets the weights.
        source: a file of a ViT in timm's naming, or of a TimeSformer with divided attention in the
            naming of its public code or of transformers (.safetensors, or what torch.save wrote);
            `timm:NAME`, which timm fetches; or `demo:vit`, which the package ships.
        sampling: the moments of a clip that its elements sample; a TimeSformer's time embedding is
            distributed over them.

    Raises:
        CheckpointError: the source cannot be loaded, or a tensor that the backbone needs is
            missing, unknown, of another shape, or not finite.
    """
    name = str(source).removeprefix(TIMM)
    state = read_vit(Path(shipped(source))) if name == str(source) else fetch_vit(name, backbone)
    state = fit_plane({name: tensor.float() for name, tensor in state.items()}, backbone)
    own = backbone.state_dict()
    if "time_embed" in state:
        moments = sampling.center([time.shape[1] for time in backbone.time_embed])
        state.update(split_time_embedding(state.pop("time_embed"), moments))
        refuse_misfits(own, state, source, fix=FIX)
    else:
        added = {name: own[name] for name in own if "temporal_" in name or "time_embed" in name}
        images = {name: own[name] for name in own.keys() - added.keys()}
        refuse_misfits(images, state, source, fix=FIX)
        state = added | state | temporal_twins(state)
    backbone.load_state_dict(state)


def read_vit(path: Path) -> dict[str, Tensor]:
    """The tensors of a file under timm's names, and those of a TimeSformer's parts beside them.
    CheckpointError if the file is missing, or something in it is not a tensor.
    """
    found: Any = read_weights(path) if path.suffix == ".safetensors" else read_torch(path)
    if isinstance(found, Mapping):
        found = next((found[key] for key in CONTAINERS if isinstance(found.get(key), dict)), found)
    state = without_heads(unwrapped(named_tensors(found, path)))
    for wrapper in ("model.", "timesformer."):
        state = unwrapped(without_prefix(state, wrapper))
    return {our_name(name): tensor for name, tensor in without_heads(state).items()}


def without_heads(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(HEADS)}


def our_name(name: str) -> str:
    """A name of transformers' TimeSformer in our naming; any other as it is."""
    if found := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name):
        block, module, kind = found.groups()
        return f"blocks.{block}.{RENAMED_IN_BLOCK.get(module, module)}.{kind}"
    return VIT_RENAMED.get(name, name)


def fetch_vit(name: str, backbone: TimeSformer) -> dict[str, Tensor]:
    """The pretrained weights of a ViT of timm, downloaded unless they are cached. CheckpointError
    if timm does not know the name or has no weights for it, they cannot be downloaded, or the ViT
    has another number of heads.
    """
    if not timm.is_model(name):
        raise CheckpointError(
            f"timm has no model {name!r}; choose one of timm.list_pretrained('vit_*_patch16_*')"
        )
    try:
        with torch.random.fork_rng(devices=[]):  # what timm draws is replaced by the weights
            vit = timm.create_model(name, pretrained=True, num_classes=0)
    except OSError as cause:
        raise CheckpointError(
            f"the weights of {TIMM}{name} cannot be fetched ({cause}); connect this machine to "
            f"the network once, or fetch them elsewhere and give the file"
        ) from cause
    except RuntimeError as cause:
        raise CheckpointError(
            f"timm cannot give {name!r}: {cause}; choose one of "
            f"timm.list_pretrained('vit_*_patch16_*')"
        ) from cause
    state = without_heads(vit.state_dict())
    if "blocks.0.attn.qkv.weight" in state and num_heads(vit) != num_heads(backbone):
        raise CheckpointError(
            f"{TIMM}{name} has {num_heads(vit)} heads, the network {num_heads(backbone)}; set "
            f"model.num_heads to {num_heads(vit)}"
        )
    return state


def num_heads(network: nn.Module) -> int:
    attention: Any = network.get_submodule("blocks.0.attn")
    return attention.num_heads


def fit_plane(state: dict[str, Tensor], backbone: TimeSformer) -> dict[str, Tensor]:
    """Positions and patches in the sizes of the backbone; what has no square is left as it is."""
    positions, patches = state.get("pos_embed"), state.get("patch_embed.proj.weight")
    if positions is not None and positions.ndim == 3:
        side = math.isqrt(max(positions.shape[1] - 1, 0))
        if 1 + side**2 == positions.shape[1] and side > 0:
            grid = [backbone.grid, backbone.grid]
            state["pos_embed"] = resample_abs_pos_embed(positions, grid, [side, side])
    if patches is not None and patches.ndim == 4:
        size = [backbone.patch_size, backbone.patch_size]
        state["patch_embed.proj.weight"] = resample_patch_embed(patches, size)
    return state


def temporal_twins(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of each block's attention and of the norm before it, under their temporal names."""
    return {
        name.replace(spatial, temporal): tensor
        for name, tensor in state.items()
        for spatial, temporal in TWINS.items()
        if spatial in name
    }


def split_time_embedding(embedding: Tensor, moments: Moments) -> dict[str, Tensor]:
    """The time embedding of a whole clip (1, frame, dim), given to the frames of each element.

    A frame at the fraction f of the clip gets the embedding of frame floor(f T) of the T frames
    that the weights were trained on. One element of T frames gets the embedding as it is; the
    interleaved 2-2-4 uses each of 8 frames once.
    """
    if embedding.ndim != 3 or embedding.shape[1] == 0:
        return {"time_embed": embedding}  # refused by name with everything else that does not fit
    num_frames = embedding.shape[1]
    return {
        f"time_embed.{i}": embedding[:, (fractions * num_frames + ROUNDING).long()]
        for i, fractions in enumerate(moments)
    }


def load_sefar_release(path: Path | str) -> SefarModel:
    """The recognizer in a checkpoint of the public code, frozen and in evaluation mode.

    Its logits are the public model's on frames of the size that the position embeddings were made
    for, 224 pixels in every published setting. No object but tensors, numbers and text is read
    from the file.

    Raises:
        CheckpointError: the file is missing, damaged, not such a checkpoint or holds other
            objects, or a tensor is missing, unknown, of another shape, or not finite.
    """
    return read_sefar_release(Path(path))[0]


def read_sefar_release(path: Path) -> tuple[SefarModel, ModelConfig]:
    """As `load_sefar_release`, with the settings that describe the network."""
    state, text = read_parts(path)
    config, num_classes = read_sizes(state, path)
    mean, std = read_colors(text, path)
    config = replace(config, mean=mean, std=std)
    with torch.random.fork_rng(devices=[]):  # loading draws nothing from the caller's numbers
        model = build_model(config, num_classes)
    refuse_misfits(release_state(model), state, path, fix=RELEASE_FIX)
    model.load_state_dict({name: state[release_name(name)] for name in model.state_dict()})
    return model.requires_grad_(False).eval(), config


def release_name(name: str) -> str:
    """The public code's name of a tensor of ours."""
    module = next(module for module in RENAMED if name.startswith(f"{module}."))
    return RENAMED[module] + name.removeprefix(module)


def release_state(model: SefarModel) -> dict[str, Tensor]:
    """The tensors of a network under the public code's names."""
    return {release_name(name): tensor for name, tensor in model.state_dict().items()}


def read_parts(path: Path) -> tuple[dict[str, Tensor], str]:
    """`model_state`, without the names of wrappers, and `cfg`. CheckpointError if either is missing
    or something else.
    """
    parts = read_torch(path)
    if not isinstance(parts, Mapping) or not {"model_state", "cfg"} <= parts.keys():
        found = sorted(map(str, parts)) if isinstance(parts, Mapping) else type(parts).__name__
        raise CheckpointError(
            f"{path} is not a checkpoint of the public SeFAR code: it holds {found}, not "
            f"model_state and cfg; {RELEASE_FIX}"
        )
    if not isinstance(parts["cfg"], str):
        raise CheckpointError(
            f"{path}: cfg is a {type(parts['cfg']).__name__}, not text; {RELEASE_FIX}"
        )
    return unwrapped(named_tensors(parts["model_state"], path)), parts["cfg"]


def read_sizes(state: Mapping[str, Tensor], path: Path) -> tuple[ModelConfig, int]:
    """Settings of the network and number of classes, by the shapes of a few tensors.
    CheckpointError if one of them is missing, or does not fit such a network.
    """

    def shape(name: str, num_axes: int) -> tuple[int, ...]:
        if name not in state:
            raise CheckpointError(f"{path}: {name} is missing; {RELEASE_FIX}")
        if state[name].ndim != num_axes:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, not one of {num_axes} "
                f"axes; {RELEASE_FIX}"
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
        raise CheckpointError(
            f"{path} does not describe a network: {cause}; {RELEASE_FIX}"
        ) from cause
    return config, num_classes


def count_blocks(state: Mapping[str, Tensor]) -> int:
    """Blocks up to the last that is named, and never more than there are tensors."""
    named = [name.split(".")[3] for name in state if name.startswith("vit.model.blocks.")]
    last = max((int(number) for number in named if number.isdecimal()), default=-1)
    return min(last + 1, len(state))


def read_colors(text: str, path: Path) -> tuple[Any, Any]:
    """Mean and deviation of the colors in `cfg`; the public code's defaults where it has none.
    CheckpointError if it is not YAML, or they are not three numbers each, those of the deviation
    above 0.
    """
    try:
        data = (yaml.safe_load(text) or {}).get("DATA") or {}
        mean = tuple(float(value) for value in data.get("MEAN", ModelConfig.mean))
        std = tuple(float(value) for value in data.get("STD", ModelConfig.std))
    except (yaml.YAMLError, AttributeError, RecursionError, TypeError, ValueError) as cause:
        raise CheckpointError(f"{path}: cfg cannot be read ({cause!r}); {RELEASE_FIX}") from cause
    if not (len(mean) == len(std) == 3 and all(map(math.isfinite, mean + std)) and min(std) > 0):
        raise CheckpointError(
            f"{path}: cfg has DATA.MEAN {mean} and DATA.STD {std}, not three numbers each, those "
            f"of STD above 0; {RELEASE_FIX}"
        )
    return mean, std


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, if it is nothing but tensors, numbers, text, lists and mappings.

    A pickle can run any program when it is read. This one is read by torch's own reader, which
    refuses everything else before it is made. Tensors are mapped from the file where its form
    allows it, so that what is never used, such as an optimizer's state, is never read.
    CheckpointError if the file is missing, damaged, not from torch.save, or holds other objects.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; check the path")
    with path.open("rb") as file:
        start = file.read(len(ZIP_START))
    if start != ZIP_START and not start.startswith(PICKLE_START):
        raise CheckpointError(
            f"{path} is not a checkpoint: torch.save did not write it; check the path, or fetch "
            f"the file again"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=start == ZIP_START)
    except DAMAGE as cause:
        if rejected := re.search(r"GLOBAL (?P<object>[\w.]+)", str(cause)):
            raise CheckpointError(
                f"{path} holds an object of {rejected['object']}, which could run a program when "
                f"it is read; whoever trusts the file may save it again with tensors, numbers and "
                f"text alone"
            ) from cause
        found = re.search(r"WeightsUnpickler error:\s*(?P<reason>.+)", str(cause))
        reason = found["reason"] if found else str(cause).partition("\n")[0]
        raise CheckpointError(
            f"{path} is not a whole checkpoint ({type(cause).__name__}: {reason}); fetch or write "
            f"it again"
        ) from cause


def named_tensors(found: Any, path: Path) -> dict[str, Tensor]:
    """A mapping of names to plain tensors of real numbers, and nothing else. CheckpointError for
    something else.
    """
    if not isinstance(found, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(found).__name__} instead of named tensors; check that it is "
            f"the right file"
        )
    for name, value in found.items():
        plain = isinstance(value, Tensor) and value.layout is torch.strided
        if not (isinstance(name, str) and plain and value.is_floating_point() and value.is_cpu):
            kind = f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise CheckpointError(
                f"{path}: {name} is a {kind}, not a plain tensor of real numbers; save the file "
                f"again with the weights alone"
            )
    return dict(found)


def unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    """Names without what torch.compile and DistributedDataParallel put before them, in any order.

    torch.compile names the network itself, or any part of it that was compiled alone.
    """
    found = {name.replace("_orig_mod.", ""): value for name, value in state.items()}
    while found and all(name.startswith("module.") for name in found):
        found = without_prefix(found, "module.")
    return found


def without_prefix(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Names without a wrapper's prefix if all of them have it; otherwise unchanged."""
    wrapped = all(name.startswith(prefix) for name in state)
    return {name.removeprefix(prefix) if wrapped else name: state[name] for name in state}
