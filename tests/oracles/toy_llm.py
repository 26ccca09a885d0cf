"""A language model folder and a token cache, miniature and random, for the tests."""

import functools
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from demo import llm
from qa_data.questions import Question
from sefar_mllm.build import load_tokenizer
from sefar_mllm.feature_cache import FORMAT, TokenCache, write_tokens

TEXTS = ("salto forward tucked", "salto backward tucked", "stalder forward", "giant circle forward")
SHAPE = (8, 2, 2)
DIM = 12
KEY = {
    "format": FORMAT,
    "encoder": "sefar",
    "digest": "abc",
    "dim": DIM,
    "grid": 2,
    "frame_order": "in_order",
}


def tokenizer(folder: Path, *, size: int = 640) -> Path:
    """A folder with a tokenizer of so many tokens, trained on the demo's corpus."""
    with mock.patch.object(llm, "VOCABULARY_SIZE", size):
        llm.make_tokenizer(folder, seed=0)
    return folder


def language_model(folder: Path, *, seed: int = 0) -> Path:
    """A folder with a random Llama of two layers and a trained tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _built(seed).items():
        (folder / name).write_bytes(content)
    return folder


@functools.cache
def _built(seed: int) -> dict[str, bytes]:
    """The files of `language_model`, made once a process."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "llm"
        tokenizer(folder)
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(load_tokenizer(folder)),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=512,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def questions(count: int, *, num_options: int = 4) -> list[Question]:
    """Questions about clips clip0, clip1, ... whose answers take turns."""
    return [
        Question(
            question_id=f"{i:07d}",
            video=f"clip{i}",
            stem="What gymnastics move is this athlete performing?",
            options=TEXTS[:num_options],
            answer=i % num_options,
            label=i % num_options,
            event="FX" if i % num_options < 2 else "UB",
            source=f"source{i // 3}",
        )
        for i in range(count)
    ]


def cache(folder: Path, asked: Sequence[Question], *, key: dict | None = None) -> TokenCache:
    """A cache in which the clips of each class have tokens of their own."""
    generator = torch.Generator().manual_seed(7)
    prototypes = torch.randn(len(TEXTS), *SHAPE, DIM, generator=generator)
    noise = torch.randn(len(asked), *SHAPE, DIM, generator=generator)
    tokens = torch.stack([prototypes[q.answer] for q in asked]) + 0.3 * noise
    clips = {q.video: [f"{q.video}.mp4", None, None] for q in asked}
    write_tokens(folder, key or KEY, {"folder": "", "seed": 0}, clips, tokens)
    return TokenCache(folder, [q.video for q in asked])
