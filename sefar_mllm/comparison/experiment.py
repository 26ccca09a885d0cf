"""The experiments of a comparison: extract features, search learning rates, train, evaluate.

A `Run` is one trained row with one seed on one question folder, with all its evaluation
conditions. It is written to OUT/runs/QUESTIONS/ROW/seed-S: the training (see `train.finetune`),
predictions.jsonl, the generated answers and the option-text scores (spoken-test.jsonl,
option-text-test.jsonl). The features of an encoder are in OUT/tokens/ENCODER, with -seed-S where
each seed has its own encoder and -frames_ORDER for another frame order.

Each piece of work has a JSON record, written last, that is its cache key: question files by hash,
tokens by their key, settings by value, the code of the packages by hash. Work with an equal record
is reused; work with another record is refused, and never overwritten.
"""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from qa_data.files import SefarError, as_json, write_json
from qa_data.manifest import Clip
from qa_data.questions import LETTERS
from qa_data.terminal import without_interrupts
from sefar_core.evaluate import FRAME_ORDERS
from sefar_core.run_dir import dotted, read_metrics
from sefar_core.shipped import shipped
from sefar_core.signals import Interrupted
from sefar_mllm.adapters import Trained
from sefar_mllm.answer_text import score_other_formats, write_other_formats
from sefar_mllm.checkpoint import load_trained
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.rows import (
    CONDITION_ROWS,
    TRAINED_ROWS,
    ConditionRow,
    EvalCondition,
    QuestionFolder,
    TrainedRow,
    available_encoders,
    encoder_path,
    encoder_seeds,
    has_encoder_per_seed,
    train_questions,
    trained_row,
)
from sefar_mllm.config import FinetuneConfig, ProbeConfig
from sefar_mllm.encoders import ENCODERS, recognizer_moments, with_frame_times
from sefar_mllm.encoders.probe import read_probe
from sefar_mllm.evaluation.evaluate import text_scored
from sefar_mllm.feature_cache import TokenCache, read_index
from sefar_mllm.features import extract
from sefar_mllm.linear_probe import fit_probe, map_cache, save_probe
from sefar_mllm.mismatched_videos import mismatched_videos
from sefar_mllm.scoring import Prediction, predict_answers, write_predictions
from sefar_mllm.stages import forget_checkpoints
from sefar_mllm.train import finetune

TRAINED, SCORED, DIAGNOSED, PREDICTIONS = (
    "trained.json",
    "scored.json",
    "told.json",
    "predictions.jsonl",
)
SMALL = 2**24  # bytes; larger files of a language model count by name and size
CODE = tuple(Path(__file__).parents[2] / name for name in ("qa_data", "sefar_core", "sefar_mllm"))
ONLY_READ = tuple(f"sefar_mllm/comparison/{name}.py" for name in ("report", "statistics"))
"""Files that only read finished work; a change in them makes no work stale."""
PROBE_BASES = {"clip_probe": "clip", "eva_probe": "eva"}
UNMATCHED = {row.encoder for row in TRAINED_ROWS if not row.matched}  # one token an element
TRIED = "tuned.json"
LrFactors = Mapping[tuple[str, str], float]
"""(question folder, row) -> factor on both learning rates."""
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training, and every condition under which its model answers the test questions."""

    out: Path
    questions: QuestionFolder
    row: TrainedRow
    conditions: Sequence[ConditionRow]
    seed: int
    own_encoder: bool
    """Whether this seed has its own encoder."""
    finetune: FinetuneConfig
    language_model: str
    """Hash of the language model's folder."""
    option_symbols: Mapping[EvalCondition, str]
    """The names of the options in the control C10."""
    batch_size: int

    @property
    def folder(self) -> Path:
        return run_folder(self.out, self.questions, self.row.name, self.seed)

    def tokens(self, condition: EvalCondition = "own_video") -> Path:
        """The token cache that the model reads."""
        order = condition if condition in FRAME_ORDERS else "in_order"
        seed = self.seed if self.own_encoder else None
        return self.out / "tokens" / feature_folder(self.row.encoder, seed=seed, order=order)


def run_name(run: Run) -> str:
    return f"{run.questions.name} {run.row.name} seed {run.seed}"


def run_folder(out: Path, questions: QuestionFolder, row: str, seed: int) -> Path:
    return out / "runs" / questions.name / row / f"seed-{seed}"


def complete_run(run: Run) -> None:
    """Train the model and answer the test questions under each condition; skip finished work.

    The output of the training goes to log.txt in the run's folder.

    Raises:
        StaleError: some of its files were made from other inputs.
    """
    if is_complete(run):
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    with output_to_file(run.folder / "log.txt"):
        if not is_finished(run.folder / TRAINED, training_inputs(run)):
            questions = train_questions(run.questions.train, run.row.train_variant, run.seed)
            finetune(run.finetune, questions, run.tokens(), run.folder)
            record_finished(run.folder / TRAINED, training_inputs(run))
            forget_checkpoints(run.folder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model, tokenizer = load_trained(run.folder / "model", device=device)
        for folder, condition in run_conditions(run):
            inputs = scoring_inputs(run, condition)
            if not is_finished(folder / SCORED, inputs):
                answers = predict_condition(run, model, tokenizer, condition)
                folder.mkdir(parents=True, exist_ok=True)
                write_predictions(text_scored(answers, run.questions.test), folder / PREDICTIONS)
                record_finished(folder / SCORED, inputs)
        if has_diagnostics(run.row):
            run_diagnostics(run, model, tokenizer)


def is_complete(run: Run) -> bool:
    """Whether the run has all its predictions.

    Raises:
        StaleError: some of its files were made from other inputs.
    """
    trained = is_finished(run.folder / TRAINED, training_inputs(run))
    scored = [
        is_finished(folder / SCORED, scoring_inputs(run, condition))
        for folder, condition in run_conditions(run)
    ]
    diagnosed = not has_diagnostics(run.row) or is_finished(
        run.folder / DIAGNOSED, scoring_inputs(run, "own_video")
    )
    return trained and all(scored) and diagnosed


def has_diagnostics(row: TrainedRow) -> bool:
    """Whether the row is scored in other answer formats: all but those trained on wrong data."""
    return row.train_variant == "as_written"


def run_diagnostics(run: Run, model: Trained, tokenizer: PreTrainedTokenizerBase) -> None:
    """Generate answers and score the options' texts, unless that was done before."""
    inputs = scoring_inputs(run, "own_video")
    if is_finished(run.folder / DIAGNOSED, inputs):
        return
    questions = run.questions.test
    cache = TokenCache(run.tokens(), [question.video for question in questions])
    answers = score_other_formats(model, tokenizer, questions, cache, batch_size=run.batch_size)
    write_other_formats(questions, answers, run.folder, "test")
    record_finished(run.folder / DIAGNOSED, inputs)


def run_conditions(run: Run) -> Iterator[tuple[Path, EvalCondition]]:
    """The folder and condition of each evaluation, the row's own test first."""
    yield run.folder, "own_video"
    for row in run.conditions:
        yield run_folder(run.out, run.questions, row.name, run.seed), row.condition


def predict_condition(
    run: Run, model: Trained, tokenizer: PreTrainedTokenizerBase, condition: EvalCondition
) -> list[Prediction]:
    """The model's answers to the test questions under one condition."""
    questions = run.questions.test
    clips = [question.video for question in questions]
    cache = TokenCache(run.tokens(condition), clips)
    wrong = condition == "wrong_videos"
    shown = mismatched_videos(questions, random.Random(run.seed)) if wrong else None
    return predict_answers(
        model,
        tokenizer,
        questions,
        cache,
        shown=shown,
        batch_size=run.batch_size,
        letters=run.option_symbols.get(condition, LETTERS),
    )


def training_inputs(run: Run) -> dict[str, Any]:
    """Everything that the trained model depends on; the cache key of the training."""
    return {
        "questions": file_hash(run.questions.files["train"]),
        "lessons": run.row.train_variant,
        "tokens": read_index(run.tokens())["key"],
        "language_model": run.language_model,
        "finetune": asdict(cacheable_settings(run.finetune)),
    }


def cacheable_settings(config: FinetuneConfig) -> FinetuneConfig:
    """The settings without the path of the language model, whose hash is recorded in its place."""
    return replace(config, language_model="", save_every_steps=0)


def scoring_inputs(run: Run, condition: EvalCondition) -> dict[str, Any]:
    """Everything that a file of predictions depends on; its cache key."""
    return {
        "training": training_inputs(run),
        "questions": file_hash(run.questions.files["test"]),
        "tokens": read_index(run.tokens(condition))["key"],
        "shown": condition,
        "markers": run.option_symbols.get(condition, LETTERS),
    }


@contextmanager
def output_to_file(path: Path) -> Iterator[None]:
    """Append stdout and stderr, with progress bars, to a file."""
    with path.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        yield


def unfinished_runs(runs: Sequence[Run]) -> list[Run]:
    """The runs that are not finished; all are checked before any starts.

    Raises:
        StaleError: some were made from other inputs.
    """
    todo, stale = [], []
    for run in runs:
        try:
            if not is_complete(run):
                todo.append(run)
        except StaleError as problem:
            stale.append(str(problem))
    if stale:
        raise StaleError(f"{len(stale)} of {len(runs)} runs are stale; the first: {stale[0]}")
    return todo


class StaleError(SefarError):
    """Finished work has other inputs than those requested; the message names the first."""


def is_finished(record: Path, inputs: dict[str, Any]) -> bool:
    """Whether this work was finished before with equal inputs.

    Raises:
        StaleError: it was finished with other inputs, or the record is damaged.
    """
    if not record.is_file():
        return False
    requested = dotted(json.loads(as_json(with_code_hash(inputs))))
    try:
        saved = dotted(dict(json.loads(record.read_bytes())))
    except (ValueError, TypeError) as cause:
        raise StaleError(
            f"{record} is damaged ({cause}); delete {record.parent} and rerun the same command"
        ) from cause
    for name in sorted(saved.keys() | requested.keys()):
        if saved.get(name) != requested.get(name):
            raise StaleError(
                f"{record.parent} was made with {name} = {saved.get(name)}, but "
                f"{requested.get(name)} is requested; give another --out, or delete {record.parent}"
            )
    return True


def record_finished(record: Path, inputs: dict[str, Any]) -> None:
    """Write the record of finished work; called when all of the work is written."""
    write_json(record, with_code_hash(inputs))


def with_code_hash(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs and the hash of the code that uses them."""
    return {"code": code_hash(), **inputs}


@cache
def code_hash(packages: Sequence[Path] = CODE) -> str:
    """A hash of the source of packages, without the files that only read finished work."""
    total = hashlib.sha256()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            name = path.relative_to(package.parent).as_posix()
            if name not in ONLY_READ:
                total.update(f"{name} {file_hash(path)} ".encode())
    return total.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def model_hash(name: str) -> str:
    """A hash of a language model's folder; a hub name is returned as it is.

    Files above 16 MiB count by name and size alone. Every fine-tuned model also compares the logits
    of its language model when it is loaded.
    """
    folder = Path(shipped(name))
    if not folder.is_dir():
        return name
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix != ".md":
            size = path.stat().st_size
            total.update(f"{path.name} {size} ".encode())
            total.update(file_hash(path).encode() if size <= SMALL else b"")
    return total.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class FeatureJob:
    """One token cache to fill."""

    encoder: str
    order: str = "in_order"
    seed: int
    """The seed of this encoder, or the first seed where one encoder serves all."""
    own: bool
    """Whether each seed has its own encoder."""

    @property
    def folder(self) -> str:
        return feature_folder(self.encoder, seed=self.seed if self.own else None, order=self.order)


def feature_folder(encoder: str, *, seed: int | None, order: str = "in_order") -> str:
    """Name of the folder with an encoder's tokens.

    Args:
        encoder: name of the encoder.
        seed: the seed that this encoder belongs to; None where one encoder serves all.
        order: frame order.
    """
    own = "" if seed is None else f"-seed-{seed}"
    return f"{encoder}{own}" if order == "in_order" else f"{encoder}{own}-frames_{order}"


def feature_jobs(config: CompareConfig) -> list[FeatureJob]:
    """All token caches of this comparison."""
    names = available_encoders(config)
    wanted = [(name, "in_order") for name in dict.fromkeys(row.encoder for row in TRAINED_ROWS)]
    wanted += [
        (trained_row(row.base).encoder, str(row.condition))
        for row in CONDITION_ROWS
        if row.condition in FRAME_ORDERS
    ]
    return [
        FeatureJob(encoder=name, order=order, seed=seed, own=has_encoder_per_seed(name, config))
        for name, order in wanted
        if name in names
        for seed in encoder_seeds(name, config)
    ]


def extract_job(
    job: FeatureJob, config: CompareConfig, clips: Sequence[Clip], *, device: str
) -> dict[str, Any]:
    """Encode the clips that a cache lacks, and return the key of the cache.

    Raises:
        StaleError: the cache was begun by other code, or a probe was fitted on other tokens or
            labels.
    """
    folder = config.out / "tokens" / job.folder
    record = folder.with_name(f"{job.folder}.json")
    if not is_finished(record, asdict(job)):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Written before the cache is complete: clips are added later by the same code only.
        record_finished(record, asdict(job))
    if job.encoder in PROBE_BASES:
        fill_probe_cache(job, config, clips)
        return read_index(folder)["key"]
    source = encoder_path(job.encoder, config, job.seed)
    encoder = ENCODERS[job.encoder](source, seed=job.seed, device=device)
    if encoder.any_moments:
        encoder = with_frame_times(encoder, recognizer_moments(config.sefar[0]))
    grid = config.grid if job.encoder not in UNMATCHED else 1
    extract(clips, config.video_root, encoder, folder, grid=grid, frame_order=job.order)
    return read_index(folder)["key"]


def weight_origins(config: CompareConfig) -> dict[str, str]:
    """Whether the weights of each image model were verified; reported beside its numbers."""
    image_models = {*PROBE_BASES, *PROBE_BASES.values()}
    names = [name for name in available_encoders(config) if name in image_models]
    folders = {name: config.out / "tokens" / feature_folder(name, seed=None) for name in names}
    return {name: read_index(folder)["origin"]["weights"] for name, folder in folders.items()}


def fill_probe_cache(job: FeatureJob, config: CompareConfig, clips: Sequence[Clip]) -> None:
    """C7: fit a linear map of CLIP's or EVA's tokens on the labels that SeFAR had, and apply it.

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
    if not is_finished(record, inputs):
        folder.parent.mkdir(parents=True, exist_ok=True)
        probe, report = fit_probe(
            base, labeled, max_steps=defaults.max_steps, lr=defaults.lr, seed=defaults.seed
        )
        save_probe(folder, probe, report)
        record_finished(record, inputs)
    map_cache(base, read_probe(folder), folder, config.out / "tokens" / job.folder)


@dataclass(frozen=True, kw_only=True)
class LrTrial:
    """A training with one learning-rate factor, scored on the validation questions."""

    run: Run
    factor: float

    @property
    def folder(self) -> Path:
        return self.run.folder.parent / "tuning" / f"factor-{self.factor:g}"


def scale_lr(config: FinetuneConfig, factor: float) -> FinetuneConfig:
    """The settings with both learning rates multiplied by a factor."""
    lora = replace(config.lora, lr=config.lora.lr * factor)
    return replace(config, lora=lora, projector_lr=config.projector_lr * factor)


def search_lr_factors(
    runs: Sequence[Run], grid: Sequence[float], *, dev_rate: float, jobs: int
) -> LrFactors:
    """C8: the best learning-rate factor of each row on each question folder, from one grid.

    The choice is made with the first seed on validation questions: a part of the training
    questions, cut by source video and not trained on. Test questions are not read. The controls
    that are trained on wrong data use the factor of the row that they are a control of.

    Args:
        runs: one for each row and question folder, with the settings to scale.
        grid: factors; a single factor is used without a trial.
        dev_rate: share of the training questions to choose on.
        jobs: number of trials at a time.

    Raises:
        StaleError: an earlier trial was made from other inputs.
        SefarError: the validation questions cannot be cut.
    """
    tuned = [run for run in runs if run.row.train_variant == "as_written"]
    trials = [
        LrTrial(
            run=replace(run, finetune=replace(scale_lr(run.finetune, factor), dev_rate=dev_rate)),
            factor=factor,
        )
        for run in tuned
        for factor in grid
        if len(grid) > 1
    ]
    scores = run_parallel(run_trial, trials, jobs=jobs, label=trial_name)
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for trial, score in zip(trials, scores, strict=True):
        key = (trial.run.questions.name, trial.run.row.name)
        if key not in best or score > best[key][0]:
            best[key] = (score, trial.factor)
    chosen = {key: factor for key, (_, factor) in best.items()}

    def tuned_row(row: TrainedRow) -> str:
        return row.name if row.train_variant == "as_written" else row.encoder

    return {
        (run.questions.name, run.row.name): chosen.get(
            (run.questions.name, tuned_row(run.row)), grid[0]
        )
        for run in runs
    }


def run_trial(trial: LrTrial) -> float:
    """Validation accuracy after the last epoch: class mean, or micro without classes.

    Not of the best epoch: the model of the last epoch answers the test questions.
    """
    run, folder = trial.run, trial.folder
    inputs = training_inputs(run)
    if not is_finished(folder / TRIED, inputs):
        folder.mkdir(parents=True, exist_ok=True)
        with output_to_file(folder / "log.txt"):
            finetune(run.finetune, run.questions.train, run.tokens(), folder)
        record_finished(folder / TRIED, inputs)
        forget_checkpoints(folder)
    lines = read_metrics(folder / "metrics.jsonl")
    last = [line for line in lines if "dev_micro" in line][-1]
    return float(last.get("dev_macro", last["dev_micro"]))


def trial_name(trial: LrTrial) -> str:
    run = trial.run
    return f"{run.questions.name} {run.row.name}, learning rates times {trial.factor:g}"


def run_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], *, jobs: int, label: Callable
) -> list[Result]:
    """The result of the work for each item, in their order; stops at the first error.

    SIGTERM and Ctrl-C are passed on to the worker processes; a training among them saves first.

    Args:
        work: a module-level function, so that other processes can import it.
        items: arguments of the work.
        jobs: number of processes; 1 works in this process.
        label: progress message for a finished item.
    """
    began = time.perf_counter()

    def print_progress(done: int, item: Item) -> None:
        left = (time.perf_counter() - began) / done * (len(items) - done) / 60
        print(f"[{done}/{len(items)}] {label(item)}; about {left:.0f} min left", flush=True)

    results: list[Result] = []
    if jobs == 1:
        for item in items:
            results.append(work(item))
            print_progress(len(results), item)
        return results
    with _terminate_together(), _process_pool(jobs) as pool:
        with without_interrupts():
            waiting = {pool.submit(_in_worker, work, item): item for item in items}
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                future.result()
                print_progress(done, waiting[future])
        finally:
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in waiting]


def _process_pool(jobs: int) -> ProcessPoolExecutor:
    """Processes that share the cores; spawned, because torch does not survive a fork."""
    return ProcessPoolExecutor(
        max_workers=jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(max(1, (os.cpu_count() or 1) // jobs),),
    )


def _in_worker(work: Callable[[Item], Result], item: Item) -> Result:
    """The work in a worker process; an interruption becomes SystemExit, which can be pickled."""
    try:
        return work(item)
    except Interrupted as stop:
        raise SystemExit(stop.exit_code) from None


@contextmanager
def _terminate_together() -> Iterator[None]:
    """While entered, SIGTERM and SIGINT terminate the worker processes as well."""

    def end(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.terminate()
        raise Interrupted(number, "interrupted; rerun the same command to resume")

    caught = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
