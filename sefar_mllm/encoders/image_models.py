"""CLIP and EVA-CLIP: image models that encode each frame by itself.

Sources: CLIP ViT-L/14 (Radford et al. 2021, arXiv:2103.00020) and EVA-CLIP ViT-g/14 (Sun et al.
2023, arXiv:2303.15389), both as timm builds them. Tokens are the patches of the second to last
block, without the class token and without the last layer norm, as LLaVA and BLIP-2 take them. As
for the recognizer, a frame's short side is scaled to the model's size and the central square is
used; timm would cut off EVA's outer tenth.

Weights come from a folder or from a name on the hub, in one of three layouts: timm's (config.json
with pretrained_cfg), transformers' (config.json of a CLIP model and preprocessor_config.json) and
open_clip's around a model of timm's (open_clip_config.json). Only safetensors are read: a pickle
can run code. Names and shapes of the tensors must be the model's; who trained them is not checked,
so the file's SHA-256 is shown with every result.
"""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from huggingface_hub import snapshot_download
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from qa_data.files import file_hash
from sefar_core.checkpoint import CheckpointError, read_weights, refuse_misfits
from sefar_core.shapes import FrameTokens
from sefar_mllm.encoders.base import Encoder, digest_of, origin_of

NUM_FRAMES = 8
MOMENTS = tuple((segment + 0.5) / NUM_FRAMES for segment in range(NUM_FRAMES))
SETTINGS, WEIGHTS = "config.json", "model.safetensors"
PIXELS = "preprocessor_config.json"
OPEN_CLIP_SETTINGS, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
HUB_NAME = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
FLOATS = torch.finfo(torch.float32)  # colors are used as these
PICKLES = (".bin", ".pt", ".pth", ".ckpt")

# Names of the tensors of CLIP's vision transformer in transformers, and in timm.
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
class ImageModel:
    """A published image model."""

    name: str
    """Key of `ENCODERS`."""
    architecture: str
    """timm's name of the network, with the activation that it was trained with."""
    sizes: Mapping[str, int | float]
    """By timm's names of the network's arguments."""
    wanted: str
    """What to put into the folder, for messages."""


PATCHES = {"img_size": 224, "patch_size": 14, "in_chans": 3, "num_heads": 16}
CLIP = ImageModel(
    name="clip",
    architecture="vit_large_patch14_clip_quickgelu_224",
    sizes=PATCHES | {"embed_dim": 1024, "depth": 24, "mlp_ratio": 4.0},
    wanted="config.json, preprocessor_config.json and model.safetensors of the hub's "
    "openai/clip-vit-large-patch14, or config.json and model.safetensors of timm's "
    "vit_large_patch14_clip_quickgelu_224.openai",
)
EVA = ImageModel(
    name="eva",
    architecture="eva_giant_patch14_clip_224",
    sizes=PATCHES | {"embed_dim": 1408, "depth": 40, "mlp_ratio": 6144 / 1408},
    wanted="config.json and model.safetensors of the hub's "
    "timm/eva_giant_patch14_clip_224.laion400m, or open_clip_config.json and "
    "open_clip_model.safetensors of timm/eva_giant_patch14_clip_224.laion400m_s11b_b41k",
)


def clip(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """CLIP ViT-L/14 of OpenAI.

    `folder` has settings and weights as timm or transformers publish them, or is their hub name.
    The seed is not used: the weights are given. CheckpointError if the folder lacks them, or they
    are another model's.
    """
    return image_encoder(CLIP, folder, seed=seed, device=device)


def eva(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """EVA-CLIP ViT-g/14, as timm or open_clip publish it. See `clip`."""
    return image_encoder(EVA, folder, seed=seed, device=device)


def image_encoder(
    published: ImageModel, folder: Path, *, seed: int = 0, device: str = "cpu"
) -> Encoder:
    """The encoder of a published image model. See `clip`."""
    folder = local_folder(folder, published.wanted)
    found = read_folder(folder, published.wanted)
    with torch.device("meta"):  # wrong weights are refused before memory is taken for right ones
        expected = make_network(published).state_dict()
    refuse_misfits(expected, found.state, found.file, fix=f"put {published.wanted} there")
    model = make_network(published)
    model.load_state_dict(found.state)
    model.requires_grad_(False).eval().to(device)
    mean, std = torch.tensor([found.mean, found.std]).view(2, 3, 1, 1).to(device)
    size = int(published.sizes["img_size"])
    settings = {"architecture": published.architecture, **published.sizes}

    @torch.inference_mode()
    def encode(frames: UInt8[Tensor, "batch frame height width 3"]) -> FrameTokens:
        images = squares(frames, size).to(device)
        grids = penultimate(model, (images.float() / 255 - mean) / std)
        tokens = rearrange(
            grids, "(batch frame) dim row column -> batch frame row column dim", batch=len(frames)
        )
        return tokens.float().cpu()

    return Encoder(
        name=published.name,
        digest=digest_of(used_state(model), settings | {"mean": found.mean, "std": found.std}),
        moments=MOMENTS,
        dim=model.embed_dim,
        origin=origin_of(folder, seed) | {"weights": unverified(found.file)},
        encode=encode,
        any_moments=True,
    )


def make_network(published: ImageModel) -> Any:
    """timm's network with random weights, to be filled from a file."""
    import timm  # which takes seconds

    arguments: dict[str, Any] = {**published.sizes, "num_classes": 0}
    with torch.random.fork_rng(devices=[]):
        return timm.create_model(published.architecture, pretrained=False, **arguments)


def squares(
    frames: UInt8[Tensor, "batch frame height width 3"], size: int
) -> UInt8[Tensor, "image 3 {size} {size}"]:
    """The central squares of the frames, short side scaled to `size` as CLIP does: bicubic with
    antialiasing, rounded to whole colors."""
    images = rearrange(frames, "batch frame height width color -> (batch frame) color height width")
    sides = [size * side // min(images.shape[2:]) for side in images.shape[2:]]
    scaled = F.interpolate(images.contiguous(), sides, mode="bicubic", antialias=True)
    top, left = [round((side - size) / 2) for side in sides]
    return scaled[..., top : top + size, left : left + size]


def penultimate(
    model: Any, images: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, "image dim row column"]:
    """Patch tokens of the second to last block, as they leave it; the last one does not run."""
    (grids,) = model.forward_intermediates(
        images, indices=[len(model.blocks) - 2], stop_early=True, intermediates_only=True
    )
    return grids


def used_state(model: Any) -> dict[str, Tensor]:
    """The tensors that `penultimate` depends on: not the last block and what follows it."""
    after = ("norm.", "fc_norm.", f"blocks.{len(model.blocks) - 1}.")
    return {n: value for n, value in model.state_dict().items() if not n.startswith(after)}


def unverified(file: Path) -> str:
    """What is known of the authenticity of weights, to be shown with every result from them."""
    return (
        f"weights not verified against a published hash: {file.name} has sha256 {file_hash(file)}"
    )


@dataclass(frozen=True, kw_only=True)
class WeightFolder:
    """The image model in a folder; each color in [0, 1] is normalized by mean and deviation."""

    file: Path
    """The file of the weights."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    state: dict[str, Tensor]
    """The vision transformer by timm's names, without the projection after it."""


def local_folder(folder: Path, wanted: str) -> Path:
    """The folder, or where the hub's files of that name are, which are fetched if need be.

    What is fetched is announced on stderr, since it may be gigabytes. CheckpointError if there is
    no such folder, and the hub has no such name or is not reached.
    """
    if folder.is_dir():
        return folder
    if not re.fullmatch(HUB_NAME, folder.as_posix()):
        reason = "a name on the hub is OWNER/NAME"
    elif folder.parent.exists():  # not a name on the hub but a mistyped path
        reason = f"{folder.parent} is here, so this is a path"
    else:
        print(f"{folder} is not a folder here: its files come from the hub", file=sys.stderr)
        names = [SETTINGS, WEIGHTS, PIXELS, OPEN_CLIP_SETTINGS, OPEN_CLIP_WEIGHTS]
        try:
            return Path(snapshot_download(folder.as_posix(), allow_patterns=names))
        except (OSError, ValueError) as cause:
            raise CheckpointError(
                f"{folder} is not a folder, nor a model that can be fetched from the hub "
                f"({type(cause).__name__}); put {wanted} there"
            ) from cause
    raise CheckpointError(
        f"{folder} is not a folder, nor a name on the hub ({reason}); check the path, or put "
        f"{wanted} there"
    )


def read_folder(folder: Path, wanted: str) -> WeightFolder:
    """The weights in a folder of one of the three layouts.

    `wanted` says what to put there, for the messages. CheckpointError if settings or weights are
    missing or damaged, colors are not three finite numbers each, those of the deviation above 0, or
    only a pickle is there.
    """
    folder = Path(folder)
    own, other = folder / SETTINGS, folder / OPEN_CLIP_SETTINGS
    if not own.is_file() and not other.is_file():
        raise CheckpointError(
            f"{folder} does not hold an image model: it has neither {SETTINGS} nor "
            f"{OPEN_CLIP_SETTINGS}; put {wanted} there"
        )
    file = _weights_file(folder, WEIGHTS if own.is_file() else OPEN_CLIP_WEIGHTS, wanted)
    source = own if own.is_file() else other
    settings = _json(source)
    state = read_weights(file)
    try:
        if source == other:
            mean, std = (settings["preprocess_cfg"][name] for name in ("mean", "std"))
            state = _beneath("visual.trunk.", state)
        elif "model_type" in settings:
            source = folder / PIXELS
            colors = _json(source)
            mean, std = colors["image_mean"], colors["image_std"]
            bare = "embeddings.class_embedding" in state  # a vision transformer saved by itself
            state = timm_names(state if bare else _beneath("vision_model.", state))
        else:
            mean, std = (settings["pretrained_cfg"][name] for name in ("mean", "std"))
    except (KeyError, TypeError, AttributeError) as cause:
        raise CheckpointError(
            f"the settings in {folder} do not describe an image model ({cause!r}); put {wanted} "
            f"there"
        ) from cause
    if not _is_color(mean) or not _is_color(std) or min(std) < FLOATS.tiny:
        raise CheckpointError(
            f"{source} has the mean {mean!r:.80} and the deviation {std!r:.80}, not three finite "
            f"numbers each, those of the deviation above 0; put {wanted} there"
        )
    state = {name: value for name, value in state.items() if not name.startswith("head.")}
    means, stds = tuple(map(float, mean)), tuple(map(float, std))
    return WeightFolder(file=file, mean=means, std=stds, state=state)


def _is_color(value: Any) -> bool:
    """Whether a value of JSON is a list of three numbers that 32-bit floats can hold."""
    if not isinstance(value, list) or len(value) != 3:
        return False
    return all(type(one) in (int, float) and abs(one) <= FLOATS.max for one in value)


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of transformers' vision transformer by timm's names: q, k and v in one."""
    joined = dict(state)
    for name in state:
        parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if ".q_proj." in name and all(part in state for part in parts):
            together = torch.cat([joined.pop(part) for part in parts])
            joined[name.replace(".q_proj.", ".qkv.")] = together
    joined.pop("embeddings.position_ids", None)  # older files store it: it counts from 0
    renamed = {}
    for name, tensor in joined.items():
        for pattern, timms in RENAMED:
            name = re.sub(pattern, timms, name)
        renamed[name] = tensor
    if "cls_token" in renamed and "pos_embed" in renamed:
        renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
        renamed["pos_embed"] = renamed["pos_embed"].unsqueeze(0)
    return renamed


def _beneath(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vision half of a file that holds the text half, too."""
    return {n.removeprefix(prefix): value for n, value in state.items() if n.startswith(prefix)}


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; put it beside the weights")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise CheckpointError(f"{path} is not JSON: {cause}; fetch it again") from cause


def _weights_file(folder: Path, name: str, wanted: str) -> Path:
    if (folder / name).is_file():
        return folder / name
    names = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    pickled = f", only {', '.join(names)}, and a pickle can run code" if names else ""
    raise CheckpointError(f"{folder} has no {name}{pickled}; put {wanted} there")
