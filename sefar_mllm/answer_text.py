"""Two other answer formats for the same questions: generated letters, and the options' texts.

`score_other_formats` gives both, as diagnostics of the letter scores.

- Generated: the greedy answer to the question with its options, unrotated. An answer that does not
  begin with a letter names no option and counts as wrong; the share of such answers shows whether
  the prompt fits the model.
- Texts: the question is asked without its options (`TEXT_REQUEST`), and every option's text with
  the end mark is scored as the answer: what training on texts makes likely. The prompt is computed
  once for all options (`shared_prefix`). Texts differ in length and in how frequent their words
  are: compare the sum, the mean over tokens, and the difference to a run that does not see the
  video (pointwise mutual information).

docs/paper_map.md, row "letter scoring".
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qa_data.files import write_text
from qa_data.questions import Question
from sefar_mllm.adapters import Trained, composite
from sefar_mllm.feature_cache import TokenCache
from sefar_mllm.generate import generate_ids
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.prompt import (
    IGNORE,
    TEXT_REQUEST,
    EncodedPrompt,
    Turn,
    encode_question,
    question_text,
)
from sefar_mllm.scoring import parse_letter, read_json_lines, shown_batches
from sefar_mllm.shared_prefix import hidden_states, join

STEMS = ("spoken", "option-text")
"""Beginnings of the names of the two files."""
ANSWER_TOKENS = 8
"""Longest generated answer; a letter is one token."""


@dataclass(frozen=True)
class TextScore:
    """How likely each option's text is as the answer to one question."""

    sums: tuple[float, ...]
    """Log-probability of each text with its end mark."""
    lengths: tuple[int, ...]
    """Tokens of each text with its end mark."""

    @property
    def means(self) -> tuple[float, ...]:
        """Log-probability of each text per token."""
        return tuple(total / n for total, n in zip(self.sums, self.lengths, strict=True))


@dataclass(frozen=True, kw_only=True)
class GeneratedAnswer:
    """The model's generated answer to one question."""

    question_id: str
    text: str
    choice: int | None
    """Position of the option that it names; None, which counts as wrong, if it names none."""


@dataclass(frozen=True, kw_only=True)
class OtherFormats:
    """Generated answers and text scores, for the same questions as the predictions."""

    generated: Sequence[GeneratedAnswer]
    texts: Mapping[str, TextScore]
    """Of each option's text, by question id."""


def score_other_formats(
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    cache: TokenCache,
    *,
    shown: Mapping[str, str] | None = None,
    batch_size: int = 32,
) -> OtherFormats:
    """Generate an answer to every question, and score the texts of its options.

    `shown` is the clip to show for each question's clip; by default its own. ValueError if a prompt
    is longer than the model reads.
    """
    given = (model, tokenizer, questions, cache)
    return OtherFormats(
        generated=generate_answers(*given, shown=shown, batch_size=batch_size),
        texts=option_text_scores(*given, shown=shown, batch_size=batch_size),
    )


def generate_answers(
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    cache: TokenCache,
    *,
    shown: Mapping[str, str] | None = None,
    batch_size: int = 32,
) -> list[GeneratedAnswer]:
    """The model's greedy answer to every question with its options in order, in their order. See
    `score_other_formats`.
    """
    config = composite(model).config
    answers: dict[str, GeneratedAnswer] = {}
    for batch, clips in shown_batches(questions, shown, batch_size, bar="answers"):
        turns = [Turn(question_text(question.stem, question.options)) for question in batch]
        prompts = [
            encode_question(tokenizer, turn, config, question.question_id).ids
            for question, turn in zip(batch, turns, strict=True)
        ]
        generated = generate_ids(
            model,
            prompts,
            [cache[clip] for clip in clips],
            max_new_tokens=ANSWER_TOKENS,
            end_id=tokenizer.eos_token_id,
        )
        for question, ids in zip(batch, generated, strict=True):
            answers[question.question_id] = as_answer(tokenizer, question, ids)
    return [answers[question.question_id] for question in questions]


def as_answer(
    tokenizer: PreTrainedTokenizerBase, question: Question, ids: Sequence[int]
) -> GeneratedAnswer:
    """The answer as a record, with the option that it names."""
    (text,) = tokenizer.batch_decode([list(ids)], skip_special_tokens=True)
    choice = parse_letter(text, len(question.options))
    return GeneratedAnswer(question_id=question.question_id, text=text, choice=choice)


def failure_rate(answers: Sequence[GeneratedAnswer]) -> float:
    """Share of the answers that name no option, in [0, 1]. ValueError if there are no answers."""
    if not answers:
        raise ValueError("there are no answers to count; give at least one question")
    return sum(answer.choice is None for answer in answers) / len(answers)


def option_text_scores(
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    cache: TokenCache,
    *,
    shown: Mapping[str, str] | None = None,
    batch_size: int = 32,
) -> dict[str, TextScore]:
    """Scores of every question's options, by question id, in the order of the questions. See
    `score_other_formats`.
    """
    vlm = composite(model)
    scores: dict[str, TextScore] = {}
    for batch, clips in shown_batches(questions, shown, batch_size, bar="option texts"):
        prompts = [answered_prompts(tokenizer, question, vlm.config) for question in batch]
        tokens = [cache[clip] for clip in clips]
        found = text_scores(vlm, prompts, tokens, tokenizer.pad_token_id)
        scores |= {q.question_id: score for q, score in zip(batch, found, strict=True)}
    return {question.question_id: scores[question.question_id] for question in questions}


def answered_prompts(
    tokenizer: PreTrainedTokenizerBase, question: Question, config: SefarVlmConfig
) -> list[EncodedPrompt]:
    """The open question with each option as its answer."""
    user = f"{question.stem} {TEXT_REQUEST}"
    return [
        encode_question(tokenizer, Turn(user, option), config, question.question_id)
        for option in question.options
    ]


@torch.inference_mode()
def text_scores(
    vlm: SefarVlmForConditionalGeneration,
    prompts: Sequence[Sequence[EncodedPrompt]],
    tokens: Sequence[Float[Tensor, "frame row column dim"]],
    pad_id: int,
) -> list[TextScore]:
    """Scores of the labeled tokens of each question's prompts, all about one clip."""
    rows = [join([prompt.ids for prompt in several]) for several in prompts]
    hidden = hidden_states(vlm, rows, tokens, pad_id)
    targets = [
        [labeled_places(prompt, path) for prompt, path in zip(several, row.paths, strict=True)]
        for several, row in zip(prompts, rows, strict=True)
    ]
    # The row, the place in it that predicts, and the id to predict.
    line, place, token = torch.tensor(
        [
            (number, place, token)
            for number, several in enumerate(targets)
            for target in several
            for place, token in target
        ],
        device=hidden.device,
    ).unbind(dim=1)
    logits = vlm.lm_head(hidden[line, place]).float()
    log_probs = logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(dim=-1)
    log_prob = iter(log_probs.cpu().split([len(one) for several in targets for one in several]))
    return [
        TextScore(tuple(next(log_prob).sum().item() for _ in several), tuple(map(len, several)))
        for several in targets
    ]


def labeled_places(prompt: EncodedPrompt, path: Sequence[int]) -> list[tuple[int, int]]:
    """For each labeled id of a prompt, the place in the row that predicts it, and the id."""
    return [
        (path[number - 1], label) for number, label in enumerate(prompt.labels) if label != IGNORE
    ]


def pointwise_information(
    scores: Mapping[str, TextScore], blind: Mapping[str, TextScore]
) -> dict[str, tuple[float, ...]]:
    """How much more likely the video makes each option: log-probabilities less a blind run's.

    By question id, a number for each option. ValueError if the runs differ in their questions or in
    the number of options.
    """
    unlike = [
        name
        for name in dict.fromkeys([*scores, *blind])
        if not (name in scores and name in blind) or len(scores[name].sums) != len(blind[name].sums)
    ]
    if unlike:
        raise ValueError(
            f"{len(unlike)} questions do not have as many options in both runs, for example "
            f"{unlike[0]}; score the same questions with both"
        )
    return {
        name: tuple(seen - unseen for seen, unseen in zip(row.sums, blind[name].sums, strict=True))
        for name, row in scores.items()
    }


def write_other_formats(
    questions: Sequence[Question], answers: OtherFormats, folder: Path, name: str
) -> None:
    """Write spoken-NAME.jsonl and option-text-NAME.jsonl, one JSON object a question."""
    generated: list[dict[str, Any]] = [
        {"question_id": one.question_id, "text": one.text, "choice": one.choice}
        for one in answers.generated
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
    for stem, rows in zip(STEMS, (generated, texts), strict=True):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / f"{stem}-{name}.jsonl", lines)


def read_other_formats(folder: Path, name: str) -> OtherFormats:
    """The answers that `write_other_formats` wrote. OSError if a file is missing; SefarError if a
    line is damaged.
    """
    generated, texts = (read_json_lines(folder / f"{stem}-{name}.jsonl") for stem in STEMS)
    return OtherFormats(
        generated=[GeneratedAnswer(**row) for row in generated],
        texts={
            row["question_id"]: TextScore(tuple(row["log_probs"]), tuple(row["num_tokens"]))
            for row in texts
        },
    )
