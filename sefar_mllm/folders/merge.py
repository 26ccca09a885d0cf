"""An adapter and its language model as one plain folder, as transformers writes them.

LoRA is added to the linears in float32, and the sum is rounded once, to the numbers in which the
language model is stored; the projector stays in float32. The encoder is not part of the folder:
config.json names it by its key, and where it lay.
"""

from pathlib import Path

import torch
from transformers import AutoConfig

from sefar_mllm.assemble import FolderError
from sefar_mllm.folders.adapter_file import language_model_of
from sefar_mllm.folders.checkpoint import is_merged, load_trained, read_config, whole_folder
from sefar_mllm.folders.model_card import write_card
from sefar_mllm.folders.self_check import precision, probe_logits, write_probe
from sefar_mllm.model import SefarVlmForConditionalGeneration

SHARD_SIZE = "5GB"  # largest file of weights


def merge(
    folder: Path,
    out: Path,
    *,
    language_model: str | Path | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write the whole model of an adapter's folder, all or nothing.

    Args:
        folder: what fine-tuning wrote.
        out: gets config, weights, tokenizer, probe and model card; only a merged folder that was
            written here before is replaced.
        language_model: where the language model lies, if not where it lay in training.
        dtype: of the merged language model; by default what its files hold.

    Returns:
        out.

    Raises:
        FolderError: `folder` is no adapter, does not fit its language model, or `out` holds
            something else.
        ValueError: a merged weight is not a number.
    """
    refuse_foreign(out)
    config = read_config(folder)
    if is_merged(folder):
        raise FolderError(f"{folder} is merged already; copy it if you want it at {out}")
    language_model = language_model or language_model_of(folder, config)
    model, tokenizer = load_trained(folder, language_model=language_model, dtype=torch.float32)
    whole: SefarVlmForConditionalGeneration = model.merge_and_unload(safe_merge=True)  # type: ignore[operator]
    cast(whole, dtype or stored_dtype(language_model))
    with whole_folder(out) as draft:
        whole.save_pretrained(draft, max_shard_size=SHARD_SIZE)
        tokenizer.save_pretrained(draft)
        write_probe(probe_logits(whole, tokenizer), precision(whole), draft)
        write_card(whole.config, draft, merged=True)
    return out


def refuse_foreign(out: Path) -> None:
    """Refuse to replace what merging did not write.

    Raises:
        FolderError: `out` is a file, or a folder of something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not is_merged(out):
        raise FolderError(f"{out} holds something that is not a merged model; choose another name")
    read_config(out)


def cast(model: SefarVlmForConditionalGeneration, dtype: torch.dtype) -> None:
    """Give the language model its kind of numbers; the projector keeps its own."""
    model.model.language_model.to(dtype)
    model.lm_head.to(dtype)
    model.config.text_config.dtype = dtype


def stored_dtype(language_model: str | Path) -> torch.dtype:
    """The kind of numbers that a language model's config names; float32 if it names none."""
    return AutoConfig.from_pretrained(str(language_model)).dtype or torch.float32
