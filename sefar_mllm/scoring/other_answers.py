"""The same questions asked in two other ways: answers spoken, and the options' texts scored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from qa_data.schema import Question
from sefar_core.runs.folder import write_text
from sefar_mllm.chat.generation import Trained
from sefar_mllm.scoring.option_text import TextScore, option_text_scores
from sefar_mllm.scoring.predict import read_lines
from sefar_mllm.scoring.spoken import SpokenAnswer, spoken_answers
from sefar_mllm.tokens.cache import TokenCache

STEMS = ("spoken", "option-text")
"""What the names of the two files begin with."""


@dataclass(frozen=True, kw_only=True)
class OtherAnswers:
    """What the two ways gave, for the same questions as the predictions."""

    spoken: Sequence[SpokenAnswer]
    texts: Mapping[str, TextScore]
    """Of each option's text, by question id."""


def ask_otherwise(
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    cache: TokenCache,
    *,
    shown: Mapping[str, str] | None = None,
    batch_size: int = 32,
) -> OtherAnswers:
    """Let the model speak, and score every option's text.

    Args:
        model: fine-tuned, in evaluation mode.
        tokenizer: its tokenizer.
        questions: what to answer.
        cache: tokens of the clips that are shown.
        shown: the clip to show for each question's clip; by default its own.
        batch_size: questions answered at a time.
    """
    return OtherAnswers(
        spoken=spoken_answers(
            model, tokenizer, questions, cache, shown=shown, batch_size=batch_size
        ),
        texts=option_text_scores(
            model, tokenizer, questions, cache, shown=shown, batch_size=batch_size
        ),
    )


def write_answers(
    questions: Sequence[Question], answers: OtherAnswers, folder: Path, name: str
) -> None:
    """spoken-NAME.jsonl and option-text-NAME.jsonl, one JSON object a question."""
    spoken: list[dict[str, Any]] = [
        {"question_id": one.question_id, "text": one.text, "choice": one.choice}
        for one in answers.spoken
    ]
    texts: list[dict[str, Any]] = [
        {
            "question_id": one.question_id,
            "options": list(one.options),
            "log_probs": list(answers.texts[one.question_id].sums),
            "num_tokens": list(answers.texts[one.question_id].lengths),
            "answer": one.answer,
        }
        for one in questions
    ]
    for stem, rows in zip(STEMS, (spoken, texts), strict=True):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / f"{stem}-{name}.jsonl", lines)


def read_answers(folder: Path, name: str) -> OtherAnswers:
    """What `write_answers` wrote.

    Raises:
        OSError: a file is missing.
        PredictionError: a line is damaged.
    """
    spoken, texts = (read_lines(folder / f"{stem}-{name}.jsonl") for stem in STEMS)
    return OtherAnswers(
        spoken=[SpokenAnswer(**row) for row in spoken],
        texts={
            row["question_id"]: TextScore(tuple(row["log_probs"]), tuple(row["num_tokens"]))
            for row in texts
        },
    )
