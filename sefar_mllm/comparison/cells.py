"""One cell of the comparison: a row's model trained with one seed on one question set, and all
that it is asked. A cell that is done is not done again; one that was stopped goes on.

runs/SET/ROW/seed-S holds the training (see `train.finetune`), predictions.jsonl, what the model
says when it is let speak and how likely it finds the options' texts (spoken-test.jsonl,
option-text-test.jsonl), and trained.json, scored.json and told.json, which say what these were
made from.
"""

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from sefar_mllm.adapters import Trained
from sefar_mllm.comparison.plan import Showing, Shown, Training
from sefar_mllm.comparison.question_sets import QuestionSet, taught
from sefar_mllm.comparison.records import StaleError, file_hash, finish, finished
from sefar_mllm.comparison.tokens import token_folder
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.evaluation.evaluate import text_scored
from sefar_mllm.folders.checkpoint import load_trained
from sefar_mllm.prompt import LETTERS
from sefar_mllm.scoring.other_answers import ask_otherwise, write_answers
from sefar_mllm.scoring.predict import Prediction, predict, write_predictions
from sefar_mllm.scoring.wrong_videos import wrong_videos
from sefar_mllm.tokens.cache import TokenCache, read_index
from sefar_mllm.tokens.features import FRAME_ORDERS
from sefar_mllm.training.plan import forget_checkpoints
from sefar_mllm.training.train import finetune

TRAINED, SCORED, TOLD, PREDICTIONS = (
    "trained.json",
    "scored.json",
    "told.json",
    "predictions.jsonl",
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training, and every way in which its model is shown the test questions."""

    out: Path
    questions: QuestionSet
    row: Training
    showings: Sequence[Showing]
    seed: int
    own_encoder: bool
    """Whether this seed has an encoder of its own."""
    finetune: FinetuneConfig
    language_model: str
    """Hash of the language model's folder."""
    markers: Mapping[Shown, str]
    """What options are called in the controls of letters."""
    batch_size: int

    @property
    def folder(self) -> Path:
        return cell_folder(self.out, self.questions, self.row.name, self.seed)

    def tokens(self, shown: Shown = "own_video") -> Path:
        """The token cache that the model is shown."""
        order = shown if shown in FRAME_ORDERS else "in_order"
        seed = self.seed if self.own_encoder else None
        return self.out / "tokens" / token_folder(self.row.encoder, seed=seed, order=order)


def name_of(cell: Cell) -> str:
    return f"{cell.questions.name} {cell.row.name} seed {cell.seed}"


def cell_folder(out: Path, questions: QuestionSet, row: str, seed: int) -> Path:
    return out / "runs" / questions.name / row / f"seed-{seed}"


def is_done(cell: Cell) -> bool:
    """Whether every prediction of the cell is there.

    Raises:
        StaleError: something of it was made from other inputs.
    """
    trained = finished(cell.folder / TRAINED, training_inputs(cell))
    scored = [
        finished(folder / SCORED, scoring_inputs(cell, shown)) for folder, shown in showings(cell)
    ]
    told = not diagnosed(cell.row) or finished(
        cell.folder / TOLD, scoring_inputs(cell, "own_video")
    )
    return trained and all(scored) and told


def run_cell(cell: Cell) -> None:
    """Train if need be, then answer what was not answered.

    What training prints goes to log.txt in the cell's folder.

    Raises:
        StaleError: something of it was made from other inputs.
    """
    if is_done(cell):
        return
    cell.folder.mkdir(parents=True, exist_ok=True)
    with printed_to(cell.folder / "log.txt"):
        if not finished(cell.folder / TRAINED, training_inputs(cell)):
            questions = taught(cell.questions.train, cell.row.lessons, cell.seed)
            finetune(cell.finetune, questions, cell.tokens(), cell.folder)
            finish(cell.folder / TRAINED, training_inputs(cell))
            forget_checkpoints(cell.folder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model, tokenizer = load_trained(cell.folder / "model", device=device)
        for folder, shown in showings(cell):
            inputs = scoring_inputs(cell, shown)
            if not finished(folder / SCORED, inputs):
                found = answers(cell, model, tokenizer, shown)
                folder.mkdir(parents=True, exist_ok=True)
                write_predictions(text_scored(found, cell.questions.test), folder / PREDICTIONS)
                finish(folder / SCORED, inputs)
        if diagnosed(cell.row):
            tell(cell, model, tokenizer)


def diagnosed(row: Training) -> bool:
    """Whether the row is asked in other ways too: those that were taught nothing wrong are."""
    return row.lessons == "as_written"


def tell(cell: Cell, model: Trained, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the model speak and score the options' texts, unless that was done before."""
    inputs = scoring_inputs(cell, "own_video")
    if finished(cell.folder / TOLD, inputs):
        return
    questions = cell.questions.test
    cache = TokenCache(cell.tokens(), [question.video for question in questions])
    found = ask_otherwise(model, tokenizer, questions, cache, batch_size=cell.batch_size)
    write_answers(questions, found, cell.folder, "test")
    finish(cell.folder / TOLD, inputs)


def showings(cell: Cell) -> Iterator[tuple[Path, Shown]]:
    """Where the answers go and what is shown: the row's own test first."""
    yield cell.folder, "own_video"
    for row in cell.showings:
        yield cell_folder(cell.out, cell.questions, row.name, cell.seed), row.shown


def answers(
    cell: Cell, model: Trained, tokenizer: PreTrainedTokenizerBase, shown: Shown
) -> list[Prediction]:
    """The model's answers to the test questions, under one way of showing them."""
    questions = cell.questions.test
    clips = [question.video for question in questions]
    cache = TokenCache(cell.tokens(shown), clips)
    other = wrong_videos(questions, random.Random(cell.seed)) if shown == "wrong_videos" else None
    return predict(
        model,
        tokenizer,
        questions,
        cache,
        shown=other,
        batch_size=cell.batch_size,
        letters=cell.markers.get(shown, LETTERS),
    )


def training_inputs(cell: Cell) -> dict[str, Any]:
    """All that the trained model depends on."""
    return {
        "questions": file_hash(cell.questions.files["train"]),
        "lessons": cell.row.lessons,
        "tokens": read_index(cell.tokens())["key"],
        "language_model": cell.language_model,
        "finetune": asdict(settings_of(cell.finetune)),
    }


def settings_of(config: FinetuneConfig) -> FinetuneConfig:
    """The settings without the place of the language model, which its hash stands for."""
    return replace(config, language_model="", save_every_steps=0)


def scoring_inputs(cell: Cell, shown: Shown) -> dict[str, Any]:
    """All that a file of predictions depends on."""
    return {
        "training": training_inputs(cell),
        "questions": file_hash(cell.questions.files["test"]),
        "tokens": read_index(cell.tokens(shown))["key"],
        "shown": shown,
        "markers": cell.markers.get(shown, LETTERS),
    }


@contextlib.contextmanager
def printed_to(path: Path) -> Iterator[None]:
    """Send what is printed, progress bars too, to the end of a file."""
    with (
        path.open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield


def refuse_stale(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that are still to be done, after a look at all of them.

    Raises:
        StaleError: some were made from other inputs; nothing has run yet.
    """
    todo, stale = [], []
    for cell in cells:
        try:
            if not is_done(cell):
                todo.append(cell)
        except StaleError as problem:
            stale.append(str(problem))
    if stale:
        raise StaleError(f"{len(stale)} of {len(cells)} cells do not fit; the first: {stale[0]}")
    return todo
