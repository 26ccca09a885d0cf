"""The folders of a trained model: what is in them, and how a model comes back exactly.

`save_trained` writes LoRA and projector (adapter_model.safetensors), the composite config with the
name of the language model and the key of the encoder's tokens, and the tokenizer; neither language
model nor encoder is copied. `merge.merge` writes the whole model, still without the encoder.
`load_trained` reads both, refuses what does not belong together before any weight is used, and
lets the model compute the logits of probe.json again: a wrong base, a lost projector or another
tokenizer cannot pass in silence.

What an adapter's folder must hold to fit a model: found out before a weight is used.

peft keeps fresh weights where a file has none, and transformers draws at random what a language
model lacks. Here both are errors, as is a language model of another size.

What a model folder remembers of its model, and the check of a loaded model against it.

probe.json holds logits after a fixed question about a fixed pattern of video tokens, in what kind
of numbers they were computed, and the hash of the adapter's file. How far found logits lie from
the stored ones is measured against the spread of the stored ones, so that it means the same for
every model: rounding moves them little, another language model moves them by more than their
spread. What each pair of precisions allows:

- both float32: half a percent; only the order of sums differs between devices;
- one in 16 bits, or both in 4: a tenth;
- one in 4 bits, the other not: half. That tells another model from this one, but not a close
  relative (v1.3 from v1.5). LoRA and projector are exact in every case, by the hash.

An adapter and its language model as one plain folder, as transformers writes them.

LoRA is added to the linears in float32, and the sum is rounded once, to the numbers in which the
language model is stored; the projector stays in float32. The encoder is not part of the folder:
config.json names it by its key, and where it lay.

README.md of a model folder: what it is, what it stands on, how it is used.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from jaxtyping import Float
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from qa_data.files import new_folder, write_json, write_text
from sefar_mllm.adapters import PROJECTOR, Trained, add_adapters, composite
from sefar_mllm.build import (
    UNREADABLE,
    FolderError,
    build_vlm,
    four_bit_settings,
    load_tokenizer,
    refuse_gaps,
    whole_trained,
)
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.model_config import SefarVlmConfig, recorded_folder
from sefar_mllm.prompt import Turn, encode_conversation

FINGERPRINT = "probe.json"
ADAPTER = "adapter_model.safetensors"
NUM_LOGITS = 64
FULL, HALF, FOUR_BIT = 0.005, 0.1, 0.5  # allowed distance, in units of the logits' spread


def write_fingerprint(logits: Float[Tensor, "logit"], numbers: str, folder: Path) -> None:
    """Remember a model in the folder that holds it.

    Args:
        logits: its `fingerprint_logits`.
        numbers: its `precision`.
        folder: with the adapter's file, if there is one.
    """
    probe = {
        "precision": numbers,
        "adapter_sha256": file_hash(folder / ADAPTER),
        "logits": logits.tolist(),
    }
    write_json(folder / FINGERPRINT, probe)


def read_fingerprint(folder: Path) -> dict[str, Any]:
    """What a folder remembers.

    Raises:
        FolderError: there is no probe, or it is damaged.
    """
    try:
        probe = json.loads((folder / FINGERPRINT).read_text(encoding="utf-8"))
        known = {"precision", "adapter_sha256", "logits"} <= set(probe)
    except (OSError, ValueError, TypeError) as cause:
        raise FolderError(
            f"{folder / FINGERPRINT} cannot be read: {cause}; train or merge the model again"
        ) from cause
    if not known:
        raise FolderError(
            f"{folder / FINGERPRINT} has {sorted(probe)}, expected precision, adapter_sha256 and "
            f"logits; train or merge the model again"
        )
    return probe


@torch.inference_mode()
def fingerprint_logits(
    model: Trained, tokenizer: PreTrainedTokenizerBase
) -> Float[Tensor, "logit"]:
    """Some logits after a fixed question about a fixed pattern of video tokens.

    The model is called by its outermost forward: if it is in pieces, that puts them together.
    """
    was_training = model.training
    model.eval()
    vlm = composite(model)
    config = vlm.config
    prompt = encode_conversation(
        tokenizer,
        [Turn("What is this?")],
        num_video_tokens=config.num_video_tokens,
        video_id=config.video_token_id,
    )
    count = config.num_video_tokens * config.token_dim
    pattern = torch.sin(torch.arange(count) * 0.37).view(1, *config.token_shape, config.token_dim)
    ids = torch.tensor([prompt.ids], device=vlm.device)
    logits = model(input_ids=ids, video_tokens=pattern.to(vlm.device), logits_to_keep=1).logits
    model.train(was_training)
    step = max(1, logits.shape[-1] // NUM_LOGITS)
    return logits[0, -1, ::step][:NUM_LOGITS].float().cpu()


def check_fingerprint(model: Trained, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Compare a loaded model with what its folder remembers.

    Raises:
        FolderError: its logits differ by more than rounding.
    """
    probe = read_fingerprint(folder)
    stored, found = torch.tensor(probe["logits"]), fingerprint_logits(model, tokenizer)
    gap = distance(found, stored) if stored.shape == found.shape else float("inf")
    allowed = tolerance(probe["precision"], precision(model))
    if not gap <= allowed:  # a gap that is not a number is a fault too
        raise FolderError(
            f"{folder} computes other logits than when it was saved: they are {gap:.3g} of their "
            f"spread apart, allowed {allowed}; is {composite(model).config.language_model} the "
            f"language model that it was trained on?"
        )


def distance(found: Float[Tensor, "logit"], stored: Float[Tensor, "logit"]) -> float:
    """How far logits lie apart, in units of the stored ones' spread; a constant changes nothing."""
    stored = stored - stored.mean()
    return ((found - found.mean() - stored).norm() / stored.norm()).item()


def tolerance(stored: str, loaded: str) -> float:
    """The distance that rounding may make between two precisions."""
    if stored == loaded == "float32":
        return FULL
    return FOUR_BIT if (stored == "four_bit") != (loaded == "four_bit") else HALF


def precision(model: Trained) -> str:
    """The language model's kind of numbers: four_bit, or the name of its dtype."""
    vlm = composite(model)
    return "four_bit" if vlm.is_loaded_in_4bit else str(vlm.dtype).removeprefix("torch.")


def file_hash(path: Path) -> str | None:
    """SHA-256 of a file; None without it, as in a merged folder."""
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    if file_hash(path) != read_fingerprint(folder)["adapter_sha256"]:
        raise FolderError(
            f"{path} is not the file that was saved: its hash differs from that in {FINGERPRINT}; "
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


CARD = """\
---
library_name: {library}
pipeline_tag: video-text-to-text
---

# {title}

{content} It reads {frames} frames of a video as {count} tokens
({rows} x {columns} a frame, {dim} wide) and answers in words.

| part | |
|---|---|
| language model | `{language_model}` ({held}) |
| encoder | `{encoder}` (not in this folder: only its key, in config.json) |

Its answers are about the gymnastics moves that it was tuned on. The licenses of the language model
and of the encoder hold for what is derived from them.

```python
import sefar_mllm

assistant = sefar_mllm.from_pretrained("THIS_FOLDER")
print(assistant.watch("clip.mp4").answer("Which move is this?"))
```
"""


def write_card(config: SefarVlmConfig, draft: Path, *, merged: bool = False) -> None:
    """Describe the model of a folder that is being written.

    Args:
        config: of the composite model.
        draft: the folder.
        merged: whether it holds the language model's weights.
    """
    frames, rows, columns = config.token_shape
    kind = "Projector and language model" if merged else "LoRA and projector for a language model"
    text = CARD.format(
        library="transformers" if merged else "peft",
        title="A video assistant for fine-grained gymnastics",
        content=f"{kind}, fine-tuned on questions about gymnastics moves.",
        frames=frames,
        rows=rows,
        columns=columns,
        count=config.num_video_tokens,
        dim=config.token_dim,
        language_model=config.language_model,
        held="merged into this folder" if merged else "not in this folder: loaded by its name",
        encoder=config.encoder.get("key", {}).get("encoder", "unknown"),
    )
    write_text(draft / "README.md", text)


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
    weights, logits = whole_trained(model), fingerprint_logits(model, tokenizer)
    if not writes:
        return
    with new_folder(folder) as draft:
        model.save_pretrained(str(draft), state_dict=weights, save_embedding_layers=False)
        composite(model).config.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        write_fingerprint(logits, precision(model), draft)
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
    check_fingerprint(model, tokenizer, folder)
    return model, tokenizer


def read_config(folder: Path) -> SefarVlmConfig:
    """The composite config of a folder that holds a trained model.

    Raises:
        FolderError: a file is missing, or the config is none of ours.
    """
    weights = () if is_merged(folder) else ("adapter_config.json", ADAPTER)
    for name in ("config.json", *weights, FINGERPRINT):
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
    model = build_vlm(
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
    with new_folder(out) as draft:
        whole.save_pretrained(draft, max_shard_size=SHARD_SIZE)
        tokenizer.save_pretrained(draft)
        write_fingerprint(fingerprint_logits(whole, tokenizer), precision(whole), draft)
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
