"""Does the primary number mean what it should? The same questions asked in two other ways.

Letters by likelihood are compared with what the model says when it is let speak, and with which
option's text it finds likeliest. A model that was taught letters, asked by the template that it was
taught with, says the letter that its likelihoods favor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from qa_data.questions import Question
from sefar_core.intervals import Interval, draw_sources, mean
from sefar_mllm.answer_text import OtherFormats, failure_rate
from sefar_mllm.evaluation.metrics import answered_right
from sefar_mllm.scoring import Prediction, PredictionError


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Shares of questions, in [0, 1]; intervals cover the draw of the source videos."""

    unreadable: float
    """Spoken answers that name no option; they count as wrong."""
    spoken: Interval
    """Accuracy of the spoken answers, greedy, in the order of the file."""
    agreement: float
    """Spoken answers that name the letter with the highest likelihood in the same order."""
    spoken_gap: Interval
    """Accuracy spoken minus that of the primary number."""
    rotation_gap: Interval
    """Accuracy of likelihoods in the file's order minus that of the primary number: what a liking
    for letters costs, spoken or not."""
    text_sum: Interval
    """Accuracy of the option whose text is the likeliest."""
    text_mean: Interval
    """The same by the mean over the text's tokens, which does not favor short texts."""
    verdict: str
    """What the gap means, in words."""


def diagnose(
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    answers: OtherFormats,
    *,
    resamples: int,
    rng: np.random.Generator,
) -> Diagnosis:
    """Compare the primary number with the two other ways.

    An option that reads as the right one is right.

    Args:
        questions: the set.
        predictions: of the same questions, in their order, scored by text.
        answers: of the same questions.
        resamples: draws of the bootstrap.
        rng: source of its draws.

    Raises:
        PredictionError: predictions or spoken answers are not those of the questions.
    """
    ids = [question.question_id for question in questions]
    spoken = list(answers.generated)
    if [p.question_id for p in predictions] != ids or [s.question_id for s in spoken] != ids:
        raise PredictionError(
            "predictions and spoken answers must be those of the questions, in their order; "
            "score and speak the same file"
        )
    draws = draw_sources([p.source for p in predictions], resamples=resamples, rng=rng)
    said = [answer.choice for answer in spoken]
    in_order = [p.first_letter for p in predictions]
    sums, means = (
        {name: getattr(row, kind) for name, row in answers.texts.items()}
        for kind in ("sums", "means")
    )
    primary = answered_right(predictions)
    by_voice, by_letter = credits(questions, said), credits(questions, in_order)
    by_sum = credits(questions, best_options(questions, sums))
    by_mean = credits(questions, best_options(questions, means))
    unreadable = failure_rate(spoken)
    gap = mean(by_voice - primary, draws).interval
    return Diagnosis(
        unreadable=unreadable,
        spoken=mean(by_voice, draws).interval,
        agreement=float(np.mean([one == other for one, other in zip(said, in_order, strict=True)])),
        spoken_gap=gap,
        rotation_gap=mean(by_letter - primary, draws).interval,
        text_sum=mean(by_sum, draws).interval,
        text_mean=mean(by_mean, draws).interval,
        verdict=verdict(gap, mean(by_voice - by_letter, draws).interval, unreadable),
    )


def verdict(gap: Interval, letter_gap: Interval, unreadable: float) -> str:
    """What spoken answers say about the primary number.

    Args:
        gap: accuracy spoken minus the primary number.
        letter_gap: accuracy spoken minus that of likelihoods in the same order of the options.
        unreadable: share of the spoken answers that name no option.
    """
    points = f"spoken answers are {100 * gap.value:+.1f} points from the primary number"
    if gap.holds_zero is None:
        return f"{points}; one source video gives no interval"
    if gap.holds_zero:
        return f"{points}, within noise"
    if letter_gap.holds_zero:
        return (
            f"{points}, beyond noise, but no further than letters that are not rotated: the model "
            f"likes some letters better than others"
        )
    return (
        f"{points}, beyond noise, and {100 * unreadable:.1f} % name no option: the template is "
        f"broken, or the model was not taught letters"
    )


def best_options(questions: Sequence[Question], scores: Mapping[str, Sequence[float]]) -> list[int]:
    """Position of each question's option with the highest score; the first of equals.

    Args:
        questions: in the order that is wanted.
        scores: of the options, by question id.
    """
    rows = [scores[one.question_id] for one in questions]
    return [max(range(len(row)), key=row.__getitem__) for row in rows]


def credits(
    questions: Sequence[Question], choices: Sequence[int | None]
) -> Float[np.ndarray, "question"]:
    """1.0 where the option reads as the right one; no option counts as wrong."""
    return np.array(
        [
            float(choice is not None and one.options[choice] == one.options[one.answer])
            for one, choice in zip(questions, choices, strict=True)
        ]
    )
