"""The tokens of each clip, computed once for an encoder and kept: training and scoring read
tokens, and never open a video. A run that is stopped goes on where it was.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from qa_data.manifest import Clip
from sefar_core.data.video import read_fractions
from sefar_mllm.encoders import Encoder, pool
from sefar_mllm.token_cache import (
    FORMAT,
    INDEX,
    CacheError,
    add_shard,
    check_keys,
    read_index,
    span,
)

BATCH_CLIPS = 16
DECODED_AHEAD = 32


def extract(
    clips: Sequence[Clip],
    video_root: Path,
    encoder: Encoder,
    folder: Path,
    *,
    grid: int = 2,
    shard_clips: int = 512,
) -> int:
    """Encode the clips that the cache in `folder` does not have yet.

    Args:
        clips: any clips of a manifest.
        video_root: folder that the clips' paths are relative to.
        encoder: what encodes them.
        folder: the cache; made if missing.
        grid: tokens are pooled to grid x grid a frame.
        shard_clips: clips of one file.

    Returns:
        How many clips were encoded.

    Raises:
        CacheError: the folder holds the tokens of another encoder, sampling or clip.
        VideoReadError: a video gives no frames; what was encoded before it is kept.
    """
    index = open_index(folder, encoder, grid, clips)
    todo = [clip for clip in clips if clip.id not in index["clips"]]
    done: list[Clip] = []
    tokens: list[Tensor] = []
    with tqdm(total=len(todo), desc=f"{encoder.name} tokens", unit="clip") as bar:
        try:
            for some, frames in batches(decode(todo, video_root, encoder.moments)):
                tokens.append(pool(encoder.encode(frames), grid))
                done += some
                bar.update(len(some))
                if len(done) >= shard_clips:
                    add_shard(folder, index, done, torch.cat(tokens))
                    done, tokens = [], []
        finally:  # a stop or a broken video keeps what is done
            if done:
                add_shard(folder, index, done, torch.cat(tokens))
    return len(todo)


def open_index(folder: Path, encoder: Encoder, grid: int, clips: Sequence[Clip]) -> dict[str, Any]:
    """The index to go on from, after a check that it speaks of the same tokens and clips.

    Raises:
        CacheError: the folder holds the tokens of another encoder, sampling or clip.
    """
    key = {"format": FORMAT, **encoder.key(grid)}
    if not (folder / INDEX).exists():
        folder.mkdir(parents=True, exist_ok=True)
        return {"key": key, "origin": encoder.origin, "shards": [], "clips": {}}
    index = read_index(folder)
    check_keys(index["key"], key, where=str(folder), who=f"encoder {encoder.name}")
    for clip in clips:
        known = index["clips"].get(clip.id)
        if known is not None and known["span"] != span(clip):
            raise CacheError(
                f"{folder} holds clip {clip.id} cut as {known['span']}, the manifest says "
                f"{span(clip)}; delete {folder} and extract the tokens again"
            )
    return index


def decode(
    clips: Sequence[Clip], video_root: Path, moments: Sequence[float]
) -> Iterator[tuple[Clip, UInt8[Tensor, "frame height width 3"]]]:
    """Clips and their frames, in order; a few are decoded ahead by threads."""

    def read(clip: Clip) -> tuple[Clip, Tensor]:
        path = video_root / clip.path
        return clip, read_fractions(path, moments, start_s=clip.start_s, end_s=clip.end_s)

    rest = iter(clips)
    with ThreadPoolExecutor(max_workers=4) as threads:
        while ahead := list(islice(rest, DECODED_AHEAD)):
            yield from threads.map(read, ahead)


def batches(
    decoded: Iterator[tuple[Clip, Tensor]],
) -> Iterator[tuple[list[Clip], UInt8[Tensor, "batch frame height width 3"]]]:
    """Runs of clips whose frames are of one size, stacked."""
    for _, alike in groupby(decoded, key=lambda pair: pair[1].shape):
        while some := list(islice(alike, BATCH_CLIPS)):
            yield [clip for clip, _ in some], torch.stack([frames for _, frames in some])
