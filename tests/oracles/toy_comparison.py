"""A comparison in which nothing is learned: a clip's class is read off the tokens' folder.

`Stubs` replaces extraction, training and scoring. A model answers with the class of the clip that
it is shown, unless its encoder is blind, and each call is recorded.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from einops import repeat
from transformers import PreTrainedTokenizerBase

from qa_data.manifest import Clip, write_manifest
from qa_data.questions import Question, write_questions
from sefar_mllm.answer_text import GeneratedAnswer, OtherFormats, TextScore
from sefar_mllm.comparison import experiment
from sefar_mllm.comparison.config import CompareConfig, encoder_sources
from sefar_mllm.comparison.experiment import Setup
from sefar_mllm.comparison.rows import TRAINED_ROWS, QuestionFolder
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.encoders import ENCODERS, Encoder
from sefar_mllm.feature_cache import FORMAT, write_tokens
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.scoring import Prediction
from tests.oracles import toy_llm

ASKED = [replace(question, option_labels=(0, 1, 2, 3)) for question in toy_llm.questions(24)]
TRAIN, TEST = ASKED[:12], ASKED[12:]
CLASS = {question.video: question.answer for question in ASKED}
BLIND = ("constant", "random")
SYMBOLS = {"letters_digits": "1234", "letters_drawn": "QXJM"}
CLIPS = [
    Clip(
        id=one.video,
        path=f"{one.video}.mp4",
        label=one.label,
        text=one.options[one.answer],
        event=one.event,
        source=one.source,
        split="labeled" if one in TRAIN else "test",
    )
    for one in ASKED
]


def question_folder(folder: Path, rule: str, train=TRAIN, test=TEST) -> Path:
    """The files of scripts/build_gym_qa.py."""
    folder.mkdir(parents=True, exist_ok=True)
    write_questions(train, folder / "train.jsonl")
    write_questions(test, folder / "test.jsonl")
    row = {"micro": 0.25, "micro_se": 0.01, "macro": 0.25, "macro_se": 0.01}
    audit = {"settings": {"distractors": rule}, "audits": {"test": {"rows": {"chance": row}}}}
    (folder / "audit.json").write_text(json.dumps(audit))
    return folder


def comparison(root: Path, language_model: Path, **changes) -> CompareConfig:
    """The settings of a comparison on public and hard questions with two seeds."""
    write_manifest(CLIPS, root / "manifest.csv")
    settings = {
        "manifest": root / "manifest.csv",
        "video_root": root,
        "questions": tuple(question_folder(root / f"qa-{r}", r) for r in ("public", "hard")),
        "sefar": (root / "sefar",),
        "supervised": (root / "supervised",),
        "out": root / "out",
        "seeds": (0, 3),
        "resamples": 100,
        "batch_size": 5,
        "finetune": FinetuneConfig(language_model=str(language_model)),
    }
    return CompareConfig(**settings | changes)


def setup_of(config: CompareConfig, tokens: Path, *, test: Sequence[Question] = TEST) -> Setup:
    """What the experiments on the hard questions share.

    Args:
        config: all settings; nothing is written to `out` yet.
        tokens: token caches to read; those that lack are written.
        test: the test questions.
    """
    folder = question_folder(config.video_root / "qa-hard", "hard", test=test)
    setup = Setup(
        out=config.out,
        questions=QuestionFolder(
            name="qa-hard", rule="hard", folder=folder, train=TRAIN, test=test, blind={}, subsets={}
        ),
        clips=CLIPS,
        video_root=config.video_root,
        encoders=encoder_sources(config),
        grid=config.grid,
        seeds=config.seeds,
        finetune=config.finetune,
        lr_factors={row.name: 1.0 for row in TRAINED_ROWS},
        language_model="hash",
        option_symbols={seed: SYMBOLS for seed in config.seeds},
        batch_size=config.batch_size,
    )
    config.out.mkdir()
    (config.out / "tokens").symlink_to(tokens)
    for encoder, order, seed in experiment.feature_jobs(setup):
        cache = setup.tokens(encoder, seed, order)
        if not cache.is_dir():
            write_cache(cache, toy_encoder(encoder, cache.name), 2, order, list(CLASS))
    return setup


def toy_encoder(name: str, digest: str) -> Encoder:
    return Encoder(
        name=name,
        digest=digest,
        moments=(0.25, 0.75),
        dim=4,
        origin={"weights": "drawn"},
        encode=lambda frames: frames,
    )


def write_cache(folder: Path, encoder: Encoder, grid: int, order: str, ids: Sequence[str]) -> None:
    """A token cache in which every token of a clip names its class."""
    key = {"format": FORMAT, "frame_order": order} | encoder.key(grid)
    tokens = torch.eye(4)[[CLASS[name] for name in ids]]
    tokens = repeat(tokens, "clip dim -> clip 2 row column dim", row=grid, column=grid)
    clips = {name: [f"{name}.mp4", None, None] for name in ids}
    write_tokens(folder, key, encoder.origin, clips, tokens)


def prediction(question: Question, choice: int, right: bool | None = None) -> Prediction:
    """The answer of a model that chooses this option."""
    return Prediction(
        question_id=question.question_id,
        video=question.video,
        shown=question.video,
        source=question.source,
        event=question.event,
        label=question.label,
        answer=question.answer,
        probs=tuple(0.7 if place == choice else 0.1 for place in range(4)),
        first_letter=choice,
        strict=choice == question.answer if right is None else right,
    )


class Stubs:
    """Replaces extraction, training and scoring, and records their arguments."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.encoded, self.trained, self.asked, self.formats = [], [], [], []
        for name in ENCODERS:
            patch.setitem(ENCODERS, name, self.encoder(name))
        patch.setattr(experiment, "extract", self.extract)
        patch.setattr(experiment, "finetune", self.finetune)
        patch.setattr(experiment, "load_trained", self.load)
        patch.setattr(experiment, "predict_answers", self.predict)
        patch.setattr(experiment, "score_other_formats", self.score)
        patch.setattr(experiment, "recognizer_probs", self.head)
        experiment.load_model.cache_clear()

    def encoder(self, name):
        def make(folder, *, seed, device):
            return toy_encoder(name, f"{folder.name} {seed}" if name == "random" else folder.name)

        return make

    def extract(self, clips, video_root, encoder, folder, *, grid, frame_order):
        self.encoded.append((folder.name, encoder.digest))
        write_cache(folder, encoder, grid, frame_order, [clip.id for clip in clips])

    def finetune(self, config, questions, features, folder):
        self.trained.append((config, questions, features.name, folder))
        rate = config.lora.lr
        lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "dev_micro": rate}]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))

    def load(self, folder, *, device):
        model = Mock(spec=SefarVlmForConditionalGeneration)
        return model, Mock(spec=PreTrainedTokenizerBase)

    def predict(self, model, tokenizer, asked, cache, *, shown, letters, **batch):
        self.asked.append((cache.folder.name, letters, shown))
        name = cache.folder.name.split("-")[0]

        def answer(question):
            seen = question.video if shown is None else shown[question.video]
            choice = 0 if name in BLIND else CLASS[seen]
            return replace(prediction(question, choice), shown=seen)

        return [answer(question) for question in asked]

    def score(self, model, tokenizer, asked, cache, *, batch_size):
        self.formats.append(cache.folder.name)
        return OtherFormats(
            generated=[
                GeneratedAnswer(question_id=one.question_id, text="A", choice=0) for one in asked
            ],
            texts={
                one.question_id: TextScore((-1.0, -2.0, -2.0, -2.0), (1, 2, 3, 4)) for one in asked
            },
        )

    def head(self, folder, clips, root, device, names):
        self.asked.append((folder.name, "head", None))
        return {clip.id: torch.eye(4)[clip.label] for clip in clips}
