"""Score a trained model on question files: predict, credit by text, write down, sum up.

What a guesser who sees no video answers, as predictions: the rows `prior` and `longest`.

They stand in the same tables as the models, with the same intervals. qa_data.blind knows more such
rules, and gives ties their mean; here a tie is drawn, since a prediction has one answer.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from qa_data.blind import ROUNDING, blind_scores, option_tables
from qa_data.files import write_json
from qa_data.questions import Question
from sefar_core.intervals import Interval
from sefar_core.run_dir import surroundings
from sefar_mllm.adapters import composite
from sefar_mllm.answer_text import score_other_formats, write_answers
from sefar_mllm.config import EvaluateConfig
from sefar_mllm.evaluation.diagnostics import Diagnosis, diagnose
from sefar_mllm.evaluation.metrics import Summary, summarize
from sefar_mllm.evaluation.significance import Comparison, compare
from sefar_mllm.feature_cache import CacheError, TokenCache, check_keys
from sefar_mllm.generate import Trained
from sefar_mllm.mismatched_videos import mismatched_videos
from sefar_mllm.prompt import LETTERS
from sefar_mllm.scoring import (
    Prediction,
    PredictionError,
    predict_answers,
    read_predictions,
    write_predictions,
)

__all__ = [
    "Comparison",
    "Interval",
    "Summary",
    "as_json",
    "compare",
    "control",
    "diagnose_file",
    "open_tokens",
    "score_file",
    "shown_clips",
    "summarize",
    "text_scored",
    "write_metrics",
]


def score_file(
    config: EvaluateConfig,
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    name: str,
    parts: Mapping[str, Collection[str]] | None = None,
) -> Summary:
    """Predict one question set, write its predictions, and sum them up.

    Args:
        config: the controls that are run, and where things lie.
        model: as `checkpoint.load_trained` gives it.
        tokenizer: its tokenizer.
        questions: the set.
        name: of the set, and of its file of predictions.
        parts: name of a part to the ids of its questions.

    Raises:
        CacheError: the cache lacks a clip, or has not the tokens that the model learned from.
        PredictionError: some question has more options than there are letters.
    """
    letters = config.letters or LETTERS
    widest = max((len(question.options) for question in questions), default=0)
    if widest > len(letters):
        raise PredictionError(
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
    return summarize(predictions, resamples=config.resamples, rng=rng, parts=parts)


def diagnose_file(
    config: EvaluateConfig,
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    name: str,
) -> Diagnosis:
    """Ask one question set in two other ways, write the answers, compare with its predictions.

    Raises:
        PredictionError: `score_file` has not written the predictions of this set.
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
    write_answers(questions, answers, config.out, name)
    rng = np.random.default_rng(config.seed)
    return diagnose(questions, predictions, answers, resamples=config.resamples, rng=rng)


def write_metrics(
    config: EvaluateConfig,
    summaries: Mapping[str, Summary],
    diagnoses: Mapping[str, Diagnosis] | None = None,
) -> None:
    """metrics.json: all numbers by the name of the set, the control, settings, versions, commit."""
    numbers = {
        "control": control(config),
        "sets": {name: as_json(one) for name, one in summaries.items()},
        "diagnostics": {name: as_json(one) for name, one in (diagnoses or {}).items()},
        "settings": asdict(config),
        "run": surroundings(),
    }
    write_json(config.out / "metrics.json", numbers)


def open_tokens(
    config: EvaluateConfig, model: Trained, questions: Sequence[Question]
) -> TokenCache:
    """The tokens of the questions' clips, checked to be what the model learned from.

    With the control of the frames' order, that alone may differ, and must be the one asked for.

    Raises:
        CacheError: the cache lacks a clip, or has not the tokens that the model learned from.
    """
    cache = TokenCache(config.encoder_features, [question.video for question in questions])
    order = config.frame_order
    if order is not None and cache.key["frame_order"] != order:
        raise CacheError(
            f"{cache.folder} shows frames {cache.key['frame_order']}, but frame_order is {order}; "
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
    """The clip to show for each question's clip; none if it is its own.

    Raises:
        ValueError: some clip shares its class, answer or source with too many others.
    """
    if not config.shuffle_videos:
        return None
    return mismatched_videos(questions, random.Random(config.seed))


def control(config: EvaluateConfig) -> str | None:
    """The control that is run, in words; none if it is the score itself."""
    runs = {
        "another clip's video": config.shuffle_videos,
        f"frames {config.frame_order}": config.frame_order is not None,
        f"letters {config.letters}": config.letters is not None,
    }
    return ", ".join(name for name, on in runs.items() if on) or None


def text_scored(
    predictions: Sequence[Prediction], questions: Sequence[Question]
) -> list[Prediction]:
    """Predictions in which every option that reads as the right one is right.

    The public sets print some right texts at two letters (34 of 8,521 questions of Gym-QA-99), and
    nothing in clip or question tells which of the two is meant. Where such an option was chosen,
    the answer becomes its position; a letter in the order of the file that reads as the right one
    becomes the answer's.
    """
    asked = {question.question_id: question for question in questions}
    credited = []
    for one in predictions:
        question = asked[one.question_id]
        text = question.options[question.answer]
        right = [place for place, other in enumerate(question.options) if other == text]
        answer = one.choice if one.choice in right else one.answer
        first = answer if one.first_letter in right else one.first_letter
        credited.append(replace(one, answer=answer, first_letter=first))
    return credited


def as_json(numbers: Any) -> dict:
    """The numbers of a dataclass as plain lists and dictionaries."""
    return asdict(numbers)


RULES: Mapping[str, str] = {"prior": "commonest answer", "longest": "longest option"}


def blind_predictions(
    questions: Sequence[Question], train: Sequence[Question], *, rng: np.random.Generator
) -> dict[str, list[Prediction]]:
    """Answers of two rules that never look at a video.

    `prior` takes the option that was the right answer most often in the training questions,
    `longest` the one of the most characters. A rule is as sure of its answer as can be, and gives
    it in every rotation.

    Args:
        questions: what to answer.
        train: where answers are counted.
        rng: draws among options that a rule likes alike.

    Returns:
        Predictions by the name of the rule.

    Raises:
        PredictionError: there are no questions, or no training questions.
    """
    if not questions or not train:
        raise PredictionError(
            f"blind rules need questions and training questions, got {len(questions)} and "
            f"{len(train)}; check the question files"
        )
    learned, asked = option_tables(train, questions)
    scores = blind_scores(learned, asked)
    return {
        name: [
            _as_prediction(question, row[: len(question.options)], rng)
            for question, row in zip(questions, scores[rule].astype(float), strict=True)
        ]
        for name, rule in RULES.items()
    }


def _as_prediction(
    question: Question, scores: Float[np.ndarray, "option"], rng: np.random.Generator
) -> Prediction:
    rounded = np.round(scores, ROUNDING)
    choice = int(rng.choice(np.flatnonzero(rounded == rounded.max())))
    right = question.options[choice] == question.options[question.answer]
    answer = choice if right else question.answer
    return Prediction(
        question_id=question.question_id,
        video=question.video,
        shown=question.video,
        source=question.source or question.video,
        event=question.event,
        label=question.label,
        answer=answer,
        probs=tuple(float(place == choice) for place in range(len(question.options))),
        first_letter=choice,
        strict=right,
    )
