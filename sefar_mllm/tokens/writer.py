"""A token cache that is made or gone on with. Who writes locks the folder and opens it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sefar_core.runs.folder import remove_drafts, write_json
from sefar_core.runs.lock import locked
from sefar_mllm.tokens.cache import INDEX, check_keys, read_index, read_places
from sefar_mllm.tokens.shards import Span, write_shard
from sefar_mllm.tokens.spans import refuse_other_piece

SHARD_CLIPS = 512


def open_cache(
    folder: Path, key: Mapping[str, Any], origin: Mapping[str, Any], clips: Mapping[str, Span]
) -> list[str]:
    """Make a cache to write to, or go on with it; the caller has locked the folder.

    Returns:
        Those of the clips that it holds already.

    Raises:
        CacheError: the folder holds the tokens of another encoder, sampling, clip or video.
    """
    remove_drafts(folder)
    if (folder / INDEX).exists():
        found = read_index(folder)["key"]
        check_keys(found, key, where=str(folder), who=f"encoder {key['encoder']}")
    places = read_places(folder, key)
    kept = [clip_id for clip_id in clips if clip_id in places]
    for clip_id in kept:
        known = places[clip_id].shard.clips[clip_id]
        refuse_other_piece(folder, clip_id, known, clips[clip_id])
    if not (folder / INDEX).exists():
        write_json(folder / INDEX, {"key": key, "origin": origin})
    return kept


def write_tokens(
    folder: Path,
    key: Mapping[str, Any],
    origin: Mapping[str, Any],
    clips: Mapping[str, Span],
    tokens: Iterable[Float[Tensor, "frame row column dim"]],
) -> None:
    """Write tokens that were made otherwise than by `extract`, as a cache that is read alike.

    Args:
        folder: made if missing; clips that it holds already are left as they are.
        key: what the tokens depend on, all of it: fields as `features.token_key` has them.
        origin: folder and seed that the encoder was made from.
        clips: which piece of which video each clip is: `TokenCache.spans` of the source.
        tokens: of each clip, in the same order; float16 is what is kept.

    Raises:
        CacheError: the folder holds other tokens, or these are not finite in 16 bits.
        ValueError: there are more or fewer tokens than clips.
    """
    with locked(folder):
        kept = set(open_cache(folder, key, origin, clips))
        spans: dict[str, Span] = {}
        rows: list[Tensor] = []
        for (clip_id, cut), row in zip(clips.items(), tokens, strict=True):
            if clip_id in kept:
                continue
            spans[clip_id] = cut
            rows.append(row)
            if len(rows) == SHARD_CLIPS:
                write_shard(folder, key, spans, torch.stack(rows))
                spans, rows = {}, []
        if rows:
            write_shard(folder, key, spans, torch.stack(rows))
