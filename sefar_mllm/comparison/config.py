"""Settings of a comparison. This file does not import torch, so that `--help` is quick."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sefar_core.config import check_seed
from sefar_core.run_dir import run_of
from sefar_mllm.config import FinetuneConfig


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """The encoders, the questions and the common budget."""

    manifest: Path
    """Manifest of clips from scripts/make_splits.py."""
    video_root: Path
    """Folder that the paths of the manifest are relative to."""
    questions: tuple[Path, ...]
    """Question folders from scripts/build_gym_qa.py. The decision rule needs one with the public
    rule and one with the hard rule."""
    sefar: tuple[Path, ...]
    """Run folder of the recognizer trained with SeFAR, or one for each seed, in the order of the
    seeds. The controls have its architecture."""
    supervised: Annotated[
        tuple[Path, ...], tyro.conf.arg(help_behavior_hint="(default: none)")
    ] = ()
    """Run folder of the same network trained on the same labels without SeFAR, or one for each
    seed."""
    clip: Path | None = None
    """Folder of CLIP's weights or a hub name. Without it, the rows of CLIP read "not measured"."""
    eva: Path | None = None
    """Folder of EVA-CLIP's weights or a hub name. Without it, the rows of EVA-CLIP read "not
    measured"."""
    out: Path
    """Output folder: tokens, models, predictions, comparison.json, comparison.md and plots."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Random seeds of the fine-tuning; every row is trained once with each. With one recognizer for
    each seed, a seed stands for a pair of recognizer and fine-tuning."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Settings of the fine-tuning, the same for all rows."""
    lr_grid: tuple[float, ...] = (1.0,)
    """Factors on both learning rates. With several factors, every row uses the one with the best
    accuracy on validation questions, which are cut from its training questions."""
    dev_rate: float = 0.2
    """Share of the training questions used as validation questions, cut by source video."""
    grid: int = 2
    """Tokens are pooled to grid x grid tokens per frame."""
    batch_size: int = 32
    """Number of questions scored at a time, each in all rotations of its options."""
    resamples: int = 2000
    """Number of bootstrap resamples of the source videos."""
    jobs: int = 1
    """Number of trainings at a time."""

    def __post_init__(self):
        if not self.questions:
            raise ValueError("questions is empty; give at least one folder of build_gym_qa.py")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, at least one, got {self.seeds}")
        check_seed(min(self.seeds), least=0)
        check_seed(max(self.seeds))
        if self.finetune.seed != 0:
            raise ValueError(
                f"finetune.seed is {self.finetune.seed}, but the seeds of a comparison come from "
                f"--seeds; leave it out"
            )
        if not self.lr_grid or not all(0 < factor < math.inf for factor in self.lr_grid):
            raise ValueError(f"lr_grid must be one or more factors above 0, got {self.lr_grid}")
        if not 0 < self.dev_rate < 1:
            raise ValueError(f"dev_rate must be in (0, 1), got {self.dev_rate}")
        for name, least in (("grid", 1), ("batch_size", 1), ("jobs", 1), ("resamples", 100)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


def refuse_uneven_recognizers(config: CompareConfig) -> None:
    """Refuse a number of recognizers that is neither one nor the number of seeds.

    Raises:
        ValueError: names the setting and both numbers.
    """
    for name, folders in (("sefar", config.sefar), ("supervised", config.supervised)):
        allowed = {1, len(config.seeds)} | ({0} if name == "supervised" else set())
        if len(folders) not in allowed:
            raise ValueError(
                f"--{name} names {len(folders)} run folders for {len(config.seeds)} seeds; give "
                f"one for all seeds, or one for each"
            )
        if len({run_of(folder.resolve()) for folder in folders}) < len(folders):
            raise ValueError(
                f"--{name} names a run folder twice: {', '.join(map(str, folders))}; name one for "
                f"all seeds once, or train the others with other seeds"
            )
