"""A manifest -> the batches that training and evaluation iterate over.

Clips come as an endless stream: one shuffled pass after another, no clip left out at the end of a
pass. Its order is a function of the seed and the position alone, and a stream can begin at any
position without decoding what comes before, which makes a resumed run equal to an uninterrupted
one; ranks take every n-th clip of it. Evaluation shows the same views of a clip every time, or a
random one as the public code does.

Also here: the validation clips, which choose between the networks of one run and are never those
that it is reported on, and checks that find before the first step what would end or spoil a run
hours later.
"""

import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from qa_data.files import first_few, on_disk
from qa_data.manifest import Clip, by_split, read_manifest
from sefar_core.config import TrainConfig
from sefar_core.data.class_names import ClassNames, class_names, refuse_several_names
from sefar_core.data.dataset import (
    FrameSampler,
    LabeledClips,
    LabeledItem,
    Moments,
    Reader,
    TwoViews,
    UnlabeledClips,
    UnlabeledItem,
    frames_of,
    known_labels,
    normalized_crops,
    read_from_folder,
    seeded,
    view_moments,
)
from sefar_core.data.frame_cache import CacheConfig, open_frame_cache
from sefar_core.data.transforms import Augmentation, Pixels, Placement, fixed_placements, to_network
from sefar_core.data.video import VideoReadError
from sefar_core.data.video_backends import choose_file_reader
from sefar_core.mixing import one_each
from sefar_core.model import SefarModel

NAMED = 8  # classes or files that a message lists
Item = TypeVar("Item", LabeledItem, UnlabeledItem)


class TrainClips(NamedTuple):
    """The clips of a manifest that training sees."""

    labeled: list[Clip]
    unlabeled: list[Clip]
    class_names: ClassNames
    """By label, up to the largest label of any split, as far as the manifest has them."""

    @property
    def num_classes(self) -> int:
        """One more than the largest label of any split."""
        return len(self.class_names)


def read_train_clips(manifest: Path, *, need_unlabeled: bool) -> TrainClips:
    """The labeled and unlabeled clips of a manifest; ValueError if a split that training needs is
    empty, or a label has several names.
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
    cache: CacheConfig | None,
    *,
    workers: int,
    reader: str = "auto",
) -> Reader:
    """Frames from the videos, or from a frame cache of all clips, filled on first use.

    Every process of a run calls this by itself: one of them fills the cache by `workers` processes,
    the others wait for its file, which takes no barrier that could time out. ValueError if the
    reader is not installed; for a cache to be filled VideoReadError if a clip cannot be decoded,
    and WriteError if the disk is too full.
    """
    if cache is None:
        return partial(read_from_folder, root=video_root, read=choose_file_reader(reader))
    seen = [*clips.labeled, *clips.unlabeled]
    return open_frame_cache(seen, video_root, cache, workers=workers).read


class Shard(NamedTuple):
    """Which part of the work a process does."""

    rank: int = 0
    num_ranks: int = 1


class LoaderConfig(NamedTuple):
    """How a loader works, which changes its speed and never its batches."""

    workers: int = 0
    """Loader processes; 0 loads in the calling process."""
    pin_memory: bool = False
    """For faster copies to a GPU."""
    timeout_s: int = 600
    """A batch that takes longer is an error, not a hang; 0 waits forever."""


class ViewConfig(NamedTuple):
    """How training views a clip."""

    views: TwoViews
    """Of unlabeled clips. The labeled ones are seen as in the strong view."""
    crop_size: int
    """Side of the squares that the network sees, pixels."""
    seed: int


class BatchSchedule(NamedTuple):
    """How much of the streams a step takes, and how far the run is."""

    batch_size: int
    """Labeled clips of one optimizer step, over all processes."""
    micro_batch_size: int
    unlabeled_per_labeled: int
    first_step: int
    """Optimizer steps done before."""
    warmup_steps: int
    """Steps from the start of the run that see labels alone."""
    shard: Shard
    labeled_per_pass: int
    """Labeled clips that are taken of each pass over them."""


WHOLE = Shard()
IN_PROCESS = LoaderConfig()


class TrainBatch(NamedTuple):
    """One micro-batch of this process, in whole colors. During the warm-up `weak` and `strong` are
    empty, and all loader processes load labeled clips."""

    labeled: list[Tensor]
    labels: Tensor
    weak: list[Tensor]
    strong: list[Tensor]
    clip_ids: list[str]
    """Of the labeled clips, then of the unlabeled ones."""


def training_batches(
    clips: TrainClips, read: Reader, view: ViewConfig, schedule: BatchSchedule, loader: LoaderConfig
) -> Iterator[TrainBatch]:
    """One micro-batch after another, from the first step of the schedule on."""
    labeled_loader, unlabeled_loader = (
        loader._replace(workers=part)
        for part in split_workers(loader.workers, schedule.unlabeled_per_labeled)
    )
    shown = {"crop_size": view.crop_size, "seed": view.seed}
    views = view.views
    stream = partial(
        training_stream,
        LabeledClips(clips.labeled, read, sample=views.sample, augment=views.strong, **shown),
        batch_size=schedule.micro_batch_size,
        shard=schedule.shard,
        per_pass=schedule.labeled_per_pass,
    )
    micros = schedule.batch_size // (schedule.micro_batch_size * schedule.shard.num_ranks)
    warmup = max(schedule.warmup_steps - schedule.first_step, 0) * micros
    with closing(stream(start=schedule.first_step * schedule.batch_size, loader=loader)) as alone:
        for elements, labels, clip_ids in islice(alone, warmup):
            yield TrainBatch(elements, labels, [], [], clip_ids)
    ssl_step = max(schedule.first_step, schedule.warmup_steps)
    unlabeled_per_step = schedule.batch_size * schedule.unlabeled_per_labeled
    labeled = stream(start=ssl_step * schedule.batch_size, loader=labeled_loader)
    unlabeled = training_stream(
        UnlabeledClips(clips.unlabeled, read, views=views, **shown),
        batch_size=schedule.micro_batch_size * schedule.unlabeled_per_labeled,
        start=(ssl_step - schedule.warmup_steps) * unlabeled_per_step,
        shard=schedule.shard,
        loader=unlabeled_loader,
    )
    for (elements, labels, ids), (weak, strong, more_ids) in zip(labeled, unlabeled, strict=True):
        yield TrainBatch(elements, labels, weak, strong, ids + more_ids)


def split_workers(workers: int, unlabeled_per_labeled: int) -> tuple[int, int]:
    """Loader processes of the labeled and of the unlabeled stream, by the views that they load.

    A labeled clip has one view and an unlabeled one two. Both together are `workers`, but where
    that is 1: each stream then has one.
    """
    labeled = math.ceil(workers / (1 + 2 * unlabeled_per_labeled))
    return labeled, max(workers - labeled, min(workers, 1))


def to_device(elements: list[Tensor], device: torch.device, pixels: Pixels) -> list[Tensor]:
    """Elements of a training batch, whole colors, to what a network on the device takes."""
    return [to_network(seen.to(device, non_blocking=True), pixels) for seen in elements]


def training_stream(  # noqa: PLR0913 - what, and which part of it
    clips: LabeledClips | UnlabeledClips,
    *,
    batch_size: int,
    start: int = 0,
    shard: Shard = WHOLE,
    per_pass: int | None = None,
    loader: LoaderConfig = IN_PROCESS,
) -> Generator:
    """Endless batches of one rank: `LabeledItem` or `UnlabeledItem` with a batch axis in front.

    `start` and `per_pass` as in `ClipStream`; `batch_size` counts the clips of one rank.
    """
    stream = ClipStream(
        len(clips), seed=clips.seed, name=clips.stream, start=start, shard=shard, per_pass=per_pass
    )
    # A generator: processes start and decode at the first `next`, not before.
    yield from _loader(clips, loader, batch_size=batch_size, sampler=stream, join=collate)


class ClipStream(Sampler[tuple[int, int]]):
    """(pass, position of the clip) without end; streams of other names are shuffled otherwise.

    `name` is a literal, for it seeds the shuffling too. `start` clips were taken before by all
    ranks together; this process takes start + rank, start + rank + num_ranks, ... Of each pass
    `per_pass` clips are taken and the others left out; None takes all.
    """

    def __init__(  # noqa: PLR0913 - where it starts, and which part of it this is
        self,
        num_clips: int,
        *,
        seed: int,
        name: str,
        start: int,
        shard: Shard,
        per_pass: int | None = None,
    ):
        self.order_of = partial(shuffled, num_clips, seed=seed, name=name)
        self.start, self.shard, self.per_pass = start, shard, per_pass or num_clips

    def __iter__(self) -> Iterator[tuple[int, int]]:
        place = self.start + self.shard.rank
        epoch, order = -1, [0]
        while True:
            if epoch != place // self.per_pass:
                epoch = place // self.per_pass
                order = self.order_of(epoch=epoch)
            yield epoch, order[place % self.per_pass]
            place += self.shard.num_ranks


def shuffled(num_clips: int, *, seed: int, name: str, epoch: int) -> list[int]:
    """The positions of all clips in the order of one pass."""
    return torch.randperm(num_clips, generator=seeded(seed, name, epoch)).tolist()


def collate(items: Sequence[Item]) -> Item:
    """Items of one kind to one of them: a batch axis in front of every tensor, a list of ids."""
    return type(items[0])._make(_stack(field) for field in zip(*items, strict=True))


def _stack(values: Sequence) -> Tensor | list[Tensor] | list[str]:
    if isinstance(values[0], str):
        return list(values)
    if isinstance(values[0], Tensor):
        return torch.stack(list(values))
    return [torch.stack(element) for element in zip(*values, strict=True)]


def leave_the_group(worker: int) -> None:
    """Be out of reach of a signal to the training's process group, which ends it in good order."""
    os.setpgid(0, 0)


def _loader(
    clips: Dataset, loader: LoaderConfig, *, batch_size: int, sampler: Iterable, join: Callable
) -> DataLoader:
    return DataLoader(
        clips,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=join,
        num_workers=loader.workers,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout_s if loader.workers else 0,
        worker_init_fn=leave_the_group if loader.workers else None,
        # Its own, so that starting a loader leaves the global random state alone.
        generator=torch.Generator().manual_seed(0),
    )


class EvalItem(NamedTuple):
    """All views of one clip as a network takes them, (view, channel, frame, height, width) for each
    element; labels and clips have one number a view."""

    elements: list[Tensor]
    labels: Tensor
    clips: Tensor


class View(NamedTuple):
    """A temporal view and its crops, each with one placement for every element."""

    moments: Moments
    crops: Sequence[Sequence[Placement]]


Views = Callable[[Clip], list[View]]


class EvalClips(Dataset[EvalItem]):
    """Clips with a label, under every one of their views, as many for one clip as for another; one
    pass over the file for all. ValueError for no clip, or one without a label.
    """

    def __init__(self, clips: Sequence[Clip], read: Reader, *, views: Views, pixels: Pixels):
        self.clips = list(clips)
        self.labels = known_labels(self.clips)
        self.read, self.views, self.pixels = read, views, pixels

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, position: int) -> EvalItem:
        clip = self.clips[position]
        views = self.views(clip)
        frames = iter(frames_of(self.read, clip, [m for view in views for m in view.moments]))
        seen = [
            normalized_crops(elements, crop, self.pixels)
            for view in views
            for elements in [[next(frames) for _ in view.moments]]
            for crop in view.crops
        ]
        return EvalItem(
            [torch.stack(element) for element in zip(*seen, strict=True)],
            self.labels[position].expand(len(seen)),
            torch.full((len(seen),), position),
        )


def evaluation_views(
    model: SefarModel,
    clips: Sequence[Clip],
    read: Reader,
    *,
    moments: Sequence[Moments],
    num_crops: int,
    loader: LoaderConfig,
) -> DataLoader:
    """Deterministic views of every labeled clip, as `evaluate.predict` takes them: `num_crops` (1
    or 3) places of each temporal view, whose moments are given (see `dataset.view_moments`).
    """
    placements = fixed_placements(model.image_size, num_crops)
    views = partial(fixed_views, moments=moments, placements=placements)
    return _evaluated(model, clips, read, views, loader)


def fixed_views(
    clip: Clip, *, moments: Sequence[Moments], placements: Sequence[Placement]
) -> list[View]:
    """Every temporal view under every crop, the same for each clip."""
    return [View(view, [[place] * len(view) for place in placements]) for view in moments]


def released_views(
    model: SefarModel, clips: Sequence[Clip], read: Reader, *, seed: int, loader: LoaderConfig
) -> DataLoader:
    """One random view of every labeled clip, as the public code tests: random moments, and for each
    element a random place along the longer side and a flip half of the time.
    """
    sample = partial(model.sampling.draw, model.sizes)
    augment = Augmentation((model.image_size,) * 2, True, one_each)
    views = partial(released_view, sample=sample, augment=augment, seed=seed)
    return _evaluated(model, clips, read, views, loader)


def released_view(
    clip: Clip, *, sample: FrameSampler, augment: Augmentation, seed: int
) -> list[View]:
    """One random view, as the public code tests (docs/paper_map.md, row 8); a function of the clip
    and the seed alone.
    """
    generator = seeded(seed, clip.id, "released view")
    moments = sample(generator)
    return [View(moments, [augment.draw(len(moments), generator)])]


def _evaluated(
    model: SefarModel, clips: Sequence[Clip], read: Reader, views: Views, loader: LoaderConfig
) -> DataLoader:
    pixels = Pixels(model.image_size, model.mean, model.std)
    shown = EvalClips(clips, read, views=views, pixels=pixels)
    return evaluation_batches(shown, batch_size=8, loader=loader)


def evaluation_batches(
    clips: EvalClips, *, batch_size: int, shard: Shard = WHOLE, loader: LoaderConfig = IN_PROCESS
) -> DataLoader[EvalItem]:
    """Every clip of this rank once, all its views together; `batch_size` counts clips."""
    mine = range(shard.rank, len(clips), shard.num_ranks)
    return _loader(clips, loader, batch_size=batch_size, sampler=mine, join=collate_views)


def collate_views(items: Sequence[EvalItem]) -> EvalItem:
    """Clips with several views each to one batch of views."""
    elements, labels, clips = zip(*items, strict=True)
    joined = [torch.cat(element) for element in zip(*elements, strict=True)]
    return EvalItem(joined, torch.cat(labels), torch.cat(clips))


class ValidationClips(NamedTuple):
    """The clips of split val, and where their frames come from."""

    clips: list[Clip]
    read: Reader


def read_validation_clips(
    manifest: Path, video_root: Path, *, reader: str
) -> ValidationClips | None:
    """The validation clips of a manifest, or none if it has none, as is the default."""
    clips = by_split(read_manifest(manifest), "val")
    read = partial(read_from_folder, root=video_root, read=choose_file_reader(reader))
    return ValidationClips(clips, read) if clips else None


def validation_views(model: SefarModel, validation: ValidationClips, *, workers: int) -> DataLoader:
    """One view of every clip: the middle of each segment of time, the middle of the picture."""
    return evaluation_views(
        model,
        validation.clips,
        validation.read,
        moments=view_moments(model.sampling, model.sizes, 1),
        num_crops=1,
        loader=LoaderConfig(workers=workers),
    )


def classes_without_labels(clips: TrainClips) -> list[str]:
    """Names of the classes of a manifest of which no clip is labeled."""
    labeled = {clip.label for clip in clips.labeled}
    names = enumerate(clips.class_names)
    return [name or f"class {label}" for label, name in names if label not in labeled]


def warn_of_bare_classes(bare: list[str], num_classes: int) -> None:
    """Say which classes cannot be learned."""
    if bare:
        print(
            f"warning: {len(bare)} of {num_classes} classes have no labeled clip and will not be "
            f"learned: {', '.join(first_few(bare, NAMED))}"
        )


def files_needed(
    clips: TrainClips, validation: ValidationClips | None, config: TrainConfig
) -> list[Clip]:
    """The clips whose files a run opens at some time; a frame cache replaces those of training."""
    in_val = validation.clips if validation else []
    if config.data.store != "none":
        return in_val
    unlabeled = clips.unlabeled if config.warmup_epochs < config.epochs else []
    return [*clips.labeled, *unlabeled, *in_val]


def refuse_missing(clips: list[Clip], video_root: Path) -> None:
    """Raise VideoReadError if clips have no file: at once, not when they are needed first."""
    gone = [clip for clip in clips if not on_disk(video_root / clip.path).exists()]
    if gone:
        first = ", ".join(first_few([str(video_root / clip.path) for clip in gone], NAMED))
        raise VideoReadError(
            f"{len(gone)} of {len(clips)} clips have no file: {first}; check the video "
            f"folder, or leave them out with check_videos.py --write-clean"
        )
