"""The fine-tuned model's answer to every question: letter scores in all rotations of the options.

What comes out is one record a question, from which `evaluate` makes all numbers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from qa_data.schema import Question
from sefar_core.runs.folder import write_text
from sefar_mllm.adapters import Trained
from sefar_mllm.prompt import LETTERS
from sefar_mllm.scoring.letters import letter_logits
from sefar_mllm.scoring.rotations import option_log_probs, option_probs
from sefar_mllm.tokens.cache import TokenCache


class PredictionError(ValueError):
    """Predictions that cannot be used; the message names the file or question and the mend."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model makes of one question."""

    question_id: str
    video: str
    """The clip that the question is about."""
    shown: str
    """The clip whose tokens were shown: another one in the shuffled control."""
    source: str
    event: str | None
    label: int | None
    answer: int
    """Position of the right option."""
    probs: tuple[float, ...]
    """Of each option, rotation-averaged."""
    first_letter: int
    """The letter with the highest logit in the order of the question file."""
    strict: bool
    """Right in every rotation."""

    @property
    def choice(self) -> int:
        """The most probable option; the first of equals."""
        return max(range(len(self.probs)), key=self.probs.__getitem__)


def predict(  # noqa: PLR0913 - what is asked, of which model, and in which form
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    cache: TokenCache,
    *,
    shown: Mapping[str, str] | None = None,
    batch_size: int = 32,
    letters: str = LETTERS,
) -> list[Prediction]:
    """The model's letter scores for every question, in all rotations of its options.

    Args:
        model: fine-tuned, in evaluation mode.
        tokenizer: its tokenizer.
        questions: what to answer; the number of options may differ.
        cache: tokens of the clips that are shown.
        shown: the clip to show for each question's clip; by default its own.
        batch_size: questions scored at a time (see `batches`).
        letters: markers of the options, in the questions and as answers. Others than A, B, C, ...
            (`1234`, `QXJM`) are a control of what the model makes of letters.

    Raises:
        ValueError: a prompt is longer than the model reads, or a letter is not a single token.
        FloatingPointError: the model gives a letter a logit that is no number.
    """
    predictions: dict[str, Prediction] = {}
    with tqdm(total=len(questions), desc="questions", unit="q") as bar:
        for batch in batches(questions, batch_size):
            clips = [(shown or {}).get(q.video, q.video) for q in batch]
            tokens = [cache[clip] for clip in clips]
            logits = letter_logits(model, tokenizer, batch, tokens, letters=letters)
            for question, clip, scores in zip(batch, clips, logits, strict=True):
                predictions[question.question_id] = as_prediction(question, clip, scores)
            bar.update(len(batch))
    return [predictions[question.question_id] for question in questions]


def batches(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Questions with as many options, about as long, together: little padding, one shape.

    Args:
        questions: in any order.
        size: of a batch of questions with up to 4 options. With more, batches are smaller: a
            question's rotations grow with the square of their number.
    """
    ordered = sorted(questions, key=lambda q: (len(q.options), sum(map(len, q.options))))
    start = 0
    while start < len(ordered):
        count = len(ordered[start].options)
        room = min(size, max(1, size * 16 // count**2))
        batch = [q for q in ordered[start : start + room] if len(q.options) == count]
        yield batch
        start += len(batch)


def positions(attention_mask: Tensor) -> Tensor:
    """Positions that start at 0 with the first token that is not padding."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)


def as_prediction(
    question: Question, shown: str, logits: Float[Tensor, "rotation letter"]
) -> Prediction:
    """One question's scores as a record; options that read alike are equally right in `strict`.

    Raises:
        FloatingPointError: a logit is no number, or infinite.
    """
    if not torch.isfinite(logits).all():
        raise FloatingPointError(
            f"question {question.question_id}, shown {shown or 'no clip'}: letter logits are "
            f"{logits.flatten().tolist()}; check the tokens of this clip (extract them again), or "
            f"train again with lower learning rates"
        )
    chosen = option_log_probs(logits[None])[0].argmax(dim=-1).tolist()
    text = question.options[question.answer]
    return Prediction(
        question_id=question.question_id,
        video=question.video,
        shown=shown,
        source=question.source or question.video,
        event=question.event,
        label=question.label,
        answer=question.answer,
        probs=tuple(option_probs(logits[None])[0].tolist()),
        first_letter=int(logits[0].argmax()),
        strict=all(question.options[place] == text for place in chosen),
    )


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """One JSON object a line, all or nothing."""
    write_text(path, "".join(json.dumps(asdict(one)) + "\n" for one in predictions))


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions in a file.

    Raises:
        PredictionError: the file is missing, or a line is no prediction.
    """
    if not path.is_file():
        raise PredictionError(f"no predictions at {path}; make them with scripts/evaluate_mllm.py")
    names = {field.name for field in fields(Prediction)}
    predictions = []
    for number, entry in enumerate(read_lines(path), 1):
        if set(entry) != names or not isinstance(entry["probs"], list):
            raise PredictionError(f"{path}, line {number}: expected the fields {sorted(names)}")
        predictions.append(Prediction(**{**entry, "probs": tuple(entry["probs"])}))
    return predictions


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines.

    Raises:
        OSError: the file is missing.
        PredictionError: a line is no JSON object.
    """
    lines = path.read_bytes().split(b"\n")  # what they say may hold other signs of a line's end
    entries = []
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, 1):
        try:
            entries.append(dict(json.loads(line)))
        except (ValueError, TypeError) as cause:
            raise PredictionError(
                f"{path}, line {number} is no JSON object: {cause}; score the model again, into "
                f"another folder"
            ) from cause
    return entries
