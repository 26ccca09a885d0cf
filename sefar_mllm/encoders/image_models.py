"""CLIP and EVA-CLIP: image models that see each frame by itself.

Sources: CLIP ViT-L/14 (Radford et al. 2021, arXiv:2103.00020) and EVA-CLIP ViT-g/14 (Sun et al.
2023, arXiv:2303.15389), both as timm has them. Tokens are the patches of the second to last block,
without the class token and without the last layer norm, as LLaVA and BLIP-2 take them. As for the
recognizer, a frame's short side is scaled to the model's size and the central square is seen; timm
would cut off EVA's outer tenth. Weights come from a folder, and without them there is no encoder.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from sefar_core.checkpoint import CheckpointError, refuse_misfits
from sefar_core.shapes import FrameTokens
from sefar_mllm.encoders.contract import Encoder, digest_of, origin_of
from sefar_mllm.encoders.weight_folders import WeightFolder, read_folder

NUM_FRAMES = 8
MOMENTS = tuple((segment + 0.5) / NUM_FRAMES for segment in range(NUM_FRAMES))


def quick_gelu(x: Tensor) -> Tensor:
    """The activation that OpenAI trained CLIP with."""
    return x * torch.sigmoid(1.702 * x)


@dataclass(frozen=True, kw_only=True)
class ImageModel:
    """A published image model.

    Attributes:
        name: key of `ENCODERS`.
        architecture: timm's name of the network.
        tag: timm's name of what the weights were trained on.
        activation: what the network was trained with.
        wanted: what the user is to put into the folder.
    """

    name: str
    architecture: str
    tag: str
    activation: Callable[[Tensor], Tensor]
    wanted: str


CLIP = ImageModel(
    name="clip",
    architecture="vit_large_patch14_clip_quickgelu_224",
    tag="openai",
    activation=quick_gelu,
    wanted="config.json, preprocessor_config.json and model.safetensors of the hub's "
    "openai/clip-vit-large-patch14, or config.json and model.safetensors of timm's "
    "vit_large_patch14_clip_quickgelu_224.openai",
)
EVA = ImageModel(
    name="eva",
    architecture="eva_giant_patch14_clip_224",
    tag="laion400m",
    activation=F.gelu,
    wanted="config.json and model.safetensors of the hub's "
    "timm/eva_giant_patch14_clip_224.laion400m, or open_clip_config.json and "
    "open_clip_model.safetensors of timm/eva_giant_patch14_clip_224.laion400m_s11b_b41k",
)


def clip(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """CLIP ViT-L/14 of OpenAI, from a folder of its weights as timm or transformers publish them.

    Args:
        folder: settings and weights; see `weight_folders`.
        seed: not used; the weights are given.
        device: where it runs.

    Raises:
        CheckpointError: the folder lacks them, or they are another model's.
    """
    return _image_encoder(CLIP, folder, seed, device)


def eva(folder: Path, *, seed: int = 0, device: str = "cpu") -> Encoder:
    """EVA-CLIP ViT-g/14, from a folder of its weights as timm or open_clip publish them.

    See `clip`.
    """
    return _image_encoder(EVA, folder, seed, device)


def _image_encoder(published: ImageModel, folder: Path, seed: int, device: str) -> Encoder:
    found = read_folder(folder, published.wanted)
    _check_published(published, found)
    model = _load(published, found).to(device)
    color_scale = torch.tensor([found.mean, found.std])
    mean, std = color_scale.view(2, 3, 1, 1).to(device)

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
        digest=digest_of({**used_state(model), "color scale": color_scale}),
        moments=MOMENTS,
        dim=model.embed_dim,
        origin=origin_of(folder, seed),
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


def build(published: ImageModel, sizes: Mapping[str, Any]) -> Any:
    """timm's network with the weights of chance, to be filled from a file.

    Args:
        published: which.
        sizes: arguments of the architecture that differ from the published ones.
    """
    import timm  # which takes seconds

    with torch.random.fork_rng(devices=[]):
        return timm.create_model(
            published.architecture, pretrained=False, **{**sizes, "num_classes": 0}
        )


def _load(published: ImageModel, found: WeightFolder) -> Any:
    """The network of the folder, frozen and in evaluation mode; every tensor is the file's."""
    model = build(published, found.sizes)
    _check_activation(published, model, found)
    refuse_misfits(
        model.state_dict(), found.state, found.file, mend=f"put {published.wanted} there"
    )
    if model.patch_embed.img_size != (found.image_size, found.image_size):
        raise CheckpointError(
            f"{found.file.parent} speaks of images of {found.image_size} px, but its network takes "
            f"{model.patch_embed.img_size[0]} px; put {published.wanted} there"
        )
    model.load_state_dict(found.state)
    return model.requires_grad_(False).eval()


def _check_published(published: ImageModel, found: WeightFolder) -> None:
    """Refuse the weights of another model, and colors on another scale."""
    import timm

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
    if found.tag not in (None, published.tag):
        raise CheckpointError(
            f"{where} holds {found.architecture} trained on {found.tag}, but {published.name} is "
            f"trained on {published.tag}; put {published.wanted} there"
        )
    settings: Any = timm.get_pretrained_cfg(f"{published.architecture}.{published.tag}")
    if (found.mean, found.std) != (tuple(settings.mean), tuple(settings.std)):
        raise CheckpointError(
            f"{where} scales colors by mean {found.mean} and std {found.std}, but "
            f"{published.name} was trained with {settings.mean} and {settings.std}; correct them "
            f"in its settings"
        )


def _check_activation(published: ImageModel, model: Any, found: WeightFolder) -> None:
    values = torch.linspace(-3, 3, 13)
    for number, block in enumerate(model.blocks):
        if not torch.allclose(block.mlp.act(values), published.activation(values), atol=1e-5):
            raise CheckpointError(
                f"block {number} of the network in {found.file.parent} computes "
                f"{block.mlp.act}, but {published.name} was trained with "
                f"{published.activation.__name__}; take act_layer out of its settings"
            )
