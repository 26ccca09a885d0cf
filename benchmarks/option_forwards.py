"""Letter scores from whole prompts, as evaluation harnesses compute them; same answers as
`sefar_mllm.scoring`.

A forward pass takes `at_once` prompts, padded on the left; harnesses differ in this number.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from qa_data.questions import LETTERS, Question
from sefar_mllm.adapters import Trained, composite
from sefar_mllm.dataset import pad_batch
from sefar_mllm.prompt import EncodedPrompt, marker_ids
from sefar_mllm.scoring import positions, rotated_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def forward_a_rotation(
    model: Trained,
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[Question],
    tokens: Sequence[Float[Tensor, "frame row column dim"]],
    *,
    at_once: int = 1,
) -> Float[Tensor, "question rotation letter"]:
    """Letter logits of every rotation, from its whole prompt."""
    count = len(questions[0].options)
    shared, last = marker_ids(tokenizer, LETTERS[:count])
    prompts, clips = [], []
    for question, clip in zip(questions, tokens, strict=True):
        for prompt in rotated_prompts(tokenizer, question, composite(model).config, LETTERS):
            prompts.append([*prompt, *shared])
            clips.append(clip)
    logits = last_logits(model, prompts, clips, keep=1, at_once=at_once)[:, 0]
    return rearrange(
        logits[:, last], "(question rotation) k -> question rotation k", rotation=count
    )


def forward_an_option(
    model: Trained,
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[Question],
    tokens: Sequence[Float[Tensor, "frame row column dim"]],
    *,
    at_once: int = 1,
) -> Float[Tensor, "question rotation letter"]:
    """Log-probabilities of the letters of every rotation, each from the prompt and the letter."""
    count = len(questions[0].options)
    shared, last = marker_ids(tokenizer, LETTERS[:count])
    prompts, clips = [], []
    for question, clip in zip(questions, tokens, strict=True):
        for prompt in rotated_prompts(tokenizer, question, composite(model).config, LETTERS):
            prompts += [[*prompt, *shared, letter] for letter in last]
            clips += [clip] * count
    logits = last_logits(model, prompts, clips, keep=2, at_once=at_once)[:, 0]
    letters = torch.tensor(last).repeat(len(prompts) // count)
    scores = logits.log_softmax(dim=-1).gather(1, letters[:, None])[:, 0]
    return rearrange(
        scores, "(question rotation k) -> question rotation k", rotation=count, k=count
    )


@torch.inference_mode()
def last_logits(
    model: Trained,
    prompts: Sequence[Sequence[int]],
    clips: Sequence[Float[Tensor, "frame row column dim"]],
    *,
    keep: int,
    at_once: int,
) -> Float[Tensor, "prompt kept word"]:
    """Logits at the last `keep` positions of prompts, `at_once` prompts in a forward pass."""
    vlm = composite(model)
    logits = []
    for start in range(0, len(prompts), at_once):
        some = [EncodedPrompt(list(ids), list(ids)) for ids in prompts[start : start + at_once]]
        batch = pad_batch(some, 0, side="left")
        mask = batch["attention_mask"].to(vlm.device)
        outputs = vlm(
            input_ids=batch["input_ids"].to(vlm.device),
            attention_mask=mask,
            position_ids=positions(mask),
            video_tokens=torch.stack(list(clips[start : start + at_once])).to(vlm.device),
            logits_to_keep=keep,
        )
        logits.append(outputs.logits.float().cpu())
    return torch.cat(logits)
