"""One file of a token cache: the tokens of some clips, which clips they are, and a hash of it all.

A shard says for itself what it holds, so that several processes write into one folder without an
index to agree on, and a process that is killed leaves nothing to mend. Its name follows from its
clips. Its header, the text part of a safetensors file, has

    cache   hash of the cache's key: a shard that strayed here from another cache is known
    clips   JSON, clip id -> span: which piece of which video (spans.py), in the order of the rows
    sha256  of these two, the shape and the tokens

Tokens are 16-bit floats. They are mapped, not copied: processes that read one cache share it.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float16
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sefar_core.runs.folder import sync, writing

PATTERN = "tokens-*.safetensors"
MEND = "delete this file and run scripts/extract_features.py again: it encodes the clips anew"

Span = list[Any]
"""Which piece of which video a clip is: JSON, made by spans.py."""


class CacheError(Exception):
    """A cache that cannot serve. The message names the file, what was found, and the mend."""


class Head(NamedTuple):
    """What a shard says of itself."""

    path: Path
    cache: str
    """Hash of the cache's key."""
    clips: dict[str, Span]
    """The clip of each row, in order."""
    sha256: str


def key_hash(key: Mapping[str, Any]) -> str:
    """A short name for a cache's key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def write_shard(
    folder: Path,
    key: Mapping[str, Any],
    clips: Mapping[str, Span],
    tokens: Float[Tensor, "clip frame row column dim"],
) -> None:
    """Write the tokens of these clips, one row each, all or nothing.

    Raises:
        CacheError: there are more or fewer rows than clips, or tokens that 16 bits cannot hold.
        WriteError: the disk is full, or refuses otherwise.
    """
    if len(tokens) != len(clips):
        raise CacheError(f"{folder} was to get {len(tokens)} rows of tokens for {len(clips)} clips")
    rows = tokens.half().contiguous()
    refuse_overflow(rows, list(clips), where=str(folder))
    text = json.dumps(clips)
    head = {"cache": key_hash(key), "clips": text}
    data = save({"tokens": rows}, {**head, "sha256": content_hash(**head, rows=rows)})
    path = folder / f"tokens-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
    draft = folder / f".{path.name}.{os.getpid()}"
    with writing(path, len(data), draft):
        draft.write_bytes(data)
        sync(draft)
        os.replace(draft, path)


def read_head(path: Path) -> Head:
    """Which clips a shard holds; the tokens are not read.

    Raises:
        CacheError: the file is cut short, or no shard.
    """
    try:
        with safe_open(path, framework="pt") as shard:
            head = shard.metadata()
        clips = json.loads(head["clips"])
        return Head(path, head["cache"], dict(clips.items()), head["sha256"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise CacheError(f"{path} is damaged ({cause!r}); {MEND}") from cause


def read_rows(head: Head) -> Float16[Tensor, "clip frame row column dim"]:
    """The tokens of a shard, after a check of its hash.

    Raises:
        CacheError: a bit differs from what was written, or the tokens are not what they must be.
    """
    try:
        with safe_open(head.path, framework="pt") as shard:
            rows = shard.get_tensor("tokens")
    except (SafetensorError, OSError) as cause:
        raise CacheError(f"{head.path} is damaged ({cause!r}); {MEND}") from cause
    if rows.dtype != torch.float16 or rows.ndim != 5:
        raise CacheError(
            f"{head.path} holds {rows.dtype} of shape {tuple(rows.shape)}, not float16 of shape "
            f"(clip, frame, row, column, dim); {MEND}"
        )
    if len(rows) != len(head.clips):
        raise CacheError(
            f"{head.path} names {len(head.clips)} clips and holds {len(rows)} rows; {MEND}"
        )
    if content_hash(head.cache, json.dumps(head.clips), rows) != head.sha256:
        raise CacheError(f"{head.path} is damaged: its sha256 is not the one it tells; {MEND}")
    if not finite(rows):
        raise CacheError(
            f"{head.path} holds tokens that are no finite 16-bit numbers; check the encoder's "
            f"weights, then {MEND}"
        )
    return rows


def content_hash(cache: str, clips: str, rows: Float16[Tensor, "clip frame row column dim"]) -> str:
    """SHA-256 of everything that a shard says."""
    content = hashlib.sha256(f"{cache}\n{clips}\n{tuple(rows.shape)}\n".encode())
    content.update(rows.numpy().data)
    return content.hexdigest()


def refuse_overflow(
    tokens: Float16[Tensor, "clip frame row column dim"], clip_ids: Sequence[str], *, where: str
) -> None:
    """Raise CacheError, naming the first clip, if tokens are not finite in 16 bits."""
    if not finite(tokens):
        bad = next(i for i, row in zip(clip_ids, tokens, strict=True) if not finite(row))
        raise CacheError(
            f"{where}: the tokens of clip {bad} are no finite 16-bit numbers; the encoder's output "
            f"overflows: check its weights"
        )


def finite(tokens: Float16[Tensor, "..."]) -> bool:
    """Whether all are. The extremes tell, without a copy and far quicker than torch.isfinite."""
    low, high = tokens.aminmax()
    return bool(low.isfinite() and high.isfinite())
