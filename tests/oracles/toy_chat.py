"""A chat at miniature size: a model whose adapter and projector have learned something, an encoder
that averages colors, and answers computed the long way.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import reduce

from sefar_mllm.adapters import add_adapters, composite
from sefar_mllm.build import build_vlm, load_tokenizer
from sefar_mllm.chat.assistant import Assistant
from sefar_mllm.config import ChatLimits
from sefar_mllm.encoders import Encoder
from sefar_mllm.features import token_key
from tests.oracles import toy_llm

FRAMES = toy_llm.SHAPE[0]


def encoder() -> Encoder:
    """Tokens that are random functions of a place's mean color."""
    weights = torch.randn(3, toy_llm.DIM, generator=torch.Generator().manual_seed(1))

    def encode(frames):
        places = "batch frame (row tall) (column wide) color -> batch frame row column color"
        colors = reduce(frames.float() / 255, places, "mean", row=2, column=2)
        return torch.sin(9 * colors @ weights)

    return Encoder(
        name="random",
        digest="0123",
        moments=tuple((n + 0.5) / FRAMES for n in range(FRAMES)),
        dim=toy_llm.DIM,
        origin={"folder": "", "seed": 0},
        encode=encode,
    )


def base_model(folder: Path):
    """The composite model as it is before training, deaf to nothing: its weights are large."""
    known = {"key": token_key(encoder(), 2), "origin": encoder().origin}
    model = build_vlm(folder, token_dim=toy_llm.DIM, token_shape=toy_llm.SHAPE, encoder=known)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    return model


def assistant(folder: Path, *, max_new_tokens: int = 6) -> Assistant:
    """With an adapter and a projector that differ from those it began with."""
    toy_llm.language_model(folder)
    torch.manual_seed(0)  # LoRA's first weights are drawn from the global generator
    model = add_adapters(base_model(folder), rank=2, alpha=4.0, dropout=0.0).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    limits = ChatLimits(max_new_tokens=max_new_tokens)
    return Assistant(model, load_tokenizer(folder), encoder(), limits=limits)


def video_tokens(seed: int) -> torch.Tensor:
    """Of a video that nobody filmed."""
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randn(*toy_llm.SHAPE, toy_llm.DIM, generator=generator)


def greedy(model, ids: Sequence[int], tokens: torch.Tensor, count: int) -> list[int]:
    """The most probable ids, one whole forward pass each, without a cache."""
    vlm = composite(model) if hasattr(model, "get_base_model") else model
    found = list(ids)
    with torch.no_grad():
        for _ in range(count):
            logits = vlm(input_ids=torch.tensor([found]), video_tokens=tokens[None]).logits
            found.append(int(logits[0, -1].argmax()))
    return found[len(ids) :]
