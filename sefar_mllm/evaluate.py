"""The numbers that predictions give: accuracies, their intervals, the difference of two models.

Beside micro accuracy stands the mean over classes (macro): FineGym's answers are long-tailed, and
a guesser who knows the frequencies looks good in micro. Intervals are percentiles of a bootstrap
that resamples whole source videos, for clips of one video share athlete and arena; two models are
compared on the same questions and the same draws.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from qa_data.schema import Question
from sefar_mllm.adapters import composite
from sefar_mllm.config import EvaluateConfig
from sefar_mllm.predict import (
    Prediction,
    PredictionError,
    derange,
    predict,
    write_predictions,
)
from sefar_mllm.prompt import LETTERS
from sefar_mllm.token_cache import TokenCache, check_keys

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number, and the 95 % interval of a bootstrap over source videos."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


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
    per_event: dict[str, float]
    """Micro accuracy on each apparatus."""
    letters: dict[str, int]
    """How often each letter came first in the questions as they are written."""
    answer_letters: dict[str, int]
    """How often each letter is the right one there."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Accuracy of the first model minus that of the second, on the same questions."""

    micro: Interval
    macro: Interval | None
    only_first_right: int
    only_second_right: int


def summarize(
    predictions: Sequence[Prediction], *, resamples: int, rng: np.random.Generator
) -> Summary:
    """All numbers of one question set.

    Args:
        predictions: of every question of the set.
        resamples: draws of the bootstrap.
        rng: source of its draws.

    Raises:
        PredictionError: there are none.
    """
    if not predictions:
        raise PredictionError("there are no predictions to sum up; check the question file")
    right = _right(predictions)
    weights = _draw_weights(predictions, resamples, rng)
    events = sorted({p.event for p in predictions if p.event is not None})
    return Summary(
        num_questions=len(predictions),
        num_sources=len({p.source for p in predictions}),
        chance=float(np.mean([1 / len(p.probs) for p in predictions])),
        micro=_micro(right, weights),
        macro=_macro(right, weights, predictions),
        strict=float(np.mean([p.strict for p in predictions])),
        per_event={
            event: float(right[[p.event == event for p in predictions]].mean()) for event in events
        },
        letters=_count_letters(p.first_letter for p in predictions),
        answer_letters=_count_letters(p.answer for p in predictions),
    )


def compare(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    *,
    resamples: int,
    rng: np.random.Generator,
) -> Comparison:
    """The difference of two models on the same questions, with paired intervals.

    Raises:
        PredictionError: the two did not answer the same questions.
    """
    by_id = {p.question_id: p for p in second}
    pairs = [(p, by_id.get(p.question_id)) for p in first]
    strays = [p.question_id for p, q in pairs if q is None or q.video != p.video]
    if strays or len(first) != len(second):
        raise PredictionError(
            f"the two sets of predictions differ in their questions ({len(first)} and "
            f"{len(second)}, unmatched for example {strays[:3]}); score both on the same file"
        )
    right, other = _right(first), _right([by_id[p.question_id] for p in first])
    weights = _draw_weights(first, resamples, rng)
    return Comparison(
        micro=_micro(right - other, weights),
        macro=_macro(right - other, weights, first),
        only_first_right=int(((right - other) > 0).sum()),
        only_second_right=int(((right - other) < 0).sum()),
    )


def score_file(
    config: EvaluateConfig,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    name: str,
) -> Summary:
    """Predict one question set, write its predictions, and sum them up.

    Raises:
        CacheError: the cache lacks a clip, or belongs to another encoder than the model.
    """
    cache = TokenCache(config.encoder_features, [question.video for question in questions])
    known = composite(model).config.encoder["key"]
    check_keys(cache.key, known, where=str(cache.folder), who=f"the model in {config.model}")
    clips = [question.video for question in questions]
    shown = derange(clips, random.Random(config.seed)) if config.shuffle_videos else None
    predictions = predict(
        model, tokenizer, questions, cache, shown=shown, batch_size=config.batch_size
    )
    config.out.mkdir(parents=True, exist_ok=True)
    write_predictions(predictions, config.out / f"predictions-{name}.jsonl")
    rng = np.random.default_rng(config.seed)
    return summarize(predictions, resamples=config.resamples, rng=rng)


def table(summaries: Mapping[str, Summary], *, shuffled: bool) -> Table:
    """One row a question set, accuracies in percent with their 95 % intervals."""
    title = "another clip's video shown (control)" if shuffled else "letter likelihood, rotated"
    view = Table(title=title)
    for column in ("questions", "n", "chance", "micro", "macro", "strict", "letters", "events"):
        view.add_column(column)
    for name, one in summaries.items():
        view.add_row(
            name,
            str(one.num_questions),
            f"{100 * one.chance:.1f}",
            str(one.micro),
            "no classes" if one.macro is None else str(one.macro),
            f"{100 * one.strict:.1f}",
            " ".join(f"{letter}{count}" for letter, count in one.letters.items()),
            " ".join(f"{event} {100 * value:.0f}" for event, value in one.per_event.items()),
        )
    return view


def as_json(summary: Summary | Comparison) -> dict:
    """The numbers as plain lists and dictionaries."""
    return asdict(summary)


def _right(predictions: Sequence[Prediction]) -> Array:
    return np.array([float(p.choice == p.answer) for p in predictions])


def _draw_weights(
    predictions: Sequence[Prediction], resamples: int, rng: np.random.Generator
) -> Array:
    """How often each question counts in each resample; all of a source count alike."""
    names, source = np.unique([p.source for p in predictions], return_inverse=True)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return draws[:, source].astype(float)


def _micro(values: Array, weights: Array) -> Interval:
    return _interval(values.mean(), weights @ values / weights.sum(axis=1))


def _macro(values: Array, weights: Array, predictions: Sequence[Prediction]) -> Interval | None:
    """Mean over classes; a resample that misses a class averages over the others."""
    if any(p.label is None for p in predictions):
        return None
    member = np.array([[p.label == label for p in predictions] for label in _labels(predictions)])
    counts = weights @ member.T
    sums = (weights * values) @ member.T
    seen = counts > 0
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=seen)
    value = float(np.mean([values[row].mean() for row in member]))
    return _interval(value, means.sum(axis=1) / seen.sum(axis=1))


def _labels(predictions: Sequence[Prediction]) -> list[int]:
    return sorted({p.label for p in predictions if p.label is not None})


def _interval(value: float, draws: Array) -> Interval:
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(value=float(value), low=float(low), high=float(high))


def _count_letters(places: Iterable[int]) -> dict[str, int]:
    counts = Counter(LETTERS[place] for place in places)
    return {letter: counts[letter] for letter in LETTERS[: LETTERS.index(max(counts)) + 1]}
