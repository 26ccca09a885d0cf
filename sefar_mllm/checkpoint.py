"""The folders of a trained model: what is in them, and how a model is loaded exactly.

`save_trained` writes LoRA and projector (adapter_model.safetensors), the composite config with the
name of the language model and the key of the encoder's tokens, and the tokenizer; neither language
model nor encoder is copied. `merge` writes the whole model as transformers does, still without the
encoder. `load_trained` reads both.

fingerprint.json holds some logits after a fixed question about a fixed pattern of video tokens,
and the precision that they were computed in. A loaded model computes them again: another language
model, projector, LoRA or tokenizer is refused. The difference is measured in units of the stored
logits' spread, so that it means the same for every model: rounding gives little of it, another
language model more than one. How much each pair of precisions allows:

- both float32: half a percent; only the order of sums differs between devices;
- one in 16 bits, or both in 4: a tenth;
- one in 4 bits, the other not: half. That detects another model, but not a close relative (v1.3
  for v1.5).
"""

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
from transformers import AutoConfig, PreTrainedTokenizerBase

from qa_data.files import new_folder, write_json, write_text
from sefar_core.checkpoint import CheckpointError
from sefar_core.config import SHIPPED, present_name, shipped
from sefar_mllm.adapters import Trained, add_adapters, composite
from sefar_mllm.build import (
    UNREADABLE,
    build_vlm,
    four_bit_settings,
    load_tokenizer,
    refuse_gaps,
    whole_trained,
)
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.model_config import SefarVlmConfig, recorded_folder
from sefar_mllm.prompt import Turn, encode_conversation

ADAPTER = "adapter_model.safetensors"
FINGERPRINT = "fingerprint.json"
OLD_FINGERPRINT = "probe.json"
"""Its name in folders that older versions wrote; it is still read."""
NUM_LOGITS = 64
FULL, HALF, FOUR_BIT = 0.005, 0.1, 0.5
"""Allowed distance of the logits, in units of their spread."""
SHARD_SIZE = "5GB"
"""Largest file of merged weights."""


def save_trained(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, writes: bool = True
) -> None:
    """Write adapter, config, tokenizer and fingerprint, all or nothing, over an older folder.

    If the model is sharded, all processes call this, and one of them `writes`.
    """
    weights, logits = whole_trained(model), fingerprint_logits(model, tokenizer)
    if not writes:
        return
    with new_folder(folder) as draft:
        model.save_pretrained(str(draft), state_dict=weights, save_embedding_layers=False)
        composite(model).config.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        write_fingerprint(model, logits, draft)
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

    `language_model` is a folder or hub name, if it is not where it was in training; `four_bit`
    quantizes its linears, and its `dtype` is by default bfloat16 on CUDA, float32 elsewhere.

    Raises:
        CheckpointError: a file is missing or damaged, files do not belong together, or the model
            computes other logits than the one that was saved.
        SefarError: bitsandbytes is not installed.
    """
    config = read_config(folder)
    tokenizer = load_tokenizer(folder)
    if len(tokenizer) > config.video_token_id:
        raise CheckpointError(
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
        raise CheckpointError(
            f"{folder} is merged: it holds its language model; leave {language_model} out"
        )
    model.requires_grad_(False).eval()
    check_fingerprint(model, tokenizer, folder)
    return model, tokenizer


def read_config(folder: Path) -> SefarVlmConfig:
    """The composite config of a folder that holds a trained model. CheckpointError if a file is
    missing, or the config is not of a SefarVlm.
    """
    weights = () if is_merged(folder) else ("adapter_config.json", ADAPTER)
    for name in ("config.json", *weights, fingerprint_file(folder).name):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} is not a trained model: it has no {name}; give the folder that "
                f"scripts/finetune_mllm.py wrote, RUN/model, or that of scripts/merge_mllm.py"
            )
    settings = read_json(folder / "config.json")
    if settings.get("model_type") != SefarVlmConfig.model_type:
        raise CheckpointError(
            f"{folder / 'config.json'} is of a {settings.get('model_type')}, expected "
            f"{SefarVlmConfig.model_type}; give the folder that scripts/finetune_mllm.py wrote"
        )
    try:
        config = SefarVlmConfig.from_pretrained(folder)
        config.encoder["key"], config.encoder["origin"]
        return config
    except (*UNREADABLE, TypeError, AttributeError) as cause:
        raise CheckpointError(
            f"{folder / 'config.json'} does not describe a model of ours ({cause!r}); take it from "
            f"a whole copy"
        ) from cause


def is_merged(folder: Path) -> bool:
    """Whether a folder holds a model's own weights rather than an adapter."""
    return any(folder.glob("model*.safetensors"))


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
        raise CheckpointError(
            f"{folder / 'adapter_config.json'} does not describe LoRA: {cause!r}; take it from a "
            f"whole copy"
        ) from cause
    trained = add_adapters(model, rank=rank, alpha=alpha, dropout=0.0)
    set_peft_model_state_dict(trained, read_adapter(folder, trained))
    return trained


def read_adapter(folder: Path, model: PeftModel) -> dict[str, Tensor]:
    """The tensors of a folder's adapter, exactly those that the model takes. CheckpointError if the
    file is damaged, or a tensor is missing, unknown, or of another shape; peft would keep fresh
    weights in its place.
    """
    path = folder / ADAPTER
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as cause:
        raise CheckpointError(f"{path} is damaged: {cause}; take it from a whole copy") from cause
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    shapes, expected = (
        {name: tuple(tensor.shape) for name, tensor in state.items()} for state in (tensors, wanted)
    )
    wrong = sorted(
        name for name in shapes.keys() | expected.keys() if shapes.get(name) != expected.get(name)
    )
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path} does not fit its language model: {len(wrong)} tensors are missing, unknown or "
            f"of another shape, for example {name}: found {shapes.get(name, 'none')}, expected "
            f"{expected.get(name, 'none')}; take all files from the folder that training wrote, "
            f"and check --language-model"
        )
    return tensors


def load_merged(
    folder: Path, *, dtype: torch.dtype, device: str, four_bit: bool
) -> SefarVlmForConditionalGeneration:
    """The whole model in a merged folder; every weight is from its files."""
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
        raise CheckpointError(
            f"{folder} cannot be loaded: {cause}; merge the model again"
        ) from cause
    model, report = loaded
    refuse_gaps(folder, report)
    return model if four_bit else model.to(device)


def language_model_of(folder: Path, config: SefarVlmConfig) -> str:
    """The language model that a folder's adapter was trained on: its folder, or its hub name.

    Where an older config does not say which of the two it is, the hub is not queried; a model that
    was fetched from there before is taken. CheckpointError if there is no such folder.
    """
    recorded = config.language_model
    found = recorded_folder(recorded, folder)
    if found is not None:
        return str(found)
    # Of /CHECKOUT/demo/llm the end says which it was; the fingerprint would refuse another model.
    named = present_name(Path(*Path(recorded).parts[-2:]))
    if named in SHIPPED:
        return named
    if config.language_model_from_hub or _was_fetched(recorded):
        return recorded
    raise CheckpointError(
        f"{folder} was trained with the language model {recorded}, and there is no such folder; "
        f"give its folder or name by --language-model"
    )


def _was_fetched(name: str) -> bool:
    """Whether a model's config is in the local cache of the hub."""
    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # not a valid name of the hub
        return False


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. CheckpointError if it is damaged or something else."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise CheckpointError(f"{path} is damaged: {cause}; take it from a whole copy") from cause
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} holds a {type(settings).__name__}, expected a JSON object")
    return settings


def merge(
    folder: Path,
    out: Path,
    *,
    language_model: str | Path | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write the whole model of an adapter's folder, all or nothing.

    LoRA is added to the linears in float32, and the sum is rounded once, to the dtype of the
    language model; the projector stays in float32. Only an older merged folder is replaced at
    `out`, which is returned. `language_model` is given if it is not where it was in training;
    `dtype`, of the merged language model, is by default that of its files.

    Raises:
        CheckpointError: `folder` is not an adapter, does not fit its language model, or `out` holds
            something else.
        ValueError: a merged weight is not a finite number.
    """
    refuse_foreign(out)
    config = read_config(folder)
    if is_merged(folder):
        raise CheckpointError(f"{folder} is merged already; copy it if you want it at {out}")
    language_model = language_model or language_model_of(folder, config)
    model, tokenizer = load_trained(folder, language_model=language_model, dtype=torch.float32)
    whole: SefarVlmForConditionalGeneration = model.merge_and_unload(safe_merge=True)  # type: ignore[operator]
    cast(whole, dtype or stored_dtype(language_model))
    logits = fingerprint_logits(whole, tokenizer)
    with new_folder(out) as draft:
        whole.save_pretrained(draft, max_shard_size=SHARD_SIZE)
        tokenizer.save_pretrained(draft)
        write_fingerprint(whole, logits, draft)
        write_card(whole.config, draft, merged=True)
    return out


def refuse_foreign(out: Path) -> None:
    """Refuse to replace what merging did not write. CheckpointError if `out` is a file, or a folder
    of something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not is_merged(out):
        raise CheckpointError(
            f"{out} holds something that is not a merged model; choose another name"
        )
    read_config(out)


def cast(model: SefarVlmForConditionalGeneration, dtype: torch.dtype) -> None:
    """Convert the language model to a dtype; the projector stays in float32."""
    model.model.language_model.to(dtype)
    model.lm_head.to(dtype)
    model.config.text_config.dtype = dtype


def stored_dtype(language_model: str | Path) -> torch.dtype:
    """The dtype that a language model's config names; float32 if it names none."""
    return AutoConfig.from_pretrained(shipped(language_model)).dtype or torch.float32


def write_fingerprint(model: Trained, logits: Float[Tensor, "logit"], folder: Path) -> None:
    """Write what identifies a model into its folder: its precision and `fingerprint_logits`."""
    write_json(folder / FINGERPRINT, {"precision": precision(model), "logits": logits.tolist()})


def fingerprint_file(folder: Path) -> Path:
    """Where a model folder has its fingerprint, under the present or the older name."""
    old = folder / OLD_FINGERPRINT
    return old if old.is_file() and not (folder / FINGERPRINT).is_file() else folder / FINGERPRINT


def read_fingerprint(folder: Path) -> tuple[str, Float[Tensor, "logit"]]:
    """Precision and logits of a folder's fingerprint. CheckpointError if there is no fingerprint,
    or it is damaged.
    """
    path = fingerprint_file(folder)
    try:
        fingerprint = json.loads(path.read_text(encoding="utf-8"))
        return str(fingerprint["precision"]), torch.tensor(fingerprint["logits"])
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as cause:
        raise CheckpointError(
            f"{path} is not a fingerprint ({cause!r}), expected precision and logits; train or "
            f"merge the model again"
        ) from cause


@torch.inference_mode()
def fingerprint_logits(
    model: Trained, tokenizer: PreTrainedTokenizerBase
) -> Float[Tensor, "logit"]:
    """Some logits after a fixed question about a fixed pattern of video tokens.

    The model is called by its outermost forward, which gathers a sharded model.
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
    """Compare a loaded model with the fingerprint in its folder. CheckpointError if its logits
    differ by more than rounding.
    """
    stored_precision, stored = read_fingerprint(folder)
    computed = fingerprint_logits(model, tokenizer)
    gap = distance(computed, stored) if stored.shape == computed.shape else float("inf")
    allowed = tolerance(stored_precision, precision(model))
    if not gap <= allowed:  # a gap that is not a number is an error too
        raise CheckpointError(
            f"{folder} computes other logits than when it was saved: they are {gap:.3g} of their "
            f"spread apart, allowed {allowed}; is {composite(model).config.language_model} the "
            f"language model that it was trained on?"
        )


def distance(computed: Float[Tensor, "logit"], stored: Float[Tensor, "logit"]) -> float:
    """Distance of logits in units of the stored ones' spread; a constant changes nothing."""
    stored = stored - stored.mean()
    return ((computed - computed.mean() - stored).norm() / stored.norm()).item()


def tolerance(stored: str, loaded: str) -> float:
    """The distance that rounding between two precisions may cause."""
    if stored == loaded == "float32":
        return FULL
    return FOUR_BIT if (stored == "four_bit") != (loaded == "four_bit") else HALF


def precision(model: Trained) -> str:
    """The language model's precision: four_bit, or the name of its dtype."""
    vlm = composite(model)
    return "four_bit" if vlm.is_loaded_in_4bit else str(vlm.dtype).removeprefix("torch.")


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

Its answers are about the gymnastics moves that it was trained on. The licenses of the language
model and of the encoder hold for what is derived from them.

```python
import sefar_mllm

assistant = sefar_mllm.from_pretrained("THIS_FOLDER")
print(assistant.watch("clip.mp4").answer("Which move is this?"))
```
"""


def write_card(config: SefarVlmConfig, draft: Path, *, merged: bool = False) -> None:
    """Write README.md of a model folder: what it is, what it was trained on, how it is used."""
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
