"""C10: other names for the options than A, B, C, D, as far as the tokenizer has them.

Likelihoods of single tokens can be compared where the markers differ in their last token alone.
Llama's letters and digits do; a small tokenizer may break some into more pieces.
"""

import random
from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from sefar_mllm.comparison.plan import Shown
from sefar_mllm.prompt import LETTERS, marker_ids

DIGITS = "123456789"


def option_markers(
    tokenizer: PreTrainedTokenizerBase, num_options: int, seed: int
) -> Mapping[Shown, str]:
    """The markers of each control of letters that this tokenizer can have.

    Args:
        tokenizer: the language model's.
        num_options: of the question with the most.
        seed: of the letters that are drawn.
    """
    found: dict[Shown, str] = {}
    digits = DIGITS[:num_options]
    if len(digits) == num_options == len(comparable(tokenizer, digits)):
        found["letters_digits"] = digits
    others = comparable(tokenizer, LETTERS[num_options:])
    if len(others) >= num_options:
        found["letters_drawn"] = "".join(random.Random(seed).sample(others, num_options))
    return found


def comparable(tokenizer: PreTrainedTokenizerBase, markers: str) -> str:
    """The largest group of the markers that begin with the same tokens and end in one each."""
    groups: dict[tuple[int, ...], str] = {}
    for marker in markers:
        shared, _ = marker_ids(tokenizer, marker)
        groups[tuple(shared)] = groups.get(tuple(shared), "") + marker
    return max(groups.values(), key=len, default="")
