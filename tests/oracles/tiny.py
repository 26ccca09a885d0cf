"""A network of two small blocks and clips for it, no number of which is at a start of its own."""

import torch
from torch import Tensor, nn

from sefar_core.checkpoint import build_model
from sefar_core.config import ModelConfig
from sefar_core.model import SefarModel

CONFIG = ModelConfig(image_size=32, patch_size=16, dim=16, depth=2, num_heads=2, fusion_dim=8)
NUM_CLASSES = 5


def network(config: ModelConfig = CONFIG, *, spread: float = 0.1) -> SefarModel:
    """A student: random weights, none of them hidden behind a zero start."""
    torch.manual_seed(0)
    model = build_model(config, NUM_CLASSES)
    move(model, spread)
    return model


@torch.no_grad()
def move(network: nn.Module, spread: float = 1.0) -> None:
    """Move every parameter somewhere else."""
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * spread)


def elements(
    batch: int = 2, sizes: tuple[int, ...] = (2, 2, 4), *, side: int = 32, seed: int = 1
) -> list[Tensor]:
    """Elements of noise, one clip after another in the batch."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3, frames, side, side, generator=generator) for frames in sizes]
