"""The comparison from end to end: features, learning rates, experiments, numbers, page.

C8, the budget that all matched rows share, is checked before anything is trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from qa_data.files import SefarError, write_json, write_text
from qa_data.manifest import read_manifest
from sefar_core.data.class_names import refuse_several_names
from sefar_core.run_dir import read_metrics, surroundings
from sefar_mllm.answer_text import read_other_formats
from sefar_mllm.build import load_tokenizer
from sefar_mllm.comparison.config import (
    CompareConfig,
    encoder_sources,
    refuse_uneven_recognizers,
)
from sefar_mllm.comparison.experiment import (
    PREDICTIONS,
    PROBE_BASES,
    UNMATCHED,
    Setup,
    extract_features,
    feature_jobs,
    model_hash,
    row_name,
    run_experiment,
    run_parallel,
    run_row,
    search_lr_factors,
    unfinished_rows,
)
from sefar_mllm.comparison.report import TABLE_5, comparison_page, plot_all
from sefar_mllm.comparison.rows import BaselineRow, option_symbols, read_question_folders
from sefar_mllm.comparison.statistics import (
    COMPARISON_NAMES,
    FolderNumbers,
    compute_diagnostics,
    compute_numbers,
    decisions,
)
from sefar_mllm.encoders import refuse_unequal_moments
from sefar_mllm.evaluation.evaluate import json_fields
from sefar_mllm.feature_cache import read_index
from sefar_mllm.scoring import read_predictions

RECOGNIZERS = ("sefar", "supervised")
METRICS = "metrics.jsonl"


def compare_encoders(config: CompareConfig) -> dict[str, Any]:
    """Train and score every row whose encoder is given; the content of comparison.json.

    Raises:
        QuestionError: a question folder cannot be used.
        StaleError: the output folder has work with other inputs; nothing was trained.
        SefarError: the encoders do not share one budget.
        ValueError: the encoders saw different moments, or the number of recognizers is neither one
            nor the number of seeds.
        CheckpointError: the language model's tokenizer cannot be used.
        Interrupted: SIGTERM or SIGINT arrived; the same command resumes.
    """
    setups = prepare(config)
    budget = shared_budget(config, extract_all(setups))
    setups = search_lr_factors(setups, config.lr_grid, dev_rate=config.dev_rate, jobs=config.jobs)
    runs = [
        (row, seed, setup)
        for seed in config.seeds
        for setup in setups
        for row in setup.trained_rows()
    ]
    todo = unfinished_rows(runs)
    for setup in setups:
        for row in setup.rows():
            if isinstance(row, BaselineRow):
                for seed in setup.seeds_of(row):
                    run_experiment(row, "own_video", seed, setup)
    run_parallel(run_row, todo, jobs=config.jobs, label=row_name)
    budget["weights"] = weight_origins(setups[0])
    budget["steps"] = {setup.questions.name: shared_steps(setup) for setup in setups}
    budget["factors"] = {
        f"{setup.questions.name}, {row}": factor
        for setup in setups
        for row, factor in setup.lr_factors.items()
    }
    return write_results(config, setups, budget)


def prepare(config: CompareConfig) -> list[Setup]:
    """What the experiments on each question folder share; bad input is refused before any work."""
    refuse_uneven_recognizers(config)
    tokenizer = load_tokenizer(config.finetune.language_model)
    clips = read_manifest(config.manifest)
    refuse_several_names(clips, config.manifest)
    sets = read_question_folders(config.questions, clips)
    widest = max(len(question.options) for one in sets for question in one.test)
    symbols = {seed: option_symbols(tokenizer, widest, seed) for seed in config.seeds}
    shared = Setup(
        out=config.out,
        questions=sets[0],
        clips=clips,
        video_root=config.video_root,
        encoders=encoder_sources(config),
        grid=config.grid,
        seeds=config.seeds,
        finetune=config.finetune,
        language_model=model_hash(config.finetune.language_model),
        option_symbols=symbols,
        batch_size=config.batch_size,
    )
    return [replace(shared, questions=questions) for questions in sets]


def extract_all(setups: Sequence[Setup]) -> dict[str, dict[str, Any]]:
    """Fill every token cache: labeled clips and those of test questions; controls only the latter.

    Returns the key of each cache, by the name of its folder.
    """
    shared = setups[0]
    asked = {question.video for setup in setups for question in setup.questions.test}
    needed = [clip for clip in shared.clips if clip.split == "labeled" or clip.id in asked]
    tested = [clip for clip in needed if clip.split != "labeled"]
    return {
        shared.tokens(encoder, seed, order).name: extract_features(
            encoder, order, seed, needed if order == "in_order" else tested, shared
        )
        for encoder, order, seed in feature_jobs(shared)
    }


def shared_budget(config: CompareConfig, keys: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The budget of all matched rows: moments, tokens, settings, seeds.

    Questions, steps and settings are shared by construction; moments and number of tokens are
    properties of the caches, whose keys are given by folder. ValueError if caches were made at
    different moments; SefarError if they have different numbers of tokens, or the networks of one
    row's seeds differ in width or have the same weights.
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
        "recognizers": {
            name: len(folders) for name in RECOGNIZERS if (folders := getattr(config, name))
        },
        "lr_grid": list(config.lr_grid),
        "dev_rate": config.dev_rate,
        "finetune": finetune,
    }


def refuse_unlike_seeds(keys: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise SefarError for seeds of one encoder of unlike token widths, or of equal weights."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, key in keys.items():
        rows.setdefault((key["encoder"], key.get("frame_order", "")), []).append(name)
    for (encoder, _), caches in rows.items():
        names = ", ".join(caches)
        if len({keys[name]["dim"] for name in caches}) > 1:
            raise SefarError(
                f"the networks of {encoder} have tokens of different widths ({names}); give "
                f"trainings of one architecture as the seeds of one row"
            )
        if len({keys[name]["digest"] for name in caches}) < len(caches):
            raise SefarError(
                f"two networks of {encoder} have the same weights ({names}); give trainings of "
                f"other seeds, or one folder that serves all seeds"
            )


def weight_origins(setup: Setup) -> dict[str, str]:
    """Whether the weights of each image model were verified; reported beside its numbers."""
    return {
        name: read_index(setup.tokens(name, setup.seeds[0]))["origin"]["weights"]
        for name in setup.encoders
        if name in {*PROBE_BASES, *PROBE_BASES.values()}
    }


def shared_steps(setup: Setup) -> int:
    """The number of optimizer steps of every training on a question folder, from their metrics.
    SefarError if the numbers differ.
    """
    steps = {}
    for seed in setup.seeds:
        for row in setup.trained_rows():
            lines = read_metrics(setup.folder(row.name, seed) / METRICS)
            steps[row_name(row, seed, setup)] = max(int(line["step"]) for line in lines)
    if len(set(steps.values())) != 1:
        raise SefarError(
            f"trainings of one comparison took different numbers of steps: {steps}; delete the "
            f"folders that differ and rerun the comparison"
        )
    return next(iter(steps.values()))


def read_numbers(setup: Setup, resamples: int) -> FolderNumbers:
    """The numbers of one question folder, from the files of its finished experiments."""
    rows = setup.rows()
    runs = {
        row.name: [
            read_predictions(setup.folder(row.name, seed) / PREDICTIONS)
            for seed in setup.seeds_of(row)
        ]
        for row in rows
    }
    formats = {
        row.name: [read_other_formats(setup.folder(row.name, seed), "test") for seed in setup.seeds]
        for row in rows
        if "other_formats" in setup.conditions_of(row)
    }
    diagnostics = compute_diagnostics(setup.questions.test, formats, resamples=resamples)
    return compute_numbers(setup.questions, runs, diagnostics, resamples=resamples)


def write_results(
    config: CompareConfig, setups: Sequence[Setup], budget: dict[str, Any]
) -> dict[str, Any]:
    """Write comparison.json, comparison.md and the plots."""
    sets = [setup.questions for setup in setups]
    numbers = {setup.questions.name: read_numbers(setup, config.resamples) for setup in setups}
    decided = decisions(numbers, num_seeds=len(config.seeds), recognizers=budget["recognizers"])
    ran = surroundings()
    content = {
        "verdicts": [asdict(one) for one in decided],
        "sets": {name: json_fields(one, COMPARISON_NAMES) for name, one in numbers.items()},
        "blind": {one.name: one.blind for one in sets},
        "published": TABLE_5,
        "budget": budget,
        "settings": asdict(config),
        "run": ran,
    }
    write_json(config.out / "comparison.json", content)
    page = comparison_page(numbers, decided, sets, budget | {"ran": ran})
    write_text(config.out / "comparison.md", page)
    curves = {
        setup.questions.name: {
            row.name: setup.folder(row.name, setup.seeds[0]) / METRICS
            for row in setup.trained_rows()
        }
        for setup in setups
    }
    plot_all(numbers, curves, config.out / "plots")
    return content
