"""The folder of a fine-tuned model: what is in it, and how it comes back exactly.

One folder holds LoRA and projector (adapter_model.safetensors), the composite config with the
name of the language model and the key of the encoder's tokens, and the tokenizer; neither
language model nor encoder is copied. probe.json holds some logits of a fixed prompt, and loading
computes them again: a wrong base, a lost projector or another tokenizer cannot pass in silence.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from sefar_core.checkpoint import replace_folder
from sefar_core.runs.folder import write_json
from sefar_mllm.adapters import composite, without_peft_warning
from sefar_mllm.model import SefarVlmForConditionalGeneration, word_table
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.projector import Projector
from sefar_mllm.prompt import Turn, encode_conversation

PROBE = "probe.json"
PROBE_LOGITS = 16
TOLERANCE = {torch.float32: 2e-3}  # CPU kernels differ in the order of their sums
COARSE_TOLERANCE = 0.25  # bfloat16 keeps eight bits


class FolderError(Exception):
    """A model folder that cannot be used. The message names it, what was found, the mend."""


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Llama-family model, checked.

    Raises:
        FolderError: it does not begin texts with bos, or lacks an end mark.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise FolderError(f"the tokenizer in {folder} has no bos or no eos; Llama's has both")
    if tokenizer("x")["input_ids"][0] != tokenizer.bos_token_id:
        raise FolderError(
            f"the tokenizer in {folder} does not begin a text with {tokenizer.bos_token}: "
            f'tokenizer_config.json with "add_bos_token": true is missing'
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def assemble(  # noqa: PLR0913 - all that makes a model
    language_model: str | Path,
    *,
    token_dim: int,
    token_shape: Sequence[int],
    encoder: dict[str, Any],
    anchor_ids: Sequence[int] = (0,),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> SefarVlmForConditionalGeneration:
    """Any Llama-family language model, from a folder or a hub name, behind a fresh projector.

    Args:
        language_model: folder or hub name.
        token_dim: width of the encoder's tokens.
        token_shape: frames, rows and columns of a clip's tokens.
        encoder: key and origin of the encoder's token cache.
        anchor_ids: tokens of the word that projected tokens start from.
        seed: of the projector's weights.
        dtype: of the language model; the projector stays in float32.

    Raises:
        OSError: the language model is not there (transformers names what it looked for).
    """
    language = AutoModelForCausalLM.from_pretrained(
        str(language_model), dtype=dtype, use_safetensors=True, trust_remote_code=False
    )
    table = word_table(language)
    config = SefarVlmConfig(
        language.config,
        video_token_id=table.num_embeddings,
        token_dim=token_dim,
        token_shape=token_shape,
        language_model=str(language_model),
        encoder=encoder,
    )
    with torch.device("meta"):  # the language model is there already: do not make it twice
        model = SefarVlmForConditionalGeneration(config)
    projector = Projector(token_dim, token_shape[0], table.embedding_dim)
    words = table.weight.detach().float()
    anchor = words[list(anchor_ids)].mean(dim=0)
    projector.start(anchor, words.pow(2).mean().sqrt().item(), torch.Generator().manual_seed(seed))
    model.model.multi_modal_projector = projector
    model.model.language_model = language.model
    model.lm_head = language.lm_head
    model.generation_config = language.generation_config
    return model


def save_trained(model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write adapter, config, tokenizer and probe, all or nothing; an older folder is replaced."""
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    fresh.mkdir(parents=True)
    model.save_pretrained(str(fresh), save_embedding_layers=False)
    composite(model).config.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    write_json(fresh / PROBE, {"logits": probe_logits(model, tokenizer).tolist()})
    replace_folder(fresh, folder)


def load_trained(
    folder: Path, *, language_model: str | None = None, device: str = "cpu"
) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """The fine-tuned model in a folder, in evaluation mode, and its tokenizer.

    Args:
        folder: what `save_trained` wrote.
        language_model: where the language model lies, if not where it lay in training.
        device: where to put it.

    Raises:
        FolderError: a file is missing or damaged, or the model computes other logits than the one
            that was saved.
    """
    for name in ("config.json", "adapter_config.json", "adapter_model.safetensors", PROBE):
        if not (folder / name).is_file():
            raise FolderError(
                f"{folder} is not a fine-tuned model: it has no {name}; "
                f"give the folder that scripts/finetune_mllm.py wrote, RUN/model"
            )
    config = SefarVlmConfig.from_pretrained(folder)
    model = assemble(
        language_model or config.language_model,
        token_dim=config.token_dim,
        token_shape=config.token_shape,
        encoder=config.encoder,
        dtype=torch.bfloat16 if device.startswith("cuda") else torch.float32,
    )
    tokenizer = load_tokenizer(folder)
    try:
        with without_peft_warning():
            trained = PeftModel.from_pretrained(model, str(folder)).to(device).eval()
    except (SafetensorError, RuntimeError, KeyError) as cause:
        raise FolderError(
            f"{folder} does not fit the language model {config.language_model}: {cause}"
        ) from cause
    check_probe(trained, tokenizer, folder)
    return trained, tokenizer


@torch.inference_mode()
def probe_logits(model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Some logits after a fixed question about a fixed pattern of video tokens."""
    was_training = model.training
    model.eval()
    base = composite(model)
    config: SefarVlmConfig = base.config
    prompt = encode_conversation(
        tokenizer,
        [Turn("What is this?")],
        num_video_tokens=config.num_video_tokens,
        video_id=config.video_token_id,
    )
    count = config.num_video_tokens * config.token_dim
    pattern = torch.sin(torch.arange(count) * 0.37).view(1, *config.token_shape, config.token_dim)
    ids = torch.tensor([prompt.ids], device=base.device)
    logits = base(input_ids=ids, video_tokens=pattern.to(base.device), logits_to_keep=1).logits
    model.train(was_training)
    step = max(1, logits.shape[-1] // PROBE_LOGITS)
    return logits[0, -1, ::step][:PROBE_LOGITS].float().cpu()


def check_probe(model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Compare the model with the logits stored beside it.

    Raises:
        FolderError: they differ by more than rounding.
    """
    stored = torch.tensor(json.loads((folder / PROBE).read_text())["logits"])
    found = probe_logits(model, tokenizer)
    tolerance = TOLERANCE.get(composite(model).dtype, COARSE_TOLERANCE)
    gap = (stored - found).abs().max().item() if stored.shape == found.shape else float("inf")
    if gap > tolerance:
        raise FolderError(
            f"{folder} computes other logits than when it was saved (largest difference "
            f"{gap:.3g}, allowed {tolerance}); is {composite(model).config.language_model} "
            f"still the language model that it was trained on?"
        )
