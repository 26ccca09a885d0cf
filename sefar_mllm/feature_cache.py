"""A token cache: the folder that keeps the tokens of clips, computed once for each encoder.

index.json holds the key, that is, what all tokens depend on: format, encoder, hash of its weights
and architecture, moments, width, pooling and the order of the frames. It also holds where the
encoder came from. Who trains or scores with a cache compares keys by `check_keys`.

Each tokens-*.safetensors is a shard: the tokens of some clips, 16-bit floats, mapped and not
copied, so that processes that read one cache share its memory. A shard names what it holds in its
header, so that several processes write into one folder without a common index, and a killed
process leaves nothing to repair. Its name follows from its clips. The header has

    cache   hash of the cache's key: a shard that was copied here from another cache is noticed
    clips   JSON, clip id -> span: which piece of which video, in the order of the rows

Damage is noticed by the number of rows and the size of the file. A span also holds the size of
the video when its tokens were made, so that one that was encoded again, or replaced, under its old
name is noticed. Another video of exactly the same size is not. Reading tokens needs no video.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float16
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from qa_data.files import SefarError, composed, on_disk, remove_drafts, write_bytes, write_json
from qa_data.manifest import Clip
from sefar_core.data.pictures import is_picture
from sefar_core.run_dir import locked

INDEX = "index.json"
FORMAT = 3
"""Format 3 distinguishes encoders that differ in architecture alone, and has videos' sizes."""
PATTERN = "tokens-*.safetensors"
SHARD_CLIPS = 512
CUT = 3  # of a span: path, start, end
FIX = "delete this file and run scripts/extract_features.py again: it encodes the clips again"

Piece = list[Any]
"""Which piece of which video a clip is; see `spans_of`."""


class CacheError(SefarError):
    """A cache that cannot be used. The message names the file, what was found, and the fix."""


class Head(NamedTuple):
    """The header of a shard."""

    path: Path
    cache: str
    """Hash of the cache's key."""
    clips: dict[str, Piece]
    """The clip of each row, in order."""


class Place(NamedTuple):
    """Where a clip's tokens are."""

    shard: Head
    row: int


class TokenCache:
    """The tokens of some clips. Shards that hold none of them are not read.

    Attributes:
        key: what the tokens depend on.
        origin: folder and seed that the encoder was made from; for image models `weights`, too:
            what is known of their authenticity.
        spans: which piece of which video each clip is.
        token_shape: frames, rows and columns of a clip's tokens.
        token_dim: width of a token.

    Raises:
        CacheError: there is no cache, it is damaged, or it lacks some of the clips.
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
        """The clip's tokens, mapped from the file: do not write to them."""
        return self._tokens[clip_id]


def check_keys(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    where: str,
    who: str,
    any_frame_order: bool = False,
) -> None:
    """Refuse tokens that are not those that `who` was trained with.

    `where` (the cache that is there) and `who` are words for the message. With `any_frame_order`
    the frames may have another order, for the control that shows a trained model frames in another
    order; everything else must be equal. CacheError if the keys differ; the message names the first
    field that does.
    """
    for name in dict.fromkeys([*wanted, *found]):
        if name == "frame_order" and any_frame_order:
            continue
        if found.get(name) != wanted.get(name):
            fix = (
                "extract the tokens again, and train again what was trained on the old ones"
                if name == "format"
                else "give the cache of that encoder, or extract into another folder"
            )
            raise CacheError(
                f"{where} has tokens with {name} = {found.get(name)}, but {who} needs {name} = "
                f"{wanted.get(name)}; {fix}"
            )


def read_index(folder: Path) -> dict[str, Any]:
    """A cache's `key` and `origin`. CacheError if there is no index, it is damaged, or the cache is
    of another format.
    """
    path = folder / INDEX
    if not path.is_file():
        raise CacheError(
            f"{folder} is not a token cache: it has no {INDEX}; "
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
    """Where each clip's tokens are. Only headers are read.

    A clip may be in two shards, if a process outlived its run. Both were made with one key from one
    span, so the first is taken. CacheError if a shard is damaged or of another cache, or two cut a
    clip differently.
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
        grid, dim = key["grid"], key["dim"]
        if (found := list(rows.shape[2:])) != [grid, grid, dim]:
            raise CacheError(
                f"{path} holds tokens of rows, columns and width {found}, but the cache's key says "
                f"{[grid, grid, dim]}; {FIX}"
            )
        shapes.setdefault(tuple(rows.shape[1:]), path)
        tokens |= {clip_id: rows[places[clip_id].row] for clip_id in clip_ids}
    if len(shapes) > 1:
        both = " and ".join(f"{shape} in {path.name}" for shape, path in shapes.items())
        raise CacheError(
            f"{folder} holds tokens of unlike shapes, {both}; delete {folder} and extract the "
            f"tokens again"
        )
    return tokens


def meant_by(clip_id: str, known: Iterable[str]) -> str | None:
    """The one known clip, such as x, that a name like videos/x.mp4 means; None without one."""
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


def open_cache(
    folder: Path, key: Mapping[str, Any], origin: Mapping[str, Any], clips: Mapping[str, Piece]
) -> list[str]:
    """Make a cache to write to, or continue one; the clips that it holds already. The caller has
    locked the folder. CacheError if it holds the tokens of another encoder, sampling, clip or
    video.
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
    clips: Mapping[str, Piece],
    tokens: Iterable[Float[Tensor, "frame row column dim"]],
) -> None:
    """Write tokens that were not made by `extract`, such as an exact map of a cache's tokens.

    `key` has the fields of `features.token_key`; `clips` are spans as in `TokenCache.spans`, with
    their tokens in the same order, stored as float16. The folder is made if missing; clips that it
    holds already are left as they are.
    CacheError if the folder holds other tokens, or these are not finite in 16 bits; ValueError for
    more or fewer tokens than clips.
    """
    with locked(folder):
        kept = set(open_cache(folder, key, origin, clips))
        spans: dict[str, Piece] = {}
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


def write_shard(
    folder: Path,
    key: Mapping[str, Any],
    clips: Mapping[str, Piece],
    tokens: Float[Tensor, "clip frame row column dim"],
) -> None:
    """Write the tokens of these clips, one row each, all or nothing. CacheError for more or fewer
    rows than clips, or tokens that 16 bits cannot hold; WriteError if the disk refuses.
    """
    if len(tokens) != len(clips):
        raise CacheError(f"{folder} got {len(tokens)} rows of tokens for {len(clips)} clips")
    rows = tokens.half().contiguous()
    refuse_overflow(rows, list(clips), where=str(folder))
    text = json.dumps(clips)
    data = save({"tokens": rows}, {"cache": key_hash(key), "clips": text})
    path = folder / f"tokens-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
    write_bytes(path, data)


def read_head(path: Path) -> Head:
    """Which clips a shard holds; the tokens are not read. CacheError if the file is cut short, or
    is not a shard.
    """
    try:
        with safe_open(path, framework="pt") as shard:
            head = shard.metadata()
        clips = json.loads(head["clips"])
        return Head(path, head["cache"], dict(clips.items()))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise CacheError(f"{path} is damaged ({cause!r}); {FIX}") from cause


def read_rows(head: Head) -> Float16[Tensor, "clip frame row column dim"]:
    """The tokens of a shard. CacheError if the file is cut short, or does not hold a row of finite
    tokens for each clip.
    """
    try:
        with safe_open(head.path, framework="pt") as shard:
            rows = shard.get_tensor("tokens")
    except (SafetensorError, OSError) as cause:
        raise CacheError(f"{head.path} is damaged ({cause!r}); {FIX}") from cause
    if rows.dtype != torch.float16 or rows.ndim != 5:
        raise CacheError(
            f"{head.path} holds {rows.dtype} of shape {tuple(rows.shape)}, not float16 of shape "
            f"(clip, frame, row, column, dim); {FIX}"
        )
    if len(rows) != len(head.clips):
        raise CacheError(
            f"{head.path} names {len(head.clips)} clips and holds {len(rows)} rows; {FIX}"
        )
    if not finite(rows):
        raise CacheError(
            f"{head.path} holds tokens that are not finite 16-bit numbers; check the encoder's "
            f"weights, then {FIX}"
        )
    return rows


def refuse_overflow(
    tokens: Float16[Tensor, "clip frame row column dim"], clip_ids: Sequence[str], *, where: str
) -> None:
    """Raise CacheError, naming the first clip, if tokens are not finite in 16 bits."""
    if not finite(tokens):
        bad = next(i for i, row in zip(clip_ids, tokens, strict=True) if not finite(row))
        raise CacheError(
            f"{where}: the tokens of clip {bad} are not finite 16-bit numbers; the encoder's "
            f"output overflows: check its weights"
        )


def finite(tokens: Float16[Tensor, "..."]) -> bool:
    """Whether all tokens are finite. The extremes show it, faster than torch.isfinite."""
    low, high = tokens.aminmax()
    return bool(low.isfinite() and high.isfinite())


def key_hash(key: Mapping[str, Any]) -> str:
    """A short name for a cache's key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def spans_of(clips: Sequence[Clip], video_root: Path) -> dict[str, Piece]:
    """Clip id -> path, start and end (seconds, or None), number of files, and bytes of them all.

    For a missing video the last two are left out: what is cached of it stays valid, and encoding
    it reports the missing file. Each video is checked once.
    """
    sizes = {path: size_of(on_disk(video_root / path)) for path in {clip.path for clip in clips}}
    return {clip.id: [clip.path, clip.start_s, clip.end_s, *sizes[clip.path]] for clip in clips}


def size_of(path: Path) -> list[int]:
    """Number of files and bytes of a video, or of a folder's pictures; nothing if neither."""
    if path.is_dir():
        with os.scandir(path) as entries:
            sizes = [entry.stat().st_size for entry in entries if is_picture(entry.name)]
        return [len(sizes), sum(sizes)]
    return [1, path.stat().st_size] if path.is_file() else []


def refuse_other_piece(folder: Path, clip_id: str, kept: Piece, wanted: Piece) -> None:
    """Raise CacheError for a clip that is cut otherwise, or from another video, than the one that a
    cache keeps; if `wanted` has no sizes, only the cut is compared.
    """
    if kept[: len(wanted)] == wanted:
        return
    if kept[:CUT] != wanted[:CUT]:
        raise CacheError(
            f"{folder} holds clip {clip_id} cut as {kept[:CUT]}, the manifest says "
            f"{wanted[:CUT]}; delete {folder} and extract the tokens again"
        )
    raise CacheError(
        f"{folder} holds the tokens of clip {clip_id} from {wanted[0]} as it was with "
        f"{_size_text(kept[CUT:])}, but it has {_size_text(wanted[CUT:])}: the video was encoded "
        f"again or replaced; put the old one back, or delete {folder} and extract the tokens again"
    )


def _size_text(size: Sequence[Any]) -> str:
    return "{} file(s) of {:,} bytes".format(*size) if size else "an unknown size"
