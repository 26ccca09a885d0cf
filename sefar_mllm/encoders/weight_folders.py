"""Folders of CLIP's weights as their makers publish them, read into timm's names.

Three layouts: timm's (config.json with an architecture), transformers' (config.json of a CLIP model
and preprocessor_config.json) and open_clip's around a model of timm's (open_clip_config.json).
Only safetensors are read: a pickle can run code. Nothing is fetched.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sefar_core.checkpoint import CheckpointError, read_weights

SETTINGS, WEIGHTS = "config.json", "model.safetensors"
PIXELS = "preprocessor_config.json"
OPEN_CLIP_SETTINGS, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SIZES = ("img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "mlp_ratio")
ARGUMENTS = (*SIZES, "act_layer")
AFTER = ("num_classes", "global_pool")  # arguments of what follows the tokens

# What a tensor of CLIP's vision transformer is called in transformers, and in timm.
RENAMED = (
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.qkv\.", ".attn.qkv."),
)


@dataclass(frozen=True, kw_only=True)
class WeightFolder:
    """What a folder says of an image model.

    Attributes:
        file: the weights were read from it.
        architecture: timm's name.
        sizes: arguments of the architecture that the folder sets.
        tag: what the weights were trained on, by timm's name; None in a layout that does not say.
        mean: subtracted from each color, after scaling to [0, 1].
        std: divides each color after that.
        image_size: side of the square frames, pixels.
        state: the tensors of the vision transformer by timm's names, without the projection
            after it.
    """

    file: Path
    architecture: str
    sizes: dict[str, Any]
    tag: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    state: dict[str, Tensor]


def read_folder(folder: Path, wanted: str) -> WeightFolder:
    """The weights in a folder of one of the three layouts.

    Args:
        folder: holds the settings and the weights.
        wanted: what to put there, for the messages.

    Raises:
        CheckpointError: settings or weights are missing, damaged or make no sense; or only a
            pickle is there.
    """
    folder = Path(folder)
    own, other = folder / SETTINGS, folder / OPEN_CLIP_SETTINGS
    if not own.is_file() and not other.is_file():
        raise CheckpointError(
            f"{folder} holds no image model: there is no {SETTINGS} and no {OPEN_CLIP_SETTINGS}; "
            f"put {wanted} there"
        )
    file = _weights_file(folder, WEIGHTS if own.is_file() else OPEN_CLIP_WEIGHTS, wanted)
    settings = _json(own if own.is_file() else other)
    try:
        if not own.is_file():
            return _open_clip(settings, file)
        if "model_type" in settings:
            return _transformers(settings, _json(folder / PIXELS), file)
        return _timm(settings, file)
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        raise CheckpointError(
            f"the settings in {folder} do not describe an image model ({cause!r}); put {wanted} "
            f"there"
        ) from cause


def _timm(settings: dict[str, Any], file: Path) -> WeightFolder:
    published = settings["pretrained_cfg"]
    sizes = settings.get("model_args", {})
    if other := sorted(sizes.keys() - {*ARGUMENTS, *AFTER}):
        raise ValueError(f"model_args sets {', '.join(other)}; it may set {', '.join(ARGUMENTS)}")
    return WeightFolder(
        file=file,
        architecture=settings["architecture"],
        sizes={name: _side(value) for name, value in sizes.items() if name in ARGUMENTS},
        tag=published["tag"],
        mean=tuple(published["mean"]),
        std=tuple(published["std"]),
        image_size=published["input_size"][-1],
        state=_without_head(read_weights(file)),
    )


def _open_clip(settings: dict[str, Any], file: Path) -> WeightFolder:
    model, pixels = settings["model_cfg"]["vision_cfg"], settings["preprocess_cfg"]
    return WeightFolder(
        file=file,
        architecture=model["timm_model_name"],
        sizes={},
        tag=None,
        mean=tuple(pixels["mean"]),
        std=tuple(pixels["std"]),
        image_size=model["image_size"],
        state=_without_head(_beneath("visual.trunk.", read_weights(file))),
    )


def _transformers(settings: dict[str, Any], pixels: dict[str, Any], file: Path) -> WeightFolder:
    from transformers import CLIPVisionConfig

    if settings["model_type"] not in ("clip", "clip_vision_model"):
        raise ValueError(f"model_type is {settings['model_type']}, not clip")
    model: Any = CLIPVisionConfig.from_pretrained(file.parent, local_files_only=True)
    quick = model.hidden_act == "quick_gelu"
    state = read_weights(file)
    bare = "embeddings.class_embedding" in state  # a vision transformer saved by itself
    return WeightFolder(
        file=file,
        architecture=f"vit_large_patch14_clip_{'quickgelu_' if quick else ''}224",
        sizes={
            "img_size": model.image_size,
            "patch_size": model.patch_size,
            "in_chans": model.num_channels,
            "embed_dim": model.hidden_size,
            "depth": model.num_hidden_layers,
            "num_heads": model.num_attention_heads,
            "mlp_ratio": model.intermediate_size / model.hidden_size,
        },
        tag=None,
        mean=tuple(pixels["image_mean"]),
        std=tuple(pixels["image_std"]),
        image_size=model.image_size,
        state=_timm_names(state if bare else _beneath("vision_model.", state)),
    )


def _timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of transformers' vision transformer as timm has them: q, k and v in one."""
    joined = dict(state)
    for name in state:
        parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if ".q_proj." in name and all(part in state for part in parts):
            together = torch.cat([joined.pop(part) for part in parts])
            joined[name.replace(".q_proj.", ".qkv.")] = together
    joined.pop("embeddings.position_ids", None)  # older files store it: it counts from 0
    renamed = {_timm_name(name): tensor for name, tensor in joined.items()}
    if "cls_token" in renamed and "pos_embed" in renamed:
        renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
        renamed["pos_embed"] = renamed["pos_embed"].unsqueeze(0)
    return renamed


def _timm_name(name: str) -> str:
    for pattern, timms in RENAMED:
        name = re.sub(pattern, timms, name)
    return name


def _side(value: Any) -> Any:
    """The side of a square, which timm also writes as a list of two."""
    return value[0] if isinstance(value, list) and value == value[:1] * 2 else value


def _beneath(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vision half of a file that holds the text half, too."""
    return {n.removeprefix(prefix): value for n, value in state.items() if n.startswith(prefix)}


def _without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("head.")}


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; put it beside the weights")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise CheckpointError(f"{path} is no JSON: {cause}; fetch it again") from cause


def _weights_file(folder: Path, name: str, wanted: str) -> Path:
    if (folder / name).is_file():
        return folder / name
    names = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    pickled = f", only {', '.join(names)}, and a pickle can run code" if names else ""
    raise CheckpointError(f"{folder} has no {name}{pickled}; put {wanted} there")
