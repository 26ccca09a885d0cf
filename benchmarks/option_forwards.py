"""Letter scores by whole prompts, one forward each: what harnesses do that know options only as
continuations of a prompt. The answers are those of `sefar_mllm.scoring.letters`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from qa_data.schema import Question
from sefar_mllm.adapters import Trained, composite
from sefar_mllm.prompt import LETTERS, marker_ids
from sefar_mllm.scoring.letters import rotated_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@torch.inference_mode()
def forward_a_rotation(
    model: Trained,
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[Question],
    tokens: Sequence[Float[Tensor, "frame row column dim"]],
) -> Float[Tensor, "question rotation letter"]:
    """Letter logits of every rotation by one forward of its whole prompt."""
    vlm = composite(model)
    shared, last = marker_ids(tokenizer, LETTERS[: len(questions[0].options)])
    found = []
    for question, clip in zip(questions, tokens, strict=True):
        for prompt in rotated_prompts(tokenizer, question, vlm.config, LETTERS):
            ids = torch.tensor([[*prompt, *shared]], device=vlm.device)
            logits = vlm(input_ids=ids, video_tokens=clip[None], logits_to_keep=1).logits
            found.append(logits[0, -1, last].float().cpu())
    return torch.stack(found).view(len(questions), -1, len(last))


@torch.inference_mode()
def forward_an_option(
    model: Trained,
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[Question],
    tokens: Sequence[Float[Tensor, "frame row column dim"]],
) -> Float[Tensor, "question rotation letter"]:
    """Log-probabilities of the letters of every rotation by a forward for each of them: the prompt
    with the letter behind it.
    """
    vlm = composite(model)
    shared, last = marker_ids(tokenizer, LETTERS[: len(questions[0].options)])
    found = []
    for question, clip in zip(questions, tokens, strict=True):
        for prompt in rotated_prompts(tokenizer, question, vlm.config, LETTERS):
            for letter in last:
                ids = torch.tensor([[*prompt, *shared, letter]], device=vlm.device)
                logits = vlm(input_ids=ids, video_tokens=clip[None], logits_to_keep=2).logits
                found.append(logits[0, -2].float().log_softmax(dim=-1)[letter].cpu())
    return torch.stack(found).view(len(questions), -1, len(last))
