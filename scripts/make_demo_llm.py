"""Make the demo's toy language model: tokenizer, text-only pretraining, card.

    scripts/make_demo_llm.py --out demo/llm

The paper starts from Vicuna; the demo starts from this. It is taught on text alone to match a
description in words with options, in Vicuna's prompt: random combinations of gymnastic words, no
clip, no question and no class frequency of the demo, and the demo's class texts held out.
About 20 minutes of one CPU core; the result is shipped in demo/llm.
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sefar_core.cli import refuse_unwritable, start

import tyro

from sefar_core.config import check_seed


@dataclass(frozen=True, kw_only=True)
class MakeDemoLlm:
    out: Path = Path("demo/llm")
    """Folder to write; what is in it is replaced."""
    vocab_size: int = 768
    """Tokens of the SentencePiece model, 259 of them bytes and marks."""
    lr: float = 2e-3
    """Highest learning rate."""
    scale: float = 1.0
    """Length of the curriculum, as a multiple of the shipped model's."""
    seed: int = 0
    """Of tokenizer, weights and exercises."""

    def __post_init__(self):
        check_seed(self.seed)
        if self.vocab_size <= 259:
            raise ValueError(f"vocab_size must be more than 259, got {self.vocab_size}")
        for name in ("lr", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")


def main(settings: MakeDemoLlm) -> None:
    refuse_unwritable(folders=[settings.out])  # before the slow imports

    import torch

    from sefar_mllm.demo.folder import make

    torch.set_num_threads(1)
    accuracies = make(
        settings.out,
        vocab_size=settings.vocab_size,
        lr=settings.lr,
        scale=settings.scale,
        seed=settings.seed,
    )
    for name, accuracy in accuracies.items():
        print(f"{100 * accuracy:5.1f} % letters right: {name}")


if __name__ == "__main__":
    start(main, partial(tyro.cli, MakeDemoLlm, description=__doc__))
