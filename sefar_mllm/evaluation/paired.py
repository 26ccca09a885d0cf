"""Two models on the same questions: the difference, its interval, and McNemar's test.

The interval is what counts. Both models are scored on every resample of the source videos, so that
what makes a video hard for both cancels. McNemar's test takes the questions for independent of one
another, which those of one video are not: its p-value is too small, and stands beside for readers
who expect it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from qa_data.text_file import composed
from sefar_core.intervals import Interval, class_mean, draw_sources, mean
from sefar_mllm.evaluation.summary import answered_right, class_labels
from sefar_mllm.scoring.predict import Prediction, PredictionError


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Accuracy of the first model minus that of the second, on the same questions."""

    micro: Interval
    """Covers the draw of the source videos; the two trained models are taken as they are."""
    macro: Interval | None
    only_first_right: int
    only_second_right: int
    mcnemar_p: float
    """Two-sided, exact, from the two counts above; questions taken for independent."""


def compare(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    *,
    resamples: int,
    rng: np.random.Generator,
) -> Comparison:
    """The difference of two models on the same questions, with paired intervals.

    Args:
        first: predictions of one model.
        second: of the other, in any order.
        resamples: draws of the bootstrap.
        rng: source of its draws.

    Raises:
        PredictionError: the two did not answer the same questions, or there are none.
    """
    right, other = line_up([first, second])
    labels = class_labels(first)
    draws = draw_sources([p.source for p in first], resamples=resamples, rng=rng)
    only_first, only_second = int((right > other).sum()), int((right < other).sum())
    return Comparison(
        micro=mean(right - other, draws).interval,
        macro=None if labels is None else class_mean(right - other, labels, draws).interval,
        only_first_right=only_first,
        only_second_right=only_second,
        mcnemar_p=mcnemar(only_first, only_second),
    )


def line_up(runs: Sequence[Sequence[Prediction]]) -> Float[np.ndarray, "run question"]:
    """Which answers of each run are right, 1.0 or 0.0, in the order of the first run's questions.

    Raises:
        PredictionError: the runs did not answer the same questions about the same clips, or there
            are none.
    """
    if not runs or not runs[0]:
        raise PredictionError("there are no predictions to compare; check the question file")
    first = runs[0]
    rows = []
    for run in runs:
        by_id = {p.question_id: p for p in run}
        strays = [
            p.question_id
            for p in first
            if p.question_id not in by_id
            or composed(by_id[p.question_id].video) != composed(p.video)
        ]
        if strays or len(run) != len(first):
            raise PredictionError(
                f"the two sets of predictions differ in their questions ({len(first)} and "
                f"{len(run)}, unmatched for example {strays[:3]}); score both on the same file"
            )
        rows.append(answered_right([by_id[p.question_id] for p in first]))
    return np.stack(rows)


def mcnemar_of(first: Sequence[Prediction], second: Sequence[Prediction]) -> float:
    """McNemar's p-value of two runs over the same questions.

    Raises:
        PredictionError: they did not answer the same questions, or there are none.
    """
    right, other = line_up([first, second])
    return mcnemar(int((right > other).sum()), int((right < other).sum()))


def mcnemar(only_first: int, only_second: int) -> float:
    """Chance that a fair coin hands out the discordant questions at least as unevenly.

    Exact: two-sided binomial test with probability 1/2 (McNemar, Psychometrika 12, 1947), in whole
    numbers up to the last division. 1 if no question is discordant.

    Args:
        only_first: questions that the first model alone has right.
        only_second: that the second one alone has right.

    Raises:
        ValueError: a negative count.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"counts cannot be negative, got {only_first} and {only_second}")
    count = only_first + only_second
    ways = tail = 1
    for few in range(min(only_first, only_second)):
        ways = ways * (count - few) // (few + 1)  # binomial coefficient (count, few + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**count)
