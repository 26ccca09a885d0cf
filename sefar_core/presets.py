"""Settings by name: the paper's runs, and the demo's.

A preset is a function without arguments; the command line is `train_ssl.py PRESET --key value`.
"""

from dataclasses import replace
from pathlib import Path

from sefar_core.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    TeacherConfig,
    TrainConfig,
)


def paper_s() -> TrainConfig:
    """SeFAR-S as the paper writes it: ViT-S/16, 2-2-4 frames of 224 pixels, 30 epochs."""
    return TrainConfig()


def paper_b() -> TrainConfig:
    """SeFAR-B: the same on ViT-B/16."""
    return replace(paper_s(), model=ModelConfig(dim=768, num_heads=12))


def released_loss() -> TrainConfig:
    """SeFAR-S with the public code's perturbation (a color flip) and doubled loss weights."""
    loss = LossConfig(perturbation="swap_red_blue", gamma_un=2.0, gamma_mix=2.0)
    return replace(paper_s(), loss=loss)


def demo() -> TrainConfig:
    """SeFAR on the synthetic gymnasts, small enough for two CPU cores."""
    return TrainConfig(
        model=ModelConfig(
            image_size=64,
            patch_size=16,
            dim=128,
            depth=4,
            num_heads=4,
            fusion_dim=128,
            dropout=0.2,
            pretrained=Path("demo/backbone/vit.safetensors"),
        ),
        data=DataConfig(short_side=(64, 72), workers=0, store=True),
        teacher=TeacherConfig(ema_decay=0.98),
        loss=LossConfig(mix_on="probs", gamma_un=2.0, gamma_mix=2.0),
        optim=OptimConfig(kind="adamw", lr=1e-3, weight_decay=0.05, schedule="cosine"),
        batch_size=12,
        micro_batch_size=12,
        epochs=24,
        warmup_epochs=12,
        save_every_epochs=10,
    )


def demo_supervised() -> TrainConfig:
    """The demo on its labels alone: as many labeled steps, the same network and dropout."""
    config = demo()
    return replace(config, warmup_epochs=config.epochs)


PRESETS = {
    preset.__name__: preset() for preset in (paper_s, paper_b, released_loss, demo, demo_supervised)
}
