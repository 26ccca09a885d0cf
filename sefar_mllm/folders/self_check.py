"""What a model folder remembers of its model, and the check of a loaded model against it.

probe.json holds logits after a fixed question about a fixed pattern of video tokens, in what kind
of numbers they were computed, and the hash of the adapter's file. How far found logits lie from
the stored ones is measured against the spread of the stored ones, so that it means the same for
every model: rounding moves them little, another language model moves them by more than their
spread. What each pair of precisions allows:

- both float32: half a percent; only the order of sums differs between devices;
- one in 16 bits, or both in 4: a tenth;
- one in 4 bits, the other not: half. That tells another model from this one, but not a close
  relative (v1.3 from v1.5). LoRA and projector are exact in every case, by the hash.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sefar_core.runs.folder import write_json
from sefar_mllm.adapters import Trained, composite
from sefar_mllm.assemble import FolderError
from sefar_mllm.prompt import Turn, encode_conversation

PROBE = "probe.json"
ADAPTER = "adapter_model.safetensors"
PROBE_LOGITS = 64
FULL, HALF, FOUR_BIT = 0.005, 0.1, 0.5  # allowed distance, in units of the logits' spread


def write_probe(logits: Float[Tensor, "probe_logits"], numbers: str, folder: Path) -> None:
    """Remember a model in the folder that holds it.

    Args:
        logits: its `probe_logits`.
        numbers: its `precision`.
        folder: with the adapter's file, if there is one.
    """
    probe = {
        "precision": numbers,
        "adapter_sha256": file_hash(folder / ADAPTER),
        "logits": logits.tolist(),
    }
    write_json(folder / PROBE, probe)


def read_probe(folder: Path) -> dict[str, Any]:
    """What a folder remembers.

    Raises:
        FolderError: there is no probe, or it is damaged.
    """
    try:
        probe = json.loads((folder / PROBE).read_text(encoding="utf-8"))
        known = {"precision", "adapter_sha256", "logits"} <= set(probe)
    except (OSError, ValueError, TypeError) as cause:
        raise FolderError(
            f"{folder / PROBE} cannot be read: {cause}; train or merge the model again"
        ) from cause
    if not known:
        raise FolderError(
            f"{folder / PROBE} has {sorted(probe)}, expected precision, adapter_sha256 and logits; "
            f"train or merge the model again"
        )
    return probe


@torch.inference_mode()
def probe_logits(
    model: Trained, tokenizer: PreTrainedTokenizerBase
) -> Float[Tensor, "probe_logits"]:
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
    step = max(1, logits.shape[-1] // PROBE_LOGITS)
    return logits[0, -1, ::step][:PROBE_LOGITS].float().cpu()


def check_probe(model: Trained, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Compare a loaded model with what its folder remembers.

    Raises:
        FolderError: its logits differ by more than rounding.
    """
    probe = read_probe(folder)
    stored, found = torch.tensor(probe["logits"]), probe_logits(model, tokenizer)
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
