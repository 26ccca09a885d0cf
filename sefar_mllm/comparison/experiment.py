"""One cell of the comparison: a row's model trained with one seed on one question set, and all
that it is asked. A cell that is done is not done again; one that was stopped goes on.

runs/SET/ROW/seed-S holds the training (see `train.finetune`), predictions.jsonl, what the model
says when it is let speak and how likely it finds the options' texts (spoken-test.jsonl,
option-text-test.jsonl), and trained.json, scored.json and told.json, which say what these were
made from.

What a finished piece of work was made from, so that it is neither repeated nor mistaken.

The record is written last and names every input: question files by hash, tokens by their key,
settings by value, the code of the packages by hash. A piece whose record says the same is used
again. One that was made from anything else is refused, never overwritten or passed off as this
comparison's.

The same work on many items, some at a time in processes of their own.

Asked to end (SIGTERM or Ctrl-C), it asks its processes to end; a training among them saves first.

The tokens of every encoder that the comparison can have, each extracted once.

Folder names: tokens/ENCODER, with -seed-S where each seed has an encoder of its own (`weights`),
and -frames_ORDER for frames that are shown in another order in the test. Beside each lies
NAME.json, which says by which code it is made.

C8: one grid of learning rates for every row, each taking its best on training questions.

The choice is made with the first seed, on a development part that is cut from the training
questions by source video and not learned meanwhile; the test questions are not looked at. The
controls that learn something wrong take the choice of the row that they are a control of.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from qa_data.files import as_json, write_json
from qa_data.manifest import Clip
from qa_data.terminal import without_interrupts
from sefar_core.run_dir import dotted, read_metrics
from sefar_core.signals import Interrupted
from sefar_mllm.adapters import Trained
from sefar_mllm.answer_text import score_other_formats, write_answers
from sefar_mllm.checkpoint import load_trained
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.rows import (
    SHOWINGS,
    TRAININGS,
    QuestionSet,
    Showing,
    Shown,
    Training,
    available,
    folder_of,
    own_for_each_seed,
    seeds_of,
    taught,
    training,
)
from sefar_mllm.config import FinetuneConfig, ProbeConfig
from sefar_mllm.encoders import ENCODERS, recognizer_moments, with_frame_times
from sefar_mllm.encoders.probe import read_probe
from sefar_mllm.evaluation.evaluate import text_scored
from sefar_mllm.feature_cache import TokenCache, read_index
from sefar_mllm.features import FRAME_ORDERS, extract
from sefar_mllm.linear_probe import fit_probe, map_cache, save_probe
from sefar_mllm.mismatched_videos import mismatched_videos
from sefar_mllm.prompt import LETTERS
from sefar_mllm.scoring import Prediction, predict_answers, write_predictions
from sefar_mllm.stages import forget_checkpoints
from sefar_mllm.train import finetune

SMALL = 2**24  # bytes; larger files of a language model count by name and size
CODE = tuple(Path(__file__).parents[2] / name for name in ("qa_data", "sefar_core", "sefar_mllm"))
ONLY_READ = ("sefar_mllm/comparison/report.py", "sefar_mllm/comparison/statistics.py")
"""Files that read finished work and make none of it: the page may be written anew."""


class StaleError(ValueError):
    """A piece of an earlier comparison with other inputs; the message names the first."""


def finished(record: Path, inputs: dict[str, Any]) -> bool:
    """Whether the work was done before, from these very inputs.

    Raises:
        StaleError: it was done from other ones, or the record is damaged.
    """
    if not record.is_file():
        return False
    asked = dotted(json.loads(as_json(with_code(inputs))))
    try:
        found = dotted(dict(json.loads(record.read_bytes())))
    except (ValueError, TypeError) as cause:
        raise StaleError(
            f"{record} is damaged ({cause}); delete {record.parent}: the same command makes it "
            f"again"
        ) from cause
    for name in sorted(found.keys() | asked.keys()):
        if found.get(name) != asked.get(name):
            raise StaleError(
                f"{record.parent} was made with {name} = {found.get(name)}, but "
                f"{asked.get(name)} is asked for; give another --out, or delete {record.parent}"
            )
    return True


def finish(record: Path, inputs: dict[str, Any]) -> None:
    """Say what the work beside this file was made from; called when all of it is written."""
    write_json(record, with_code(inputs))


def with_code(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs and the code that makes something of them."""
    return {"code": code_hash(), **inputs}


@cache
def code_hash(packages: Sequence[Path] = CODE) -> str:
    """A hash of the source of packages, but for what only reads finished work."""
    total = hashlib.sha256()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            name = path.relative_to(package.parent).as_posix()
            if name not in ONLY_READ:
                total.update(f"{name} {file_hash(path)} ".encode())
    return total.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """A hash of a file's bytes, short enough to read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def model_hash(name: str) -> str:
    """A hash of a language model's folder; a hub name stands for itself.

    Files of many megabytes count by name and size alone; every fine-tuned model besides checks
    its language model by logits when it is loaded.
    """
    folder = Path(name)
    if not folder.is_dir():
        return name
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix != ".md":
            size = path.stat().st_size
            total.update(f"{path.name} {size} ".encode())
            total.update(file_hash(path).encode() if size <= SMALL else b"")
    return total.hexdigest()[:16]


PROBE_BASES = {"clip_probe": "clip", "eva_probe": "eva"}
UNMATCHED = {row.encoder for row in TRAININGS if not row.matched}  # one token an element


@dataclass(frozen=True, kw_only=True)
class TokenJob:
    """One cache to fill."""

    encoder: str
    order: str = "in_order"
    seed: int
    """The one whose encoder it is, or the first where one encoder serves all."""
    own: bool
    """Whether each seed has an encoder of its own."""

    @property
    def folder(self) -> str:
        return token_folder(self.encoder, seed=self.seed if self.own else None, order=self.order)


def token_folder(encoder: str, *, seed: int | None, order: str = "in_order") -> str:
    """Name of the folder with an encoder's tokens.

    Args:
        encoder: its name.
        seed: the one that has this encoder for its own; None where one serves all.
        order: of the frames.
    """
    own = "" if seed is None else f"-seed-{seed}"
    return f"{encoder}{own}" if order == "in_order" else f"{encoder}{own}-frames_{order}"


def token_jobs(config: CompareConfig) -> list[TokenJob]:
    """All caches of this comparison."""
    names = available(config)
    wanted = [(name, "in_order") for name in dict.fromkeys(row.encoder for row in TRAININGS)]
    wanted += [
        (training(row.of).encoder, str(row.shown)) for row in SHOWINGS if row.shown in FRAME_ORDERS
    ]
    return [
        TokenJob(encoder=name, order=order, seed=seed, own=own_for_each_seed(name, config))
        for name, order in wanted
        if name in names
        for seed in seeds_of(name, config)
    ]


def fill(
    job: TokenJob, config: CompareConfig, clips: Sequence[Clip], *, device: str
) -> dict[str, Any]:
    """Encode what the cache lacks, and return its key.

    Raises:
        StaleError: the cache was begun by other code, or a probe on other tokens or labels.
    """
    folder = config.out / "tokens" / job.folder
    record = folder.with_name(f"{job.folder}.json")
    if not finished(record, asdict(job)):
        folder.parent.mkdir(parents=True, exist_ok=True)
        finish(record, asdict(job))  # before it is whole: what is added later is by the same code
    if job.encoder in PROBE_BASES:
        fill_probed(job, config, clips)
        return read_index(folder)["key"]
    source = folder_of(job.encoder, config, job.seed)
    encoder = ENCODERS[job.encoder](source, seed=job.seed, device=device)
    if encoder.any_moments:
        encoder = with_frame_times(encoder, recognizer_moments(config.sefar[0]))
    grid = config.grid if job.encoder not in UNMATCHED else 1
    extract(clips, config.video_root, encoder, folder, grid=grid, frame_order=job.order)
    return read_index(folder)["key"]


def authenticity(config: CompareConfig) -> dict[str, str]:
    """What is known of whose weights image models have; it belongs beside their numbers."""
    named = [name for name in available(config) if name in {*PROBE_BASES, *PROBE_BASES.values()}]
    folders = {name: config.out / "tokens" / token_folder(name, seed=None) for name in named}
    return {name: read_index(folder)["origin"]["weights"] for name, folder in folders.items()}


def fill_probed(job: TokenJob, config: CompareConfig, clips: Sequence[Clip]) -> None:
    """C7: fit the map of CLIP's or EVA's tokens on the labels that SeFAR had, and apply it.

    Raises:
        StaleError: it was fitted before on other tokens or labels.
    """
    base = TokenCache(config.out / "tokens" / PROBE_BASES[job.encoder], [c.id for c in clips])
    folder = config.out / "probes" / job.encoder
    labeled = [clip for clip in clips if clip.split == "labeled"]
    defaults = ProbeConfig(features=base.folder, manifest=config.manifest, out=folder)
    inputs = {
        "tokens": base.key,
        "labels": {clip.id: clip.label for clip in labeled},
        "max_steps": defaults.max_steps,
        "lr": defaults.lr,
        "seed": defaults.seed,
    }
    record = folder.with_name(f"{job.encoder}.json")
    if not finished(record, inputs):
        folder.parent.mkdir(parents=True, exist_ok=True)
        probe, told = fit_probe(
            base, labeled, max_steps=defaults.max_steps, lr=defaults.lr, seed=defaults.seed
        )
        save_probe(folder, probe, told)
        finish(record, inputs)
    map_cache(base, read_probe(folder), folder, config.out / "tokens" / job.folder)


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


def name_of_cell(cell: Cell) -> str:
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
    found = score_other_formats(model, tokenizer, questions, cache, batch_size=cell.batch_size)
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
    other = (
        mismatched_videos(questions, random.Random(cell.seed)) if shown == "wrong_videos" else None
    )
    return predict_answers(
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


Item = TypeVar("Item")
Result = TypeVar("Result")


def run_all(
    work: Callable[[Item], Result], items: Sequence[Item], *, jobs: int, label: Callable
) -> list[Result]:
    """What the work gives for each item, in their order; stops at the first error.

    Args:
        work: a function of a module, so that other processes find it.
        items: what it is done on.
        jobs: processes; 1 works in this one.
        label: what to say of an item that is done.
    """
    began = time.perf_counter()

    def say(done: int, item: Item) -> None:
        left = (time.perf_counter() - began) / done * (len(items) - done) / 60
        print(f"[{done}/{len(items)}] {label(item)}; about {left:.0f} min left", flush=True)

    results: list[Result] = []
    if jobs == 1:
        for item in items:
            results.append(work(item))
            say(len(results), item)
        return results
    with _ending_together(), _pool(jobs) as pool:
        with without_interrupts():
            waiting = {pool.submit(_apart, work, item): item for item in items}
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                future.result()
                say(done, waiting[future])
        finally:
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in waiting]


def _pool(jobs: int) -> ProcessPoolExecutor:
    """Processes that share the cores; spawned, for torch does not outlive a fork."""
    return ProcessPoolExecutor(
        max_workers=jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(max(1, (os.cpu_count() or 1) // jobs),),
    )


def _apart(work: Callable[[Item], Result], item: Item) -> Result:
    """The work in a process of its own; an interruption comes home as the end of the program."""
    try:
        return work(item)
    except Interrupted as wish:
        raise SystemExit(wish.exit_code) from None


@contextmanager
def _ending_together() -> Iterator[None]:
    """While entered, SIGTERM and SIGINT are passed on to the processes that work."""

    def end(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.terminate()
        raise Interrupted(number, "interrupted; the same command goes on where it stopped")

    wishes = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in wishes}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


TUNED = "tuned.json"
Rates = Mapping[tuple[str, str], float]
"""(question set, row) -> factor on both learning rates."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A training with one factor, scored on the development part."""

    cell: Cell
    factor: float

    @property
    def folder(self) -> Path:
        return self.cell.folder.parent / "tuning" / f"factor-{self.factor:g}"


def scaled(config: FinetuneConfig, factor: float) -> FinetuneConfig:
    """The settings with both learning rates times a factor."""
    lora = replace(config.lora, lr=config.lora.lr * factor)
    return replace(config, lora=lora, projector_lr=config.projector_lr * factor)


def choose_rates(
    cells: Sequence[Cell], grid: Sequence[float], *, dev_rate: float, jobs: int
) -> Rates:
    """The best factor of each row on each question set.

    Args:
        cells: one for each row and set, with the settings that the factors are applied to.
        grid: factors; a single one is taken without a trial.
        dev_rate: share of the training questions to choose on.
        jobs: trials that run side by side.

    Raises:
        StaleError: an earlier trial was made from other inputs.
        DataError: no development part can be cut.
    """
    tuned = [cell for cell in cells if cell.row.lessons == "as_written"]
    trials = [
        Trial(
            cell=replace(cell, finetune=replace(scaled(cell.finetune, factor), dev_rate=dev_rate)),
            factor=factor,
        )
        for cell in tuned
        for factor in grid
        if len(grid) > 1
    ]
    scores = run_all(try_factor, trials, jobs=jobs, label=name_of_trial)
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for trial, score in zip(trials, scores, strict=True):
        place = (trial.cell.questions.name, trial.cell.row.name)
        if place not in best or score > best[place][0]:
            best[place] = (score, trial.factor)
    chosen = {place: factor for place, (_, factor) in best.items()}
    return {
        (cell.questions.name, cell.row.name): chosen.get(
            (cell.questions.name, cell.row.encoder), grid[0]
        )
        if cell.row.lessons != "as_written"
        else chosen.get((cell.questions.name, cell.row.name), grid[0])
        for cell in cells
    }


def try_factor(trial: Trial) -> float:
    """Accuracy on the development part after the last epoch: class mean, or micro without classes.

    The last epoch's, not the best one's: the test is answered by the model of the last epoch.
    """
    cell, folder = trial.cell, trial.folder
    inputs = training_inputs(cell)
    if not finished(folder / TUNED, inputs):
        folder.mkdir(parents=True, exist_ok=True)
        with printed_to(folder / "log.txt"):
            finetune(cell.finetune, cell.questions.train, cell.tokens(), folder)
        finish(folder / TUNED, inputs)
        forget_checkpoints(folder)
    lines = read_metrics(folder / "metrics.jsonl")
    last = [line for line in lines if "dev_micro" in line][-1]
    return float(last.get("dev_macro", last["dev_micro"]))


def name_of_trial(trial: Trial) -> str:
    cell = trial.cell
    return f"{cell.questions.name} {cell.row.name}, learning rates times {trial.factor:g}"
