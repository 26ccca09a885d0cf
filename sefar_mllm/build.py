"""A composite model from any Llama-family language model, by folder or hub name, and a projector.

What is loaded is checked at once: that it is of the family, that no weight is missing (transformers
would draw it at random and continue), and that its tokenizer begins and ends texts as Llama's does.

`four_bit` quantizes the language model's linears to 4-bit normal floats with quantized scales.
Source: QLoRA (arXiv:2305.14314). Projector and output layer are not quantized: the one is trained,
rounding the other would change the answers directly. docs/paper_map.md, row "4-bit".

A model may be sharded over several processes (FSDP2). Layers gather their weights as they run and
release them, so a forward needs every process, each with as many forwards as the others.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from qa_data.files import SefarError
from sefar_core.checkpoint import CheckpointError
from sefar_core.config import present_name, shipped
from sefar_mllm.adapters import lora_parameters, projector_parameters
from sefar_mllm.model import SefarVlmForConditionalGeneration, word_table
from sefar_mllm.model_config import SefarVlmConfig, lasting_place
from sefar_mllm.projector import Projector
from sefar_mllm.prompt import missing_for_prompts

KEPT = ["model.multi_modal_projector", "lm_head"]  # not quantized; whole names of modules


def four_bit_settings() -> BitsAndBytesConfig:
    """Settings of the quantized language model; runs on CUDA, and slowly on a CPU. SefarError if
    bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise SefarError(
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


TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, SafetensorError, UnpicklingError)
"""Errors of transformers, safetensors and torch for files that are missing or damaged."""


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Llama-family model, checked. CheckpointError if it is missing, does not
    begin texts with bos, lacks an end mark, or cannot encode the prompts.
    """
    here = Path(shipped(folder))
    if here.is_dir() and not any((here / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(
            f"{folder} has no tokenizer: neither of {', '.join(TOKENIZER_FILES)} is there; copy "
            f"tokenizer.json and tokenizer_config.json from the language model's folder"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(here), trust_remote_code=False)
    except UNREADABLE as cause:
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be read: {cause}; copy tokenizer.json and "
            f"tokenizer_config.json from the language model again"
        ) from cause
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise CheckpointError(f"the tokenizer in {folder} has no bos or no eos; Llama's has both")
    if tokenizer("x")["input_ids"][0] != tokenizer.bos_token_id:
        raise CheckpointError(
            f"the tokenizer in {folder} does not begin a text with {tokenizer.bos_token}: "
            f'tokenizer_config.json with "add_bos_token": true is missing'
        )
    if lacking := missing_for_prompts(tokenizer):
        raise CheckpointError(
            f"the tokenizer in {folder} lacks {' and '.join(lacking)}, which the prompts need; "
            f"take a language model with the tokenizer of Llama or Llama 2, such as "
            f"lmsys/vicuna-7b-v1.5"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def load_language_model(
    name: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    four_bit: bool = False,
) -> PreTrainedModel:
    """A Llama-family language model with all its weights.

    Weights come from safetensors, or from PyTorch's files (Vicuna v1.5 has no others), of which
    only tensors are read. `name` is a folder, a hub name, or `demo:llm`. With `four_bit`, `dtype`
    is that of the weights that are not quantized.

    Raises:
        CheckpointError: it is missing, is damaged, lacks weights, or is of another family.
        SefarError: bitsandbytes is not installed.
        OutOfMemoryError: the device cannot hold it.
    """
    quantized: dict[str, Any] = {}
    if four_bit:
        quantized = {"quantization_config": four_bit_settings(), "device_map": {"": str(device)}}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            shipped(name),
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            **quantized,
        )
    except torch.OutOfMemoryError:  # its message is clear, and the folder is not at fault
        raise
    except UNREADABLE as cause:
        raise CheckpointError(
            f"the language model {name} cannot be loaded: {cause}; name a folder with config.json "
            f"and weights, or a model of the hub"
        ) from cause
    model, report = loaded
    refuse_gaps(name, report)
    model.config.name_or_path = str(name)  # a name is the same on every machine
    head = getattr(model, "lm_head", None)
    if not isinstance(head, nn.Linear) or head.bias is not None or not hasattr(model, "model"):
        raise CheckpointError(
            f"{name} is a {model.config.model_type}; a language model of the Llama family is "
            f"needed, with `model` and an `lm_head` without bias, such as lmsys/vicuna-7b-v1.5"
        )
    return model if four_bit else model.to(device)


def refuse_gaps(name: str | Path, report: dict[str, Any]) -> None:
    """Refuse weights that transformers has drawn at random, by its loading info. CheckpointError if
    a tensor is missing or of another shape than in the config.
    """
    for what in ("missing", "mismatched"):
        found = sorted(str(key) for key in report[f"{what}_keys"])
        if found:
            raise CheckpointError(
                f"{name}: {len(found)} tensors are {what}, for example {found[0]}; the weights "
                f"and config.json do not belong together, or a shard is missing: fetch it again"
            )


def build_vlm(  # noqa: PLR0913 - everything that a model is made of
    language_model: str | Path,
    *,
    token_dim: int,
    token_shape: Sequence[int],
    encoder: dict[str, Any],
    anchor_ids: Sequence[int] = (0,),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    four_bit: bool = False,
) -> SefarVlmForConditionalGeneration:
    """A language model behind a fresh projector.

    `token_shape` are frames, rows and columns of a clip's tokens, `encoder` key and origin of the
    encoder's token cache. Projected tokens start around the word of `anchor_ids`. `dtype` and
    `four_bit` are for the language model; the projector stays in float32.
    Errors as in `load_language_model`.
    """
    language = load_language_model(language_model, dtype=dtype, device=device, four_bit=four_bit)
    model = wrap(
        language,
        token_dim=token_dim,
        token_shape=token_shape,
        encoder=encoder,
        anchor_ids=anchor_ids,
        seed=seed,
    )
    model.config.language_model = lasting_place(present_name(language_model))
    model.config.language_model_from_hub = not Path(language_model).is_dir()
    model.is_loaded_in_4bit = four_bit  # where peft and accelerate read it
    return model


def wrap(
    language: PreTrainedModel,
    *,
    token_dim: int,
    token_shape: Sequence[int],
    encoder: dict[str, Any],
    anchor_ids: Sequence[int] = (0,),
    seed: int = 0,
) -> SefarVlmForConditionalGeneration:
    """The composite model around a language model in memory, which becomes part of it. See
    `build_vlm`.
    """
    table = word_table(language)
    config = SefarVlmConfig(
        language.config,
        video_token_id=table.num_embeddings,
        token_dim=token_dim,
        token_shape=token_shape,
        encoder=encoder,
    )
    with torch.device("meta"):  # without memory: the language model exists already
        model = SefarVlmForConditionalGeneration(config)
    projector = Projector(token_dim, token_shape[0], table.embedding_dim)
    words = table.weight.detach().float().cpu()
    anchor = words[list(anchor_ids)].mean(dim=0)
    projector.init(anchor, words.pow(2).mean().sqrt().item(), torch.Generator().manual_seed(seed))
    model.model.multi_modal_projector = projector.to(table.weight.device)
    model.model.language_model = language.model
    model.lm_head = language.lm_head
    model.generation_config = greedy(language.generation_config)
    return model


def greedy(settings: GenerationConfig) -> GenerationConfig:
    """The language model's special tokens, without its sampling settings and limit of length.

    Vicuna's file sets a temperature without sampling, which transformers refuses to save.
    """
    end = settings.eos_token_id
    first = end[0] if isinstance(end, list) else end
    padding = settings.pad_token_id
    return GenerationConfig(
        bos_token_id=settings.bos_token_id,
        eos_token_id=end,
        pad_token_id=first if padding is None else padding,
    )


def is_sharded(model: nn.Module) -> bool:
    """Whether each process holds a shard of the model."""
    return isinstance(model, FSDPModule)


@contextmanager
def outer_weights_gathered(model: nn.Module) -> Iterator[None]:
    """Within it, parts of the model may run without the model's own forward.

    The model's forward gathers the weights outside of layers, such as the projector's; here they
    are gathered around it. Layers gather their own weights as usual.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def whole_trained(model: nn.Module) -> dict[str, Tensor]:
    """LoRA and projector by name, unsharded on every process; all processes call this."""
    trained = (*lora_parameters(model), *projector_parameters(model))
    return {name: whole(parameter.detach()) for name, parameter in trained}


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor, gathered; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
