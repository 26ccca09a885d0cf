"""The rows of the comparison: encoders and controls C0 to C12, and the inputs of each row.

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
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.dataset import load_questions
from sefar_mllm.encoders import ENCODERS
from sefar_mllm.evaluation.metrics import prior_adversarial, unseen_sources
from sefar_mllm.mismatched_videos import mismatched_videos
from sefar_mllm.prompt import marker_ids

TrainVariant = Literal["as_written", "wrong_videos", "wrong_answers"]
EvalCondition = Literal[
    "own_video", "wrong_videos", "reversed", "shuffled", "middle", "letters_digits", "letters_drawn"
]
BLIND = "constant"
DIGITS = "123456789"
RANDOM_ENCODER = "random"
RECOGNIZERS = ("sefar", "supervised")


@dataclass(frozen=True, kw_only=True)
class TrainedRow:
    """A model that is fine-tuned on tokens of one encoder."""

    name: str
    encoder: str
    control: str = ""
    """Control of the protocol, such as C3; empty for an encoder under test."""
    description: str
    train_variant: TrainVariant = "as_written"
    matched: bool = True
    """Whether it has the common number of tokens; ablations with fewer tokens do not."""


@dataclass(frozen=True, kw_only=True)
class ConditionRow:
    """The trained model of another row, evaluated under another condition."""

    name: str
    base: str
    control: str
    description: str
    condition: EvalCondition


@dataclass(frozen=True, kw_only=True)
class BaselineRow:
    """A row without fine-tuning."""

    name: str
    kind: Literal["rule", "text", "head", "probe"]
    control: str
    description: str
    encoder: str | None = None


Row = TrainedRow | ConditionRow | BaselineRow

ENCODER_ROWS = (
    TrainedRow(name="sefar", encoder="sefar", description="SeFAR's frame tokens"),
    TrainedRow(name="clip", encoder="clip", description="CLIP ViT-L/14"),
    TrainedRow(name="eva", encoder="eva", description="EVA-CLIP ViT-g/14"),
    TrainedRow(
        name="supervised",
        encoder="supervised",
        control="C7",
        description="the same network on the same labels, without SeFAR",
    ),
    TrainedRow(
        name="clip_probe", encoder="clip_probe", control="C7", description="CLIP given the labels"
    ),
    TrainedRow(
        name="eva_probe", encoder="eva_probe", control="C7", description="EVA given the labels"
    ),
    TrainedRow(
        name="random",
        encoder="random",
        control="C5",
        description="the same network with random weights, drawn anew for each seed",
    ),
    TrainedRow(
        name=BLIND, encoder="constant", control="C1", description="blind: one value for every clip"
    ),
)
ABLATIONS = (
    TrainedRow(
        name="sefar_elements",
        encoder="sefar_elements",
        description="the class token of each element in place of frame tokens",
        matched=False,
    ),
    TrainedRow(
        name="sefar_fused",
        encoder="sefar_fused",
        description="the one feature that SeFAR's classifier sees",
        matched=False,
    ),
)
CORRUPTED_ROWS = (
    TrainedRow(
        name="sefar-trained_on_wrong_videos",
        encoder="sefar",
        control="C3",
        description="trained on another clip's video",
        train_variant="wrong_videos",
    ),
    TrainedRow(
        name="sefar-trained_on_wrong_answers",
        encoder="sefar",
        control="C11",
        description="trained on answers permuted among the questions",
        train_variant="wrong_answers",
    ),
)
TRAINED_ROWS = (*ENCODER_ROWS, *ABLATIONS, *CORRUPTED_ROWS)

WRONG_VIDEO_ROWS = tuple(
    ConditionRow(
        name=f"{row.name}-wrong_videos",
        base=row.name,
        control="C3",
        description="another clip's video in the test",
        condition="wrong_videos",
    )
    for row in ENCODER_ROWS
    if row.name != BLIND
)
FRAME_ORDER_WORDS: dict[EvalCondition, str] = {
    "reversed": "frames in reversed order",
    "shuffled": "frames shuffled",
    "middle": "the middle frame, repeated",
}
FRAME_ORDER_ROWS = tuple(
    ConditionRow(
        name=f"{name}-{order}", base=name, control="C4", description=description, condition=order
    )
    for name in ("sefar", "clip", "eva", "supervised")
    for order, description in FRAME_ORDER_WORDS.items()
)
LETTER_ROWS = (
    ConditionRow(
        name="sefar-letters_digits",
        base="sefar",
        control="C10",
        description="options called 1 to 4",
        condition="letters_digits",
    ),
    ConditionRow(
        name="sefar-letters_drawn",
        base="sefar",
        control="C10",
        description="options called by letters drawn from E to Z",
        condition="letters_drawn",
    ),
)
CONDITION_ROWS = (*WRONG_VIDEO_ROWS, *FRAME_ORDER_ROWS, *LETTER_ROWS)

BASELINE_ROWS = (
    BaselineRow(
        name="prior",
        kind="rule",
        control="C0",
        description="the option that was the answer most often in the training questions",
    ),
    BaselineRow(name="longest", kind="rule", control="C0", description="the longest option"),
    BaselineRow(
        name="text_only",
        kind="text",
        control="C2",
        description="the language model before fine-tuning, no video",
    ),
    *(
        BaselineRow(
            name=f"{name}_head",
            kind="head",
            control="C6",
            description="no language model: the recognizer's classes, restricted to the options",
            encoder=name,
        )
        for name in ("sefar", "supervised")
    ),
    *(
        BaselineRow(
            name=f"{name}_classifier",
            kind="probe",
            control="C6",
            description="no language model: a linear classifier on the mean token",
            encoder=name,
        )
        for name in ("sefar", "supervised", "clip", "eva", "random")
    ),
)
ROWS: tuple[Row, ...] = (*TRAINED_ROWS, *CONDITION_ROWS, *BASELINE_ROWS)

PATH_FIELDS = {
    "sefar": "sefar",
    "sefar_elements": "sefar",
    "sefar_fused": "sefar",
    "random": "sefar",
    "constant": "sefar",
    "supervised": "supervised",
    "clip": "clip",
    "clip_probe": "clip",
    "eva": "eva",
    "eva_probe": "eva",
}
"""The setting of `CompareConfig` that names the folder of an encoder's weights."""


def row_encoder(row: Row) -> str | None:
    """The encoder whose tokens or head a row uses; None for text alone."""
    if isinstance(row, ConditionRow):
        return trained_row(row.base).encoder
    return row.encoder


def trained_row(name: str) -> TrainedRow:
    """The trained row of this name."""
    return next(row for row in TRAINED_ROWS if row.name == name)


def option_symbols(
    tokenizer: PreTrainedTokenizerBase, num_options: int, seed: int
) -> Mapping[EvalCondition, str]:
    """C10: other names for the options than A, B, C, D, as far as the tokenizer has them.

    Args:
        tokenizer: tokenizer of the language model.
        num_options: number of options of the question with the most.
        seed: seed of the letters that are drawn.
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


@dataclass(frozen=True, kw_only=True)
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
    """The questions in these folders.

    Raises:
        QuestionError: a folder is incomplete, two share a name or a rule, or a training question
            is about a clip that is not labeled.
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
    train, test = (
        load_controllable_questions(folder / f"{name}.jsonl") for name in ("train", "test")
    )
    return QuestionFolder(
        name=folder.resolve().name,
        rule=rule,
        folder=folder,
        train=train,
        test=test,
        blind=blind,
        subsets={
            "prior_adversarial": prior_adversarial(test, train),
            "unseen_sources": unseen_sources(test, clips),
        },
    )


def load_controllable_questions(path: Path) -> Sequence[Question]:
    """The questions of a file, checked to allow the wrong-video control.

    Raises:
        QuestionError: the file is not readable, or too many clips share a class, answer or source.
    """
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


def encoder_paths(encoder: str, config: CompareConfig) -> tuple[Path, ...]:
    """The weight folders of an encoder; empty if none is given."""
    given = getattr(config, PATH_FIELDS[encoder])
    if given is None:
        return ()
    return given if isinstance(given, tuple) else (given,)


def available_encoders(config: CompareConfig) -> list[str]:
    """Encoders whose folder is given; the rows of all others read "not measured"."""
    return [name for name in PATH_FIELDS if name in ENCODERS and encoder_paths(name, config)]


def has_encoder_per_seed(encoder: str, config: CompareConfig) -> bool:
    """Whether every seed has its own encoder: fresh random weights, or its own recognizer.

    The tokens of the blind encoder depend on their size alone, so one serves all seeds.
    """
    return encoder == RANDOM_ENCODER or (
        encoder != BLIND and len(encoder_paths(encoder, config)) > 1
    )


def encoder_seeds(encoder: str, config: CompareConfig) -> tuple[int, ...]:
    """The seeds that have their own encoder; the first seed where one encoder serves all."""
    return config.seeds if has_encoder_per_seed(encoder, config) else config.seeds[:1]


def encoder_path(encoder: str, config: CompareConfig, seed: int) -> Path:
    """The weight folder of a seed's encoder."""
    folders = encoder_paths(encoder, config)
    return folders[config.seeds.index(seed) if len(folders) > 1 else 0]


def num_recognizers(config: CompareConfig) -> dict[str, int]:
    """How many trainings of each recognizer are given, by the name of its row."""
    return {name: len(paths) for name in RECOGNIZERS if (paths := encoder_paths(name, config))}
