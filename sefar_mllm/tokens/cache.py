"""The folder that keeps the tokens of clips: what it holds, how it is read, what it must agree on.

index.json says what all tokens depend on, the key: format, encoder, hash of its weights and
architecture, moments, width, pooling and the order of the frames; and where the encoder came from.
Each tokens-*.safetensors says which clips it holds (shards.py), cut from which videos (spans.py).

Who trains or scores with a cache asks `check_keys`:

    check_keys(found, wanted, *, where, who, any_frame_order=False)

`any_frame_order=True` is for the control that shows a trained model frames in another order; the
encoder, its weights and everything else must still be equal.

Who has tokens of other making, such as an exact map of a cache's, writes them with

    write_tokens(folder, key, origin, clips, tokens)

of writer.py, where `clips` may be the `spans` of the cache that they were made from.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float16
from torch import Tensor

from qa_data.text_file import composed
from sefar_mllm.tokens.shards import (
    MEND,
    PATTERN,
    CacheError,
    Head,
    key_hash,
    read_head,
    read_rows,
)

__all__ = ["CacheError", "TokenCache", "check_keys", "read_index", "read_places"]

INDEX = "index.json"
FORMAT = 3
"""3 tells encoders apart that differ in architecture alone, and knows the size of each video."""


class Place(NamedTuple):
    """Where a clip's tokens lie."""

    shard: Head
    row: int


class TokenCache:
    """Tokens of some clips. Shards that hold none of them are not read.

    Args:
        folder: made by scripts/extract_features.py.
        clip_ids: the clips to read.

    Attributes:
        key: what the tokens depend on.
        origin: folder and seed that the encoder was made from, for whoever needs it again; of
            image models `weights`, too: words that belong beside every number they give.
        spans: which piece of which video each clip is.
        token_shape: frames, rows and columns of a clip's tokens.
        token_dim: width of a token.

    Raises:
        CacheError: no cache, a damaged one, or one that lacks some of the clips.
    """

    def __init__(self, folder: Path, clip_ids: Sequence[str]):
        index = read_index(folder)
        places = read_places(folder, index["key"])
        kept = {composed(clip_id): clip_id for clip_id in places}
        wanted = sorted(set(clip_ids))
        missing = [clip_id for clip_id in wanted if composed(clip_id) not in kept]
        if missing or not wanted:
            meant = meant_by(missing[0], places) if missing else None
            fix = (
                f"the manifest of these tokens calls it {meant!r}: write that in the questions"
                if meant
                else "run scripts/extract_features.py again with a manifest that lists them: it "
                "adds what is missing"
            )
            raise CacheError(
                f"{folder} lacks {len(missing)} of {len(wanted)} clips, for example "
                f"{missing[:3]}; {fix}"
            )
        self.folder = folder
        self.key: dict[str, Any] = index["key"]
        self.origin: dict[str, Any] = index["origin"]
        stored = {clip_id: kept[composed(clip_id)] for clip_id in wanted}
        places = {clip_id: places[name] for clip_id, name in stored.items()}
        self.spans = {i: places[i].shard.clips[name] for i, name in stored.items()}
        self._tokens = _read(folder, places, self.key)
        *self.token_shape, self.token_dim = self._tokens[wanted[0]].shape

    def __getitem__(self, clip_id: str) -> Float16[Tensor, "frame row column dim"]:
        """The clip's tokens; to be read, never written to."""
        return self._tokens[clip_id]


def meant_by(clip_id: str, known: Iterable[str]) -> str | None:
    """The one known clip that a name means with folders or an ending too many or too few.

    Args:
        clip_id: not known, such as videos/x.mp4.
        known: ids of clips, such as x.
    """
    wanted = _bare_parts(clip_id)
    found = []
    for one in known:
        parts = _bare_parts(one)
        shared = min(len(parts), len(wanted))
        if parts[-shared:] == wanted[-shared:]:
            found.append(one)
    return found[0] if len(found) == 1 else None


def _bare_parts(clip_id: str) -> list[str]:
    return re.sub(r"\.\w{2,4}$", "", clip_id.replace("\\", "/")).split("/")


def check_keys(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    where: str,
    who: str,
    any_frame_order: bool = False,
) -> None:
    """Refuse tokens that are not those that `who` was made with.

    Args:
        found: key of the cache that is there.
        wanted: key of the cache that it must equal.
        where: the cache that is there, in words.
        who: what needs the tokens, in words.
        any_frame_order: frames may have been shown in another order; all else must be equal.

    Raises:
        CacheError: the keys differ; the message names the first field that does.
    """
    for name in dict.fromkeys([*wanted, *found]):
        if name == "frame_order" and any_frame_order:
            continue
        if found.get(name) != wanted.get(name):
            mend = (
                "extract the tokens again, and train again what learned from the old ones"
                if name == "format"
                else "give the cache of that encoder, or extract into another folder"
            )
            raise CacheError(
                f"{where} has tokens with {name} = {found.get(name)}, but {who} needs {name} = "
                f"{wanted.get(name)}; {mend}"
            )


def read_index(folder: Path) -> dict[str, Any]:
    """A cache's `key` and `origin`.

    Raises:
        CacheError: there is no index, it makes no sense, or the cache is of another format.
    """
    path = folder / INDEX
    if not path.is_file():
        raise CacheError(
            f"{folder} is no token cache: it has no {INDEX}; "
            f"make it with scripts/extract_features.py"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        index = {"key": dict(index["key"]), "origin": dict(index["origin"])}
        found = index["key"]["format"]
    except (ValueError, KeyError, TypeError) as cause:
        raise CacheError(
            f"{path} is damaged, or not of a token cache ({cause!r}); extract the tokens into "
            f"another folder"
        ) from cause
    if found != FORMAT:
        raise CacheError(
            f"{folder} is a token cache of format {found}, and format {FORMAT} is read; delete "
            f"{folder} and extract the tokens again with scripts/extract_features.py"
        )
    return index


def read_places(folder: Path, key: Mapping[str, Any]) -> dict[str, Place]:
    """Where each clip's tokens lie. Only headers are read.

    A clip may stand in two shards, if a process outlived the run that it was part of. Both were
    made by one key from one span, so either will do: the first is taken.

    Raises:
        CacheError: a shard is damaged or of another cache, or two cut a clip differently.
    """
    cache = key_hash(key)
    places: dict[str, Place] = {}
    for path in sorted(folder.glob(PATTERN)):
        shard = read_head(path)
        if shard.cache != cache:
            raise CacheError(
                f"{path} does not belong to {folder}: it was written under another key; move it "
                f"to the folder that it came from, or delete it"
            )
        for row, (clip_id, cut) in enumerate(shard.clips.items()):
            first = places.setdefault(clip_id, Place(shard, row)).shard
            if first.clips[clip_id] != cut:
                raise CacheError(
                    f"{path} and {first.path.name} hold clip {clip_id} cut as {cut} and as "
                    f"{first.clips[clip_id]}; delete {folder} and extract the tokens again"
                )
    return places


def _read(folder: Path, places: Mapping[str, Place], key: Mapping[str, Any]) -> dict[str, Tensor]:
    """The rows of these clips; each shard is read once."""
    held: dict[Path, list[str]] = {}
    for clip_id, place in places.items():
        held.setdefault(place.shard.path, []).append(clip_id)
    tokens: dict[str, Tensor] = {}
    shapes: dict[tuple[int, ...], Path] = {}
    for path, clip_ids in held.items():
        rows = read_rows(places[clip_ids[0]].shard)
        refuse_other_shape(path, tuple(rows.shape[1:]), key)
        shapes.setdefault(tuple(rows.shape[1:]), path)
        tokens |= {clip_id: rows[places[clip_id].row] for clip_id in clip_ids}
    if len(shapes) > 1:
        told = " and ".join(f"{shape} in {path.name}" for shape, path in shapes.items())
        raise CacheError(
            f"{folder} holds tokens of unlike shapes, {told}; delete {folder} and extract the "
            f"tokens again"
        )
    return tokens


def refuse_other_shape(path: Path, shape: tuple[int, ...], key: Mapping[str, Any]) -> None:
    """Raise CacheError for rows (frame row column dim) that are not what the key says."""
    _, *found = shape
    told = [key["grid"], key["grid"], key["dim"]]
    if found != told:
        raise CacheError(
            f"{path} holds tokens of rows, columns and width {found}, but the cache's key says "
            f"{told}; {MEND}"
        )
