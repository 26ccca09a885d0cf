"""The toy language model's tokenizer: a real SentencePiece model, in a folder as Vicuna's."""

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import sentencepiece

from sefar_mllm.demo import moves
from sefar_mllm.prompt import BOTH_REQUEST, LETTER_REQUEST, SYSTEM, TEXT_REQUEST

# What transformers must know beside tokenizer.model; Vicuna v1.5's file says the same, but for
# the padding token, which it leaves to the user.
SETTINGS = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "</s>",
    "legacy": False,
    "model_max_length": 1024,
    "pad_token": "<unk>",
    "padding_side": "right",
    "sp_model_kwargs": {},
    "tokenizer_class": "LlamaTokenizer",
    "unk_token": "<unk>",
}


def corpus(num_moves: int, rng: random.Random) -> Iterator[str]:
    """Moves and the prompt's own words. A letter never stands before a period, so that an
    option's marker is the letter's token and a period, as in Vicuna's vocabulary."""
    for _ in range(num_moves):
        yield from moves.draw_options(4, 0.3, rng)
    for _ in range(400):
        yield from (SYSTEM, LETTER_REQUEST, TEXT_REQUEST, BOTH_REQUEST, *moves.STEMS)
        yield "USER: A B C D ASSISTANT: A B C D"


def make_tokenizer(folder: Path, *, size: int, seed: int) -> None:
    """Train a byte-fallback BPE tokenizer and write it with its settings.

    Args:
        folder: made if missing; gets tokenizer.model and tokenizer_config.json.
        size: tokens in the vocabulary, of which 259 are bytes and marks.
        seed: of the moves in the corpus.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=corpus(3000, random.Random(seed)),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        byte_fallback=True,
        normalization_rule_name="identity",
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps(SETTINGS, indent=2) + "\n")
