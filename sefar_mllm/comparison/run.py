"""The comparison from end to end: tokens, trainings, rows without fine-tuning, numbers, pages.

C8: what all matched rows share, checked before anything is trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from qa_data.files import write_json, write_text
from qa_data.manifest import Clip, read_manifest
from sefar_core.data.class_names import refuse_several_names
from sefar_core.run_dir import read_metrics, surroundings
from sefar_mllm.answer_text import OtherFormats, read_answers
from sefar_mllm.build import load_tokenizer
from sefar_mllm.comparison.baselines import answer_alone, seeds_alone
from sefar_mllm.comparison.config import CompareConfig, refuse_uneven_recognizers
from sefar_mllm.comparison.experiment import (
    PREDICTIONS,
    UNMATCHED,
    Cell,
    authenticity,
    cell_folder,
    choose_rates,
    diagnosed,
    fill,
    model_hash,
    name_of_cell,
    refuse_stale,
    run_all,
    run_cell,
    scaled,
    token_jobs,
)
from sefar_mllm.comparison.report import TABLE_5, page, plot_all
from sefar_mllm.comparison.rows import (
    LETTER_ROWS,
    ROWS,
    SHOWINGS,
    TRAININGS,
    QuestionSet,
    Row,
    Standalone,
    available,
    encoder_of,
    num_recognizers,
    option_markers,
    own_for_each_seed,
    read_sets,
)
from sefar_mllm.comparison.statistics import numbers, told_of, verdicts
from sefar_mllm.encoders import refuse_unequal_moments
from sefar_mllm.evaluation.significance import Runs
from sefar_mllm.scoring import read_predictions


class BudgetError(ValueError):
    """Encoders that would not be compared under one budget; the message names them."""


def shared_budget(config: CompareConfig, keys: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The budget of all matched rows: moments, tokens, settings, seeds.

    Questions, steps and settings are shared because there is one of each; moments and number of
    tokens are properties of the caches.

    Args:
        config: all settings.
        keys: of every token cache, by its folder.

    Raises:
        ValueError: caches were made at different moments.
        BudgetError: caches have different numbers of tokens, or networks that stand for seeds of
            one row are of unlike width or the same.
    """
    refuse_unequal_moments(keys)
    refuse_unlike_seeds(keys)
    matched = {name: key for name, key in keys.items() if key["encoder"] not in UNMATCHED}
    grids = {name: key["grid"] for name, key in matched.items()}
    if len(set(grids.values())) > 1:
        raise BudgetError(
            f"encoders that give different numbers of tokens cannot be compared: grid {grids}; "
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
    """Caches of one encoder and frame order are of its seeds: as wide, and each of its own weights.

    Raises:
        BudgetError: says which are not.
    """
    rows: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for name, key in keys.items():
        rows.setdefault((key["encoder"], key.get("frame_order", "")), []).append((name, key))
    for (encoder, _), found in rows.items():
        names = ", ".join(name for name, _ in found)
        if len({key["dim"] for _, key in found}) > 1:
            raise BudgetError(
                f"the networks of {encoder} have tokens of different widths ({names}); seeds of "
                f"one row are trainings of one architecture"
            )
        if len({key["digest"] for _, key in found}) < len(found):
            raise BudgetError(
                f"two networks of {encoder} have the same weights ({names}); give trainings of "
                f"other seeds, or one folder that serves all seeds"
            )


def shared_steps(folders: Mapping[str, Path]) -> int:
    """The optimizer steps that every training of a question set took, read off their metrics.

    Args:
        folders: of the trainings, by name.

    Raises:
        BudgetError: they did not take the same number.
    """
    steps = {name: last_step(folder / "metrics.jsonl") for name, folder in folders.items()}
    if len(set(steps.values())) != 1:
        raise BudgetError(
            f"trainings of one comparison took different numbers of steps: {steps}; delete the "
            f"folders that differ and run the comparison again"
        )
    return next(iter(steps.values()))


def last_step(metrics: Path) -> int:
    """The highest step that a training reported."""
    return max(int(line["step"]) for line in read_metrics(metrics))


def compare_encoders(config: CompareConfig) -> dict[str, Any]:
    """Train and score every row that can be had, and write the comparison.

    Args:
        config: all settings.

    Returns:
        What comparison.json holds.

    Raises:
        QuestionError: a question folder cannot be used.
        StaleError: the output folder holds work on other inputs; nothing was trained.
        BudgetError: encoders that do not share one budget.
        ValueError: encoders that were shown different moments, or recognizers that are neither
            one for all seeds nor another one for each.
        FolderError: the language model's tokenizer cannot serve.
        Interrupted: SIGTERM or SIGINT came; the same command goes on.
    """
    refuse_uneven_recognizers(config)
    load_tokenizer(config.finetune.language_model)  # one that cannot serve is refused at once
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clips = read_manifest(config.manifest)
    refuse_several_names(clips, config.manifest)
    sets = read_sets(config.questions, clips)
    budget = shared_budget(config, fill_all(config, needed_clips(clips, sets), device))
    cells = plan_cells(config, sets)
    first = [cell for cell in cells if cell.seed == config.seeds[0]]
    rates = choose_rates(first, config.lr_grid, dev_rate=config.dev_rate, jobs=config.jobs)
    cells = [
        replace(cell, finetune=scaled(cell.finetune, rates[cell.questions.name, cell.row.name]))
        for cell in cells
    ]
    todo = refuse_stale(cells)
    for questions in sets:
        for row in present(config):
            if isinstance(row, Standalone):
                answer_alone(row, questions, clips, config, device=device)
    run_all(run_cell, todo, jobs=config.jobs, label=name_of_cell)
    steps = {
        one.name: shared_steps({name_of_cell(c): c.folder for c in cells if c.questions == one})
        for one in sets
    }
    told = {f"{name}, {row}": factor for (name, row), factor in rates.items()}
    budget |= {"weights": authenticity(config), "steps": steps, "factors": told}
    return write_results(config, sets, budget)


def present(config: CompareConfig) -> list[Row]:
    """The rows whose encoder is there; the others are not measured."""
    names = available(config)
    return [row for row in ROWS if encoder_of(row) is None or encoder_of(row) in names]


def needed_clips(clips: Sequence[Clip], sets: Sequence[QuestionSet]) -> list[Clip]:
    """The labeled clips, and those that test questions are about."""
    asked = {question.video for one in sets for question in one.test}
    return [clip for clip in clips if clip.split == "labeled" or clip.id in asked]


def fill_all(config: CompareConfig, clips: Sequence[Clip], device: str) -> dict[str, dict]:
    """Fill every token cache; the key of each by its folder."""
    config.out.mkdir(parents=True, exist_ok=True)
    tested = [clip for clip in clips if clip.split != "labeled"]
    return {
        job.folder: fill(job, config, clips if job.order == "in_order" else tested, device=device)
        for job in token_jobs(config)
    }


def plan_cells(config: CompareConfig, sets: Sequence[QuestionSet]) -> list[Cell]:
    """Every training of every set and seed, seeds outermost: what is there early is whole."""
    names = available(config)
    language_model = model_hash(config.finetune.language_model)
    tokenizer = load_tokenizer(config.finetune.language_model)
    widest = max(len(question.options) for one in sets for question in one.test)
    markers = {seed: option_markers(tokenizer, widest, seed) for seed in config.seeds}
    return [
        Cell(
            out=config.out,
            questions=questions,
            row=row,
            showings=[
                one
                for one in SHOWINGS
                if one.of == row.name and (one not in LETTER_ROWS or one.shown in markers[seed])
            ],
            seed=seed,
            own_encoder=own_for_each_seed(row.encoder, config),
            finetune=replace(config.finetune, seed=seed),
            language_model=language_model,
            markers=markers[seed],
            batch_size=config.batch_size,
        )
        for seed in config.seeds
        for questions in sets
        for row in TRAININGS
        if row.encoder in names
    ]


def read_runs(config: CompareConfig, questions: QuestionSet) -> dict[str, Runs]:
    """Predictions of every row that is there, one list for each seed."""
    runs: dict[str, Runs] = {}
    for row in present(config):
        seeds = seeds_alone(row, config) if isinstance(row, Standalone) else config.seeds
        files = [cell_folder(config.out, questions, row.name, s) / PREDICTIONS for s in seeds]
        if row not in LETTER_ROWS or all(file.is_file() for file in files):
            runs[row.name] = [read_predictions(file) for file in files]
    return runs


def read_told(config: CompareConfig, questions: QuestionSet) -> dict[str, list[OtherFormats]]:
    """What the trained rows that are there answered in other ways, for each seed."""
    return {
        row.name: [
            read_answers(cell_folder(config.out, questions, row.name, seed), "test")
            for seed in config.seeds
        ]
        for row in TRAININGS
        if diagnosed(row) and row.encoder in available(config)
    }


def write_results(
    config: CompareConfig, sets: Sequence[QuestionSet], budget: dict[str, Any]
) -> dict[str, Any]:
    """comparison.json, comparison.md and the plots."""
    found = {}
    for one in sets:
        told = told_of(one.test, read_told(config, one), resamples=config.resamples)
        found[one.name] = numbers(one, read_runs(config, one), told, resamples=config.resamples)
    judged = verdicts(found, num_seeds=len(config.seeds), recognizers=num_recognizers(config))
    ran = surroundings()
    whole = {
        "verdicts": [asdict(one) for one in judged],
        "sets": {name: asdict(one) for name, one in found.items()},
        "blind": {one.name: one.blind for one in sets},
        "published": [asdict(one) for one in TABLE_5],
        "budget": budget,
        "settings": asdict(config),
        "run": ran,
    }
    write_json(config.out / "comparison.json", whole)
    write_text(config.out / "comparison.md", page(found, judged, sets, budget | {"ran": ran}))
    plot_all(found, config)
    return whole
