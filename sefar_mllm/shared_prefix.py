"""Prompts with a shared prefix in one row, so that the prefix is computed once.

The longest common prefix of the prompts comes first, and after it the rest of each prompt:

    ids       prefix    | rest of prompt 1 | rest of prompt 2 | ... | padding
    branch    0 ... 0     1 ... 1            2 ... 2                  -1
    position  0 ... p-1   p ... p+a-1        p ... p+b-1

A token attends to the tokens before it in the prefix and in its own branch, at the position that
it has in its own prompt, so its hidden state is that of its prompt alone, up to rounding. Ids
decide what is common. Nothing is cached, so nothing is copied from the prefix to the branches, and
a clip is projected once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sefar_mllm.model import SefarVlmForConditionalGeneration, word_table

MASKED_ATTENTION = ("sdpa", "eager")  # accept any mask; flash attention does not
PADDING = -1


@dataclass(frozen=True)
class Joined:
    """Prompts in one row."""

    ids: list[int]
    position: list[int]
    """Of each token in its own prompt."""
    branch: list[int]
    """0 for the common prefix, 1, 2, ... for the rest of each prompt."""
    paths: list[list[int]]
    """For each prompt, the places of its tokens in the row."""


def join(prompts: Sequence[Sequence[int]]) -> Joined:
    """One row of the prompts' common prefix and the rest of each.

    Every prompt keeps at least its last token as its own, so that equal prompts stay separate.
    ValueError if there are no prompts, or an empty one.
    """
    if not prompts or not all(prompts):
        raise ValueError(f"expected prompts of at least one token, got {list(prompts)}")
    shared = common_length(prompts)
    joined = Joined(list(prompts[0][:shared]), list(range(shared)), [0] * shared, [])
    for branch, prompt in enumerate(prompts, 1):
        start, own = len(joined.ids), len(prompt) - shared
        joined.ids.extend(prompt[shared:])
        joined.position.extend(range(shared, len(prompt)))
        joined.branch.extend([branch] * own)
        joined.paths.append([*range(shared), *range(start, start + own)])
    return joined


def common_length(prompts: Sequence[Sequence[int]]) -> int:
    """Length of the common prefix, without the last id of the shortest prompt."""
    limit = min(map(len, prompts)) - 1
    # Of all sequences in order, the first and the last differ the earliest.
    first, last = min(map(list, prompts)), max(map(list, prompts))
    unlike = (place for place in range(limit) if first[place] != last[place])
    return next(unlike, limit)


def branch_mask(
    branch: Int[Tensor, "line token"], dtype: torch.dtype
) -> Float[Tensor, "line 1 query key"]:
    """Added to attention scores: 0 where a token attends to another, else a very low number.

    Padding attends to itself, so that no softmax is empty; no prompt attends to padding.
    """
    query, key = branch[:, None, :, None], branch[:, None, None, :]
    before = torch.ones(branch.shape[1:] * 2, dtype=torch.bool, device=branch.device).tril()
    visible = before & ((key == 0) | (key == query))
    mask = torch.zeros(visible.shape, dtype=dtype, device=branch.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)


def hidden_states(
    vlm: SefarVlmForConditionalGeneration,
    rows: Sequence[Joined],
    tokens: Sequence[Float[Tensor, "frame row column dim"]],
    pad_id: int,
) -> Float[Tensor, "line token embed"]:
    """Last hidden states of the rows, padded on the right to the longest.

    Each row has prompts about one clip, with the placeholders in the common prefix; `pad_id` is any
    id of the vocabulary.

    Raises:
        ValueError: the model's attention does not accept such a mask.
        SefarError: the placeholders are not as many as the clip's tokens.
    """
    attention = vlm.config.text_config._attn_implementation
    if attention not in MASKED_ATTENTION:
        raise ValueError(
            f"the language model runs on {attention}, which cannot read prompts that share their "
            f'prefix; load it with attn_implementation="sdpa"'
        )
    longest = max(len(row.ids) for row in rows)

    def padded(values: Sequence[list[int]], fill: int) -> Int[Tensor, "line token"]:
        filled = [[*value, *[fill] * (longest - len(value))] for value in values]
        return torch.tensor(filled, device=vlm.device)

    outputs = vlm.model(
        padded([row.ids for row in rows], pad_id),
        video_tokens=torch.stack(list(tokens)).to(vlm.device),
        attention_mask=branch_mask(
            padded([row.branch for row in rows], PADDING), word_table(vlm).weight.dtype
        ),
        position_ids=padded([row.position for row in rows], 0),
        use_cache=False,
    )
    return outputs.last_hidden_state
