"""Settings and a manifest -> the network, the batches and the loop of a run."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from qa_data.manifest import Clip, by_split, read_manifest
from sefar_core.checkpoint import build_model, load_vit
from sefar_core.config import TrainConfig
from sefar_core.data.dataset import (
    EvalClips,
    LabeledClips,
    Moments,
    Reader,
    TwoViews,
    UnlabeledClips,
    independent_moments,
    read_from_folder,
)
from sefar_core.data.frame_store import open_frame_store
from sefar_core.data.loader import Feed, Share, evaluation_batches, pair, training_stream
from sefar_core.data.transforms import Augmentation, Pixels, fixed_placements, one_for_all
from sefar_core.model import SefarModel
from sefar_core.run_folder import open_run
from sefar_core.sampling import sample_fractions
from sefar_core.step import SslBatch
from sefar_core.train import Loop, Schedule, finish, fit


def train(config: TrainConfig, *, manifest: Path, video_root: Path, run_dir: Path) -> None:
    """Train a recognizer from a manifest; a run folder that holds states is gone on with.

    Args:
        config: all settings.
        manifest: CSV of clips with a labeled and, unless supervised only, an unlabeled split.
        video_root: folder that the manifest's paths start from.
        run_dir: gets settings, metrics, states, and the encoders `student` and `teacher`.

    Raises:
        ValueError: a split is empty, or the run folder belongs to other settings.
    """
    accelerator = start_accelerator(config)
    clips = read_manifest(manifest)
    labeled, unlabeled = by_split(clips, "labeled"), by_split(clips, "unlabeled")
    refuse_empty(config, labeled, unlabeled, manifest)
    torch.manual_seed(config.seed)
    student = build_model(config.model, count_classes(clips))
    if config.model.pretrained is not None:
        load_vit(student.backbone, config.model.pretrained)
    if accelerator.is_main_process:
        open_run(run_dir, config, seed=config.seed)

    schedule = Schedule(len(labeled), config.batch_size, config.epochs, config.warmup_epochs)
    loop = Loop(student, config, accelerator, run_dir)
    loop.resume()
    read = choose_reader(config, [*labeled, *unlabeled], video_root, run_dir)
    fit(loop, schedule, training_batches(config, labeled, unlabeled, read, loop, schedule))
    finish(loop, schedule)


def start_accelerator(config: TrainConfig) -> Accelerator:
    """The device or devices of this process, and its number format."""
    precision = config.mixed_precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() else "no"
    return Accelerator(mixed_precision=precision)


def refuse_empty(
    config: TrainConfig, labeled: Sequence[Clip], unlabeled: Sequence[Clip], manifest: Path
) -> None:
    """A run needs labels, and the method unlabeled clips."""
    if not labeled:
        raise ValueError(f"{manifest} has no clip of split labeled; cut it with make_splits.py")
    if not unlabeled and config.warmup_epochs < config.epochs:
        raise ValueError(
            f"{manifest} has no clip of split unlabeled; add some, or train on labels alone by "
            f"warmup_epochs = epochs = {config.epochs}"
        )


def count_classes(clips: Sequence[Clip]) -> int:
    """One more than the largest label of any split."""
    return 1 + max(clip.label for clip in clips if clip.label is not None)


def choose_reader(
    config: TrainConfig, clips: Sequence[Clip], video_root: Path, run_dir: Path
) -> Reader:
    """Frames from the videos, or from a store of frames beside the run."""
    if not config.data.store:
        return partial(read_from_folder, root=video_root)
    folder = run_dir.parent / "frames"
    return open_frame_store(clips, video_root, folder, workers=config.data.workers).read


def training_batches(
    config: TrainConfig,
    labeled: Sequence[Clip],
    unlabeled: Sequence[Clip],
    read: Reader,
    loop: Loop,
    schedule: Schedule,
) -> Iterator[SslBatch]:
    """Micro-batches of this process from the loop's step on, on its device."""
    accelerator = loop.accelerator
    sample = partial(sample_fractions, config.model.sizes)
    augment = Augmentation(config.data.short_side, config.data.flip, one_for_all)
    pixels = Pixels(config.model.image_size, config.model.mean, config.model.std)
    share = Share(accelerator.process_index, accelerator.num_processes)
    feed = Feed(workers=config.data.workers, pin_memory=accelerator.device.type == "cuda")
    warmup_steps, num_unlabeled = schedule.warmup_steps, config.unlabeled_per_labeled

    labeled_items = training_stream(
        LabeledClips(
            labeled, read, sample=sample, augment=augment, pixels=pixels, seed=config.seed
        ),
        batch_size=config.micro_batch_size,
        start=loop.step * config.batch_size,
        share=share,
        feed=feed,
    )
    unlabeled_items = iter(())
    if warmup_steps < schedule.num_steps:
        views = TwoViews(sample, independent_moments, augment, augment)
        unlabeled_items = training_stream(
            UnlabeledClips(unlabeled, read, views=views, pixels=pixels, seed=config.seed),
            batch_size=config.micro_batch_size * num_unlabeled,
            start=max(loop.step - warmup_steps, 0) * config.batch_size * num_unlabeled,
            share=share,
            feed=feed,
        )
    micros = config.batch_size // (config.micro_batch_size * accelerator.num_processes)
    warmup = max(warmup_steps - loop.step, 0) * micros
    for elements, labels, weak, strong in pair(labeled_items, unlabeled_items, warmup=warmup):
        yield SslBatch(
            *(move(part, accelerator.device) for part in (elements, labels, weak, strong))
        )


def move(part, device: torch.device):
    """A tensor, or a list of element tensors, on the device."""
    if isinstance(part, torch.Tensor):
        return part.to(device, non_blocking=True)
    return [clip.to(device, non_blocking=True) for clip in part]


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
        model: says what elements, size and colors it takes.
        clips: with labels.
        read: where frames come from.
        moments: of each temporal view; see `data.dataset.view_moments`.
        num_crops: 1 or 3 places of each view.
        feed: loader processes.
    """
    views = EvalClips(
        clips,
        read,
        moments=moments,
        placements=fixed_placements(model.image_size, num_crops),
        pixels=Pixels(model.image_size, model.mean, model.std),
    )
    return evaluation_batches(views, batch_size=8, feed=feed)
