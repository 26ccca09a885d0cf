"""The folders of a trained model: what is in them, and how a model comes back exactly.

`save_trained` writes LoRA and projector (adapter_model.safetensors), the composite config with the
name of the language model and the key of the encoder's tokens, and the tokenizer; neither language
model nor encoder is copied. `merge.merge` writes the whole model, still without the encoder.
`load_trained` reads both, refuses what does not belong together before any weight is used, and
lets the model compute the logits of probe.json again: a wrong base, a lost projector or another
tokenizer cannot pass in silence.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from transformers import PreTrainedTokenizerBase

from qa_data.atomic import by_umask
from sefar_core.checkpoint import replace_folder
from sefar_mllm.adapters import Trained, add_adapters, composite
from sefar_mllm.assemble import UNREADABLE, FolderError, assemble, load_tokenizer, refuse_gaps
from sefar_mllm.folders.adapter_file import (
    language_model_of,
    read_adapter,
    read_json,
    refuse_other_size,
)
from sefar_mllm.folders.model_card import write_card
from sefar_mllm.folders.self_check import (
    ADAPTER,
    PROBE,
    check_probe,
    precision,
    probe_logits,
    write_probe,
)
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.quantize import four_bit_settings
from sefar_mllm.sharded import whole_trained


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A draft beside `folder` that takes its name, and its place, once it is complete."""
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    draft.mkdir(parents=True)
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft)
        raise
    by_umask(draft)
    replace_folder(draft, folder)


def save_trained(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, writes: bool = True
) -> None:
    """Write adapter, config, tokenizer and probe, all or nothing; an older folder is replaced.

    Args:
        model: with adapters. If several processes hold it in pieces, all of them call this.
        tokenizer: its tokenizer.
        folder: what to write.
        writes: whether this process is the one that writes.
    """
    weights, logits = whole_trained(model), probe_logits(model, tokenizer)
    if not writes:
        return
    with whole_folder(folder) as draft:
        model.save_pretrained(str(draft), state_dict=weights, save_embedding_layers=False)
        composite(model).config.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        write_probe(logits, precision(model), draft)
        write_card(composite(model).config, draft)


def load_trained(
    folder: Path,
    *,
    language_model: str | Path | None = None,
    device: str = "cpu",
    four_bit: bool = False,
    dtype: torch.dtype | None = None,
) -> tuple[Trained, PreTrainedTokenizerBase]:
    """The trained model in a folder, frozen and in evaluation mode, and its tokenizer.

    Args:
        folder: what `save_trained` or `merge` wrote.
        language_model: where the language model lies, if not where it lay in training.
        device: where to put the model.
        four_bit: quantize the language model's linears.
        dtype: of the language model; by default bfloat16 on CUDA, float32 elsewhere.

    Raises:
        FolderError: a file is missing or damaged, things do not belong together, or the model
            computes other logits than the one that was saved.
        FourBitError: bitsandbytes is not installed.
    """
    config = read_config(folder)
    tokenizer = load_tokenizer(folder)
    if len(tokenizer) > config.video_token_id:
        raise FolderError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, the language model "
            f"{config.video_token_id} embeddings; copy the tokenizer of {config.language_model}"
        )
    dtype = dtype or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
    model: Trained
    if not is_merged(folder):
        base = language_model or language_model_of(folder, config)
        model = load_adapted(folder, config, base, dtype=dtype, device=device, four_bit=four_bit)
    elif language_model is None:
        model = load_merged(folder, dtype=dtype, device=device, four_bit=four_bit)
    else:
        raise FolderError(
            f"{folder} is merged: it holds its language model; leave {language_model} out"
        )
    model.requires_grad_(False).eval()
    check_probe(model, tokenizer, folder)
    return model, tokenizer


def read_config(folder: Path) -> SefarVlmConfig:
    """The composite config of a folder that holds a trained model.

    Raises:
        FolderError: a file is missing, or the config is none of ours.
    """
    weights = () if is_merged(folder) else ("adapter_config.json", ADAPTER)
    for name in ("config.json", *weights, PROBE):
        if not (folder / name).is_file():
            raise FolderError(
                f"{folder} is not a trained model: it has no {name}; give the folder that "
                f"scripts/finetune_mllm.py wrote, RUN/model, or that of scripts/merge_mllm.py"
            )
    settings = read_json(folder / "config.json")
    if settings.get("model_type") != SefarVlmConfig.model_type:
        raise FolderError(
            f"{folder / 'config.json'} is of a {settings.get('model_type')}, expected "
            f"{SefarVlmConfig.model_type}; give the folder that scripts/finetune_mllm.py wrote"
        )
    try:
        config = SefarVlmConfig.from_pretrained(folder)
        config.encoder["key"], config.encoder["origin"]
        return config
    except (*UNREADABLE, TypeError, AttributeError) as cause:
        raise FolderError(
            f"{folder / 'config.json'} does not describe a model of ours ({cause!r}); take it from "
            f"a whole copy"
        ) from cause


def is_merged(folder: Path) -> bool:
    """Whether a folder holds a model's own weights rather than an adapter."""
    return any(folder.glob("model*.safetensors"))


def load_merged(
    folder: Path, *, dtype: torch.dtype, device: str, four_bit: bool
) -> SefarVlmForConditionalGeneration:
    """The whole model in a folder, with no weight left to chance."""
    quantized: dict[str, Any] = {}
    if four_bit:
        quantized = {"quantization_config": four_bit_settings(), "device_map": {"": device}}
    try:
        loaded: Any = SefarVlmForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **quantized
        )
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as cause:
        raise FolderError(f"{folder} cannot be loaded: {cause}; merge the model again") from cause
    model, report = loaded
    refuse_gaps(folder, report)
    return model if four_bit else model.to(device)


def load_adapted(
    folder: Path,
    config: SefarVlmConfig,
    base: str | Path,
    *,
    dtype: torch.dtype,
    device: str,
    four_bit: bool,
) -> PeftModel:
    """The language model with the adapter and the projector of a folder in it."""
    refuse_other_size(folder, config, base)
    model = assemble(
        base,
        token_dim=config.token_dim,
        token_shape=config.token_shape,
        encoder=config.encoder,
        dtype=dtype,
        device=device,
        four_bit=four_bit,
    )
    settings = read_json(folder / "adapter_config.json")
    try:
        rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
    except (KeyError, TypeError, ValueError) as cause:
        raise FolderError(
            f"{folder / 'adapter_config.json'} does not describe LoRA: {cause!r}; take it from a "
            f"whole copy"
        ) from cause
    trained = add_adapters(model, rank=rank, alpha=alpha, dropout=0.0)
    set_peft_model_state_dict(trained, read_adapter(folder, trained))
    return trained
