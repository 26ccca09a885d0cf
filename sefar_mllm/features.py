"""Clips -> tokens of an encoder, computed once and kept in a token cache.

Training and scoring read the tokens and never open a video. A run that was stopped resumes. Under
`accelerate launch` the processes share the clips. Clips are encoded in fixed batches, cut from the
list of all clips: neither the number of processes nor a stop changes which clips are encoded
together, so the tokens are the same to the bit.

The frames of a clip are shown in the order of time, or in one of the control orders of
sefar_core/evaluate.py. An encoder that reads motion must lose under every other order; one that
reads scenes and poses need not.
"""

import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float16, UInt8
from torch import Tensor
from tqdm import tqdm

from qa_data.manifest import Clip
from sefar_core.data.dataset import read_from_folder
from sefar_core.data.video import read_fractions
from sefar_core.distributed import (
    StoppedByAnother,
    broadcast,
    highest,
    refuse_separate_runs,
    run_on_main,
)
from sefar_core.evaluate import FRAME_ORDERS, Frames
from sefar_core.run_dir import append_metrics, locked, surroundings
from sefar_core.signals import Interrupted, StopRequest
from sefar_mllm.encoders import Encoder, pool
from sefar_mllm.feature_cache import (
    FORMAT,
    SHARD_CLIPS,
    Piece,
    open_cache,
    refuse_overflow,
    spans_of,
    write_shard,
)

BATCH_CLIPS = 16
DECODED_AHEAD = 16  # clips; 8 frames of 1280 x 720 are 22 MB
SHARD_BATCHES = SHARD_CLIPS // BATCH_CLIPS
RUNS = "runs.jsonl"
FAILED = 256  # above the number of every signal

Tokens = Float16[Tensor, "clip frame row column dim"]


def extract(
    clips: Sequence[Clip],
    video_root: Path,
    encoder: Encoder,
    folder: Path,
    *,
    grid: int = 2,
    frame_order: str = "in_order",
) -> int:
    """Encode the clips that the cache in `folder` does not have yet.

    Every process of a run under `accelerate launch` calls it and encodes its part. Tokens are
    pooled to grid x grid a frame; frame orders other than in_order are controls. runs.jsonl in the
    folder records every run. Returns how many clips all processes encoded.

    Raises:
        CacheError: the folder holds the tokens of another encoder, sampling, clip or video.
        SefarError: another run writes into the folder.
        ValueError: the processes are not one group, or there is no such order.
        VideoReadError: a video gives no frames. This and the following errors keep the clips
            that are encoded.
        Interrupted: SIGTERM or SIGINT came.
        StoppedByAnother: another process failed and reports why.
    """
    accelerator = Accelerator()
    refuse_separate_runs(accelerator.num_processes)
    key = token_key(encoder, grid, frame_order)
    spans = spans_of(clips, video_root)  # before reading: a video replaced meanwhile shows later
    with ExitStack() as held, StopRequest() as stop_signal:
        run_on_main(accelerator, lambda: held.enter_context(locked(folder)))
        kept = broadcast(accelerator, lambda: begin(folder, key, encoder.origin, spans))
        todo = batches_to_encode(clips, kept)
        mine = todo[accelerator.process_index :: accelerator.num_processes]
        # Threads: FFmpeg releases Python's lock, and sending frames of 1280 x 720 from process to
        # process takes as long as decoding them.
        own_cores = (os.cpu_count() or 1) // accelerator.num_processes
        threads = max(2, min(DECODED_AHEAD, own_cores))
        tokens = encoded(mine, video_root, encoder, grid, frame_order, threads=threads)
        held.enter_context(closing(tokens))
        bar = tqdm(
            total=sum(map(len, mine)),
            desc=f"{encoder.name} tokens",
            unit="clip",
            disable=not accelerator.is_main_process,
        )
        held.enter_context(bar)
        for _ in range(0, len(todo), accelerator.num_processes * SHARD_BATCHES):
            batches = islice(tokens, SHARD_BATCHES)
            failure = fill_shard(folder, key, spans, batches, stop_signal, bar)
            stop_together(accelerator, folder, failure, stop_signal)
    return sum(map(len, todo))


def begin(
    folder: Path, key: dict[str, Any], origin: dict[str, Any], spans: dict[str, Piece]
) -> list[str]:
    """The clips that the cache holds; if it lacks some, runs.jsonl gets a line about this run."""
    kept = open_cache(folder, key, origin, spans)
    if len(kept) < len(spans):
        counts = {"clips_asked_for": len(spans), "clips_there": len(kept)}
        append_metrics(folder, {**surroundings(), **counts}, name=RUNS)
    return kept


def batches_to_encode(clips: Sequence[Clip], kept: Collection[str]) -> list[list[Clip]]:
    """What is to be encoded: the list of all clips cut into fixed batches, less what is kept."""
    there = set(kept)
    clips = list({clip.id: clip for clip in clips}.values())
    cut = [clips[first : first + BATCH_CLIPS] for first in range(0, len(clips), BATCH_CLIPS)]
    lacking = [[clip for clip in batch if clip.id not in there] for batch in cut]
    return [batch for batch in lacking if batch]


def encoded(
    work: Sequence[list[Clip]],
    video_root: Path,
    encoder: Encoder,
    grid: int,
    frame_order: str,
    *,
    threads: int,
) -> Generator[tuple[list[Clip], Tokens], None, None]:
    """Batches of clips with their tokens; the next clips are decoded meanwhile."""
    reorder = FRAME_ORDERS[frame_order]

    def read(clip: Clip) -> Frames:
        frames = read_from_folder(clip, encoder.moments, root=video_root, read=read_fractions)
        return reorder(frames, clip.id)

    with closing(ahead(read, chain.from_iterable(work), threads)) as decoded:
        for batch in work:
            tokens = encode(encoder, list(islice(decoded, len(batch))), grid)
            refuse_overflow(tokens, [clip.id for clip in batch], where=f"encoder {encoder.name}")
            yield batch, tokens


def ahead(
    read: Callable[[Clip], Frames], clips: Iterable[Clip], num_threads: int
) -> Generator[Frames, None, None]:
    """The frames of each clip, in order, while threads decode those that follow."""
    threads = ThreadPoolExecutor(num_threads)
    waiting: deque[Future[Frames]] = deque()
    try:
        for clip in clips:
            waiting.append(threads.submit(read, clip))
            if len(waiting) > DECODED_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def encode(encoder: Encoder, clips: Sequence[UInt8[Tensor, "moment _ _ 3"]], grid: int) -> Tokens:
    """The tokens of some clips, 16-bit; clips of one frame size are encoded together."""
    sizes: dict[torch.Size, list[int]] = {}
    for place, frames in enumerate(clips):
        sizes.setdefault(frames.shape, []).append(place)
    rows: dict[int, Tensor] = {}
    for places in sizes.values():
        tokens = pool(encoder.encode(torch.stack([clips[place] for place in places])), grid)
        rows |= dict(zip(places, tokens.half(), strict=True))
    return torch.stack([rows[place] for place in range(len(clips))])


def fill_shard(
    folder: Path,
    key: dict[str, Any],
    spans: dict[str, Piece],
    tokens: Iterable[tuple[list[Clip], Tokens]],
    stop_signal: StopRequest,
    bar: tqdm,
) -> Exception | None:
    """Write some batches as one shard; if one fails or a signal comes, those before it.

    Returns the error, if there was one.
    """
    done: dict[str, Piece] = {}
    rows: list[Tensor] = []
    try:
        try:
            for batch, encoded_tokens in tokens:
                done |= {clip.id: spans[clip.id] for clip in batch}
                rows.append(encoded_tokens)
                bar.update(len(batch))
                if stop_signal.number:
                    break
        finally:
            if rows:
                write_shard(folder, key, done, torch.cat(rows))
    except Exception as cause:  # raised by `stop_together`, after the other processes know
        return cause
    return None


def stop_together(
    accelerator: Accelerator, folder: Path, failure: Exception | None, stop_signal: StopRequest
) -> None:
    """Stop all processes if one of them failed or got a signal."""
    worst = highest(accelerator, stop_signal.number if failure is None else FAILED)
    if failure is not None:
        raise failure
    if worst == FAILED:
        raise StoppedByAnother("another process failed; its message says why")
    if worst:
        raise Interrupted(
            worst, f"stopped; {folder} keeps what is encoded, and the same command resumes"
        )


def token_key(encoder: Encoder, grid: int, frame_order: str = "in_order") -> dict[str, Any]:
    """What the tokens of an encoder depend on; a cache's key. ValueError if there is no such frame
    order.
    """
    if frame_order not in FRAME_ORDERS:
        raise ValueError(
            f"there is no frame order {frame_order!r}; choose one of {', '.join(FRAME_ORDERS)}"
        )
    return {"format": FORMAT, **encoder.key(grid), "frame_order": frame_order}
