"""The fine-tuned model's answer to every question: letter scores in all rotations of the options.

Padded on the left, every prompt ends at the last position, and the output layer is computed there
alone. What comes out is one record a question, from which `evaluate` makes all numbers.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from qa_data.schema import Question
from sefar_core.runs.folder import write_text
from sefar_mllm.adapters import composite
from sefar_mllm.data import pad_batch
from sefar_mllm.prompt import Turn, encode_conversation, letter_ids, question_text
from sefar_mllm.scoring import option_log_probs, option_probs, rotate
from sefar_mllm.token_cache import TokenCache


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


def derange(clip_ids: Sequence[str], rng: random.Random) -> dict[str, str]:
    """Another clip for every clip, each given once: one random cycle through all of them.

    Raises:
        ValueError: fewer than two different clips.
    """
    clips = sorted(set(clip_ids))
    if len(clips) < 2:
        raise ValueError(f"shuffling videos needs at least two clips, got {clips}")
    rng.shuffle(clips)
    return dict(zip(clips, [*clips[1:], clips[0]], strict=True))


def predict(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    cache: TokenCache,
    *,
    shown: Mapping[str, str] | None = None,
    batch_size: int = 32,
) -> list[Prediction]:
    """The model's letter scores for every question, in all rotations of its options.

    Args:
        model: fine-tuned, in evaluation mode.
        tokenizer: its tokenizer.
        questions: what to answer; the number of options may differ.
        cache: tokens of the clips that are shown.
        shown: the clip to show for each question's clip; by default its own.
        batch_size: questions scored at a time.
    """
    predictions: dict[str, Prediction] = {}
    with tqdm(total=len(questions), desc="questions", unit="q") as bar:
        for batch in batches(questions, batch_size):
            clips = [(shown or {}).get(q.video, q.video) for q in batch]
            logits = letter_logits(model, tokenizer, batch, [cache[clip] for clip in clips])
            for question, clip, scores in zip(batch, clips, logits, strict=True):
                predictions[question.question_id] = as_prediction(question, clip, scores)
            bar.update(len(batch))
    return [predictions[question.question_id] for question in questions]


def batches(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Questions with as many options, about as long, together: little padding, one shape."""
    ordered = sorted(questions, key=lambda q: (len(q.options), sum(map(len, q.options))))
    start = 0
    while start < len(ordered):
        count = len(ordered[start].options)
        batch = [q for q in ordered[start : start + size] if len(q.options) == count]
        yield batch
        start += len(batch)


@torch.inference_mode()
def letter_logits(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    tokens: Sequence[Float[Tensor, "frame row column dim"]],
) -> Float[Tensor, "question rotation letter"]:
    """Logits of the letters at the end of the prompt, for each rotation of the options."""
    vlm = composite(model)
    config = vlm.config
    count = len(questions[0].options)
    prompts = [
        encode_conversation(
            tokenizer,
            [Turn(question_text(question.stem, rotate(question.options, rotation)))],
            num_video_tokens=config.num_video_tokens,
            video_id=config.video_token_id,
        )
        for question in questions
        for rotation in range(count)
    ]
    batch = pad_batch(prompts, tokenizer.pad_token_id, side="left")
    videos = repeat(torch.stack(list(tokens)), "q f r c d -> (q rotation) f r c d", rotation=count)
    logits = vlm(
        input_ids=batch["input_ids"].to(vlm.device),
        attention_mask=batch["attention_mask"].to(vlm.device),
        position_ids=positions(batch["attention_mask"]).to(vlm.device),
        video_tokens=videos.to(vlm.device),
        logits_to_keep=1,
    ).logits[:, -1, letter_ids(tokenizer, count)]
    logits = logits.float().cpu()
    return rearrange(logits, "(q rotation) letter -> q rotation letter", rotation=count)


def positions(attention_mask: Tensor) -> Tensor:
    """Positions that start at 0 with the first token that is not padding."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)


def as_prediction(
    question: Question, shown: str, logits: Float[Tensor, "rotation letter"]
) -> Prediction:
    """One question's scores as a record."""
    chosen = option_log_probs(logits[None])[0].argmax(dim=-1)
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
        strict=bool((chosen == question.answer).all()),
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
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError as cause:
            raise PredictionError(f"{path}, line {number} is not JSON: {cause}") from cause
        if not isinstance(entry, dict) or set(entry) != names:
            raise PredictionError(f"{path}, line {number}: expected the fields {sorted(names)}")
        predictions.append(Prediction(**{**entry, "probs": tuple(entry["probs"])}))
    return predictions
