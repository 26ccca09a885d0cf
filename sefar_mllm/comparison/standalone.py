"""Rows without fine-tuning (C0, C2, C6): answered once, or for each seed that has an encoder of
its own.

Their files lie beside those of the trained rows, with the same record of what they were made from.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qa_data.manifest import Clip
from sefar_core.data.class_names import class_names
from sefar_mllm.comparison.cells import PREDICTIONS, SCORED, cell_folder
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.heads import among_options, classifier_probs, recognizer_probs
from sefar_mllm.comparison.plan import Standalone
from sefar_mllm.comparison.question_sets import QuestionSet
from sefar_mllm.comparison.records import file_hash, finish, finished, model_hash
from sefar_mllm.comparison.text_only import predict_text_only
from sefar_mllm.comparison.tokens import token_folder
from sefar_mllm.comparison.weights import folder_of, own_for_each_seed, seeds_of
from sefar_mllm.evaluation.blind_rows import blind_predictions
from sefar_mllm.evaluation.evaluate import text_scored
from sefar_mllm.scoring.predict import Prediction, write_predictions
from sefar_mllm.tokens.cache import read_index


def seeds_alone(row: Standalone, config: CompareConfig) -> tuple[int, ...]:
    """One seed, or all where each has an encoder of its own."""
    return config.seeds[:1] if row.encoder is None else seeds_of(row.encoder, config)


def answer_alone(
    row: Standalone,
    questions: QuestionSet,
    clips: Sequence[Clip],
    config: CompareConfig,
    *,
    device: str,
) -> None:
    """Answer the test questions, unless that was done before.

    Args:
        row: which.
        questions: the set.
        clips: the manifest.
        config: all settings.
        device: where models run.

    Raises:
        StaleError: it was done before, from other inputs.
    """
    for seed in seeds_alone(row, config):
        folder = cell_folder(config.out, questions, row.name, seed)
        inputs = inputs_of(row, questions, clips, config, seed)
        if finished(folder / SCORED, inputs):
            continue
        found = choose(row, questions, clips, config, seed=seed, device=device)
        folder.mkdir(parents=True, exist_ok=True)
        write_predictions(text_scored(found, questions.test), folder / PREDICTIONS)
        finish(folder / SCORED, inputs)


def inputs_of(
    row: Standalone,
    questions: QuestionSet,
    clips: Sequence[Clip],
    config: CompareConfig,
    seed: int,
) -> dict[str, Any]:
    """All that the answers of a row depend on."""
    inputs: dict[str, Any] = {"questions": file_hash(questions.files["test"])}
    if row.kind == "rule":
        return inputs | {"train_questions": file_hash(questions.files["train"])}
    if row.encoder is None:
        return inputs | {"language_model": model_hash(config.finetune.language_model)}
    inputs |= {"tokens": read_index(_tokens(row.encoder, config, seed))["key"]}
    if row.kind == "probe":
        inputs |= {"labels": {clip.id: clip.label for clip in labeled_of(clips)}}
    return inputs


def labeled_of(clips: Sequence[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.split == "labeled"]


def choose(
    row: Standalone,
    questions: QuestionSet,
    clips: Sequence[Clip],
    config: CompareConfig,
    *,
    seed: int,
    device: str,
) -> list[Prediction]:
    """The row's answers to the test questions, with the encoder of a seed."""
    if row.kind == "rule":
        rng = np.random.default_rng(seed)
        return blind_predictions(questions.test, questions.train, rng=rng)[row.name]
    if row.kind == "text" or row.encoder is None:
        return predict_text_only(
            config.finetune.language_model,
            questions.test,
            batch_size=config.batch_size,
            device=device,
        )
    videos = {question.video for question in questions.test}
    if row.kind == "head":
        asked = [clip for clip in clips if clip.id in videos]
        folder = folder_of(row.encoder, config, seed)
        names = class_names(clips)
        probs = recognizer_probs(folder, asked, config.video_root, device, names)
    else:
        labels = [clip.label for clip in clips if clip.label is not None]
        tokens = _tokens(row.encoder, config, seed)
        probs = classifier_probs(tokens, labeled_of(clips), sorted(videos), max(labels) + 1)
    return among_options(probs, questions.test)


def _tokens(encoder: str, config: CompareConfig, seed: int) -> Path:
    own = seed if own_for_each_seed(encoder, config) else None
    return config.out / "tokens" / token_folder(encoder, seed=own)
