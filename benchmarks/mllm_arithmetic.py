"""Least cost of the language-model half on any device: operations, bytes, and bounds.

A multiply-add is two operations. A token uses N weights: those of the linear layers and, where its
logits are computed, those of the output layer; the embedding table is only indexed. Scoring needs
2 N operations a token, a LoRA step on frozen weights 4 N (forward, and backward to the
activations), and 6 N with recomputed activations, of which 4 N count as useful. In training logits
are computed only before labels, in scoring only at the ends of the prompts. The operations of
attention (2 % at 1,024 tokens) and of LoRA (1 %) are not counted: shares are too low by as much,
never too high.

Rates are an H200's: 790 TFLOP/s in bf16 and 4.3 TB/s as measured, 989 TFLOP/s by the data sheet.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MEASURED_FLOPS = 790e12
DATA_SHEET_FLOPS = 989e12
MEASURED_BYTES_A_S = 4.3e12
BF16_BYTES = 2

Figures = dict[str, float | None]
"""Values by name; None was not measured."""

# Listed beside the figures; a part without a goal is listed so that a missing figure is seen.
GOALS = {
    ("LoRA step", "mfu_790"): "at least 0.45",
    ("LoRA step", "memory_gb"): "at most 75",
    ("LoRA step, recompute", "memory_gb"): "at most 30",
    ("LoRA step, 4-bit", "memory_gb"): "",
    ("scoring", "prompts_a_s"): "at least 150",
    ("scoring", "share_of_bound"): "at least 0.35",
    ("chat", "static, compiled: tokens_a_s"): "at least 205",
    ("chat", "static, compiled: first_token_s"): "at most 0.060",
    ("chat", "cold_first_token_s"): "at most 0.250",
}


class Weights(NamedTuple):
    """Weights of a Llama-family model with as many heads for keys as for queries."""

    linears: int
    """Weights of the linear layers, used by every token."""
    head: int
    """Weights of the output layer, used by tokens whose logits are computed."""
    norms: int

    @property
    def whole(self) -> int:
        """N: the weights used by a token whose logits are computed."""
        return self.linears + self.head

    def step_flops(self, tokens: int, labels: int, *, recompute: bool = False) -> float:
        """Operations of a LoRA step, with or without recomputed activations."""
        return (6 if recompute else 4) * self.linears * tokens + 4 * self.head * labels

    def scoring_flops(self, tokens: float, ends: int) -> float:
        """Operations of a forward pass over `tokens`, with logits at `ends` of them."""
        return 2 * (self.linears * tokens + self.head * ends)

    def decoding_bytes(self, bytes_a_weight: int = BF16_BYTES) -> int:
        """Bytes that one decoded token reads, with merged LoRA: all but the embedding table."""
        return bytes_a_weight * (self.linears + self.head + self.norms)


def weights_of(config: "PretrainedConfig") -> Weights:
    """The number of weights of a Llama, from its config."""
    hidden, layers = config.hidden_size, config.num_hidden_layers
    linears = layers * (4 * hidden**2 + 3 * hidden * config.intermediate_size)
    return Weights(linears, hidden * config.vocab_size, (2 * layers + 1) * hidden)


class Lengths(NamedTuple):
    """Mean number of tokens of questions."""

    prompt: float
    """Tokens of one prompt, with those of the video."""
    joined: float
    """Tokens of all rotations of a question in one row."""
    options: int


def scoring_bounds(weights: Weights, lengths: Lengths) -> dict[str, float]:
    """Prompts and questions per second that an H200 can score at 790 TFLOP/s."""
    prompt = weights.scoring_flops(lengths.prompt, 1)
    item = weights.scoring_flops(lengths.joined, lengths.options)
    return {
        "tokens_a_prompt": lengths.prompt,
        "bound_prompts_a_s": MEASURED_FLOPS / prompt,
        "tokens_computed_an_item": lengths.joined,
        "bound_items_a_s": MEASURED_FLOPS / item,
    }


def bounds(weights: Weights, lengths: Lengths, *, rows: int, row_tokens: int) -> Figures:
    """The arithmetic that needs no device: bf16 weights, and two labels in each row of a step."""
    tokens, labels = rows * row_tokens, 2 * rows
    step = weights.step_flops(tokens, labels)
    recompute = weights.step_flops(tokens, labels, recompute=True)
    scoring = scoring_bounds(weights, lengths)
    return {
        "weights_a_token": weights.whole,
        "weights_of_the_output_layer": weights.head,
        "lora_flops_a_token_4n": 4 * weights.whole,
        "recompute_flops_a_token_6n": 6 * weights.whole,
        "step_tokens": tokens,
        "step_s_at_790": step / MEASURED_FLOPS,
        "step_recompute_s_at_790": recompute / MEASURED_FLOPS,
        "step_s_at_45_percent": step / MEASURED_FLOPS / 0.45,
        "step_tokens_a_s_at_45_percent": 0.45 * tokens * MEASURED_FLOPS / step,
        **scoring,
        "items_a_s_at_35_percent": 0.35 * scoring["bound_items_a_s"],
        "decoding_bytes_a_token": weights.decoding_bytes(),
        "limit_decoded_tokens_a_s": MEASURED_BYTES_A_S / weights.decoding_bytes(),
    }
