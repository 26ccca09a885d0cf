"""One world a session: rendered clips, and a small model of every kind that is made of them.

`World` is the fixture `world`. Each part is a folder that is made when a test first asks for it,
by one of the test processes while the others wait. No test writes into it: what changes a part
changes a copy of it, `shutil.copytree(world.recognizer, tmp_path / "run")`.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from filelock import FileLock

from qa_data.build import QuestionPlan, build_sets
from qa_data.finegym import read_elements, to_clips
from qa_data.manifest import read_manifest, without_label, write_manifest
from qa_data.questions import write_questions
from qa_data.synthetic.dataset import make_set
from qa_data.synthetic.plan import SyntheticSettings
from qa_data.taxonomy import read_categories
from sefar_core.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    TeacherConfig,
    TrainConfig,
)
from sefar_core.train import fit
from sefar_mllm.config import FinetuneConfig, LoraSettings
from sefar_mllm.dataset import load_questions
from sefar_mllm.encoders import ENCODERS
from sefar_mllm.features import extract
from sefar_mllm.train import finetune
from tests.oracles import toy_llm

SET = SyntheticSettings(num_train=24, num_test=24, size=48, num_train_sources=4)
VAL_SOURCES = 4  # of the 12 sources of the test list
MODEL = ModelConfig(
    image_size=32,
    patch_size=16,
    dim=16,
    depth=2,
    num_heads=2,
    fusion_dim=8,
    dropout=0.2,
    drop_path_rate=0.2,
)
TRAINING = TrainConfig(
    model=MODEL,
    data=DataConfig(short_side=(32, 36), workers=0),
    teacher=TeacherConfig(ema_decay=0.5, dropout_passes=3),
    loss=LossConfig(gamma_un=2.0, gamma_mix=2.0),
    optim=OptimConfig(kind="adamw", lr=1e-3, schedule="cosine", clip_norm=2.0, rate_warmup_steps=3),
    batch_size=4,
    micro_batch_size=2,
    epochs=4,
    warmup_epochs=1,
    steps=8,
    save_every_epochs=1,
    mixed_precision="no",
)
FINETUNING = FinetuneConfig(
    lora=LoraSettings(rank=2, alpha=4.0, dropout=0.1, lr=1e-2),
    projector_lr=1e-2,
    projector_epochs=1,
    epochs=1,
    batch_size=4,
    micro_batch_size=4,
    warmup=0.0,
)


class World:
    """The parts that are there to read.

    Args:
        root: folder that the test processes of one session share.
    """

    def __init__(self, root: Path):
        self.root = root

    @cached_property
    def gym(self) -> Path:
        """A rendered set of 48 clips in FineGym's formats, as make_synthetic_gym.py makes it.

        manifest.csv in it has 8 labeled, 16 unlabeled, 7 val and 17 test clips of 12 classes;
        train.csv has the labeled and unlabeled ones alone. The clips are in `videos`.
        """
        return self._made("gym", make_gym)

    @cached_property
    def questions(self) -> Path:
        """Question files train.jsonl, val.jsonl and test.jsonl by the public rule."""
        return self._made("questions", lambda folder: make_questions(self.gym, folder))

    @cached_property
    def recognizer(self) -> Path:
        """A run folder of `TRAINING` on train.csv: student, teacher, metrics and states."""
        return self._made("recognizer", lambda folder: train(self.gym, folder))

    @cached_property
    def language_model(self) -> Path:
        """A random Llama of two layers with a trained tokenizer."""
        return self._made("language_model", toy_llm.language_model)

    @cached_property
    def tokens(self) -> Path:
        """The recognizer's token cache of the labeled, val and test clips."""
        return self._made("tokens", lambda folder: encode(self.gym, self.recognizer, folder))

    @cached_property
    def finetuned(self) -> Path:
        """A run folder of `FINETUNING` on the questions about labeled clips; model is in it."""
        return self._made("finetuned", self._finetune)

    def _finetune(self, folder: Path) -> None:
        config = replace(FINETUNING, language_model=str(self.language_model))
        finetune(config, load_questions(self.questions / "train.jsonl"), self.tokens, folder)

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder of a part; it is made by whoever comes first, and is whole once it is there.

        It is made where it stays, for what is in it names itself by its path.
        """
        folder, complete = self.root / name, self.root / f"{name}.complete"
        with FileLock(self.root / f"{name}.lock"):
            if not complete.exists():
                assert not folder.exists(), f"{folder} could not be made, see the first error"
                make(folder)
                complete.touch()
        return folder


def make_gym(folder: Path) -> None:
    make_set(folder, SET)
    classes = read_categories(folder / "categories.txt")
    pool = to_clips(read_elements(folder / "train_element.txt"), classes, split="labeled")
    held_out = to_clips(read_elements(folder / "val_element.txt"), classes, split="test")
    val_sources = sorted({clip.source for clip in held_out})[:VAL_SOURCES]
    training = [
        without_label(replace(clip, split="unlabeled")) if number % 3 < 2 else clip
        for number, clip in enumerate(pool)
    ]
    held_out = [
        replace(clip, split="val") if clip.source in val_sources else clip for clip in held_out
    ]
    write_manifest(training, folder / "train.csv")
    write_manifest([*training, *held_out], folder / "manifest.csv")


def make_questions(gym: Path, folder: Path) -> None:
    clips = read_manifest(gym / "manifest.csv")
    classes = read_categories(gym / "categories.txt")
    folder.mkdir()
    for name, built in build_sets(clips, classes, QuestionPlan(rule="public")).items():
        write_questions(built.questions, folder / f"{name}.jsonl")


def train(gym: Path, folder: Path) -> None:
    fit(TRAINING, manifest=gym / "train.csv", video_root=gym / "videos", run_dir=folder)


def encode(gym: Path, recognizer: Path, folder: Path) -> None:
    clips = [clip for clip in read_manifest(gym / "manifest.csv") if clip.split != "unlabeled"]
    torch.manual_seed(0)
    extract(clips, gym / "videos", ENCODERS["sefar"](recognizer), folder)


def shared_root(temporary: Path) -> Path:
    """The folder of this session's world; processes of pytest-xdist have one together.

    Args:
        temporary: base folder of this process's temporary folders.
    """
    shared = temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary
    root = shared / "world"
    root.mkdir(exist_ok=True)
    return root
