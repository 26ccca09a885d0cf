"""Settings of a comparison. Nothing here imports torch, so that `--help` is quick."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from sefar_core.config import check_seed
from sefar_core.run_dir import run_of
from sefar_mllm.config import FinetuneConfig


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Which encoders meet on which questions, and under which budget."""

    manifest: Path
    """Table of clips that scripts/make_splits.py wrote."""
    video_root: Path
    """Folder that the clips' paths are relative to."""
    questions: tuple[Path, ...]
    """Folders that scripts/build_gym_qa.py wrote. One of the public and one of the hard rule are
    what the decision rule asks for."""
    sefar: tuple[Path, ...]
    """Run folder of the recognizer trained with SeFAR, or one for each seed: the first seed is
    fine-tuned on the first, and so on. The controls take its architecture."""
    supervised: tuple[Path, ...] = ()
    """Run folder of the same network trained on the same labels without SeFAR, or one a seed."""
    clip: Path | None = None
    """Folder of CLIP's weights; without it its rows read "not measured"."""
    eva: Path | None = None
    """Folder of EVA-CLIP's weights; without it its rows read "not measured"."""
    out: Path
    """Folder of tokens, models, predictions, comparison.json, comparison.md and plots."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the fine-tuning; every trained row is trained once with each. Where a recognizer is given
    for each, they are numbers of pairs of recognizer and fine-tuning."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """The one budget of all rows."""
    lr_grid: tuple[float, ...] = (1.0,)
    """Factors on both learning rates. With several, every trained row takes its best on the
    development part of its training questions, all from the same grid."""
    dev_rate: float = 0.2
    """Share of the training questions that this choice is made on, cut by source video."""
    grid: int = 2
    """Tokens are pooled to grid x grid a frame."""
    batch_size: int = 32
    """Questions scored at a time, each in all its rotations."""
    resamples: int = 2000
    """Draws of the bootstrap over source videos."""
    jobs: int = 1
    """Trainings that run side by side."""

    def __post_init__(self):
        if not self.questions:
            raise ValueError("questions is empty; name at least one folder of build_gym_qa.py")
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
            raise ValueError(f"lr_grid holds factors above 0, at least one, got {self.lr_grid}")
        if not 0 < self.dev_rate < 1:
            raise ValueError(f"dev_rate is a share, in (0, 1), got {self.dev_rate}")
        for name, least in (("grid", 1), ("batch_size", 1), ("jobs", 1), ("resamples", 100)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


def refuse_uneven_recognizers(config: CompareConfig) -> None:
    """Refuse recognizers that are neither one for all seeds nor another one for each.

    Raises:
        ValueError: says which, how many there are, and how many may be.
    """
    for name, folders in (("sefar", config.sefar), ("supervised", config.supervised)):
        allowed = {1, len(config.seeds)} | ({0} if name == "supervised" else set())
        if len(folders) not in allowed:
            raise ValueError(
                f"--{name} names {len(folders)} run folders for {len(config.seeds)} seeds; give "
                f"one that serves all seeds, or one for each"
            )
        if len({run_of(folder.resolve()) for folder in folders}) < len(folders):
            raise ValueError(
                f"--{name} names a run folder twice: {', '.join(map(str, folders))}; one that "
                f"serves all seeds is named once, and others are trained with other seeds"
            )
