"""Scores of options the slow ways, one full prompt at a time: what the fast ways must equal."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import functional as F

from qa_data.questions import LETTERS
from sefar_mllm.adapters import add_adapters
from sefar_mllm.build import build_vlm
from sefar_mllm.dataset import pad_batch
from sefar_mllm.prompt import TEXT_REQUEST, EncodedPrompt, Turn, encode_conversation, question_text
from tests.oracles import toy_llm


def sharpen(model, *, seed: int = 5) -> None:
    """Larger random weights, LoRA's among them: every token then counts in what comes out."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "projector" not in name:
            weight.data.normal_(std=0.6 * weight.shape[1] ** -0.5, generator=generator)


def sharp_model(base: Path) -> PeftModel:
    """A composite model with LoRA in which every token counts, in evaluation mode."""
    whole = build_vlm(base, token_dim=toy_llm.DIM, token_shape=toy_llm.SHAPE, encoder={})
    adapted = add_adapters(whole, rank=2, alpha=4.0, dropout=0.5).eval()
    sharpen(adapted)
    return adapted


def encoded(vlm, tokenizer, turn: Turn) -> EncodedPrompt:
    """The prompt of one turn."""
    config = vlm.config
    return encode_conversation(
        tokenizer, [turn], num_video_tokens=config.num_video_tokens, video_id=config.video_token_id
    )


def rotations(question, letters: str = LETTERS) -> list[Turn]:
    """The question with its options in each cyclic order."""
    texts = [*question.options, *question.options]
    count = len(question.options)
    return [
        Turn(question_text(question.stem, texts[r : r + count], letters=letters))
        for r in range(count)
    ]


def last_id(tokenizer, vlm, letter: str) -> int:
    """The last id of a letter, read off a prompt that is answered with it."""
    return encoded(vlm, tokenizer, Turn("which?", letter)).ids[-2]


@torch.inference_mode()
def letter_logits_alone(vlm, tokenizer, question, tokens: Tensor, letters: str = LETTERS) -> Tensor:
    """Letter logits of a question by one forward for each rotation, without batch or padding."""
    rows = []
    for turn in rotations(question, letters):
        answered = encoded(vlm, tokenizer, Turn(turn.user, letters[0])).ids
        ids = torch.tensor([answered[:-2]])  # without the letter's last id and the end mark
        rows.append(vlm(input_ids=ids, video_tokens=tokens[None]).logits[0, -1].float())
    return torch.stack(rows)[:, [last_id(tokenizer, vlm, x) for x in letters[: len(rows)]]]


@torch.inference_mode()
def letter_logits_padded(vlm, tokenizer, questions: Sequence, tokens: Sequence[Tensor]) -> Tensor:
    """Letter logits by one padded batch of full prompts; the beginning is computed every time."""
    prompts = [encoded(vlm, tokenizer, turn) for one in questions for turn in rotations(one)]
    count = len(questions[0].options)
    batch = pad_batch(prompts, tokenizer.pad_token_id, side="left")
    logits = vlm(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=(batch["attention_mask"].cumsum(dim=-1) - 1).clamp(min=0),
        video_tokens=torch.stack(list(tokens)).repeat_interleave(count, dim=0),
        logits_to_keep=1,
    ).logits[:, -1]
    letters = [last_id(tokenizer, vlm, letter) for letter in LETTERS[:count]]
    return logits[:, letters].float().view(len(questions), count, count)


@torch.inference_mode()
def text_log_probs_alone(vlm, tokenizer, question, tokens: Tensor) -> list[float]:
    """Log-probability of each option's text and end mark, by cross entropy on one prompt each."""
    sums = []
    for option in question.options:
        prompt = encoded(vlm, tokenizer, Turn(f"{question.stem} {TEXT_REQUEST}", option))
        logits = vlm(input_ids=torch.tensor([prompt.ids]), video_tokens=tokens[None]).logits[0]
        labels = torch.tensor(prompt.labels[1:])
        sums.append(-F.cross_entropy(logits[:-1].float(), labels, reduction="sum").item())
    return sums
