"""CLIP and EVA-CLIP: image models that see each frame by itself.

Sources: CLIP ViT-L/14 (Radford et al. 2021, arXiv:2103.00020) and EVA-CLIP ViT-g/14 (Sun et al.
2023, arXiv:2303.15389), both as timm has them. Tokens are the patches of the second to last block,
without the class token and without the last layer norm, as LLaVA and BLIP-2 take them. As for the
recognizer, a frame's short side is scaled to the model's size and the central square is seen; timm
would cut off EVA's outer tenth. Weights come from a folder, and without them there is no encoder;
published.py says which may go by these names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from sefar_core.checkpoint import refuse_misfits
from sefar_core.shapes import FrameTokens
from sefar_mllm.encoders.contract import Encoder, digest_of, origin_of
from sefar_mllm.encoders.published import (
    CLIP,
    EVA,
    ImageModel,
    refuse_other_activation,
    refuse_other_model,
    refuse_untrained,
    unverified,
)
from sefar_mllm.encoders.weight_folders import WeightFolder, read_folder

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


def build(published: ImageModel, sizes: Mapping[str, Any]) -> Any:
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
    model = build(published, found.sizes)
    refuse_other_activation(published, model, found)
    mend = f"put {published.wanted} there"
    refuse_misfits(model.state_dict(), found.state, found.file, mend=mend)
    refuse_untrained(published, found)
    model.load_state_dict(found.state)
    return model.requires_grad_(False).eval()
