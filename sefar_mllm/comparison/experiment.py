"""One experiment: a row answers the test questions under one condition, with one seed.

`run_experiment` is the only road to predictions. They are in OUT/runs/QUESTIONS/ROW/seed-S; the
folder of a row's own test also holds its training (see `train.finetune`) and its answers in other
formats. Two things come before it: `extract_features` fills the token caches in
OUT/tokens/ENCODER, with -seed-S where each seed has its own encoder and -frames_ORDER for another
frame order, and `search_lr_factors` tunes the learning rates of each row.

Each piece of work is cached by its settings, a JSON record written last: question files by hash,
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
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from qa_data.files import SefarError, as_json, file_hash, write_json
from qa_data.manifest import Clip, by_split
from qa_data.questions import LETTERS
from qa_data.terminal import without_interrupts
from sefar_core.config import dotted, shipped
from sefar_core.data.class_names import class_names
from sefar_core.run_dir import read_metrics
from sefar_core.signals import Interrupted
from sefar_mllm.adapters import Trained
from sefar_mllm.answer_text import OtherFormats, score_other_formats, write_other_formats
from sefar_mllm.checkpoint import load_trained
from sefar_mllm.comparison.baselines import (
    classifier_probs,
    predict_from_probs,
    predict_text_only,
    recognizer_probs,
)
from sefar_mllm.comparison.config import BLIND, EncoderSource
from sefar_mllm.comparison.rows import (
    FRAME_ORDERS,
    LETTER_ROWS,
    ROWS,
    TRAINED_ROWS,
    BaselineRow,
    ConditionRow,
    EvalCondition,
    QuestionFolder,
    Row,
    TrainedRow,
    row_encoder,
    train_questions,
    trained_row,
)
from sefar_mllm.config import FinetuneConfig, ProbeConfig
from sefar_mllm.encoders import ENCODERS, recognizer_moments, with_frame_times
from sefar_mllm.encoders.probe import read_probe
from sefar_mllm.evaluation.evaluate import blind_predictions, text_scored
from sefar_mllm.feature_cache import TokenCache, read_index
from sefar_mllm.features import extract
from sefar_mllm.linear_probe import fit_probe, map_cache, save_probe
from sefar_mllm.mismatched_videos import mismatched_videos
from sefar_mllm.scoring import Prediction, predict_answers, write_predictions
from sefar_mllm.stages import forget_checkpoints
from sefar_mllm.train import finetune

TRAINED, TRIED = "trained.json", "tuned.json"
SCORED, DIAGNOSED, PREDICTIONS = "scored.json", "told.json", "predictions.jsonl"
SMALL = 2**24  # bytes; larger files of a language model count by name and size
CODE = tuple(Path(__file__).parents[2] / name for name in ("qa_data", "sefar_core", "sefar_mllm"))
ONLY_READ = tuple(f"sefar_mllm/comparison/{name}.py" for name in ("report", "statistics"))
"""Files that only read finished work; a change in them makes no work stale."""
PROBE_BASES = {"clip_probe": "clip", "eva_probe": "eva"}
UNMATCHED = {row.encoder for row in TRAINED_ROWS if not row.matched}  # one token an element
ExperimentRow = TrainedRow | BaselineRow
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all experiments on one question folder share."""

    out: Path
    questions: QuestionFolder
    clips: Sequence[Clip]
    video_root: Path
    encoders: Mapping[str, EncoderSource]
    """The encoders whose weights are given, by name."""
    grid: int
    seeds: tuple[int, ...]
    finetune: FinetuneConfig
    """Settings of every training, before its seed and the factor on its learning rates."""
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    """Factor on both learning rates, by trained row."""
    language_model: str
    """Hash of the language model's folder."""
    option_symbols: Mapping[int, Mapping[EvalCondition, str]]
    """The names of the options in the control C10, by seed."""
    batch_size: int

    def folder(self, row: str, seed: int) -> Path:
        """Where a row of the table has its predictions."""
        return self.out / "runs" / self.questions.name / row / f"seed-{seed}"

    def tokens(self, encoder: str, seed: int, condition: str = "own_video") -> Path:
        """The token cache that a seed reads under a condition."""
        order = condition if condition in FRAME_ORDERS else "in_order"
        return self.out / "tokens" / self.encoders[encoder].tokens(seed, order)

    def finetune_of(self, row: TrainedRow, seed: int) -> FinetuneConfig:
        """The settings of one training."""
        config, factor = self.finetune, self.lr_factors[row.name]
        lora = replace(config.lora, lr=config.lora.lr * factor)
        return replace(config, seed=seed, lora=lora, projector_lr=config.projector_lr * factor)

    def rows(self) -> list[Row]:
        """The rows whose encoder is given, and whose option names the tokenizer has."""
        symbols = self.option_symbols[self.seeds[0]]
        return [
            row
            for row in ROWS
            if (row_encoder(row) or BLIND) in self.encoders
            and (row not in LETTER_ROWS or row.condition in symbols)
        ]

    def trained_rows(self) -> list[TrainedRow]:
        return [row for row in self.rows() if isinstance(row, TrainedRow)]

    def seeds_of(self, row: Row) -> tuple[int, ...]:
        """All seeds; for a baseline those that have their own encoder, or the first."""
        if not isinstance(row, BaselineRow):
            return self.seeds
        return self.seeds[:1] if row.encoder is None else tuple(self.encoders[row.encoder].weights)

    def conditions_of(self, row: Row) -> list[EvalCondition]:
        """How a row is evaluated, its own test first.

        Rows that are trained on wrong data are not scored in other formats.
        """
        conditions: list[EvalCondition] = ["own_video"]
        for one in self.rows():
            if isinstance(one, ConditionRow) and one.base == row.name:
                conditions.append(one.condition)
        if isinstance(row, TrainedRow) and row.train_variant == "as_written":
            conditions.append("other_formats")
        return conditions


Job = tuple[TrainedRow, int, Setup]


def run_experiment(row: ExperimentRow, condition: EvalCondition, seed: int, setup: Setup) -> Path:
    """Answer the test questions, unless that was done before with equal settings.

    A trained row is trained first, unless it is. Returns the folder of predictions.jsonl, or of the
    files of `write_other_formats`. StaleError if it was done before with other settings.
    """
    record = record_path(row, condition, seed, setup)
    settings = experiment_settings(row, condition, seed, setup)
    if not is_finished(record, settings):
        asked = setup.questions.test
        answers = (
            answer_baseline(row, seed, setup)
            if isinstance(row, BaselineRow)
            else answer_trained(row, condition, seed, setup)
        )
        record.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(answers, OtherFormats):
            write_other_formats(asked, answers, record.parent, "test")
        else:
            write_predictions(text_scored(answers, asked), record.parent / PREDICTIONS)
        record_finished(record, settings)
    return record.parent


def record_path(row: ExperimentRow, condition: EvalCondition, seed: int, setup: Setup) -> Path:
    """The record of an experiment, beside its answers."""
    if condition == "other_formats":
        return setup.folder(row.name, seed) / DIAGNOSED
    name = row.name if condition == "own_video" else f"{row.name}-{condition}"
    return setup.folder(name, seed) / SCORED


def experiment_settings(
    row: ExperimentRow, condition: EvalCondition, seed: int, setup: Setup
) -> dict[str, Any]:
    """Everything that the answers depend on; the cache key of an experiment."""
    settings: dict[str, Any] = {"questions": short_hash(setup.questions.files["test"])}
    if isinstance(row, TrainedRow):
        return settings | {
            "training": training_settings(row, setup.finetune_of(row, seed), setup),
            "tokens": read_index(setup.tokens(row.encoder, seed, condition))["key"],
            "shown": "own_video" if condition == "other_formats" else condition,
            "markers": setup.option_symbols[seed].get(condition, LETTERS),
        }
    if row.kind == "rule":
        return settings | {"train_questions": short_hash(setup.questions.files["train"])}
    if row.encoder is None:
        return settings | {"language_model": setup.language_model}
    settings["tokens"] = read_index(setup.tokens(row.encoder, seed))["key"]
    if row.kind == "classifier":
        settings["labels"] = {clip.id: clip.label for clip in by_split(setup.clips, "labeled")}
    return settings


def answer_baseline(row: BaselineRow, seed: int, setup: Setup) -> list[Prediction]:
    """The answers of a row without fine-tuning: the controls C0, C2 and C6."""
    asked = setup.questions.test
    if row.kind == "rule":
        rng = np.random.default_rng(seed)
        return blind_predictions(asked, setup.questions.train, rng=rng)[row.name]
    if row.encoder is None:
        model = setup.finetune.language_model
        return predict_text_only(model, asked, batch_size=setup.batch_size, device=device())
    videos = {question.video for question in asked}
    if row.kind == "head":
        weights = setup.encoders[row.encoder].weights[seed]
        tested = [clip for clip in setup.clips if clip.id in videos]
        names = class_names(setup.clips)
        probs = recognizer_probs(weights, tested, setup.video_root, device(), names)
    else:
        num_classes = max(clip.label for clip in setup.clips if clip.label is not None) + 1
        tokens = setup.tokens(row.encoder, seed)
        labeled = by_split(setup.clips, "labeled")
        probs = classifier_probs(tokens, labeled, sorted(videos), num_classes)
    return predict_from_probs(probs, asked)


def answer_trained(
    row: TrainedRow, condition: EvalCondition, seed: int, setup: Setup
) -> list[Prediction] | OtherFormats:
    """The answers of a row's model, which is trained first unless it is."""
    record = setup.folder(row.name, seed) / TRAINED
    model, tokenizer = load_model(train(row, setup.finetune_of(row, seed), setup, record))
    asked, size = setup.questions.test, setup.batch_size
    tokens = TokenCache(setup.tokens(row.encoder, seed, condition), [one.video for one in asked])
    if condition == "other_formats":
        return score_other_formats(model, tokenizer, asked, tokens, batch_size=size)
    wrong = condition == "wrong_videos"
    return predict_answers(
        model,
        tokenizer,
        asked,
        tokens,
        shown=mismatched_videos(asked, random.Random(seed)) if wrong else None,
        batch_size=size,
        letters=setup.option_symbols[seed].get(condition, LETTERS),
    )


def train(row: TrainedRow, config: FinetuneConfig, setup: Setup, record: Path) -> Path:
    """Fine-tune on a row's questions, unless that was done before; the folder of the training.
    StaleError if it was done before with other settings.
    """
    settings = training_settings(row, config, setup)
    if not is_finished(record, settings):
        questions = train_questions(setup.questions.train, row.train_variant, config.seed)
        finetune(config, questions, setup.tokens(row.encoder, config.seed), record.parent)
        record_finished(record, settings)
        forget_checkpoints(record.parent)
    return record.parent


def training_settings(row: TrainedRow, config: FinetuneConfig, setup: Setup) -> dict[str, Any]:
    """Everything that a trained model depends on; the cache key of the training.

    The language model counts by its hash, not by its path.
    """
    return {
        "questions": short_hash(setup.questions.files["train"]),
        "lessons": row.train_variant,
        "tokens": read_index(setup.tokens(row.encoder, config.seed))["key"],
        "language_model": setup.language_model,
        "finetune": asdict(replace(config, language_model="", save_every_steps=0)),
    }


@lru_cache(maxsize=1)
def load_model(folder: Path) -> tuple[Trained, PreTrainedTokenizerBase]:
    """The model of a finished training; the last one stays loaded for its other conditions."""
    return load_trained(folder / "model", device=device())


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def run_row(row: TrainedRow, seed: int, setup: Setup) -> None:
    """All experiments of a trained row with one seed; their output goes to log.txt. StaleError if
    some were done before with other settings.
    """
    try:
        with output_to_file(setup.folder(row.name, seed) / "log.txt"):
            for condition in setup.conditions_of(row):
                run_experiment(row, condition, seed, setup)
    finally:
        load_model.cache_clear()  # the next row needs its memory


def row_name(row: Row, seed: int, setup: Setup) -> str:
    return f"{setup.questions.name} {row.name} seed {seed}"


@contextmanager
def output_to_file(path: Path) -> Iterator[None]:
    """Append stdout and stderr, with progress bars, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        yield


def unfinished_rows(rows: Sequence[Job]) -> list[Job]:
    """The rows with an experiment that is not finished; all are checked before any starts.
    StaleError if some were done with other settings.
    """
    todo, stale = [], []
    for job in rows:
        try:
            if not is_complete(*job):
                todo.append(job)
        except StaleError as problem:
            stale.append(str(problem))
    if stale:
        raise StaleError(f"{len(stale)} of {len(rows)} runs are stale; the first: {stale[0]}")
    return todo


def is_complete(row: TrainedRow, seed: int, setup: Setup) -> bool:
    """Whether a row is trained and answered with one seed. StaleError as `is_finished`."""
    config = setup.finetune_of(row, seed)
    records = {setup.folder(row.name, seed) / TRAINED: training_settings(row, config, setup)}
    for condition in setup.conditions_of(row):
        settings = experiment_settings(row, condition, seed, setup)
        records[record_path(row, condition, seed, setup)] = settings
    return all([is_finished(record, settings) for record, settings in records.items()])


class StaleError(SefarError):
    """Finished work has other inputs than those requested; the message names the first."""


def is_finished(record: Path, inputs: dict[str, Any]) -> bool:
    """Whether this work was finished before with equal inputs. StaleError if it was finished with
    other inputs, or the record is damaged.
    """
    if not record.is_file():
        return False
    requested = dotted(json.loads(as_json({"code": code_hash(), **inputs})))
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
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, {"code": code_hash(), **inputs})


@cache
def code_hash(packages: Sequence[Path] = CODE) -> str:
    """A hash of the source of packages, without the files that only read finished work."""
    total = hashlib.sha256()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            name = path.relative_to(package.parent).as_posix()
            if name not in ONLY_READ:
                total.update(f"{name} {short_hash(path)} ".encode())
    return total.hexdigest()[:16]


def short_hash(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file."""
    return file_hash(path)[:16]


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
            total.update(short_hash(path).encode() if size <= SMALL else b"")
    return total.hexdigest()[:16]


def feature_jobs(setup: Setup) -> list[tuple[str, str, int]]:
    """Encoder, frame order and seed of every token cache of a comparison."""
    wanted = dict.fromkeys((row.encoder, "in_order") for row in setup.trained_rows())
    for row in setup.rows():
        if isinstance(row, ConditionRow) and row.condition in FRAME_ORDERS:
            wanted[trained_row(row.base).encoder, row.condition] = None
    return [(name, order, s) for name, order in wanted for s in setup.encoders[name].weights]


def extract_features(
    encoder: str, order: str, seed: int, clips: Sequence[Clip], setup: Setup
) -> dict[str, Any]:
    """Encode the clips that a token cache lacks, and return the key of the cache. StaleError if the
    cache was begun by other code, or a probe was fitted on other tokens or labels.
    """
    source, folder = setup.encoders[encoder], setup.tokens(encoder, seed, order)
    record = folder.with_name(f"{folder.name}.json")
    settings = {"encoder": encoder, "order": order, "seed": seed, "own": source.per_seed}
    if not is_finished(record, settings):
        # Written before the cache is complete: clips are added later by the same code only.
        record_finished(record, settings)
    if encoder in PROBE_BASES:
        base = TokenCache(setup.tokens(PROBE_BASES[encoder], seed), [clip.id for clip in clips])
        map_probe_tokens(base, clips, setup.out / "probes" / encoder, folder)
        return read_index(folder)["key"]
    network = ENCODERS[encoder](source.weights[seed], seed=seed, device=device())
    if network.any_moments:
        sefar = setup.encoders["sefar"].weights[setup.seeds[0]]
        network = with_frame_times(network, recognizer_moments(sefar))
    grid = setup.grid if encoder not in UNMATCHED else 1
    extract(clips, setup.video_root, network, folder, grid=grid, frame_order=order)
    return read_index(folder)["key"]


def map_probe_tokens(base: TokenCache, clips: Sequence[Clip], probe: Path, folder: Path) -> None:
    """C7: fit a linear map of CLIP's or EVA's tokens on the labels that SeFAR had, and apply it.
    StaleError if it was fitted before on other tokens or labels.
    """
    options = {name: getattr(ProbeConfig, name) for name in ("max_steps", "lr", "seed")}
    labeled = by_split(clips, "labeled")
    labels = {clip.id: clip.label for clip in labeled}
    settings = {"tokens": base.key, "labels": labels, **options}
    record = probe.with_name(f"{probe.name}.json")
    if not is_finished(record, settings):
        save_probe(probe, *fit_probe(base, labeled, **options))
        record_finished(record, settings)
    map_cache(base, read_probe(probe), probe, folder)


def search_lr_factors(
    setups: Sequence[Setup], grid: Sequence[float], *, dev_rate: float, jobs: int
) -> list[Setup]:
    """C8: the setups with the best learning-rate factor of each row, from one grid.

    The choice is made with the first seed on validation questions: a part of the training
    questions, cut by source video and not trained on. Test questions are not read. The controls
    that are trained on wrong data use the factor of the row that they are a control of. A grid of
    a single factor needs no trial.

    Raises:
        StaleError: an earlier trial was made from other inputs.
        SefarError: the validation questions cannot be cut.
    """
    trials = [
        (row, factor, dev_rate, setup)
        for setup in setups
        for row in setup.trained_rows()
        if row.train_variant == "as_written"
        for factor in grid
        if len(grid) > 1
    ]
    found = run_parallel(run_trial, trials, jobs=jobs, label=trial_name)
    scores = {
        (setup.questions.name, row.encoder, factor): score
        for (row, factor, _, setup), score in zip(trials, found, strict=True)
    }

    def best(setup: Setup, row: TrainedRow) -> float:
        name = setup.questions.name
        return max(grid, key=lambda factor: scores.get((name, row.encoder, factor), 0.0))

    return [
        replace(setup, lr_factors={row.name: best(setup, row) for row in setup.trained_rows()})
        for setup in setups
    ]


def run_trial(row: TrainedRow, factor: float, dev_rate: float, setup: Setup) -> float:
    """Validation accuracy after the last epoch: class mean, or micro without classes.

    Not of the best epoch: the model of the last epoch answers the test questions.
    """
    seed = setup.seeds[0]
    folder = setup.folder(row.name, seed).parent / "tuning" / f"factor-{factor:g}"
    config = replace(setup, lr_factors={row.name: factor}).finetune_of(row, seed)
    with output_to_file(folder / "log.txt"):
        train(row, replace(config, dev_rate=dev_rate), setup, folder / TRIED)
    lines = read_metrics(folder / "metrics.jsonl")
    last = [line for line in lines if "dev_micro" in line][-1]
    return float(last.get("dev_macro", last["dev_micro"]))


def trial_name(row: TrainedRow, factor: float, dev_rate: float, setup: Setup) -> str:
    return f"{setup.questions.name} {row.name}, learning rates times {factor:g}"


def run_parallel(
    work: Callable[..., Result], items: Sequence[tuple], *, jobs: int, label: Callable
) -> list[Result]:
    """The result of the work for each item, in their order; stops at the first error.

    SIGTERM and Ctrl-C are passed on to the worker processes; a training among them saves first.
    `work` is a module-level function, so that other processes can import it; `label` gives the
    progress message for the arguments of a finished call. One job works in this process.
    """
    began = time.perf_counter()

    def report(done: int, item: tuple) -> None:
        left = (time.perf_counter() - began) / done * (len(items) - done) / 60
        print(f"[{done}/{len(items)}] {label(*item)}; about {left:.0f} min left", flush=True)

    if jobs == 1:
        results = []
        for done, item in enumerate(items, 1):
            results.append(work(*item))
            report(done, item)
        return results
    processes = ProcessPoolExecutor(
        max_workers=jobs,
        mp_context=multiprocessing.get_context("spawn"),  # torch does not survive a fork
        initializer=torch.set_num_threads,
        initargs=(max(1, (os.cpu_count() or 1) // jobs),),
    )
    with _terminate_together(), processes as pool:
        with without_interrupts():
            waiting = {pool.submit(_in_worker, work, item): item for item in items}
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                future.result()
                report(done, waiting[future])
        finally:
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in waiting]


def _in_worker(work: Callable[..., Result], item: tuple) -> Result:
    """The work in a worker process; an interruption becomes SystemExit, which can be pickled."""
    try:
        return work(*item)
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
