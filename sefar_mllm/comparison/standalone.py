"""Rows without fine-tuning (C0, C2, C6): answered once, or for each seed where weights are drawn.

Their files lie beside those of the trained rows, with the same record of what they were made from.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qa_data.manifest import Clip
from sefar_mllm.comparison.cells import PREDICTIONS, SCORED, cell_folder
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.heads import among_options, classifier_probs, recognizer_probs
from sefar_mllm.comparison.plan import FOLDER_OF, Standalone
from sefar_mllm.comparison.question_sets import QuestionSet
from sefar_mllm.comparison.records import file_hash, finish, finished, model_hash
from sefar_mllm.comparison.text_only import predict_text_only
from sefar_mllm.comparison.tokens import DRAWN, token_folder
from sefar_mllm.evaluation.blind_rows import blind_predictions
from sefar_mllm.scoring.predict import Prediction, write_predictions
from sefar_mllm.tokens.cache import read_index


def seeds_of(row: Standalone, config: CompareConfig) -> tuple[int, ...]:
    """One seed for rows in which nothing is drawn."""
    return config.seeds if row.encoder == DRAWN else config.seeds[:1]


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
    for seed in seeds_of(row, config):
        folder = cell_folder(config.out, questions, row.name, seed)
        inputs: dict[str, Any] = {"questions": file_hash(questions.files["test"])}
        if row.kind == "rule":
            inputs |= {"train_questions": file_hash(questions.files["train"])}
        elif row.encoder is None:
            inputs |= {"language_model": model_hash(config.finetune.language_model)}
        else:
            inputs |= {"tokens": read_index(_tokens(row, config, seed))["key"]}
        if finished(folder / SCORED, inputs):
            continue
        found = _answers(row, questions, clips, config, seed=seed, device=device)
        folder.mkdir(parents=True, exist_ok=True)
        write_predictions(found, folder / PREDICTIONS)
        finish(folder / SCORED, inputs)


def _answers(
    row: Standalone,
    questions: QuestionSet,
    clips: Sequence[Clip],
    config: CompareConfig,
    *,
    seed: int,
    device: str,
) -> list[Prediction]:
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
    names = {question.video for question in questions.test}
    if row.kind == "head":
        asked = [clip for clip in clips if clip.id in names]
        folder = getattr(config, FOLDER_OF[row.encoder])
        probs = recognizer_probs(folder, asked, config.video_root, device)
    else:
        labeled = [clip for clip in clips if clip.split == "labeled"]
        labels = [clip.label for clip in clips if clip.label is not None]
        tokens = _tokens(row, config, seed)
        probs = classifier_probs(tokens, labeled, sorted(names), max(labels) + 1)
    return among_options(probs, questions.test)


def _tokens(row: Standalone, config: CompareConfig, seed: int) -> Path:
    return config.out / "tokens" / token_folder(str(row.encoder), seed=seed)
