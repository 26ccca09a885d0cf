"""Checks of the primary number: the same questions in two other answer formats.

The letter likelihoods are compared with the generated answers, and with the option whose text has
the highest likelihood. A model that was trained on letters, with the prompt that it was trained on,
generates the letter that its likelihoods favor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from qa_data.files import SefarError
from qa_data.questions import Question
from sefar_core.intervals import Interval, mean, resample_sources
from sefar_mllm.answer_text import OtherFormats, failure_rate
from sefar_mllm.evaluation.metrics import answered_right
from sefar_mllm.scoring import Prediction


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Shares of questions, in [0, 1]; intervals cover the choice of source videos."""

    unreadable: float
    """Generated answers that name no option; they count as wrong."""
    generated: Interval
    """Accuracy of the generated answers, greedy, with the options in the order of the file."""
    agreement: float
    """Generated answers that name the letter with the highest likelihood in the same order."""
    generated_gap: Interval
    """Accuracy of the generated answers minus the primary number."""
    rotation_gap: Interval
    """Accuracy of the likelihoods in the order of the file minus the primary number: the cost of a
    letter preference, with or without generation."""
    text_sum: Interval
    """Accuracy of the option whose text has the highest log-likelihood, summed over its tokens."""
    text_mean: Interval
    """The same with the mean over the text's tokens, which does not favor short texts."""
    interpretation: str
    """The meaning of the gap, in words."""


def diagnose(
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    answers: OtherFormats,
    *,
    resamples: int,
    rng: np.random.Generator,
) -> Diagnosis:
    """Compare the primary number with the two other answer formats.

    An option with the text of the right one is right. The predictions are credited by text and in
    the order of the questions. SefarError if predictions or generated answers are not those of the
    questions.
    """
    ids = [question.question_id for question in questions]
    answered = list(answers.generated)
    if [p.question_id for p in predictions] != ids or [a.question_id for a in answered] != ids:
        raise SefarError(
            "predictions and generated answers must be those of the questions, in their order; "
            "score and generate answers for the same file"
        )
    draws = resample_sources([p.source for p in predictions], resamples=resamples, rng=rng)
    generated = [answer.choice for answer in answered]
    in_order = [p.first_letter for p in predictions]
    sums, means = (
        {name: getattr(row, kind) for name, row in answers.texts.items()}
        for kind in ("sums", "means")
    )
    primary = answered_right(predictions)
    by_generation, by_letter = credits(questions, generated), credits(questions, in_order)
    by_sum = credits(questions, best_options(questions, sums))
    by_mean = credits(questions, best_options(questions, means))
    unreadable = failure_rate(answered)
    gap = mean(by_generation - primary, draws).interval
    return Diagnosis(
        unreadable=unreadable,
        generated=mean(by_generation, draws).interval,
        agreement=float(np.mean([a == b for a, b in zip(generated, in_order, strict=True)])),
        generated_gap=gap,
        rotation_gap=mean(by_letter - primary, draws).interval,
        text_sum=mean(by_sum, draws).interval,
        text_mean=mean(by_mean, draws).interval,
        interpretation=interpret_gap(
            gap, mean(by_generation - by_letter, draws).interval, unreadable
        ),
    )


def interpret_gap(gap: Interval, letter_gap: Interval, unreadable: float) -> str:
    """What the generated answers say about the primary number.

    `gap` is the accuracy of the generated answers minus the primary number, `letter_gap` that
    accuracy minus that of the likelihoods with the options in the same order, and `unreadable` the
    share of the generated answers that name no option.
    """
    points = f"generated answers are {100 * gap.value:+.1f} points from the primary number"
    if gap.contains_zero is None:
        return f"{points}; one source video gives no interval"
    if gap.contains_zero:
        return f"{points}, within noise"
    if letter_gap.contains_zero:
        return (
            f"{points}, beyond noise, but within noise of the letters without rotation: the model "
            f"prefers some letters"
        )
    return (
        f"{points}, beyond noise, and {100 * unreadable:.1f} % name no option: the prompt is "
        f"wrong, or the model was not trained on letters"
    )


def best_options(questions: Sequence[Question], scores: Mapping[str, Sequence[float]]) -> list[int]:
    """Index of each question's option with the highest score; the first of equal scores.

    `scores` of the options are by question id.
    """
    rows = [scores[one.question_id] for one in questions]
    return [max(range(len(row)), key=row.__getitem__) for row in rows]


def credits(
    questions: Sequence[Question], choices: Sequence[int | None]
) -> Float[np.ndarray, "question"]:
    """1.0 where the option has the text of the right one, else 0.0; None counts as wrong."""
    return np.array(
        [
            float(choice is not None and one.options[choice] == one.options[one.answer])
            for one, choice in zip(questions, choices, strict=True)
        ]
    )
