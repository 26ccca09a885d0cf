"""The rows of the comparison: encoders and controls C0 to C12, and the questions of each row.

A `TrainedRow` is a language model fine-tuned once for each seed. A `ConditionRow` evaluates the
model of a trained row under another condition, such as wrong videos. A `BaselineRow` needs no
fine-tuning. Three controls have no row: C8 checks that all matched rows share moments, number of
tokens, questions, steps and seeds; C9 is the audit of the questions; C12 is the accuracy on unseen
source videos.

An encoder path is given once, or once for each seed. In the second case seed i is fine-tuned on
recognizer i, so that the spread over seeds covers the training of both.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from qa_data.manifest import Clip
from qa_data.questions import LETTERS, Question, QuestionError
from sefar_mllm.comparison.config import BLIND
from sefar_mllm.dataset import load_questions
from sefar_mllm.evaluation.metrics import prior_adversarial, unseen_sources
from sefar_mllm.mismatched_videos import mismatched_videos
from sefar_mllm.prompt import marker_ids

TrainVariant = Literal["as_written", "wrong_videos", "wrong_answers"]
EvalCondition = Literal[
    "own_video",
    "wrong_videos",
    "reversed",
    "shuffled",
    "middle",
    "letters_digits",
    "letters_drawn",
    "other_formats",
]
"""How the test questions are asked. `other_formats`: own videos, answers generated and scored by
their text; a check of the measure that has no row."""
DIGITS = "123456789"


@dataclass(frozen=True)
class TrainedRow:
    """A model that is fine-tuned on tokens of one encoder."""

    encoder: str
    control: str
    """Control of the protocol, such as C3; empty for an encoder under test."""
    description: str
    train_variant: TrainVariant = "as_written"
    matched: bool = True
    """Whether it has the common number of tokens; ablations with fewer tokens do not."""

    @property
    def name(self) -> str:
        right = self.train_variant == "as_written"
        return self.encoder if right else f"{self.encoder}-trained_on_{self.train_variant}"


@dataclass(frozen=True)
class ConditionRow:
    """The trained model of another row, evaluated under another condition."""

    base: str
    condition: EvalCondition
    control: str
    description: str

    @property
    def name(self) -> str:
        return f"{self.base}-{self.condition}"


@dataclass(frozen=True)
class BaselineRow:
    """A row without fine-tuning."""

    name: str
    control: str
    description: str
    kind: Literal["rule", "text", "head", "classifier"]
    encoder: str | None = None


Row = TrainedRow | ConditionRow | BaselineRow

ENCODER_ROWS = (
    TrainedRow("sefar", "", "SeFAR's frame tokens"),
    TrainedRow("clip", "", "CLIP ViT-L/14"),
    TrainedRow("eva", "", "EVA-CLIP ViT-g/14"),
    TrainedRow("supervised", "C7", "the same network on the same labels, without SeFAR"),
    TrainedRow("clip_probe", "C7", "CLIP given the labels"),
    TrainedRow("eva_probe", "C7", "EVA given the labels"),
    TrainedRow("random", "C5", "the same network with random weights, drawn anew for each seed"),
    TrainedRow(BLIND, "C1", "blind: one value for every clip"),
)
ELEMENTS = "the class token of each element in place of frame tokens"
FUSED = "the one feature that SeFAR's classifier sees"
OTHER_ANSWERS = "trained on answers permuted among the questions"
TRAINED_ROWS = (
    *ENCODER_ROWS,
    TrainedRow("sefar_elements", "", ELEMENTS, matched=False),
    TrainedRow("sefar_fused", "", FUSED, matched=False),
    TrainedRow("sefar", "C3", "trained on another clip's video", "wrong_videos"),
    TrainedRow("sefar", "C11", OTHER_ANSWERS, "wrong_answers"),
)
FRAME_ORDERS: Mapping[EvalCondition, str] = {
    "reversed": "frames in reversed order",
    "shuffled": "frames shuffled",
    "middle": "the middle frame, repeated",
}
LETTER_ROWS = (
    ConditionRow("sefar", "letters_digits", "C10", "options called 1 to 4"),
    ConditionRow("sefar", "letters_drawn", "C10", "options called by letters drawn from E to Z"),
)
CONDITION_ROWS = (
    *(
        ConditionRow(row.name, "wrong_videos", "C3", "another clip's video in the test")
        for row in ENCODER_ROWS
        if row.name != BLIND
    ),
    *(
        ConditionRow(name, order, "C4", description)
        for name in ("sefar", "clip", "eva", "supervised")
        for order, description in FRAME_ORDERS.items()
    ),
    *LETTER_ROWS,
)
PRIOR = "the option that was the answer most often in the training questions"
HEAD = "no language model: the recognizer's classes, restricted to the options"
CLASSIFIER = "no language model: a linear classifier on the mean token"
BASELINE_ROWS = (
    BaselineRow("prior", "C0", PRIOR, "rule"),
    BaselineRow("longest", "C0", "the longest option", "rule"),
    BaselineRow("text_only", "C2", "the language model before fine-tuning, no video", "text"),
    *(BaselineRow(f"{name}_head", "C6", HEAD, "head", name) for name in ("sefar", "supervised")),
    *(
        BaselineRow(f"{name}_classifier", "C6", CLASSIFIER, "classifier", name)
        for name in ("sefar", "supervised", "clip", "eva", "random")
    ),
)
ROWS: tuple[Row, ...] = (*TRAINED_ROWS, *CONDITION_ROWS, *BASELINE_ROWS)


def trained_row(name: str) -> TrainedRow:
    """The trained row of this name."""
    return next(row for row in TRAINED_ROWS if row.name == name)


def row_encoder(row: Row) -> str | None:
    """The encoder whose tokens or head a row uses; None for text alone."""
    return trained_row(row.base).encoder if isinstance(row, ConditionRow) else row.encoder


def option_symbols(
    tokenizer: PreTrainedTokenizerBase, num_options: int, seed: int
) -> Mapping[EvalCondition, str]:
    """C10: other names for the options than A, B, C, D, as far as the tokenizer has them.

    `num_options` is that of the question with the most; `seed` draws the letters.
    """
    symbols: dict[EvalCondition, str] = {}
    digits = DIGITS[:num_options]
    if len(digits) == num_options == len(comparable_symbols(tokenizer, digits)):
        symbols["letters_digits"] = digits
    others = comparable_symbols(tokenizer, LETTERS[num_options:])
    if len(others) >= num_options:
        symbols["letters_drawn"] = "".join(random.Random(seed).sample(others, num_options))
    return symbols


def comparable_symbols(tokenizer: PreTrainedTokenizerBase, symbols: str) -> str:
    """The largest group of symbols that differ in their last token alone.

    Only their likelihoods can be compared token by token. Llama's letters and digits are such a
    group; a small tokenizer may break some symbols into more pieces.
    """
    groups: dict[tuple[int, ...], str] = {}
    for symbol in symbols:
        shared, _ = marker_ids(tokenizer, symbol)
        groups[tuple(shared)] = groups.get(tuple(shared), "") + symbol
    return max(groups.values(), key=len, default="")


@dataclass(frozen=True)
class QuestionFolder:
    """Training and test questions with one distractor rule, from scripts/build_gym_qa.py."""

    name: str
    """Name of the folder."""
    rule: str
    """Distractor rule, from the folder's audit: public, hard, and so on."""
    folder: Path
    train: Sequence[Question]
    test: Sequence[Question]
    blind: Mapping[str, Any]
    """Rows of the audit of the test questions: accuracy of every rule that sees no video."""
    subsets: Mapping[str, frozenset[str]]
    """Ids of the prior-adversarial test questions, and of those about unseen sources."""

    @property
    def files(self) -> dict[str, Path]:
        return {name: self.folder / f"{name}.jsonl" for name in ("train", "test")}


def read_question_folders(folders: Sequence[Path], clips: Sequence[Clip]) -> list[QuestionFolder]:
    """The questions in these folders. QuestionError if a folder is incomplete, two share a name or
    a rule, a training question is about a clip that is not labeled, or the wrong-video control is
    not possible.
    """
    sets = [read_question_folder(folder, clips) for folder in folders]
    for kind in ("name", "rule"):
        values = [getattr(one, kind) for one in sets]
        if len(set(values)) < len(values):
            raise QuestionError(f"two question folders share one {kind} ({values}); leave one out")
    labeled = {clip.id for clip in clips if clip.split == "labeled"}
    for one in sets:
        strays = [question.video for question in one.train if question.video not in labeled]
        if strays:
            raise QuestionError(
                f"{one.files['train']} asks about {len(strays)} clips that are not labeled in the "
                f"manifest, for example {strays[0]}; give the manifest it was built from"
            )
    return sets


def read_question_folder(folder: Path, clips: Sequence[Clip]) -> QuestionFolder:
    """Training and test questions with the audit that was made with them."""
    audit = folder / "audit.json"
    if not audit.is_file():
        raise QuestionError(
            f"{folder} has no audit.json; give a folder that scripts/build_gym_qa.py wrote"
        )
    try:
        saved = json.loads(audit.read_bytes())
        rule, blind = saved["settings"]["distractors"], saved["audits"]["test"]["rows"]
    except (ValueError, KeyError, TypeError) as cause:
        raise QuestionError(
            f"{audit} is damaged, or has no audit of the test questions and no distractor rule "
            f"({cause!r}); build the questions again with scripts/build_gym_qa.py"
        ) from cause
    train, test = (controllable(folder / f"{name}.jsonl") for name in ("train", "test"))
    subsets = {
        "prior_adversarial": prior_adversarial(test, train),
        "unseen_sources": unseen_sources(test, clips),
    }
    name = folder.resolve().name
    return QuestionFolder(name, rule, folder, train, test, blind, subsets)


def controllable(path: Path) -> Sequence[Question]:
    """The questions of a file, checked to allow the wrong-video control."""
    questions = load_questions(path)
    try:
        mismatched_videos(questions, random.Random(0))
    except ValueError as cause:
        raise QuestionError(f"{path}: {cause}; a comparison needs this control (C3)") from cause
    return questions


def train_questions(
    questions: Sequence[Question], variant: TrainVariant, seed: int
) -> list[Question]:
    """The training questions of a row.

    `wrong_videos` gives every question the video of another question, of another class, answer and
    source: a model may learn what the answer is not, and fall below the blind model.
    `wrong_answers` permutes the positions of the answers among the questions with as many options:
    the right option is marked as right by chance alone, whatever its text.
    """
    rng = random.Random(seed)
    if variant == "wrong_videos":
        other = mismatched_videos(questions, rng)
        return [replace(question, video=other[question.video]) for question in questions]
    if variant == "wrong_answers":
        return permute_answers(questions, rng)
    return list(questions)


def permute_answers(questions: Sequence[Question], rng: random.Random) -> list[Question]:
    """Every question with the answer position of a question with as many options."""
    positions: dict[int, list[int]] = {}
    for question in questions:
        positions.setdefault(len(question.options), []).append(question.answer)
    for drawn in positions.values():
        rng.shuffle(drawn)
    return [
        replace(question, answer=positions[len(question.options)].pop(), option_labels=None)
        for question in questions
    ]
