"""The metrics of one question set, from the predictions of one model.

Accuracy is reported over all questions (micro) and as the mean over classes (macro): FineGym's
answers are long-tailed, and a guesser that knows the class frequencies has a high micro accuracy.
All intervals resample whole source videos (see `sefar_core.intervals`); those of one set share
their resamples. Subsets are sets of question ids.

Calibration: reliability in bins of equal width. Source: Guo et al., On Calibration of Modern Neural
Networks, ICML 2017, section 2.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from qa_data.files import SefarError
from qa_data.manifest import Clip
from qa_data.questions import LETTERS, Question
from sefar_core.intervals import Interval, Resamples, class_mean, mean, resample_sources
from sefar_mllm.scoring import Prediction

NUM_BINS = 15


@dataclass(frozen=True)
class Bin:
    """The questions with a confidence in (low, high]."""

    low: float
    high: float
    num_questions: int
    confidence: float | None
    """Mean of the bin; None if the bin is empty."""
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Confidence compared with accuracy; both in [0, 1]."""

    error: float
    """Expected calibration error (ECE): |accuracy - confidence| of each bin, weighted by its share
    of the questions. It is positive by noise alone, and large for few questions."""
    confidence: float
    """Mean over all questions; a value above the accuracy means overconfidence."""
    bins: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True)
class SubsetMetrics:
    """Accuracy on a subset of the questions, in [0, 1]."""

    num_questions: int
    num_sources: int
    """One source gives no interval; few sources give an interval that is too narrow."""
    micro: Interval | None
    """None if the subset is empty."""
    macro: Interval | None
    """Mean over the classes of the right answers; None if the questions have no classes."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The metrics of one question set; accuracies in [0, 1]."""

    num_questions: int
    num_sources: int
    chance: float
    """Expected accuracy of a guess: the mean of 1 / number of options."""
    micro: Interval
    macro: Interval | None
    """Mean over the classes of the right answers; None if the questions have no classes."""
    strict: float
    """Share of questions that are right in every rotation."""
    file_order: Interval
    """Micro accuracy with the options in the order of the file, as the official metric is."""
    per_event: dict[str, SubsetMetrics]
    """Metrics on each apparatus."""
    subsets: dict[str, SubsetMetrics]
    """Metrics on each named subset."""
    per_class: dict[int, SubsetMetrics]
    letters: dict[str, int]
    """How often each letter was the likeliest, with the options in the order of the file."""
    answer_letters: dict[str, int]
    """How often each letter is the right one in that order."""
    letter_recall: dict[str, float]
    """Share of right answers among the questions whose right letter is this one, in the order of
    the file. It is high for a letter that the model prefers."""
    letter_spread: float
    """Standard deviation of the recall over the letters: RStd of Zheng et al., Large Language
    Models Are Not Robust Multiple Choice Selectors, ICLR 2024 (there in percent)."""
    calibration: Calibration
    """Calibration of the rotation-averaged probabilities."""


def compute_metrics(
    predictions: Sequence[Prediction],
    *,
    resamples: int,
    rng: np.random.Generator,
    subsets: Mapping[str, Collection[str]] | None = None,
) -> Metrics:
    """The metrics of one question set.

    `subsets` are the question ids of each named subset. SefarError if there are no predictions.
    """
    if not predictions:
        raise SefarError("there are no predictions to score; check the question file")
    right = answered_right(predictions)
    in_order = np.array([float(p.first_letter == p.answer) for p in predictions])
    labels = class_labels(predictions)
    draws = resample_sources([p.source for p in predictions], resamples=resamples, rng=rng)
    whole = _subset(right, labels, draws)
    recall = _letter_recall(predictions, in_order)
    confidence = np.array([max(p.probs) for p in predictions])

    def among(chosen: Bool[np.ndarray, "question"]) -> SubsetMetrics:
        return _subset(
            right[chosen], None if labels is None else labels[chosen], draws.among(chosen)
        )

    return Metrics(
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
        subsets={
            name: among(np.array([p.question_id in ids for p in predictions]))
            for name, ids in (subsets or {}).items()
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
    """The class of each question's clip; None if any question has no class."""
    labels = [p.label for p in predictions if p.label is not None]
    return np.array(labels) if len(labels) == len(predictions) else None


def _subset(
    right: Float[np.ndarray, "question"],
    labels: Int[np.ndarray, "question"] | None,
    draws: Resamples,
) -> SubsetMetrics:
    empty = len(right) == 0
    return SubsetMetrics(
        num_questions=len(right),
        num_sources=len(np.unique(draws.source)),
        micro=None if empty else mean(right, draws).interval,
        macro=None if empty or labels is None else class_mean(right, labels, draws).interval,
    )


def _count_letters(positions: Iterable[int]) -> dict[str, int]:
    counts = Counter(LETTERS[position] for position in positions)
    return {letter: counts[letter] for letter in LETTERS[: LETTERS.index(max(counts)) + 1]}


def _letter_recall(
    predictions: Sequence[Prediction], in_order: Float[np.ndarray, "question"]
) -> dict[str, float]:
    answers = np.array([p.answer for p in predictions])
    return {
        LETTERS[position]: float(in_order[answers == position].mean())
        for position in np.unique(answers)
    }


def calibration(
    confidence: Float[np.ndarray, "question"], right: Bool[np.ndarray, "question"]
) -> Calibration:
    """Bin the questions by confidence in 15 bins of equal width over (0, 1].

    `confidence` is the probability of the chosen option. ValueError if a confidence is outside (0,
    1], for example a log-probability.
    """
    if not ((confidence > 0) & (confidence <= 1 + 1e-6)).all():
        raise ValueError(
            f"confidence must be a probability in (0, 1], got values in [{confidence.min():.3g}, "
            f"{confidence.max():.3g}]; were log-probabilities passed?"
        )
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, NUM_BINS - 1)
    bins = []
    for number, (low, high) in enumerate(pairwise(map(float, edges))):
        inside = index == number
        count = int(inside.sum())
        means = [float(one[inside].mean()) if count else None for one in (confidence, right)]
        bins.append(Bin(low, high, count, *means))
    gaps = [
        one.num_questions * abs(one.accuracy - one.confidence)
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    ]
    error = float(sum(gaps) / len(confidence))
    return Calibration(error=error, confidence=float(confidence.mean()), bins=tuple(bins))


def known_subsets(
    questions: Sequence[Question],
    *,
    train: Sequence[Question] | None = None,
    clips: Sequence[Clip] | None = None,
) -> dict[str, frozenset[str]]:
    """The subsets that can be determined, by name.

    `train`, the training questions of the model, gives `prior_adversarial`; `clips`, the manifest,
    gives `unseen_sources`.
    """
    subsets = {"right_text_twice": right_text_twice(questions)}
    if train is not None:
        subsets["prior_adversarial"] = prior_adversarial(questions, train)
    if clips is not None:
        subsets["unseen_sources"] = unseen_sources(questions, clips)
    return subsets


def prior_adversarial(questions: Iterable[Question], train: Sequence[Question]) -> frozenset[str]:
    """Questions in which a wrong option was the answer more often than the right one.

    Answers are counted by text in the training questions: answering by frequency is wrong here.
    ValueError if there are no training questions.
    """
    if not train:
        raise ValueError("no training questions to count answers in; check the question file")
    answers = Counter(question.options[question.answer] for question in train)
    return frozenset(
        question.question_id
        for question in questions
        if max(answers[text] for text in question.options)
        > answers[question.options[question.answer]]
    )


def unseen_sources(questions: Iterable[Question], clips: Iterable[Clip]) -> frozenset[str]:
    """Questions about source videos from which no labeled or unlabeled clip was cut.

    Models are trained on the splits labeled and unlabeled. Questions of unknown source are never
    included; if the source of one of these clips is unknown, no source counts as unseen.
    """
    seen = {clip.source for clip in clips if clip.split in ("labeled", "unlabeled")}
    if "" in seen:
        return frozenset()
    return frozenset(
        question.question_id
        for question in questions
        if question.source and question.source not in seen
    )


def right_text_twice(questions: Iterable[Question]) -> frozenset[str]:
    """Questions that print the text of the right option at a second letter."""
    return frozenset(
        question.question_id
        for question in questions
        if question.options.count(question.options[question.answer]) > 1
    )
