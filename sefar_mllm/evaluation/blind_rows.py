"""What a guesser who sees no video answers, as predictions: the rows `prior` and `longest`.

They stand in the same tables as the models, with the same intervals. qa_data.blind knows more such
rules, and gives ties their mean; here a tie is drawn, since a prediction has one answer.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from qa_data.blind import ROUNDING, blind_scores, option_tables
from qa_data.schema import Question
from sefar_mllm.scoring.predict import Prediction, PredictionError

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
