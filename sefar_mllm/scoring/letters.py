"""Logits of the letters at the end of a question, for every rotation of its options.

The rotations differ behind the video and the stem, which are computed once for all of them
(`shared_prefix`), and the output layer is computed at the ends of the prompts alone.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qa_data.schema import Question
from sefar_mllm.adapters import Trained, composite
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.prompt import LETTERS, Turn, encode_question, marker_ids, question_text
from sefar_mllm.scoring.rotations import rotate
from sefar_mllm.scoring.shared_prefix import hidden_states, join


@torch.inference_mode()
def letter_logits(
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    tokens: Sequence[Float[Tensor, "frame row column dim"]],
    *,
    letters: str = LETTERS,
) -> Float[Tensor, "question rotation letter"]:
    """Logits of the letters behind `ASSISTANT:`; in rotation r letter k is option (k + r) mod n.

    Args:
        model: fine-tuned, in evaluation mode.
        tokenizer: its tokenizer.
        questions: with as many options each.
        tokens: the clip that each question is shown.
        letters: markers of the options.

    Raises:
        ValueError: a prompt is longer than the model reads, or a letter is not a single token.
    """
    vlm = composite(model)
    shared, last = marker_ids(tokenizer, letters[: len(questions[0].options)])
    rows = []
    for question in questions:
        prompts = rotated_prompts(tokenizer, question, vlm.config, letters)
        rows.append(join([[*prompt, *shared] for prompt in prompts]))
    hidden = hidden_states(vlm, rows, tokens, tokenizer.pad_token_id)
    row = rearrange(torch.arange(len(rows)), "question -> question 1")
    ends = torch.tensor([[path[-1] for path in one.paths] for one in rows])
    return vlm.lm_head(hidden[row, ends])[..., last].float().cpu()


def rotated_prompts(
    tokenizer: PreTrainedTokenizerBase, question: Question, config: SefarVlmConfig, letters: str
) -> list[list[int]]:
    """Ids of the question in each rotation of its options, ending in `ASSISTANT:`."""
    orders = [rotate(question.options, rotation) for rotation in range(len(question.options))]
    turns = [Turn(question_text(question.stem, order, letters=letters)) for order in orders]
    return [encode_question(tokenizer, turn, config, question.question_id).ids for turn in turns]
