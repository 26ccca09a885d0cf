"""What an adapter's folder must hold to fit a model: found out before a weight is used.

peft keeps fresh weights where a file has none, and transformers draws at random what a language
model lacks. Here both are errors, as is a language model of another size.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig

from sefar_mllm.adapters import PROJECTOR
from sefar_mllm.assemble import UNREADABLE, FolderError
from sefar_mllm.folders.self_check import ADAPTER, PROBE, file_hash, read_probe
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.places import recorded_folder

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


def read_json(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise FolderError(f"{path} is damaged: {cause}; take it from a whole copy") from cause
    if not isinstance(settings, dict):
        raise FolderError(f"{path} holds a {type(settings).__name__}, expected named settings")
    return settings


def read_adapter(folder: Path, model: PeftModel) -> dict[str, Tensor]:
    """The tensors of a folder's adapter, exactly those that the model takes.

    Raises:
        FolderError: the file is damaged or another one, or a tensor is missing, surplus, or of
            another shape; peft would keep fresh weights in its place.
    """
    path = folder / ADAPTER
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as cause:
        raise FolderError(f"{path} is damaged: {cause}; take it from a whole copy") from cause
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    missing, surplus = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing:
        what = "the projector" if any(PROJECTOR in name for name in missing) else "LoRA"
        raise FolderError(
            f"{path} lacks {len(missing)} tensors of {what}, for example {missing[0]}; it was "
            f"stripped or is of another model: take the file that training wrote"
        )
    if surplus:
        raise FolderError(
            f"{path} has {len(surplus)} tensors that the model does not take, for example "
            f"{surplus[0]}; it is of another model: take the file that training wrote"
        )
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise FolderError(
                f"{path}: {name} has shape {tuple(found[name].shape)}, adapter_config.json and "
                f"config.json ask for {tuple(tensor.shape)}; files of two trainings are mixed"
            )
    if file_hash(path) != read_probe(folder)["adapter_sha256"]:
        raise FolderError(
            f"{path} is not the file that was saved: its hash differs from that in {PROBE}; "
            f"take the whole folder from where it was trained"
        )
    return found


def language_model_of(folder: Path, config: SefarVlmConfig) -> str:
    """Where the language model lies that a folder's adapter was trained on: its folder, or its
    name if it came from the hub.

    Where an older config does not say which of the two its language model was, the hub is not
    asked for it; what was fetched from there before is taken.

    Raises:
        FolderError: it is not there.
    """
    recorded = config.language_model
    found = recorded_folder(recorded, folder)
    if found is not None:
        return str(found)
    if config.language_model_from_hub or _was_fetched(recorded):
        return recorded
    raise FolderError(
        f"{folder} was trained with the language model {recorded}, and there is no such folder; "
        f"say where it lies with --language-model"
    )


def _was_fetched(name: str) -> bool:
    """Whether a model's config is in the cache of what was fetched from the hub."""
    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # no name that the hub could have
        return False


def refuse_other_size(folder: Path, config: SefarVlmConfig, base: str | Path) -> None:
    """Look at a language model's config before its weights are loaded.

    Raises:
        FolderError: it is not there, or of another size than the one that was trained with.
    """
    try:
        found: PreTrainedConfig = AutoConfig.from_pretrained(str(base), trust_remote_code=False)
    except UNREADABLE as cause:
        raise FolderError(
            f"{folder} needs the language model {base}, which cannot be found: {cause}; say where "
            f"it lies with --language-model"
        ) from cause
    for name in SIZES:
        trained, here = getattr(config.text_config, name, None), getattr(found, name, None)
        if trained != here:
            raise FolderError(
                f"{folder} was trained with a language model of {name} {trained}, {base} has "
                f"{here}; say where {config.language_model} lies with --language-model"
            )
