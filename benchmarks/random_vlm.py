"""A language model of a given size with random weights and a projector, and Gym-QA questions.

The cost of a step or a score does not depend on the values of the weights.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Literal

import torch
from peft import PeftModel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from benchmarks.mllm_arithmetic import Lengths
from qa_data.questions import LETTERS, Question
from qa_data.synthetic.elements import ALL_CLASSES
from sefar_mllm.adapters import add_adapters
from sefar_mllm.build import wrap
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.prompt import Turn, encode_conversation, question_text
from sefar_mllm.scoring import rotated_prompts
from sefar_mllm.shared_prefix import join

Size = Literal["vicuna_7b", "medium", "toy"]
SHAPES: dict[Size, dict[str, int]] = {
    "vicuna_7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32},
    "medium": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8},
    "toy": {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2},
}
HEAD_SIZE = {"vicuna_7b": 128, "medium": 64, "toy": 32}
TOKEN_DIM = 768
"""Width of ViT-B's tokens."""
GRID = 2
TOKEN_SHAPE = (8, GRID, GRID)
VIDEO_TOKENS = 8 * GRID**2

# Tokens of Gym-QA's prompts in Llama's vocabulary, without the video: system and roles, and the
# question with its options, mean and 95th percentile.
TEMPLATE_TOKENS = 38
QUESTION_TOKENS = 66
QUESTION_TOKENS_P95 = 88


def llama_config(size: Size, *, words: int) -> LlamaConfig:
    """Vicuna-7B's exact config, or a smaller one for a tokenizer of `words` tokens."""
    shape = SHAPES[size]
    return LlamaConfig(
        **shape,
        num_attention_heads=shape["hidden_size"] // HEAD_SIZE[size],
        vocab_size=32000 if size == "vicuna_7b" else words,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


def language_model(size: Size, *, words: int, device: str) -> LlamaForCausalLM:
    """The model of a config; bf16 on CUDA, fp32 elsewhere."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    try:
        with torch.device(device):
            return LlamaForCausalLM(llama_config(size, words=words)).eval()
    finally:
        torch.set_default_dtype(before)


def adapted(language: LlamaForCausalLM, *, device: str, rank: int = 16) -> PeftModel:
    """The composite model with LoRA on all seven linear layers, as in fine-tuning."""
    known = {"key": {"grid": GRID}}
    model = wrap(language, token_dim=TOKEN_DIM, token_shape=TOKEN_SHAPE, encoder=known)
    return add_adapters(model.to(device), rank=rank, alpha=2.0 * rank, dropout=0.0)


def questions(count: int, *, seed: int = 0) -> list[Question]:
    """Questions of four options about the classes of the rendered gymnasts, drawn uniformly."""
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


def like_llamas(tokenizer: PreTrainedTokenizerBase, count: int, *, seed: int = 0) -> list[Question]:
    """Questions whose prompts have as many tokens as those of Gym-QA in Llama's vocabulary.

    The demo's tokenizer was trained on these words and needs fewer tokens. Words are added to the
    shortest option until a prompt has a length drawn from those of Gym-QA.
    """
    rng = random.Random(seed)
    spread = (QUESTION_TOKENS_P95 - QUESTION_TOKENS) / 1.645
    items = questions(count, seed=seed)
    words = sorted({word for one in items for text in one.options for word in text.split()})
    lengthened = []
    for question in items:
        room = VIDEO_TOKENS + TEMPLATE_TOKENS + round(rng.gauss(QUESTION_TOKENS, spread))
        options = longer = list(question.options)
        while prompt_tokens(tokenizer, question.stem, longer) <= room:
            options, shortest = longer, shortest_of(longer)
            word = f" {rng.choice(words)}"
            longer = [text + word * (place == shortest) for place, text in enumerate(options)]
        lengthened.append(replace(question, options=tuple(options)))
    return lengthened


def shortest_of(texts: Sequence[str]) -> int:
    return min(range(len(texts)), key=lambda place: len(texts[place]))


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, stem: str, options: Sequence[str]) -> int:
    """Number of tokens of a question's prompt about a video."""
    turns = [Turn(question_text(stem, options))]
    place = {"num_video_tokens": VIDEO_TOKENS, "video_id": len(tokenizer)}
    return len(encode_conversation(tokenizer, turns, **place).ids)


def lengths_of(tokenizer: PreTrainedTokenizerBase, items: Sequence[Question]) -> Lengths:
    """Mean number of tokens of questions about videos of `TOKEN_SHAPE`."""
    config = SefarVlmConfig(
        llama_config("vicuna_7b", words=0), token_shape=TOKEN_SHAPE, video_token_id=len(tokenizer)
    )
    prompts = [rotated_prompts(tokenizer, one, config, LETTERS) for one in items]
    return Lengths(
        prompt=mean(len(prompt) for some in prompts for prompt in some),
        joined=mean(len(join(some).ids) for some in prompts),
        options=len(items[0].options),
    )


def video_tokens(count: int, *, seed: int = 0) -> Tensor:
    """Random video tokens of clips."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *TOKEN_SHAPE, TOKEN_DIM, generator=generator)
