"""A manifest -> the batches that training and evaluation iterate over."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from qa_data.manifest import Clip, by_split, read_manifest
from sefar_core.data.class_names import ClassNames, class_names, refuse_several_names
from sefar_core.data.dataset import (
    LabeledClips,
    Moments,
    Reader,
    TwoViews,
    UnlabeledClips,
    read_from_folder,
)
from sefar_core.data.frame_store import Storage, open_frame_store
from sefar_core.data.loader import Feed, Share, evaluation_batches, training_stream
from sefar_core.data.readers import choose_file_reader
from sefar_core.data.transforms import (
    Augmentation,
    Pixels,
    fixed_placements,
    one_each,
    to_network,
)
from sefar_core.data.views import EvalClips, Views, fixed_views, released_view
from sefar_core.model import SefarModel


class TrainClips(NamedTuple):
    """The clips of a manifest that training sees."""

    labeled: list[Clip]
    unlabeled: list[Clip]
    class_names: ClassNames
    """By label, up to the largest label of any split, as far as the manifest tells them."""

    @property
    def num_classes(self) -> int:
        """One more than the largest label of any split."""
        return len(self.class_names)


def read_train_clips(manifest: Path, *, need_unlabeled: bool) -> TrainClips:
    """The labeled and unlabeled clips of a manifest.

    Raises:
        ValueError: a split that training needs is empty, or a label has several names.
    """
    clips = read_manifest(manifest)
    refuse_several_names(clips, manifest)
    labeled, unlabeled = by_split(clips, "labeled"), by_split(clips, "unlabeled")
    if not labeled:
        raise ValueError(f"{manifest} has no clip of split labeled; cut it with make_splits.py")
    if need_unlabeled and not unlabeled:
        raise ValueError(
            f"{manifest} has no clip of split unlabeled; add some, or train on labels alone by "
            f"setting warmup_epochs as large as epochs"
        )
    return TrainClips(labeled, unlabeled, class_names(clips))


def choose_reader(
    clips: TrainClips,
    video_root: Path,
    store: Storage | None,
    *,
    workers: int,
    reader: str = "auto",
) -> Reader:
    """Frames from the videos, or from a store of frames, decoded on first use.

    Every process of a run calls this by itself: one of them fills the store, the others wait for
    its file, which takes no barrier that could time out.

    Args:
        clips: all that training reads.
        video_root: folder that their paths start from.
        store: where and how frames are kept; none reads the videos each time.
        workers: decoding processes that fill a store.
        reader: name of what reads the videos, a key of `readers.READERS`.

    Raises:
        ValueError: the reader is not installed.
        VideoReadError: a store is asked for and a clip cannot be decoded.
        WriteError: the disk is too full for the store.
    """
    if store is None:
        return partial(read_from_folder, root=video_root, read=choose_file_reader(reader))
    seen = [*clips.labeled, *clips.unlabeled]
    return open_frame_store(seen, video_root, store, workers=workers).read


class Look(NamedTuple):
    """How training looks at a clip."""

    views: TwoViews
    """Of unlabeled clips. The labeled ones are looked at as in the strong view."""
    crop_size: int
    """Side of the squares that the network sees, pixels."""
    seed: int


class Pace(NamedTuple):
    """How much of the streams a step takes, and where the run stands."""

    batch_size: int
    """Labeled clips of one optimizer step, over all processes."""
    micro_batch_size: int
    unlabeled_per_labeled: int
    first_step: int
    """Optimizer steps done before."""
    warmup_steps: int
    """Steps from the start of the run that see labels alone."""
    share: Share
    labeled_per_pass: int
    """Labeled clips that are taken of each pass over them."""


def split_workers(workers: int, unlabeled_per_labeled: int) -> tuple[int, int]:
    """Loader processes of the labeled and of the unlabeled stream, by the views that they load.

    A labeled clip has one view and an unlabeled one two. Both together are `workers`, but where
    that is 1: each stream then has one.
    """
    labeled = math.ceil(workers / (1 + 2 * unlabeled_per_labeled))
    return labeled, max(workers - labeled, min(workers, 1))


def training_batches(
    clips: TrainClips, read: Reader, look: Look, pace: Pace, feed: Feed
) -> Iterator[tuple[list[Tensor], Tensor, list[Tensor], list[Tensor]]]:
    """(labeled elements, labels, weak elements, strong elements) of one micro-batch after another.

    The last two are empty during the warm-up, when all loader processes load labeled clips.
    """
    labeled_feed, unlabeled_feed = (
        feed._replace(workers=part)
        for part in split_workers(feed.workers, pace.unlabeled_per_labeled)
    )
    stream = partial(
        training_stream,
        LabeledClips(
            clips.labeled,
            read,
            sample=look.views.sample,
            augment=look.views.strong,
            crop_size=look.crop_size,
            seed=look.seed,
        ),
        batch_size=pace.micro_batch_size,
        share=pace.share,
        per_pass=pace.labeled_per_pass,
    )
    micros = pace.batch_size // (pace.micro_batch_size * pace.share.num_ranks)
    warmup = max(pace.warmup_steps - pace.first_step, 0) * micros
    with closing(stream(start=pace.first_step * pace.batch_size, feed=feed)) as alone:
        for elements, labels in islice(alone, warmup):
            yield elements, labels, [], []
    ssl_step = max(pace.first_step, pace.warmup_steps)
    labeled = stream(start=ssl_step * pace.batch_size, feed=labeled_feed)
    unlabeled = training_stream(
        UnlabeledClips(
            clips.unlabeled, read, views=look.views, crop_size=look.crop_size, seed=look.seed
        ),
        batch_size=pace.micro_batch_size * pace.unlabeled_per_labeled,
        start=(ssl_step - pace.warmup_steps) * pace.batch_size * pace.unlabeled_per_labeled,
        share=pace.share,
        feed=unlabeled_feed,
    )
    for (elements, labels), (weak, strong) in zip(labeled, unlabeled, strict=True):
        yield elements, labels, weak, strong


def to_device(elements: list[Tensor], device: torch.device, pixels: Pixels) -> list[Tensor]:
    """Elements of a training batch, whole colors, to what a network on the device takes."""
    return [to_network(seen.to(device, non_blocking=True), pixels) for seen in elements]


def evaluation_views(
    model: SefarModel,
    clips: Sequence[Clip],
    read: Reader,
    *,
    moments: Sequence[Moments],
    num_crops: int,
    feed: Feed,
) -> DataLoader:
    """Deterministic views of every clip, as `evaluate.predict` takes them.

    Args:
        model: says what size and colors it takes.
        clips: with labels.
        read: where frames come from.
        moments: of each temporal view; see `dataset.view_moments`.
        num_crops: 1 or 3 places of each view.
        feed: loader processes.
    """
    placements = fixed_placements(model.image_size, num_crops)
    views = partial(fixed_views, moments=moments, placements=placements)
    return _evaluated(model, clips, read, views, feed)


def released_views(
    model: SefarModel, clips: Sequence[Clip], read: Reader, *, seed: int, feed: Feed
) -> DataLoader:
    """One random view of every clip, as the public code tests: random moments, and for each element
    a random place along the longer side and a flip half of the time.

    Args:
        model: says how it samples a clip, and what size and colors it takes.
        clips: with labels.
        read: where frames come from.
        seed: of the draws.
        feed: loader processes.
    """
    size = model.image_size
    views = partial(
        released_view,
        sample=partial(model.sampling.draw, model.sizes),
        augment=Augmentation((size, size), True, one_each),
        seed=seed,
    )
    return _evaluated(model, clips, read, views, feed)


def _evaluated(
    model: SefarModel, clips: Sequence[Clip], read: Reader, views: Views, feed: Feed
) -> DataLoader:
    pixels = Pixels(model.image_size, model.mean, model.std)
    shown = EvalClips(clips, read, views=views, pixels=pixels)
    return evaluation_batches(shown, batch_size=8, feed=feed)
