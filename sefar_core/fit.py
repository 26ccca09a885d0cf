"""The whole of a training run: settings and a manifest in, a run folder out."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator

from sefar_core.checkpoint import build_model
from sefar_core.config import TrainConfig
from sefar_core.data.feeds import (
    Look,
    Pace,
    TrainClips,
    choose_reader,
    read_train_clips,
    to_device,
    training_batches,
)
from sefar_core.data.loader import Feed, Share
from sefar_core.data.transforms import Augmentation, Pixels, one_for_all
from sefar_core.run_folder import forget_metrics_after, open_run
from sefar_core.step import SslBatch
from sefar_core.train import Loop, Schedule, finish, run_steps
from sefar_core.vit import load_vit


def fit(config: TrainConfig, *, manifest: Path, video_root: Path, run_dir: Path) -> None:
    """Train a recognizer; a run folder that holds states is gone on with.

    Args:
        config: all settings.
        manifest: CSV of clips with a labeled and, unless supervised only, an unlabeled split.
        video_root: folder that the manifest's paths start from.
        run_dir: gets settings, metrics, states, and the encoders `student` and `teacher`.

    Raises:
        ValueError: a split is empty, or the run folder belongs to other settings.
    """
    accelerator = start_accelerator(config)
    supervised_only = config.warmup_epochs == config.epochs
    clips = read_train_clips(manifest, need_unlabeled=not supervised_only)
    torch.manual_seed(config.seed)
    student = build_model(config.model, clips.num_classes)
    if config.model.pretrained is not None:
        load_vit(student.backbone, config.model.pretrained, sampling=student.sampling)
    if accelerator.is_main_process:
        data = {"manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest()}
        open_run(run_dir, config, seed=config.seed, data=data)

    schedule = Schedule(len(clips.labeled), config.batch_size, config.epochs, config.warmup_epochs)
    loop = Loop(student, config, accelerator, run_dir)
    loop.resume()
    if accelerator.is_main_process:
        forget_metrics_after(run_dir, loop.step)
    run_steps(loop, schedule, batches(loop, schedule, clips, video_root))
    finish(loop, schedule)


def start_accelerator(config: TrainConfig) -> Accelerator:
    """The device or devices of this process, and its number format."""
    precision = config.mixed_precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() else "no"
    accelerator = Accelerator(mixed_precision=precision)
    if config.batch_size % (config.micro_batch_size * accelerator.num_processes):
        raise ValueError(
            f"batch_size {config.batch_size} cannot be shared by {accelerator.num_processes} "
            f"processes in micro-batches of {config.micro_batch_size}; choose a multiple of "
            f"{config.micro_batch_size * accelerator.num_processes}"
        )
    return accelerator


def batches(
    loop: Loop, schedule: Schedule, clips: TrainClips, video_root: Path
) -> Iterator[SslBatch]:
    """Micro-batches of this process from the loop's step on, on its device."""
    config, accelerator = loop.config, loop.accelerator
    model, data = config.model, config.data
    look = Look(
        sizes=model.sizes,
        augment=Augmentation(data.short_side, data.flip, one_for_all),
        pixels=Pixels(model.image_size, model.mean, model.std),
        seed=config.seed,
    )
    pace = Pace(
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        unlabeled_per_labeled=config.unlabeled_per_labeled,
        first_step=loop.step,
        warmup_steps=schedule.warmup_steps,
        share=Share(accelerator.process_index, accelerator.num_processes),
    )
    feed = Feed(workers=data.workers, pin_memory=accelerator.device.type == "cuda")
    store = loop.run_dir.parent / "frames" if data.store else None
    with accelerator.main_process_first():
        read = choose_reader(clips, video_root, store, workers=data.workers)
    device = accelerator.device
    for labeled, labels, weak, strong in training_batches(clips, read, look, pace, feed):
        yield SslBatch(
            labeled=to_device(labeled, device),
            labels=labels.to(device, non_blocking=True),
            weak=to_device(weak, device),
            strong=to_device(strong, device),
        )
