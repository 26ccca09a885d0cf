"""CLIP and EVA-CLIP: image models that see each frame by itself.

Sources: CLIP ViT-L/14 (Radford et al. 2021, arXiv:2103.00020) and EVA-CLIP ViT-g/14 (Sun et al.
2023, arXiv:2303.15389), both as timm has them. Tokens are the patches of the second to last block,
without the class token and without the last layer norm, as LLaVA and BLIP-2 take them. As for the
recognizer, a frame's short side is scaled to the model's size and the central square is seen; timm
would cut off EVA's outer tenth. Weights come from a folder, and without them there is no encoder;
published.py says which may go by these names.

The two published image models, and what must hold before weights go by their names.

Without a network nothing proves whose weights a file holds: architecture, training set and colors
must be those that were published, and the weights must have been trained. A fine-tune of the same
architecture passes. Every row therefore carries the file's SHA-256, which the hub shows beside its
own file, and the words that it was not verified.

Folders of CLIP's weights as their makers publish them, read into timm's names.

Three layouts: timm's (config.json with an architecture), transformers' (config.json of a CLIP model
and preprocessor_config.json) and open_clip's around a model of timm's (open_clip_config.json).
Only safetensors are read: a pickle can run code. Nothing is fetched.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from sefar_core.checkpoint import CheckpointError, read_weights, refuse_misfits
from sefar_core.shapes import FrameTokens
from sefar_mllm.encoders.base import Encoder, digest_of, origin_of

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


NUM_FRAMES = 8
MOMENTS = tuple((segment + 0.5) / NUM_FRAMES for segment in range(NUM_FRAMES))


def clip(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """CLIP ViT-L/14 of OpenAI, from a folder of its weights as timm or transformers publish them.

    Args:
        folder: settings and weights; see `weight_folders`.
        seed: not used; the weights are given.
        device: where it runs.

    Raises:
        CheckpointError: the folder lacks them, or they are another model's.
    """
    return image_encoder(CLIP, folder, seed=seed, device=device)


def eva(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """EVA-CLIP ViT-g/14, from a folder of its weights as timm or open_clip publish them.

    See `clip`.
    """
    return image_encoder(EVA, folder, seed=seed, device=device)


def image_encoder(
    published: ImageModel, folder: Path, *, seed: int = 0, device: str = "cpu"
) -> Encoder:
    """The encoder of a published image model. See `clip`.

    Args:
        published: which; what its settings say is what a folder must hold.
        folder: settings and weights.
        seed: not used.
        device: where it runs.
    """
    found = read_folder(folder, published.wanted)
    model = _load(published, found).to(device)
    mean, std = torch.tensor([found.mean, found.std]).view(2, 3, 1, 1).to(device)
    settings = {"architecture": published.architecture, **published.sizes}

    @torch.inference_mode()
    def encode(frames: UInt8[Tensor, "batch frame height width 3"]) -> FrameTokens:
        seen = squares(frames, found.image_size).to(device)
        grids = penultimate(model, (seen.float() / 255 - mean) / std)
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


def squares(
    frames: UInt8[Tensor, "batch frame height width 3"], size: int
) -> UInt8[Tensor, "image 3 {size} {size}"]:
    """The central squares of the frames, short side scaled to `size` as CLIP does: bicubic with
    antialiasing, whole colors."""
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


def make_network(published: ImageModel, sizes: Mapping[str, Any]) -> Any:
    """timm's network with the weights of chance, to be filled from a file.

    Args:
        published: which.
        sizes: arguments of the architecture that a folder sets besides.
    """
    import timm  # which takes seconds

    with torch.random.fork_rng(devices=[]):
        return timm.create_model(
            published.architecture,
            pretrained=False,
            **{**published.sizes, **sizes, "num_classes": 0},
        )


def _load(published: ImageModel, found: WeightFolder) -> Any:
    """The network of the folder, frozen and in evaluation mode; every tensor is the file's."""
    refuse_other_model(published, found)
    model = make_network(published, found.sizes)
    refuse_other_activation(published, model, found)
    mend = f"put {published.wanted} there"
    refuse_misfits(model.state_dict(), found.state, found.file, fix=mend)
    refuse_untrained(published, found)
    model.load_state_dict(found.state)
    return model.requires_grad_(False).eval()
