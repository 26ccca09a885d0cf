"""Batches in an order that is a function of the seed and the position alone.

Clips come as an endless stream: one shuffled pass after another, no clip left out at the end of a
pass. A stream is begun at any position without decoding what lies before it, which makes a resumed
run equal to an uninterrupted one; ranks take every n-th clip of it.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sefar_core.data.dataset import (
    LabeledClips,
    LabeledItem,
    UnlabeledClips,
    UnlabeledItem,
)
from sefar_core.data.draws import seeded
from sefar_core.data.views import EvalClips, EvalItem

Item = TypeVar("Item", LabeledItem, UnlabeledItem)


class Share(NamedTuple):
    """Which part of the work a process does."""

    rank: int = 0
    num_ranks: int = 1


class ClipStream(Sampler[tuple[int, int]]):
    """(pass, position of the clip) without end, from the `start`-th clip of the stream on.

    Args:
        num_clips: clips of one pass.
        seed: of the shuffling.
        name: streams of other names are shuffled otherwise.
        start: clips that all ranks together have taken before.
        share: this process takes clips start + rank, start + rank + num_ranks, ...
        per_pass: clips that are taken of each pass, whose others are left out; none takes all.
    """

    def __init__(  # noqa: PLR0913 - where it starts, and which part of it this is
        self,
        num_clips: int,
        *,
        seed: int,
        name: str,
        start: int,
        share: Share,
        per_pass: int | None = None,
    ):
        self.num_clips, self.seed, self.name = num_clips, seed, name
        self.start, self.share = start, share
        self.per_pass = per_pass or num_clips

    def __iter__(self) -> Iterator[tuple[int, int]]:
        place = self.start + self.share.rank
        epoch, order = -1, [0]
        while True:
            if epoch != place // self.per_pass:
                epoch = place // self.per_pass
                order = shuffled(self.num_clips, seed=self.seed, name=self.name, epoch=epoch)
            yield epoch, order[place % self.per_pass]
            place += self.share.num_ranks


def shuffled(num_clips: int, *, seed: int, name: str, epoch: int) -> list[int]:
    """The positions of all clips in the order of one pass."""
    return torch.randperm(num_clips, generator=seeded(seed, name, epoch)).tolist()


class Feed(NamedTuple):
    """How a loader works, which changes its speed and never its batches.

    Attributes:
        workers: loader processes; 0 loads in the calling process.
        pin_memory: for faster copies to a GPU.
        timeout_s: a batch that takes longer is an error, not a hang; 0 waits for ever.
    """

    workers: int = 0
    pin_memory: bool = False
    timeout_s: int = 600


WHOLE = Share()
IN_PROCESS = Feed()


def training_stream(  # noqa: PLR0913 - what, and which part of it
    clips: LabeledClips | UnlabeledClips,
    *,
    batch_size: int,
    start: int = 0,
    share: Share = WHOLE,
    per_pass: int | None = None,
    feed: Feed = IN_PROCESS,
) -> Generator:
    """Endless batches of one rank: `LabeledItem` or `UnlabeledItem` with a batch axis in front.

    Args:
        clips: what to draw from.
        batch_size: clips of one micro-batch of one rank.
        start: clips of this stream that all ranks together have trained on before.
        share: the part of this rank.
        per_pass: clips that are taken of each pass; none takes all.
        feed: loader processes.
    """
    name = type(clips).__name__
    stream = ClipStream(
        len(clips), seed=clips.seed, name=name, start=start, share=share, per_pass=per_pass
    )
    # A generator: processes start and decode when the first batch is asked for, not before.
    yield from _loader(clips, feed, batch_size=batch_size, sampler=stream, join=collate)


def evaluation_batches(
    clips: EvalClips, *, batch_size: int, share: Share = WHOLE, feed: Feed = IN_PROCESS
) -> DataLoader[EvalItem]:
    """Every clip of this rank once, all its views together; `batch_size` counts clips."""
    mine = range(share.rank, len(clips), share.num_ranks)
    return _loader(clips, feed, batch_size=batch_size, sampler=mine, join=collate_views)


def collate(items: Sequence[Item]) -> Item:
    """Items of one kind to one of them with a batch axis in front of every tensor."""
    return type(items[0])._make(_stack(field) for field in zip(*items, strict=True))


def collate_views(items: Sequence[EvalItem]) -> EvalItem:
    """Clips with several views each to one batch of views."""
    elements, labels, clips = zip(*items, strict=True)
    joined = [torch.cat(element) for element in zip(*elements, strict=True)]
    return EvalItem(joined, torch.cat(labels), torch.cat(clips))


def _stack(values: Sequence) -> Tensor | list[Tensor]:
    if isinstance(values[0], Tensor):
        return torch.stack(list(values))
    return [torch.stack(element) for element in zip(*values, strict=True)]


def leave_the_group(worker: int) -> None:
    """Be out of reach of a signal to the training's process group, which ends it in good order."""
    os.setpgid(0, 0)


def _loader(
    clips: Dataset, feed: Feed, *, batch_size: int, sampler: Iterable, join: Callable
) -> DataLoader:
    return DataLoader(
        clips,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=join,
        num_workers=feed.workers,
        pin_memory=feed.pin_memory,
        timeout=feed.timeout_s if feed.workers else 0,
        worker_init_fn=leave_the_group if feed.workers else None,
        # Its own, so that starting a loader leaves the global random state alone.
        generator=torch.Generator().manual_seed(0),
    )
