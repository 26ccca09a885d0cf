"""All numbers of one question set, from the predictions of one model.

Beside micro accuracy stands the mean over classes (macro): FineGym's answers are long-tailed, and
a guesser who knows the frequencies looks good in micro. All intervals resample whole source videos
(see `sefar_core.intervals`), those of one set with the same draws.

How far the model's confidence can be believed: reliability in bins of equal width.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2.

Parts of a question set that ask for more than the whole: each a set of question ids.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from qa_data.manifest import Clip
from qa_data.questions import Question
from sefar_core.intervals import Draws, Interval, class_mean, draw_sources, mean
from sefar_mllm.prompt import LETTERS
from sefar_mllm.scoring import Prediction, PredictionError

NUM_BINS = 15


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The questions whose confidence lies above `low` and at most at `high`."""

    low: float
    high: float
    num_questions: int
    confidence: float | None
    """Mean of the bin; none if the bin is empty."""
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Confidence beside accuracy; both in [0, 1]."""

    error: float
    """Expected calibration error (ECE): |accuracy - confidence| of each bin, weighted by its share
    of the questions. Noise alone makes it positive: few questions give a large one."""
    confidence: float
    """Mean over all questions; above the accuracy, the model is too sure of itself."""
    bins: tuple[Bin, ...]


def calibration(
    confidence: Float[np.ndarray, "question"], right: Bool[np.ndarray, "question"]
) -> Calibration:
    """Bin the questions by confidence in 15 bins of equal width over (0, 1].

    Args:
        confidence: probability of the chosen option, in (0, 1].
        right: whether it is the right one.

    Raises:
        ValueError: a confidence outside (0, 1], such as a log-probability.
    """
    if not ((confidence > 0) & (confidence <= 1 + 1e-6)).all():
        raise ValueError(
            f"confidence must be a probability in (0, 1], got values in [{confidence.min():.3g}, "
            f"{confidence.max():.3g}]; were log-probabilities passed?"
        )
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, NUM_BINS - 1)
    bins = tuple(
        _bin(edges[i], edges[i + 1], confidence[place == i], right[place == i])
        for i in range(NUM_BINS)
    )
    gaps = [
        one.num_questions * abs(one.accuracy - one.confidence)
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    ]
    return Calibration(
        error=float(sum(gaps) / len(confidence)), confidence=float(confidence.mean()), bins=bins
    )


def _bin(
    low: float,
    high: float,
    confidence: Float[np.ndarray, "question"],
    right: Bool[np.ndarray, "question"],
) -> Bin:
    filled = len(right) > 0
    return Bin(
        low=float(low),
        high=float(high),
        num_questions=len(right),
        confidence=float(confidence.mean()) if filled else None,
        accuracy=float(right.mean()) if filled else None,
    )


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
        parts: name of a part to the ids of its questions (see `sefar_mllm.evaluation.metrics`).

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


def prior_adversarial(questions: Iterable[Question], train: Sequence[Question]) -> frozenset[str]:
    """Questions in which some wrong option was the answer more often than the right one.

    Counted by text in the training questions: whoever answers by frequency is wrong here.

    Raises:
        ValueError: there are no training questions.
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

    Args:
        questions: those of no known source are not among them.
        clips: the manifest; its splits labeled and unlabeled are what models learn from. Where the
            source of one of these is not known, no source counts as unseen.
    """
    learned = {clip.source for clip in clips if clip.split in ("labeled", "unlabeled")}
    if "" in learned:
        return frozenset()
    return frozenset(
        question.question_id
        for question in questions
        if question.source and question.source not in learned
    )


def right_text_twice(questions: Iterable[Question]) -> frozenset[str]:
    """Questions that print the text of the right option at another letter as well."""
    return frozenset(
        question.question_id
        for question in questions
        if question.options.count(question.options[question.answer]) > 1
    )


def named_parts(
    questions: Sequence[Question],
    *,
    train: Sequence[Question] | None = None,
    clips: Sequence[Clip] | None = None,
) -> dict[str, frozenset[str]]:
    """The parts that can be told from what is known, by their names.

    Args:
        questions: the set.
        train: the questions that the model learned; gives `prior_adversarial`.
        clips: the manifest; gives `unseen_sources`.
    """
    parts = {"right_text_twice": right_text_twice(questions)}
    if train is not None:
        parts["prior_adversarial"] = prior_adversarial(questions, train)
    if clips is not None:
        parts["unseen_sources"] = unseen_sources(questions, clips)
    return parts
