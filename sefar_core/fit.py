"""The whole of a training run: settings and a manifest in, a run folder out."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, parse_flag_from_env

from sefar_core.checkpoint import build_model, save_encoder
from sefar_core.config import TrainConfig
from sefar_core.data.before_training import (
    classes_without_labels,
    files_needed,
    refuse_missing,
    warn_of_bare_classes,
)
from sefar_core.data.dataset import MOMENTS, Reader, TwoViews
from sefar_core.data.feeds import (
    Look,
    Pace,
    TrainClips,
    choose_reader,
    read_train_clips,
    to_device,
    training_batches,
)
from sefar_core.data.frame_store import Storage
from sefar_core.data.loader import Feed, Share
from sefar_core.data.transforms import SHARES, Augmentation, Pixels
from sefar_core.data.validation import read_held_out
from sefar_core.loop import Loop
from sefar_core.model import SefarModel
from sefar_core.runs.folder import add_to_run, open_run, writing
from sefar_core.runs.interruption import Interruption
from sefar_core.runs.lock import locked
from sefar_core.runs.progress import Clocked
from sefar_core.runs.ranks import on_main, refuse_separate_runs
from sefar_core.runs.resume import sweep
from sefar_core.runs.watch import (
    IDLE,
    IDLE_MEND,
    Watch,
    clips_of_step,
    loader_deaths_explained,
    open_progress,
    top1,
)
from sefar_core.sampling import SAMPLINGS
from sefar_core.schedule import Schedule
from sefar_core.step import SslBatch
from sefar_core.train import run_steps
from sefar_core.vit import load_vit

# Settings that change how a run is carried out and not where it goes.
FREE = ("data.workers", "save_every_epochs", "keep_last", "log")


def fit(config: TrainConfig, *, manifest: Path, video_root: Path, run_dir: Path) -> None:
    """Train a recognizer; a run folder that holds states is gone on with.

    Args:
        config: all settings.
        manifest: CSV of clips with a labeled and, unless supervised only, an unlabeled split. If it
            has a val split, the network that is best on it becomes the encoder `best`.
        video_root: folder that the manifest's paths start from.
        run_dir: gets settings, metrics, states, and the encoders `student` and `teacher`.

    Raises:
        ValueError: a split is empty, the run folder belongs to other settings, or the processes
            cannot share the batch.
        VideoReadError: a clip has no file, or cannot be read.
        RunFolderBusy: another process trains in the run folder.
        LoaderDied: a loader process was killed, or gave nothing for too long.
        WriteError: the disk is full.
        FloatingPointError: a loss or a gradient is no longer a finite number.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    began_s = time.monotonic()
    accelerator = start_accelerator(config)
    clips = read_train_clips(manifest, need_unlabeled=config.warmup_epochs < config.epochs)
    refuse_other_data(config, clips)
    held_out = read_held_out(manifest, video_root, reader=config.data.reader)
    schedule = plan(config, len(clips.labeled))
    bare = classes_without_labels(clips)
    student = fresh_student(config, clips.num_classes)
    data = {"manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest()}
    with ExitStack() as until_the_end:

        def occupy() -> None:
            until_the_end.enter_context(locked(run_dir))
            open_run(run_dir, config, seed=config.seed, data=data, free=FREE)
            sweep(run_dir / "states")

        on_main(accelerator, occupy)
        loop = Loop(student, config, schedule, accelerator, run_dir)
        loop.resume()
        session = {
            "first_step": loop.step,
            "class_names": clips.class_names,
            "classes_without_labels": bare,
        }
        on_main(accelerator, partial(add_to_run, run_dir, session))
        if loop.step < schedule.num_steps:
            needed = files_needed(clips, held_out, config)
            on_main(accelerator, partial(refuse_missing, needed, video_root))
            on_main(accelerator, partial(warn_of_bare_classes, bare, clips.num_classes))
        read = open_reader(loop, clips, video_root)
        bar = open_progress(loop) if accelerator.is_main_process else nullcontext()
        with Interruption() as wish, loader_deaths_explained(wish), bar as progress:
            watch = Watch(
                wish=wish,
                progress=progress,
                judge=partial(top1, loop, held_out) if held_out else None,
                name_clips=partial(clips_of_step, loop, clips),
            )
            run_steps(loop, Clocked(batches(loop, schedule, clips, read)), watch)
        on_main(accelerator, partial(finish, loop, clips, began_s))
    accelerator.end_training()


def start_accelerator(config: TrainConfig) -> Accelerator:
    """The device or devices of this process, and its number format.

    Raises:
        ValueError: the processes do not know of one another or cannot share the batch, or a
            package is missing.
    """
    if config.log == "tensorboard" and find_spec("tensorboard") is None:
        raise ValueError(
            "log = tensorboard needs the package tensorboard; pip install 'sefar[log]', or set "
            "log = none"
        )
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(config.deterministic)
    # The main process alone judges networks on validation clips, which may take a while.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    accelerator = Accelerator(mixed_precision=choose_precision(config), kwargs_handlers=[patience])
    refuse_separate_runs(accelerator)
    if config.batch_size % (config.micro_batch_size * accelerator.num_processes):
        raise ValueError(
            f"batch_size {config.batch_size} cannot be shared by {accelerator.num_processes} "
            f"processes in micro-batches of {config.micro_batch_size}; choose a multiple of "
            f"{config.micro_batch_size * accelerator.num_processes}"
        )
    return accelerator


def choose_precision(config: TrainConfig) -> Literal["no", "bf16"]:
    """The number format of matrix products: by default bf16 on a GPU, fp32 elsewhere."""
    if config.mixed_precision != "auto":
        return config.mixed_precision
    on_gpu = torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")
    return "bf16" if on_gpu else "no"


def refuse_other_data(config: TrainConfig, clips: TrainClips) -> None:
    """Raise ValueError if the manifest is not of the data set and share that a preset names."""
    asked, rate = config.expected_classes, config.expected_rate
    if asked is not None and clips.num_classes != asked:
        raise ValueError(
            f"the manifest has {clips.num_classes} classes, but {asked} are expected; give the "
            f"manifest of that data set, take its own preset, or set expected_classes to None"
        )
    found = len(clips.labeled) / (len(clips.labeled) + len(clips.unlabeled))
    if rate is not None and not 0.8 * rate <= found <= 1.2 * rate:
        raise ValueError(
            f"{found:.1%} of the training clips are labeled, but {rate:.0%} are expected; cut the "
            f"manifest with make_splits.py --rate {rate}, or set expected_rate to None"
        )


def plan(config: TrainConfig, num_labeled: int) -> Schedule:
    """The run in optimizer steps.

    Raises:
        ValueError: the rate would still rise when the run ends, or no whole batch is left.
    """
    schedule = Schedule(
        num_labeled=num_labeled,
        batch_size=config.batch_size,
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs,
        steps=config.steps,
        leftovers=config.leftovers,
    )
    if config.optim.rate_warmup_steps >= schedule.num_steps:
        raise ValueError(
            f"optim.rate_warmup_steps must be below the run's {schedule.num_steps} steps, got "
            f"{config.optim.rate_warmup_steps}"
        )
    return schedule


def fresh_student(config: TrainConfig, num_classes: int) -> SefarModel:
    """The network at the start of the run, the same on every process."""
    torch.manual_seed(config.seed)
    student = build_model(config.model, num_classes)
    if config.model.pretrained is not None:
        load_vit(student.backbone, config.model.pretrained, sampling=student.sampling)
    student.backbone.recompute = config.recompute
    return student


def finish(loop: Loop, clips: TrainClips, began_s: float) -> None:
    """Write student, teacher and the best as encoders, and how the run ended."""
    encoders = {"student": loop.network}
    if loop.teacher is not None:
        encoders["teacher"] = loop.teacher.network
        print(f"share of the warm-up model left in the teacher: {loop.warmup_left:.1%}")
        if loop.warmup_left > IDLE:
            print(f"more than half: the teacher hardly learned. {IDLE_MEND}")
    if loop.best is not None:
        encoders["best"] = loop.saved_network(loop.best)
        print(f"best on validation clips: {loop.best.network} after step {loop.best.step}")
    for name, network in encoders.items():
        with writing(loop.run_dir / name, sum(t.nbytes for t in network.state_dict().values())):
            save_encoder(
                network, loop.config.model, loop.run_dir / name, class_names=clips.class_names
            )
    add_to_run(loop.run_dir, {"steps": loop.step, "last_session_s": time.monotonic() - began_s})


def open_reader(loop: Loop, clips: TrainClips, video_root: Path) -> Reader:
    """Where frames come from; a store that is asked for is filled first, which may take long."""
    data, store = loop.config.data, None
    if data.store != "none":
        store = Storage(loop.run_dir.parent / "frames", data.store, data.store_short_side)
    return choose_reader(clips, video_root, store, workers=data.workers, reader=data.reader)


def batches(loop: Loop, schedule: Schedule, clips: TrainClips, read: Reader) -> Iterator[SslBatch]:
    """Micro-batches of this process from the loop's step on, on its device."""
    config, accelerator = loop.config, loop.accelerator
    model, data = config.model, config.data
    augment = partial(Augmentation, data.short_side, share=SHARES[data.placement])
    look = Look(
        views=TwoViews(
            sample=partial(SAMPLINGS[model.sampling].draw, model.sizes),
            moments=MOMENTS[data.moments],
            weak=augment(flip=data.flip and data.weak_flip),
            strong=augment(flip=data.flip),
        ),
        crop_size=model.image_size,
        seed=config.seed,
    )
    pace = Pace(
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        unlabeled_per_labeled=config.unlabeled_per_labeled,
        first_step=loop.step,
        warmup_steps=schedule.warmup_steps,
        share=Share(accelerator.process_index, accelerator.num_processes),
        labeled_per_pass=schedule.per_pass,
    )
    feed = Feed(workers=data.workers, pin_memory=accelerator.device.type == "cuda")
    to_network = partial(
        to_device,
        device=accelerator.device,
        pixels=Pixels(model.image_size, model.mean, model.std),
    )
    for labeled, labels, weak, strong in training_batches(clips, read, look, pace, feed):
        yield SslBatch(
            labeled=to_network(labeled),
            labels=labels.to(accelerator.device, non_blocking=True),
            weak=to_network(weak),
            strong=to_network(strong),
        )
