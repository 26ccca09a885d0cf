"""The language model's linears in 4 bits: normal floats, their scales quantized in turn (QLoRA).

Source: QLoRA (arXiv:2305.14314). Projector and output layer keep their numbers: the one learns,
the other's rounding would fall on the answers directly. docs/paper_map.md, row "4-bit".
"""

from importlib.util import find_spec

import torch
from transformers import BitsAndBytesConfig

KEPT = ["model.multi_modal_projector", "lm_head"]  # whole names: inner parts of names do not count


class FourBitError(ValueError):
    """4-bit weights that cannot be had here; the message says what is missing."""


def four_bit_settings() -> BitsAndBytesConfig:
    """How the language model is quantized; runs on CUDA, and slowly on a CPU.

    Raises:
        FourBitError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise FourBitError(
            "a 4-bit language model needs bitsandbytes, which is not installed: "
            "pip install 'bitsandbytes>=0.50', or leave four_bit off"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=list(KEPT),
    )
