"""Weights that training starts from: ViTs of images, and TimeSformers of Kinetics-400.

Source: the public SeFAR code starts from a ViT of ImageNet in timm's naming (helpers.py, d0435a9):
each block's attention and norm are copied to their temporal twins, the temporal projection and the
time embeddings stay zero, so that the first forward pass sees each frame as the ViT does. A
TimeSformer brings its own temporal weights. docs/paper_map.md, row 12.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn

from sefar_core.checkpoint import (
    CheckpointError,
    read_weights,
    refuse_misfits,
)
from sefar_core.sampling import SAMPLINGS, Moments, Sampling
from sefar_core.timesformer import TimeSformer
from sefar_core.torch_file import named_tensors, read_torch, unwrapped, without_prefix

TIMM = "timm:"
ROUNDING = 1e-4  # of a frame: a moment on the border of two belongs to the later one
# Of the public TimeSformer, timm, DeiT, many training loops, and timm's averaged weights.
CONTAINERS = ("model_state", "state_dict", "model", "model_state_dict", "state_dict_ema")
HEADS = ("head.", "fc_norm.", "pre_logits.", "classifier.")
TWINS = {".attn.": ".temporal_attn.", ".norm1.": ".temporal_norm1."}
MEND = "it must be a ViT or a TimeSformer of the width, depth and parts that model.* asks for"

# The names of transformers' TimeSformer and of ours: of the whole, and inside a block.
RENAMED = {
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
            or `timm:NAME`, which timm fetches.
        sampling: the moments of a clip that its elements are to see; a TimeSformer's time
            embedding is dealt out to them.

    Raises:
        CheckpointError: the source cannot be had, or a tensor that the backbone needs is missing,
            unknown, of another shape, or not finite.
    """
    name = str(source).removeprefix(TIMM)
    state = read_vit(Path(source)) if name == str(source) else fetch_vit(name, backbone)
    state = fit_plane({name: tensor.float() for name, tensor in state.items()}, backbone)
    own = backbone.state_dict()
    if "time_embed" in state:
        moments = sampling.center([time.shape[1] for time in backbone.time_embed])
        state.update(deal_out_time(state.pop("time_embed"), moments))
        refuse_misfits(own, state, source, mend=MEND)
    else:
        added = {name: own[name] for name in own if "temporal_" in name or "time_embed" in name}
        images = {name: own[name] for name in own.keys() - added.keys()}
        refuse_misfits(images, state, source, mend=MEND)
        state = added | state | temporal_twins(state)
    backbone.load_state_dict(state)


def read_vit(path: Path) -> dict[str, Tensor]:
    """The tensors of a file under timm's names, and those of a TimeSformer's parts beside them.

    Raises:
        CheckpointError: no such file, or something in it is not a tensor.
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
    return RENAMED.get(name, name)


def fetch_vit(name: str, backbone: TimeSformer) -> dict[str, Tensor]:
    """The pretrained weights of a ViT of timm, fetched where they are not at hand.

    Raises:
        CheckpointError: timm does not know the name or has no weights of it, they cannot be
            fetched, or the ViT has another number of heads.
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


def deal_out_time(embedding: Tensor, moments: Moments) -> dict[str, Tensor]:
    """The time embedding of a whole clip (1, frame, dim), dealt out to the frames of each element.

    A frame at the fraction f of the clip gets the embedding of that one of the T frames that the
    weights were trained on in whose part of the clip it lies, floor(f T). One element of T frames
    gets the embedding as it is; the interleaved 2-2-4 shares out one of 8 frames without rest.
    """
    if embedding.ndim != 3 or embedding.shape[1] == 0:
        return {"time_embed": embedding}  # refused by name with everything else that does not fit
    num_frames = embedding.shape[1]
    return {
        f"time_embed.{i}": embedding[:, (fractions * num_frames + ROUNDING).long()]
        for i, fractions in enumerate(moments)
    }
