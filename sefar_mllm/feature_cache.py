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

One file of a token cache: the tokens of some clips, which clips they are, and a hash of it all.

A shard says for itself what it holds, so that several processes write into one folder without an
index to agree on, and a process that is killed leaves nothing to mend. Its name follows from its
clips. Its header, the text part of a safetensors file, has

    cache   hash of the cache's key: a shard that strayed here from another cache is known
    clips   JSON, clip id -> span: which piece of which video (spans.py), in the order of the rows
    sha256  of these two, the shape and the tokens

Tokens are 16-bit floats. They are mapped, not copied: processes that read one cache share it.

Which piece of which video a clip is, and how large that video was when it was encoded.

The size is cheap and survives copying: it tells a video that was encoded anew, or replaced, under
its old name. Another video of exactly the same size passes for the old one; only reading every
byte again would tell. Who reads tokens never looks at a video and needs none.

A token cache that is made or gone on with. Who writes locks the folder and opens it.
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

from qa_data.files import composed, on_disk, remove_drafts, write_bytes, write_json
from qa_data.manifest import Clip
from sefar_core.data.pictures import is_picture
from sefar_core.run_dir import locked

PATTERN = "tokens-*.safetensors"
FIX = "delete this file and run scripts/extract_features.py again: it encodes the clips anew"

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
    write_bytes(path, data)


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
        raise CacheError(f"{path} is damaged ({cause!r}); {FIX}") from cause


def read_rows(head: Head) -> Float16[Tensor, "clip frame row column dim"]:
    """The tokens of a shard, after a check of its hash.

    Raises:
        CacheError: a bit differs from what was written, or the tokens are not what they must be.
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
    if content_hash(head.cache, json.dumps(head.clips), rows) != head.sha256:
        raise CacheError(f"{head.path} is damaged: its sha256 is not the one it tells; {FIX}")
    if not finite(rows):
        raise CacheError(
            f"{head.path} holds tokens that are no finite 16-bit numbers; check the encoder's "
            f"weights, then {FIX}"
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
            f"{told}; {FIX}"
        )


CUT = 3  # of a span: path, start, end


def spans_of(clips: Sequence[Clip], video_root: Path) -> dict[str, Span]:
    """Clip id -> path, start and end (seconds, or None), number of files, and bytes of them all.

    Where a video is missing, the last two are: what is cached of it stays good, and who is to
    encode it will say that it is missing. Each video is looked at once.
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


def refuse_other_piece(folder: Path, clip_id: str, kept: Span, asked: Span) -> None:
    """Refuse a clip that is cut otherwise, or from another video, than the one in a cache.

    Args:
        folder: the cache, for the message.
        clip_id: likewise.
        kept: what was encoded.
        asked: what is to be encoded; without sizes only the cut is compared.

    Raises:
        CacheError: the two differ.
    """
    if kept[: len(asked)] == asked:
        return
    if kept[:CUT] != asked[:CUT]:
        raise CacheError(
            f"{folder} holds clip {clip_id} cut as {kept[:CUT]}, the manifest says "
            f"{asked[:CUT]}; delete {folder} and extract the tokens again"
        )
    raise CacheError(
        f"{folder} holds the tokens of clip {clip_id} from {asked[0]} as it was with "
        f"{_told(kept[CUT:])}, but it has {_told(asked[CUT:])}: the video was encoded anew or "
        f"replaced; put the old one back, or delete {folder} and extract the tokens again"
    )


def _told(size: Sequence[Any]) -> str:
    return "{} file(s) of {:,} bytes".format(*size) if size else "a size that nobody kept"


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
