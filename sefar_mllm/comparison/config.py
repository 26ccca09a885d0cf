"""Settings of a comparison. This file does not import torch, so that `--help` is quick."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sefar_core.config import check, check_seed
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
        different = 0 < len(set(self.seeds)) == len(self.seeds)
        check(different, "seeds must be different numbers, at least one", self.seeds)
        check_seed(min(self.seeds), least=0)
        check_seed(max(self.seeds))
        if self.finetune.seed != 0:
            raise ValueError(
                f"finetune.seed is {self.finetune.seed}, but the seeds of a comparison come from "
                f"--seeds; leave it out"
            )
        factors = self.lr_grid and all(0 < factor < math.inf for factor in self.lr_grid)
        check(bool(factors), "lr_grid must be one or more factors above 0", self.lr_grid)
        check(0 < self.dev_rate < 1, "dev_rate must be in (0, 1)", self.dev_rate)
        for name, least in (("grid", 1), ("batch_size", 1), ("jobs", 1), ("resamples", 100)):
            value = getattr(self, name)
            check(value >= least, f"{name} must be at least {least}", value)


def refuse_uneven_recognizers(config: CompareConfig) -> None:
    """Raise ValueError for a number of recognizers that is neither one nor the number of seeds."""
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


BLIND, RANDOM = "constant", "random"  # the encoders of the controls C1 and C5
WEIGHTS = {
    **dict.fromkeys(("sefar", "sefar_elements", "sefar_fused", RANDOM, BLIND), "sefar"),
    "supervised": "supervised",
    **dict.fromkeys(("clip", "clip_probe"), "clip"),
    **dict.fromkeys(("eva", "eva_probe"), "eva"),
}
"""The setting that names an encoder's weights; for the controls, the network that they copy."""


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """An encoder of the comparison: one for all seeds, or one for each."""

    name: str
    weights: Mapping[int, Path]
    """Folder of the weights, by seed; the first seed alone where one encoder serves all."""
    per_seed: bool
    """Whether each seed has its own encoder: fresh random weights, or its own recognizer."""

    def tokens(self, seed: int, frame_order: str = "in_order") -> str:
        """Name of the folder with the tokens that a seed reads."""
        own = f"-seed-{seed}" if self.per_seed else ""
        order = "" if frame_order == "in_order" else f"-frames_{frame_order}"
        return f"{self.name}{own}{order}"


def encoder_sources(config: CompareConfig) -> dict[str, EncoderSource]:
    """The encoders whose weights are given, by name; the rows of all others are not measured.

    The tokens of the blind encoder depend on their size alone, so one serves all seeds.
    """
    sources = {}
    for name, setting in WEIGHTS.items():
        given = getattr(config, setting) or ()
        folders = given if isinstance(given, tuple) else (given,)
        if folders:
            per_seed = name == RANDOM or (name != BLIND and len(folders) > 1)
            seeds = config.seeds if per_seed else config.seeds[:1]
            weights = folders if len(folders) > 1 else folders * len(seeds)
            sources[name] = EncoderSource(
                name=name, weights=dict(zip(seeds, weights, strict=False)), per_seed=per_seed
            )
    return sources
