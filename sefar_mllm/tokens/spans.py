"""Which piece of which video a clip is, and how large that video was when it was encoded.

The size is cheap and survives copying: it tells a video that was encoded anew, or replaced, under
its old name. Another video of exactly the same size passes for the old one; only reading every
byte again would tell. Who reads tokens never looks at a video and needs none.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qa_data.manifest import Clip
from sefar_core.data.on_disk import on_disk
from sefar_core.data.picture_folder import is_picture
from sefar_mllm.tokens.shards import CacheError, Span

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
