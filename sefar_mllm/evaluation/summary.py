"""All numbers of one question set, from the predictions of one model.

Beside micro accuracy stands the mean over classes (macro): FineGym's answers are long-tailed, and
a guesser who knows the frequencies looks good in micro. All intervals resample whole source videos
(see `sefar_core.intervals`), those of one set with the same draws.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sefar_core.intervals import Draws, Interval, class_mean, draw_sources, mean
from sefar_mllm.evaluation.calibration import Calibration, calibration
from sefar_mllm.prompt import LETTERS
from sefar_mllm.scoring.predict import Prediction, PredictionError


@dataclass(frozen=True, kw_only=True)
class Part:
    """Accuracy on some of the questions, in [0, 1]."""

    num_questions: int
    num_sources: int
    """One source gives no interval, few give one that is too narrow."""
    micro: Interval | None
    """None if there is no question."""
    macro: Interval | None
    """Mean over the classes of the right answers; none if the questions carry no class."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All numbers of one question set; accuracies in [0, 1]."""

    num_questions: int
    num_sources: int
    chance: float
    """Expected accuracy of a guess: the mean of 1 / number of options."""
    micro: Interval
    macro: Interval | None
    """Mean over the classes of the right answers; none if the questions carry no class."""
    strict: float
    """Share of questions that are right in every rotation."""
    file_order: Interval
    """Micro accuracy of the letters in the order of the file, not rotated: the official way."""
    per_event: dict[str, Part]
    """On each apparatus."""
    parts: dict[str, Part]
    """On each named part."""
    per_class: dict[int, Part]
    letters: dict[str, int]
    """How often each letter came first in the questions as they are written."""
    answer_letters: dict[str, int]
    """How often each letter is the right one there."""
    letter_recall: dict[str, float]
    """In the order of the file: of the questions whose right letter is this one, the share that
    is right. A letter that the model likes has a high one."""
    letter_spread: float
    """Standard deviation of these recalls over the letters: RStd of Zheng et al., Large Language
    Models Are Not Robust Multiple Choice Selectors, ICLR 2024 (there in percent)."""
    calibration: Calibration
    """Of the rotation-averaged probabilities."""


def summarize(
    predictions: Sequence[Prediction],
    *,
    resamples: int,
    rng: np.random.Generator,
    parts: Mapping[str, Collection[str]] | None = None,
) -> Summary:
    """All numbers of one question set.

    Args:
        predictions: of every question of the set.
        resamples: draws of the bootstrap.
        rng: source of its draws.
        parts: name of a part to the ids of its questions (see `sefar_mllm.evaluation.parts`).

    Raises:
        PredictionError: there are no predictions.
    """
    if not predictions:
        raise PredictionError("there are no predictions to sum up; check the question file")
    right = answered_right(predictions)
    in_order = np.array([float(p.first_letter == p.answer) for p in predictions])
    labels = class_labels(predictions)
    draws = draw_sources([p.source for p in predictions], resamples=resamples, rng=rng)
    whole = _part(right, labels, draws)
    recall = _letter_recall(predictions, in_order)
    confidence = np.array([max(p.probs) for p in predictions])

    def among(chosen: Bool[np.ndarray, "question"]) -> Part:
        return _part(right[chosen], None if labels is None else labels[chosen], draws.among(chosen))

    return Summary(
        num_questions=whole.num_questions,
        num_sources=whole.num_sources,
        chance=float(np.mean([1 / len(p.probs) for p in predictions])),
        micro=mean(right, draws).interval,
        macro=whole.macro,
        strict=float(np.mean([p.strict for p in predictions])),
        file_order=mean(in_order, draws).interval,
        per_event={
            event: among(np.array([p.event == event for p in predictions]))
            for event in sorted({p.event for p in predictions if p.event is not None})
        },
        parts={
            name: among(np.array([p.question_id in ids for p in predictions]))
            for name, ids in (parts or {}).items()
        },
        per_class={}
        if labels is None
        else {int(label): among(labels == label) for label in np.unique(labels)},
        letters=_count_letters(p.first_letter for p in predictions),
        answer_letters=_count_letters(p.answer for p in predictions),
        letter_recall=recall,
        letter_spread=float(np.std(list(recall.values()))),
        calibration=calibration(confidence, right > 0),
    )


def answered_right(predictions: Sequence[Prediction]) -> Float[np.ndarray, "question"]:
    """1.0 where the most probable option is the right one, else 0.0."""
    return np.array([float(p.choice == p.answer) for p in predictions])


def class_labels(predictions: Sequence[Prediction]) -> Int[np.ndarray, "question"] | None:
    """The class of each question's clip; none if some question carries none."""
    labels = [p.label for p in predictions if p.label is not None]
    return np.array(labels) if len(labels) == len(predictions) else None


def _part(
    right: Float[np.ndarray, "question"],
    labels: Int[np.ndarray, "question"] | None,
    draws: Draws,
) -> Part:
    empty = len(right) == 0
    return Part(
        num_questions=len(right),
        num_sources=len(np.unique(draws.source)),
        micro=None if empty else mean(right, draws).interval,
        macro=None if empty or labels is None else class_mean(right, labels, draws).interval,
    )


def _count_letters(places: Iterable[int]) -> dict[str, int]:
    counts = Counter(LETTERS[place] for place in places)
    return {letter: counts[letter] for letter in LETTERS[: LETTERS.index(max(counts)) + 1]}


def _letter_recall(
    predictions: Sequence[Prediction], in_order: Float[np.ndarray, "question"]
) -> dict[str, float]:
    answers = np.array([p.answer for p in predictions])
    return {
        LETTERS[place]: float(in_order[answers == place].mean()) for place in np.unique(answers)
    }
