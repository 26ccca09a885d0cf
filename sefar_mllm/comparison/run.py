"""The comparison from end to end: features, baselines, trainings, numbers, page.

C8, the budget that all matched rows share, is checked before anything is trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from qa_data.files import SefarError, write_json, write_text
from qa_data.manifest import Clip, read_manifest
from sefar_core.data.class_names import refuse_several_names
from sefar_core.run_dir import read_metrics, surroundings
from sefar_mllm.answer_text import OtherFormats, read_other_formats
from sefar_mllm.build import load_tokenizer
from sefar_mllm.comparison.baselines import answer_baseline, baseline_seeds
from sefar_mllm.comparison.config import CompareConfig, refuse_uneven_recognizers
from sefar_mllm.comparison.experiment import (
    PREDICTIONS,
    UNMATCHED,
    Run,
    complete_run,
    extract_job,
    feature_jobs,
    has_diagnostics,
    model_hash,
    run_folder,
    run_name,
    run_parallel,
    scale_lr,
    search_lr_factors,
    unfinished_runs,
    weight_origins,
)
from sefar_mllm.comparison.report import TABLE_5, comparison_page, plot_all
from sefar_mllm.comparison.rows import (
    CONDITION_ROWS,
    LETTER_ROWS,
    ROWS,
    TRAINED_ROWS,
    BaselineRow,
    QuestionFolder,
    Row,
    available_encoders,
    has_encoder_per_seed,
    num_recognizers,
    option_symbols,
    read_question_folders,
    row_encoder,
)
from sefar_mllm.comparison.statistics import (
    COMPARISON_NAMES,
    compute_diagnostics,
    compute_numbers,
    decisions,
)
from sefar_mllm.encoders import refuse_unequal_moments
from sefar_mllm.evaluation.evaluate import json_fields
from sefar_mllm.evaluation.significance import Runs
from sefar_mllm.scoring import read_predictions


def compare_encoders(config: CompareConfig) -> dict[str, Any]:
    """Train and score every row whose encoder is given, and write the comparison.

    Args:
        config: all settings.

    Returns:
        The content of comparison.json.

    Raises:
        QuestionError: a question folder cannot be used.
        StaleError: the output folder has work with other inputs; nothing was trained.
        SefarError: the encoders do not share one budget.
        ValueError: the encoders saw different moments, or the number of recognizers is neither one
            nor the number of seeds.
        CheckpointError: the language model's tokenizer cannot be used.
        Interrupted: SIGTERM or SIGINT arrived; the same command resumes.
    """
    refuse_uneven_recognizers(config)
    load_tokenizer(config.finetune.language_model)  # a bad tokenizer is refused before any work
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clips = read_manifest(config.manifest)
    refuse_several_names(clips, config.manifest)
    sets = read_question_folders(config.questions, clips)
    budget = shared_budget(config, extract_all(config, needed_clips(clips, sets), device))
    runs = plan_runs(config, sets)
    first = [run for run in runs if run.seed == config.seeds[0]]
    factors = search_lr_factors(first, config.lr_grid, dev_rate=config.dev_rate, jobs=config.jobs)
    runs = [
        replace(run, finetune=scale_lr(run.finetune, factors[run.questions.name, run.row.name]))
        for run in runs
    ]
    todo = unfinished_runs(runs)
    for questions in sets:
        for row in measured_rows(config):
            if isinstance(row, BaselineRow):
                answer_baseline(row, questions, clips, config, device=device)
    run_parallel(complete_run, todo, jobs=config.jobs, label=run_name)
    budget["weights"] = weight_origins(config)
    budget["steps"] = {
        one.name: shared_steps({run_name(run): run.folder for run in runs if run.questions == one})
        for one in sets
    }
    budget["factors"] = {f"{name}, {row}": factor for (name, row), factor in factors.items()}
    return write_results(config, sets, budget)


def measured_rows(config: CompareConfig) -> list[Row]:
    """The rows whose encoder is given; all others are not measured."""
    names = available_encoders(config)
    return [row for row in ROWS if row_encoder(row) is None or row_encoder(row) in names]


def needed_clips(clips: Sequence[Clip], sets: Sequence[QuestionFolder]) -> list[Clip]:
    """The labeled clips, and the clips of test questions."""
    tested = {question.video for one in sets for question in one.test}
    return [clip for clip in clips if clip.split == "labeled" or clip.id in tested]


def extract_all(config: CompareConfig, clips: Sequence[Clip], device: str) -> dict[str, dict]:
    """Fill every token cache. Returns the key of each cache, by its folder."""
    config.out.mkdir(parents=True, exist_ok=True)
    tested = [clip for clip in clips if clip.split != "labeled"]
    return {
        job.folder: extract_job(
            job, config, clips if job.order == "in_order" else tested, device=device
        )
        for job in feature_jobs(config)
    }


def plan_runs(config: CompareConfig, sets: Sequence[QuestionFolder]) -> list[Run]:
    """Every training of every question folder and seed; all rows of the first seed come first."""
    names = available_encoders(config)
    language_model = model_hash(config.finetune.language_model)
    tokenizer = load_tokenizer(config.finetune.language_model)
    widest = max(len(question.options) for one in sets for question in one.test)
    symbols = {seed: option_symbols(tokenizer, widest, seed) for seed in config.seeds}
    return [
        Run(
            out=config.out,
            questions=questions,
            row=row,
            conditions=[
                one
                for one in CONDITION_ROWS
                if one.base == row.name
                and (one not in LETTER_ROWS or one.condition in symbols[seed])
            ],
            seed=seed,
            own_encoder=has_encoder_per_seed(row.encoder, config),
            finetune=replace(config.finetune, seed=seed),
            language_model=language_model,
            option_symbols=symbols[seed],
            batch_size=config.batch_size,
        )
        for seed in config.seeds
        for questions in sets
        for row in TRAINED_ROWS
        if row.encoder in names
    ]


def shared_budget(config: CompareConfig, keys: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The budget of all matched rows: moments, tokens, settings, seeds.

    Questions, steps and settings are shared by construction; moments and number of tokens are
    properties of the caches.

    Args:
        config: all settings.
        keys: key of every token cache, by its folder.

    Raises:
        ValueError: caches were made at different moments.
        SefarError: caches have different numbers of tokens, or the networks of one row's seeds
            differ in width or have the same weights.
    """
    refuse_unequal_moments(keys)
    refuse_unlike_seeds(keys)
    matched = {name: key for name, key in keys.items() if key["encoder"] not in UNMATCHED}
    grids = {name: key["grid"] for name, key in matched.items()}
    if len(set(grids.values())) > 1:
        raise SefarError(
            f"encoders with different numbers of tokens cannot be compared: grid {grids}; "
            f"extract the tokens of all with one --grid"
        )
    some = next(iter(matched.values()))
    finetune = asdict(config.finetune)
    finetune.pop("seed")
    return {
        "moments": some["moments"],
        "tokens": len(some["moments"]) * some["grid"] ** 2,
        "seeds": list(config.seeds),
        "recognizers": num_recognizers(config),
        "lr_grid": list(config.lr_grid),
        "dev_rate": config.dev_rate,
        "finetune": finetune,
    }


def refuse_unlike_seeds(keys: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse seeds of one encoder whose tokens differ in width or whose weights are the same.

    Raises:
        SefarError: names the caches.
    """
    rows: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for name, key in keys.items():
        rows.setdefault((key["encoder"], key.get("frame_order", "")), []).append((name, key))
    for (encoder, _), caches in rows.items():
        names = ", ".join(name for name, _ in caches)
        if len({key["dim"] for _, key in caches}) > 1:
            raise SefarError(
                f"the networks of {encoder} have tokens of different widths ({names}); give "
                f"trainings of one architecture as the seeds of one row"
            )
        if len({key["digest"] for _, key in caches}) < len(caches):
            raise SefarError(
                f"two networks of {encoder} have the same weights ({names}); give trainings of "
                f"other seeds, or one folder that serves all seeds"
            )


def shared_steps(folders: Mapping[str, Path]) -> int:
    """The number of optimizer steps of every training on a question folder, from their metrics.

    Args:
        folders: folders of the trainings, by name.

    Raises:
        SefarError: the numbers differ.
    """
    steps = {name: last_step(folder / "metrics.jsonl") for name, folder in folders.items()}
    if len(set(steps.values())) != 1:
        raise SefarError(
            f"trainings of one comparison took different numbers of steps: {steps}; delete the "
            f"folders that differ and rerun the comparison"
        )
    return next(iter(steps.values()))


def last_step(metrics: Path) -> int:
    """The last step that a training logged."""
    return max(int(line["step"]) for line in read_metrics(metrics))


def read_runs(config: CompareConfig, questions: QuestionFolder) -> dict[str, Runs]:
    """Predictions of every measured row, one list for each seed."""
    runs: dict[str, Runs] = {}
    for row in measured_rows(config):
        seeds = baseline_seeds(row, config) if isinstance(row, BaselineRow) else config.seeds
        files = [run_folder(config.out, questions, row.name, s) / PREDICTIONS for s in seeds]
        if row not in LETTER_ROWS or all(file.is_file() for file in files):
            runs[row.name] = [read_predictions(file) for file in files]
    return runs


def read_diagnostics(
    config: CompareConfig, questions: QuestionFolder
) -> dict[str, list[OtherFormats]]:
    """Answers of the measured trained rows in other formats, for each seed."""
    return {
        row.name: [
            read_other_formats(run_folder(config.out, questions, row.name, seed), "test")
            for seed in config.seeds
        ]
        for row in TRAINED_ROWS
        if has_diagnostics(row) and row.encoder in available_encoders(config)
    }


def write_results(
    config: CompareConfig, sets: Sequence[QuestionFolder], budget: dict[str, Any]
) -> dict[str, Any]:
    """Write comparison.json, comparison.md and the plots."""
    numbers = {}
    for one in sets:
        diagnostics = compute_diagnostics(
            one.test, read_diagnostics(config, one), resamples=config.resamples
        )
        numbers[one.name] = compute_numbers(
            one, read_runs(config, one), diagnostics, resamples=config.resamples
        )
    decided = decisions(numbers, num_seeds=len(config.seeds), recognizers=num_recognizers(config))
    ran = surroundings()
    content = {
        "verdicts": [asdict(one) for one in decided],
        "sets": {name: json_fields(one, COMPARISON_NAMES) for name, one in numbers.items()},
        "blind": {one.name: one.blind for one in sets},
        "published": [asdict(one) for one in TABLE_5],
        "budget": budget,
        "settings": asdict(config),
        "run": ran,
    }
    write_json(config.out / "comparison.json", content)
    page = comparison_page(numbers, decided, sets, budget | {"ran": ran})
    write_text(config.out / "comparison.md", page)
    plot_all(numbers, config)
    return content
