"""The trained rows asked in two other ways: let speak, and by the likelihood of the options' texts.

Diagnostics, not the measure: a row that says no letter, or whose spoken answers fall far behind
its likelihoods, was asked by a template that does not fit. docs/paper_map.md, row "letter scoring".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qa_data.schema import Question
from sefar_mllm.comparison.plan import BLIND
from sefar_mllm.evaluation.diagnostics import best_options, credits
from sefar_mllm.evaluation.seeds import SeedMean, share_over_seeds
from sefar_mllm.scoring.option_text import pointwise_information
from sefar_mllm.scoring.other_answers import OtherAnswers
from sefar_mllm.scoring.spoken import failure_rate

Answers = Mapping[str, Sequence[OtherAnswers]]
"""By row, of each seed."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """One row on one question set; shares of the questions, in [0, 1]."""

    unreadable: float
    """Spoken answers that name no option and count as wrong; mean over seeds."""
    spoken: SeedMean
    """Accuracy of the spoken answers, greedy, in the order of the file."""
    text_sum: SeedMean
    """Accuracy of the option whose text is the likeliest."""
    text_mean: SeedMean
    """The same by the mean over the text's tokens."""
    text_information: SeedMean | None
    """The same by what the video adds: the blind model's log-likelihood of the same seed taken
    off (pointwise mutual information). None for the blind model itself, or without one."""


def told_of(questions: Sequence[Question], answers: Answers, *, resamples: int) -> dict[str, Told]:
    """All rows' numbers.

    Args:
        questions: the set.
        answers: of the same questions; every row has as many seeds.
        resamples: draws of the bootstrap over source videos.

    Raises:
        ValueError: a row and the blind one did not score the same questions.
    """
    sources = [question.source or question.video for question in questions]

    def share(choices: Sequence[Sequence[int | None]]) -> SeedMean:
        rows = [credits(questions, one) for one in choices]
        rng = np.random.default_rng(0)
        return share_over_seeds(rows, sources, resamples=resamples, rng=rng)

    def row(name: str, runs: Sequence[OtherAnswers]) -> Told:
        blind = answers.get(BLIND) if name != BLIND else None
        sums, means = (
            [{key: getattr(one, kind) for key, one in run.texts.items()} for run in runs]
            for kind in ("sums", "means")
        )
        return Told(
            unreadable=float(np.mean([failure_rate(run.spoken) for run in runs])),
            spoken=share([said(questions, run) for run in runs]),
            text_sum=share([best_options(questions, one) for one in sums]),
            text_mean=share([best_options(questions, one) for one in means]),
            text_information=None
            if blind is None
            else share(
                [
                    best_options(questions, pointwise_information(run.texts, other.texts))
                    for run, other in zip(runs, blind, strict=True)
                ]
            ),
        )

    return {name: row(name, runs) for name, runs in answers.items()}


def said(questions: Sequence[Question], run: OtherAnswers) -> list[int | None]:
    """The option that each spoken answer names, in the questions' order."""
    choice = {one.question_id: one.choice for one in run.spoken}
    return [choice[question.question_id] for question in questions]
