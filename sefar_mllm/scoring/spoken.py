"""The letter that the model says when it is asked once, read strictly.

Answers are generated greedily to the question as it stands, options unrotated. What does not
begin with a letter is no answer, and no answer counts as wrong; the share of such answers tells
whether the prompt fits the model. docs/paper_map.md, row "letter scoring".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from qa_data.schema import Question
from sefar_mllm.adapters import Trained, composite
from sefar_mllm.chat.generation import generate_ids
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.prompt import Turn, encode_question, question_text
from sefar_mllm.scoring.predict import batches
from sefar_mllm.scoring.rotations import parse_letter
from sefar_mllm.tokens.cache import TokenCache


@dataclass(frozen=True, kw_only=True)
class SpokenAnswer:
    """What the model said to one question."""

    question_id: str
    text: str
    choice: int | None
    """Position of the option that was named; None if none was, which counts as wrong."""


def spoken_answers(  # noqa: PLR0913 - what is asked, of which model, and at what length
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    cache: TokenCache,
    *,
    shown: Mapping[str, str] | None = None,
    batch_size: int = 32,
    max_new_tokens: int = 8,
) -> list[SpokenAnswer]:
    """The model's greedy answer to every question, in their order.

    Args:
        model: fine-tuned, in evaluation mode.
        tokenizer: its tokenizer.
        questions: what to answer; the number of options may differ.
        cache: tokens of the clips that are shown.
        shown: the clip to show for each question's clip; by default its own.
        batch_size: questions answered at a time.
        max_new_tokens: longest answer; a letter is one token.

    Raises:
        ValueError: a prompt is longer than the model reads.
    """
    config = composite(model).config
    answers: dict[str, SpokenAnswer] = {}
    with tqdm(total=len(questions), desc="answers", unit="q") as bar:
        for batch in batches(questions, batch_size):
            clips = [(shown or {}).get(q.video, q.video) for q in batch]
            prompts = [asked_prompt(tokenizer, question, config) for question in batch]
            said = generate_ids(
                model,
                prompts,
                [cache[clip] for clip in clips],
                max_new_tokens=max_new_tokens,
                end_id=tokenizer.eos_token_id,
            )
            for question, ids in zip(batch, said, strict=True):
                answers[question.question_id] = as_answer(tokenizer, question, ids)
            bar.update(len(batch))
    return [answers[question.question_id] for question in questions]


def asked_prompt(
    tokenizer: PreTrainedTokenizerBase, question: Question, config: SefarVlmConfig
) -> list[int]:
    """Ids of the question as it stands, ending in `ASSISTANT:`."""
    turn = Turn(question_text(question.stem, question.options))
    return encode_question(tokenizer, turn, config, question.question_id).ids


def as_answer(
    tokenizer: PreTrainedTokenizerBase, question: Question, ids: Sequence[int]
) -> SpokenAnswer:
    """What was said, and the option that it names."""
    (text,) = tokenizer.batch_decode([list(ids)], skip_special_tokens=True)
    choice = parse_letter(text, len(question.options))
    return SpokenAnswer(question_id=question.question_id, text=text, choice=choice)


def failure_rate(answers: Sequence[SpokenAnswer]) -> float:
    """Share of the answers that name no option, in [0, 1].

    Raises:
        ValueError: there are no answers.
    """
    if not answers:
        raise ValueError("there are no answers to count; ask at least one question")
    return sum(answer.choice is None for answer in answers) / len(answers)
