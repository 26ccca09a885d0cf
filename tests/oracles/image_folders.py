"""Folders of CLIP and EVA-CLIP in miniature, with random weights, laid out as the hub has them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel

from sefar_mllm.encoders import image_models
from sefar_mllm.encoders.image_models import ImageModel

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SIZES = {"img_size": 28, "patch_size": 7, "embed_dim": 16, "depth": 3, "num_heads": 2}
ARCHITECTURES = {
    "clip": ("vit_large_patch14_clip_quickgelu_224", "openai"),
    "eva": ("eva_giant_patch14_clip_224", "laion400m"),
}


def in_miniature(published: ImageModel, **sizes: float) -> ImageModel:
    """The published model, had it been published in the sizes of these folders."""
    return replace(published, sizes={**published.sizes, **SIZES, **sizes})


@contextmanager
def published_in_miniature() -> Iterator[None]:
    """Within it the encoders `clip` and `eva` take these folders and refuse the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CLIP", "EVA"):
            patch.setattr(image_models, name, in_miniature(getattr(image_models, name)))
        yield


def network(name: str, *, seed: int = 0, num_classes: int = 5) -> torch.nn.Module:
    """timm's network in miniature; every tensor is drawn, so that each has a say."""
    model = timm.create_model(ARCHITECTURES[name][0], num_classes=num_classes, **SIZES)
    return redrawn(model, seed)


def redrawn(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model.eval()


def timm_folder(folder: Path, name: str, *, seed: int = 0, **changes) -> Path:
    """config.json and model.safetensors as timm saves them; `changes` go into the settings."""
    architecture, tag = ARCHITECTURES[name]
    published = {"tag": tag, "input_size": [3, 28, 28], "mean": MEAN, "std": STD}
    settings = {
        "architecture": architecture,
        "num_classes": 5,
        "num_features": 16,
        "global_pool": "token",
        "model_args": SIZES,
        "pretrained_cfg": published | changes.pop("pretrained_cfg", {}),
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(network(name, seed=seed).state_dict(), folder / "model.safetensors")
    return folder


def open_clip_folder(folder: Path) -> Path:
    """EVA-CLIP as open_clip saves it: 16-bit weights beside a text half."""
    architecture, _ = ARCHITECTURES["eva"]
    settings = {
        "model_cfg": {
            "embed_dim": 5,
            "vision_cfg": {"timm_model_name": architecture, "image_size": 28},
            "text_cfg": {},
        },
        "preprocess_cfg": {"mean": MEAN, "std": STD},
    }
    state = {f"visual.trunk.{n}": v.half() for n, v in network("eva").state_dict().items()}
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    text = {"text.token_embedding.weight": torch.ones(3, 2), "logit_scale": torch.ones(())}
    save_file(state | text, folder / "open_clip_model.safetensors")
    return folder


def transformers_folder(folder: Path, *, whole: bool = True, seed: int = 0) -> CLIPModel:
    """CLIP as transformers saves it, with its text half or without; returns the model."""
    config = CLIPConfig(
        text_config={
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 20,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
        },
        projection_dim=5,
    )
    torch.manual_seed(0)
    model = CLIPModel(config) if whole else CLIPVisionModel(config.vision_config)
    redrawn(model, seed).save_pretrained(folder)
    pixels = {"image_mean": MEAN, "image_std": STD, "crop_size": 28}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return model
