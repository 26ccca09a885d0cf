"""The folder that keeps the tokens of clips: what it holds, and how it is read.

index.json says what the tokens depend on (encoder, hash of its weights, moments, pooling) and
where each clip lies; tokens-*.safetensors hold them in 16-bit floats. A shard is written whole
before the index names it, so a stopped run leaves a smaller cache, never a broken one.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from qa_data.manifest import Clip
from sefar_core.runs.folder import write_json

INDEX = "index.json"
FORMAT = 1


class CacheError(Exception):
    """A cache that cannot serve. The message names the folder, what was found, and the mend."""


class TokenCache:
    """Tokens of some clips, read from a folder into memory.

    Args:
        folder: made by scripts/extract_features.py.
        clip_ids: the clips to read.

    Attributes:
        key: what the tokens depend on.
        origin: folder and seed that the encoder was made from, for whoever needs it again.
        token_shape: frames, rows and columns of a clip's tokens.
        token_dim: width of a token.

    Raises:
        CacheError: no cache, a damaged one, or one that lacks some of the clips.
    """

    def __init__(self, folder: Path, clip_ids: Sequence[str]):
        index = read_index(folder)
        wanted = sorted(set(clip_ids))
        missing = [clip_id for clip_id in wanted if clip_id not in index["clips"]]
        if missing or not wanted:
            raise CacheError(
                f"{folder} lacks {len(missing)} of {len(wanted)} clips, for example "
                f"{missing[:3]}; run scripts/extract_features.py again: it adds what is missing"
            )
        self.folder = folder
        self.key: dict[str, Any] = index["key"]
        self.origin: dict[str, Any] = index["origin"]
        self._tokens = _read_shards(folder, {i: index["clips"][i] for i in wanted})
        *self.token_shape, self.token_dim = self._tokens[wanted[0]].shape

    def __getitem__(self, clip_id: str) -> Float[Tensor, "frame row column dim"]:
        """The clip's tokens, float16."""
        return self._tokens[clip_id]


def check_keys(found: dict[str, Any], wanted: dict[str, Any], *, where: str, who: str) -> None:
    """Refuse tokens that are not those that `who` was made with.

    Raises:
        CacheError: the keys differ; the message names the first field that does.
    """
    for name, value in wanted.items():
        if found.get(name) != value:
            raise CacheError(
                f"{where} has tokens with {name} = {found.get(name)}, but {who} needs {name} = "
                f"{value}; give the cache of that encoder, or extract into another folder"
            )


def read_index(folder: Path) -> dict[str, Any]:
    """What is in a cache: `key`, `origin`, `shards`, and `clips` with the place of each.

    Raises:
        CacheError: there is no index, or it makes no sense.
    """
    path = folder / INDEX
    if not path.is_file():
        raise CacheError(
            f"{folder} is no token cache: it has no {INDEX}; "
            f"make it with scripts/extract_features.py"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {name: index[name] for name in ("key", "origin", "shards", "clips")}
    except (ValueError, KeyError, TypeError) as cause:
        raise CacheError(
            f"{path} is damaged ({cause!r}); delete {folder} and extract the tokens again"
        ) from cause


def add_shard(
    folder: Path,
    index: dict[str, Any],
    clips: Sequence[Clip],
    tokens: Float[Tensor, "clip frame row column dim"],
) -> None:
    """Write the tokens of these clips, whole, and then name them in the index."""
    name = f"tokens-{len(index['shards']):05d}.safetensors"
    fresh = folder / f".{name}.{os.getpid()}"
    save_file({"tokens": tokens.half().contiguous()}, fresh)
    os.replace(fresh, folder / name)
    index["shards"].append(name)
    for row, clip in enumerate(clips):
        index["clips"][clip.id] = {"shard": name, "row": row, "span": span(clip)}
    write_json(folder / INDEX, index)


def span(clip: Clip) -> list[Any]:
    """Which piece of which file a clip is."""
    return [clip.path, clip.start_s, clip.end_s]


def _read_shards(folder: Path, places: dict[str, dict[str, Any]]) -> dict[str, Tensor]:
    tokens: dict[str, Tensor] = {}
    for name in sorted({place["shard"] for place in places.values()}):
        try:
            with safe_open(folder / name, framework="pt") as shard:
                rows = shard.get_tensor("tokens")
            tokens |= {i: rows[p["row"]] for i, p in places.items() if p["shard"] == name}
        except (SafetensorError, OSError, IndexError) as cause:
            raise CacheError(
                f"{folder / name} is damaged or missing ({cause}); delete {folder} and extract "
                f"the tokens again"
            ) from cause
        if not torch.isfinite(rows).all():
            raise CacheError(
                f"{folder / name} holds tokens that are no finite 16-bit numbers; the encoder's "
                f"output overflows: check its weights"
            )
    return tokens
