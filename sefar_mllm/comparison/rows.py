"""The rows of the comparison by name: encoders, controls C0 to C12, and what each rules out.

Three kinds. A `Training` is a language model fine-tuned once for each seed. A `Showing` asks a
trained model once more and shows it something else. A `Standalone` row needs no fine-tuning. The
controls without a row of their own are columns or sections of the table: C9 is the audit of the
questions beside the rows, C12 the accuracy on unseen sources, C8 the check that all matched rows
share moments, number of tokens, questions, steps and seeds.

C10: other names for the options than A, B, C, D, as far as the tokenizer has them.

Likelihoods of single tokens can be compared where the markers differ in their last token alone.
Llama's letters and digits do; a small tokenizer may break some into more pieces.

The question folders of a comparison, and training questions that teach something wrong.

Which folder of weights serves which encoder, and for which seed.

A recognizer may be given once, or once for each seed: training i is then fine-tuned on recognizer
i, so that what is said of several seeds holds for the training of both.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from qa_data.manifest import Clip
from qa_data.questions import Question, QuestionError
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.dataset import load_questions
from sefar_mllm.encoders import ENCODERS
from sefar_mllm.evaluation.metrics import prior_adversarial, unseen_sources
from sefar_mllm.mismatched_videos import mismatched_videos
from sefar_mllm.prompt import LETTERS, marker_ids

Lessons = Literal["as_written", "wrong_videos", "wrong_answers"]
Shown = Literal[
    "own_video", "wrong_videos", "reversed", "shuffled", "middle", "letters_digits", "letters_drawn"
]
BLIND = "constant"


@dataclass(frozen=True, kw_only=True)
class Training:
    """A model that is fine-tuned on tokens of one encoder."""

    name: str
    encoder: str
    control: str = ""
    """Which control of the protocol it is; empty for the rivals themselves."""
    says: str
    lessons: Lessons = "as_written"
    matched: bool = True
    """Under the common budget of tokens; ablations with fewer tokens are not."""


@dataclass(frozen=True, kw_only=True)
class Showing:
    """The trained model of a row, shown something else in the test."""

    name: str
    of: str
    control: str
    says: str
    shown: Shown


@dataclass(frozen=True, kw_only=True)
class Standalone:
    """A row without fine-tuning."""

    name: str
    kind: Literal["rule", "text", "head", "probe"]
    control: str
    says: str
    encoder: str | None = None


Row = Training | Showing | Standalone

RIVALS = (
    Training(name="sefar", encoder="sefar", says="SeFAR's frame tokens"),
    Training(name="clip", encoder="clip", says="CLIP ViT-L/14"),
    Training(name="eva", encoder="eva", says="EVA-CLIP ViT-g/14"),
    Training(
        name="supervised",
        encoder="supervised",
        control="C7",
        says="the same network on the same labels, without SeFAR",
    ),
    Training(name="clip_probe", encoder="clip_probe", control="C7", says="CLIP given the labels"),
    Training(name="eva_probe", encoder="eva_probe", control="C7", says="EVA given the labels"),
    Training(
        name="random",
        encoder="random",
        control="C5",
        says="the same network with random weights, drawn anew for each seed",
    ),
    Training(name=BLIND, encoder="constant", control="C1", says="blind: one value for every clip"),
)
ABLATIONS = (
    Training(
        name="sefar_elements",
        encoder="sefar_elements",
        says="the class token of each element in place of frame tokens",
        matched=False,
    ),
    Training(
        name="sefar_fused",
        encoder="sefar_fused",
        says="the one feature that SeFAR's classifier sees",
        matched=False,
    ),
)
TRAINED_WRONG = (
    Training(
        name="sefar-trained_on_wrong_videos",
        encoder="sefar",
        control="C3",
        says="trained on another clip's video",
        lessons="wrong_videos",
    ),
    Training(
        name="sefar-trained_on_wrong_answers",
        encoder="sefar",
        control="C11",
        says="trained on answers permuted among the questions",
        lessons="wrong_answers",
    ),
)
TRAININGS = (*RIVALS, *ABLATIONS, *TRAINED_WRONG)

WRONG_VIDEOS = tuple(
    Showing(
        name=f"{row.name}-wrong_videos",
        of=row.name,
        control="C3",
        says="another clip's video shown in the test",
        shown="wrong_videos",
    )
    for row in RIVALS
    if row.name != BLIND
)
ORDERS: dict[Shown, str] = {
    "reversed": "frames in reversed order",
    "shuffled": "frames shuffled",
    "middle": "the middle frame, repeated",
}
FRAME_ORDER = tuple(
    Showing(name=f"{name}-{order}", of=name, control="C4", says=says, shown=order)
    for name in ("sefar", "clip", "eva", "supervised")
    for order, says in ORDERS.items()
)
LETTER_ROWS = (
    Showing(
        name="sefar-letters_digits",
        of="sefar",
        control="C10",
        says="options called 1 to 4",
        shown="letters_digits",
    ),
    Showing(
        name="sefar-letters_drawn",
        of="sefar",
        control="C10",
        says="options called by letters drawn from E to Z",
        shown="letters_drawn",
    ),
)
SHOWINGS = (*WRONG_VIDEOS, *FRAME_ORDER, *LETTER_ROWS)

STANDALONE = (
    Standalone(
        name="prior",
        kind="rule",
        control="C0",
        says="the option that was the answer most often in the training questions",
    ),
    Standalone(name="longest", kind="rule", control="C0", says="the longest option"),
    Standalone(
        name="text_only",
        kind="text",
        control="C2",
        says="the language model before fine-tuning, no video",
    ),
    *(
        Standalone(
            name=f"{name}_head",
            kind="head",
            control="C6",
            says="no language model: the recognizer's classes, restricted to the options",
            encoder=name,
        )
        for name in ("sefar", "supervised")
    ),
    *(
        Standalone(
            name=f"{name}_classifier",
            kind="probe",
            control="C6",
            says="no language model: a linear classifier on the mean token",
            encoder=name,
        )
        for name in ("sefar", "supervised", "clip", "eva", "random")
    ),
)
ROWS: tuple[Row, ...] = (*TRAININGS, *SHOWINGS, *STANDALONE)

FOLDER_OF = {
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
"""Which of the given folders an encoder is made from."""


def encoder_of(row: Row) -> str | None:
    """The encoder whose tokens or head a row uses; none for text alone."""
    if isinstance(row, Showing):
        return training(row.of).encoder
    return row.encoder


def training(name: str) -> Training:
    """The trained row of this name."""
    return next(row for row in TRAININGS if row.name == name)


DIGITS = "123456789"


def option_markers(
    tokenizer: PreTrainedTokenizerBase, num_options: int, seed: int
) -> Mapping[Shown, str]:
    """The markers of each control of letters that this tokenizer can have.

    Args:
        tokenizer: the language model's.
        num_options: of the question with the most.
        seed: of the letters that are drawn.
    """
    found: dict[Shown, str] = {}
    digits = DIGITS[:num_options]
    if len(digits) == num_options == len(comparable(tokenizer, digits)):
        found["letters_digits"] = digits
    others = comparable(tokenizer, LETTERS[num_options:])
    if len(others) >= num_options:
        found["letters_drawn"] = "".join(random.Random(seed).sample(others, num_options))
    return found


def comparable(tokenizer: PreTrainedTokenizerBase, markers: str) -> str:
    """The largest group of the markers that begin with the same tokens and end in one each."""
    groups: dict[tuple[int, ...], str] = {}
    for marker in markers:
        shared, _ = marker_ids(tokenizer, marker)
        groups[tuple(shared)] = groups.get(tuple(shared), "") + marker
    return max(groups.values(), key=len, default="")


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """Questions of one rule."""

    name: str
    """The folder's."""
    rule: str
    """Rule of the wrong options, from the folder's audit: public, hard, and so on."""
    folder: Path
    train: Sequence[Question]
    test: Sequence[Question]
    blind: Mapping[str, Any]
    """Rows of the audit of the test questions: what every rule that never looks gets right."""
    parts: Mapping[str, frozenset[str]]
    """Ids of the prior-adversarial test questions, and of those about unseen sources."""

    @property
    def files(self) -> dict[str, Path]:
        return {name: self.folder / f"{name}.jsonl" for name in ("train", "test")}


def read_sets(folders: Sequence[Path], clips: Sequence[Clip]) -> list[QuestionSet]:
    """The question sets in these folders.

    Raises:
        QuestionError: a folder is not whole, two are called alike or follow one rule, or a
            training question is about a clip that is not labeled.
    """
    sets = [read_set(folder, clips) for folder in folders]
    for kind in ("name", "rule"):
        found = [getattr(one, kind) for one in sets]
        if len(set(found)) < len(found):
            raise QuestionError(
                f"two question folders have one {kind} among {found}; leave one out"
            )
    labeled = {clip.id for clip in clips if clip.split == "labeled"}
    for one in sets:
        strays = [question.video for question in one.train if question.video not in labeled]
        if strays:
            raise QuestionError(
                f"{one.files['train']} asks about {len(strays)} clips that are not labeled in the "
                f"manifest, for example {strays[0]}; give the manifest it was built from"
            )
    return sets


def read_set(folder: Path, clips: Sequence[Clip]) -> QuestionSet:
    """Training and test questions with the audit that was made with them."""
    audit = folder / "audit.json"
    if not audit.is_file():
        raise QuestionError(
            f"{folder} has no audit.json; give a folder that scripts/build_gym_qa.py wrote"
        )
    try:
        told = json.loads(audit.read_bytes())
        rule, blind = told["settings"]["distractors"], told["audits"]["test"]["rows"]
    except (ValueError, KeyError, TypeError) as cause:
        raise QuestionError(
            f"{audit} is damaged, or tells no audit of a test set with rules of wrong options "
            f"({cause!r}); build the questions again with scripts/build_gym_qa.py"
        ) from cause
    train, test = (load_whole(folder / f"{name}.jsonl") for name in ("train", "test"))
    return QuestionSet(
        name=folder.resolve().name,
        rule=rule,
        folder=folder,
        train=train,
        test=test,
        blind=blind,
        parts={
            "prior_adversarial": prior_adversarial(test, train),
            "unseen_sources": unseen_sources(test, clips),
        },
    )


def load_whole(path: Path) -> Sequence[Question]:
    """The questions of a file, for which the control of wrong videos can be made.

    Raises:
        QuestionError: they cannot be read, or too many clips share a class, an answer or a source.
    """
    questions = load_questions(path)
    try:
        mismatched_videos(questions, random.Random(0))
    except ValueError as cause:
        raise QuestionError(f"{path}: {cause}; a comparison needs this control (C3)") from cause
    return questions


def taught(questions: Sequence[Question], lessons: Lessons, seed: int) -> list[Question]:
    """The training questions as a row learns them.

    `wrong_videos` gives every question the video of another one, of another class, answer and
    source: a model may learn what the answer is not, and fall below the blind one. `wrong_answers`
    permutes the places of the answers among the questions with as many options: the right option
    is called right by chance alone, whatever its text.
    """
    rng = random.Random(seed)
    if lessons == "wrong_videos":
        other = mismatched_videos(questions, rng)
        return [replace(question, video=other[question.video]) for question in questions]
    if lessons == "wrong_answers":
        return permute_answers(questions, rng)
    return list(questions)


def permute_answers(questions: Sequence[Question], rng: random.Random) -> list[Question]:
    """Every question with the answer's place of a question with as many options."""
    places: dict[int, list[int]] = {}
    for question in questions:
        places.setdefault(len(question.options), []).append(question.answer)
    for drawn in places.values():
        rng.shuffle(drawn)
    return [
        replace(question, answer=places[len(question.options)].pop(), option_labels=None)
        for question in questions
    ]


DRAWN = "random"
RECOGNIZERS = ("sefar", "supervised")


def folders_of(encoder: str, config: CompareConfig) -> tuple[Path, ...]:
    """The folders that an encoder is made from; none if it is not there."""
    given = getattr(config, FOLDER_OF[encoder])
    if given is None:
        return ()
    return given if isinstance(given, tuple) else (given,)


def available(config: CompareConfig) -> list[str]:
    """Encoders whose folder is given; the others' rows read "not measured"."""
    return [name for name in FOLDER_OF if name in ENCODERS and folders_of(name, config)]


def own_for_each_seed(encoder: str, config: CompareConfig) -> bool:
    """Whether every seed has another encoder: weights drawn anew, or a recognizer of its own.

    What the blind one gives depends on the size of the tokens alone.
    """
    return encoder == DRAWN or (encoder != BLIND and len(folders_of(encoder, config)) > 1)


def seeds_of(encoder: str, config: CompareConfig) -> tuple[int, ...]:
    """The seeds that have an encoder of their own; the first one where one serves all."""
    return config.seeds if own_for_each_seed(encoder, config) else config.seeds[:1]


def folder_of(encoder: str, config: CompareConfig, seed: int) -> Path:
    """The folder that the encoder of a seed is made from."""
    folders = folders_of(encoder, config)
    return folders[config.seeds.index(seed) if len(folders) > 1 else 0]


def num_recognizers(config: CompareConfig) -> dict[str, int]:
    """How often each recognizer was trained, by the name of its row."""
    return {name: len(found) for name in RECOGNIZERS if (found := folders_of(name, config))}
