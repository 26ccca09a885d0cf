"""A language model of a given size with random weights behind a projector, and Gym-QA questions.

What a step or a score costs does not depend on what the weights say.
"""

import random
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

    from qa_data.schema import Question

Size = Literal["vicuna_7b", "medium", "toy"]
SHAPES: dict[Size, dict[str, int]] = {
    "vicuna_7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32},
    "medium": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8},
    "toy": {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2},
}
HEAD_SIZE = {"vicuna_7b": 128, "medium": 64, "toy": 32}
TOKEN_DIM = 768
"""Of ViT-B."""
TOKEN_SHAPE = (8, 2, 2)


def language_model(size: Size, *, words: int, device: str) -> "LlamaForCausalLM":
    """Vicuna-7B's exact config, or a smaller one; bf16 on CUDA, fp32 elsewhere."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = SHAPES[size]
    config = LlamaConfig(
        **shape,
        num_attention_heads=shape["hidden_size"] // HEAD_SIZE[size],
        vocab_size=32000 if size == "vicuna_7b" else words,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def adapted(language: "LlamaForCausalLM", *, device: str, rank: int = 16) -> "PeftModel":
    """The composite model with LoRA on all seven linears, as fine-tuning makes it."""
    from sefar_mllm.adapters import add_adapters
    from sefar_mllm.assemble import around

    model = around(language, token_dim=TOKEN_DIM, token_shape=TOKEN_SHAPE, encoder={})
    return add_adapters(model.to(device), rank=rank, alpha=2.0 * rank, dropout=0.0)


def tokenizer_of(folder: str) -> "PreTrainedTokenizerBase":
    from sefar_mllm.assemble import load_tokenizer

    return load_tokenizer(folder)


def questions(count: int, *, seed: int = 0) -> "list[Question]":
    """Questions of four options about the rendered gymnasts' classes, drawn uniformly."""
    from qa_data.schema import Question
    from qa_data.synthetic.elements import ALL_CLASSES

    rng = random.Random(seed)
    texts = sorted({element.text for element in ALL_CLASSES})
    return [
        Question(
            question_id=f"{number:07d}",
            video=f"clip{number}",
            stem="What gymnastics move is this athlete performing?",
            options=tuple(rng.sample(texts, 4)),
            answer=rng.randrange(4),
            source=f"source{number}",
        )
        for number in range(count)
    ]


def video_tokens(count: int, *, seed: int = 0) -> "Tensor":
    """Random tokens of clips."""
    import torch

    return torch.randn(
        count, *TOKEN_SHAPE, TOKEN_DIM, generator=torch.Generator().manual_seed(seed)
    )
