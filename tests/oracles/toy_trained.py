"""Folders of trained models at miniature size: every weight that training would move is moved."""

import shutil
from pathlib import Path

import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from sefar_mllm.adapters import add_adapters, lora_parameters, projector_parameters
from sefar_mllm.build import build_vlm, load_tokenizer
from sefar_mllm.checkpoint import save_trained
from tests.oracles import toy_llm

ENCODER = {"key": toy_llm.KEY, "origin": {"folder": "", "seed": 0}}
RANK = 2


def adapted(base: Path, *, seed: int = 3, **how) -> PeftModel:
    """A model whose LoRA matrices and projector all hold numbers of their own."""
    shape = {"token_dim": toy_llm.DIM, "token_shape": toy_llm.SHAPE}
    model = build_vlm(base, **shape, encoder=ENCODER, **how)
    trained = add_adapters(model, rank=RANK, alpha=8.0, dropout=0.1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in (*lora_parameters(trained), *projector_parameters(trained)):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return trained.eval()


def save(base: Path, folder: Path, **how) -> Path:
    """The folder of such a model, as fine-tuning writes it."""
    save_trained(adapted(base, **how), load_tokenizer(base), folder)
    return folder


def video(count: int = 1, *, seed: int = 0) -> torch.Tensor:
    """Tokens of clips, every value distinct."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *toy_llm.SHAPE, toy_llm.DIM, generator=generator)


def relative(base: Path, folder: Path, *, seed: int = 1, **family) -> Path:
    """A random language model like `base` with other traits, and its tokenizer."""
    shutil.copytree(base, folder)
    settings = LlamaConfig.from_pretrained(base).to_dict() | {"num_attention_heads": 4} | family
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(folder)
    return folder
