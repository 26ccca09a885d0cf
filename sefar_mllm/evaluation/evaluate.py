"""Score a model on question files: predict, credit by text, write predictions, compute metrics.

`blind_predictions` gives the answers of two rules that see no video, `prior` and `longest`, as
predictions, so that they have the same tables and intervals as the models. qa_data.blind has more
such rules and averages over ties; here ties are broken at random, since a prediction has one
answer.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from qa_data.blind import ROUNDING, blind_scores, option_tables
from qa_data.files import SefarError, write_json
from qa_data.questions import LETTERS, Question
from sefar_core.run_dir import surroundings
from sefar_mllm.adapters import composite
from sefar_mllm.answer_text import score_other_formats, write_other_formats
from sefar_mllm.config import EvaluateConfig
from sefar_mllm.evaluation.diagnostics import Diagnosis, diagnose
from sefar_mllm.evaluation.metrics import Metrics, compute_metrics
from sefar_mllm.feature_cache import CacheError, TokenCache, check_keys
from sefar_mllm.generate import Trained
from sefar_mllm.mismatched_videos import mismatched_videos
from sefar_mllm.scoring import (
    Prediction,
    predict_answers,
    question_fields,
    read_predictions,
    write_predictions,
)

JSON_NAMES: Mapping[str, str] = {
    "subsets": "parts",
    "generated": "spoken",
    "generated_gap": "spoken_gap",
    "interpretation": "verdict",
}
"""Fields whose names in the JSON files are older; the formats are kept."""
BLIND_RULES: Mapping[str, str] = {"prior": "commonest answer", "longest": "longest option"}


def score_file(
    config: EvaluateConfig,
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    name: str,
    subsets: Mapping[str, Collection[str]] | None = None,
) -> Metrics:
    """Predict the answers of one question set, write the predictions, and compute the metrics.

    `name`, of the set, is in the name of its predictions file; `subsets` are question ids by name.
    CacheError as `open_tokens`; SefarError if a question has more options than there are letters.
    """
    letters = config.letters or LETTERS
    widest = max((len(question.options) for question in questions), default=0)
    if widest > len(letters):
        raise SefarError(
            f"{name} has a question with {widest} options, but the letters are {letters}; "
            f"give as many as there are options"
        )
    predictions = predict_answers(
        model,
        tokenizer,
        questions,
        open_tokens(config, model, questions),
        shown=shown_clips(config, questions),
        batch_size=config.batch_size,
        letters=letters,
    )
    predictions = text_scored(predictions, questions)
    config.out.mkdir(parents=True, exist_ok=True)
    write_predictions(predictions, config.out / f"predictions-{name}.jsonl")
    rng = np.random.default_rng(config.seed)
    return compute_metrics(predictions, resamples=config.resamples, rng=rng, subsets=subsets)


def diagnose_file(
    config: EvaluateConfig,
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    name: str,
) -> Diagnosis:
    """Score one question set in two other answer formats, and compare with its predictions.
    SefarError if `score_file` has not written the predictions of this set.
    """
    predictions = read_predictions(config.out / f"predictions-{name}.jsonl")
    answers = score_other_formats(
        model,
        tokenizer,
        questions,
        open_tokens(config, model, questions),
        shown=shown_clips(config, questions),
        batch_size=config.batch_size,
    )
    write_other_formats(questions, answers, config.out, name)
    rng = np.random.default_rng(config.seed)
    return diagnose(questions, predictions, answers, resamples=config.resamples, rng=rng)


def write_metrics(
    config: EvaluateConfig,
    metrics: Mapping[str, Metrics],
    diagnoses: Mapping[str, Diagnosis] | None = None,
) -> None:
    """Write metrics.json: the metrics by name of the set, the control, settings and versions."""
    content = {
        "control": control(config),
        "sets": {name: json_fields(one) for name, one in metrics.items()},
        "diagnostics": {name: json_fields(one) for name, one in (diagnoses or {}).items()},
        "settings": asdict(config),
        "run": surroundings(),
    }
    write_json(config.out / "metrics.json", content)


def open_tokens(
    config: EvaluateConfig, model: Trained, questions: Sequence[Question]
) -> TokenCache:
    """The tokens of the questions' clips, checked to be those that the model was trained on.

    With the frame-order control, the frame order alone may differ, and must be the requested one.
    CacheError if the cache lacks a clip, or its tokens are not those that the model was trained on.
    """
    cache = TokenCache(config.encoder_features, [question.video for question in questions])
    order = config.frame_order
    if order is not None and cache.key["frame_order"] != order:
        raise CacheError(
            f"{cache.folder} has frames {cache.key['frame_order']}, but frame_order is {order}; "
            f"give the cache that was extracted with --frame-order {order}"
        )
    check_keys(
        cache.key,
        composite(model).config.encoder["key"],
        where=str(cache.folder),
        who=f"the model in {config.model}",
        any_frame_order=order is not None,
    )
    return cache


def shown_clips(config: EvaluateConfig, questions: Sequence[Question]) -> dict[str, str] | None:
    """The clip to show for each question's clip; None for its own. ValueError if a clip shares its
    class, answer or source with too many others.
    """
    if not config.shuffle_videos:
        return None
    return mismatched_videos(questions, random.Random(config.seed))


def control(config: EvaluateConfig) -> str | None:
    """The control in words; None without one."""
    controls = {
        "another clip's video": config.shuffle_videos,
        f"frames {config.frame_order}": config.frame_order is not None,
        f"letters {config.letters}": config.letters is not None,
    }
    return ", ".join(name for name, on in controls.items() if on) or None


def text_scored(
    predictions: Sequence[Prediction], questions: Sequence[Question]
) -> list[Prediction]:
    """Predictions in which every option with the text of the right one is right.

    The public sets print some right texts at two letters (34 of 8,521 questions of Gym-QA-99), and
    neither clip nor question tells them apart. Where such an option was chosen, the answer becomes
    its position; likewise, a first letter with the right text becomes the answer's letter.
    """
    by_id = {question.question_id: question for question in questions}
    credited = []
    for one in predictions:
        question = by_id[one.question_id]
        text = question.options[question.answer]
        right = [index for index, other in enumerate(question.options) if other == text]
        answer = one.choice if one.choice in right else one.answer
        first = answer if one.first_letter in right else one.first_letter
        credited.append(replace(one, answer=answer, first_letter=first))
    return credited


def json_fields(numbers: Any, names: Mapping[str, str] = JSON_NAMES) -> dict[str, Any]:
    """The fields of a dataclass as plain lists and dictionaries, under their names in the file."""

    def renamed(fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        return {names.get(name, name): value for name, value in fields}

    return asdict(numbers, dict_factory=renamed)


def blind_predictions(
    questions: Sequence[Question], train: Sequence[Question], *, rng: np.random.Generator
) -> dict[str, list[Prediction]]:
    """Answers of two rules that see no video.

    `prior` takes the option that was the right answer most often in the training questions,
    `longest` the option with the most characters. A rule gives its answer the probability 1, in
    every rotation. Answers are counted in `train`; `rng` breaks ties. The predictions are by the
    name of the rule. SefarError if there are no questions, or no training questions.
    """
    if not questions or not train:
        raise SefarError(
            f"blind rules need questions and training questions, got {len(questions)} and "
            f"{len(train)}; check the question files"
        )
    scores = blind_scores(*option_tables(train, questions))
    return {
        name: [
            _as_prediction(question, row[: len(question.options)], rng)
            for question, row in zip(questions, scores[rule].astype(float), strict=True)
        ]
        for name, rule in BLIND_RULES.items()
    }


def _as_prediction(
    question: Question, scores: Float[np.ndarray, "option"], rng: np.random.Generator
) -> Prediction:
    rounded = np.round(scores, ROUNDING)
    choice = int(rng.choice(np.flatnonzero(rounded == rounded.max())))
    right = question.options[choice] == question.options[question.answer]
    answer = choice if right else question.answer
    return Prediction(
        **question_fields(question),
        shown=question.video,
        answer=answer,
        probs=tuple(float(index == choice) for index in range(len(question.options))),
        first_letter=choice,
        strict=right,
    )
