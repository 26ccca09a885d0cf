"""Training: settings and a manifest in, a run folder out.

`fit` prepares a run, `run_steps` is the loop, `optimizer_step` one step of it: micro-batches
through the method (step.py), the student's optimizer, the teacher. `Loop` is what they change.

Every random draw is a function of (seed, step, rank) here and of (seed, epoch, clip, view) in the
loader, so that a resumed run equals an uninterrupted one, bit for bit. docs/paper_map.md, rows 9
and 11.
"""

import copy
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, parse_flag_from_env
from torch import nn

from qa_data.files import SefarError, file_hash, first_few, sync, write_json
from sefar_core.checkpoint import (
    Best,
    Origin,
    TrainState,
    build_model,
    complete_states,
    latest_whole,
    load_exactly,
    optimizer_tensors,
    read_state,
    restore_optimizer,
    save_encoder,
    save_state,
    state_folder,
    sweep,
)
from sefar_core.config import LossConfig, OptimConfig, TrainConfig
from sefar_core.data.dataloaders import (
    BatchSchedule,
    LoaderConfig,
    Shard,
    TrainClips,
    ValidationClips,
    ViewConfig,
    choose_reader,
    classes_without_labels,
    files_needed,
    read_train_clips,
    read_validation_clips,
    refuse_missing,
    to_device,
    training_batches,
    validation_views,
    warn_of_bare_classes,
)
from sefar_core.data.dataset import MOMENTS, Reader, TwoViews, seeded
from sefar_core.data.frame_cache import CacheConfig
from sefar_core.data.transforms import Augmentation, Pixels
from sefar_core.distributed import (
    broadcast,
    gather_lists,
    highest,
    means,
    refuse_separate_runs,
    run_on_main,
    stop_all,
)
from sefar_core.evaluate import predict
from sefar_core.loss import MIX_LOSSES
from sefar_core.mixing import ELEMENT_DRAWS, MIX_TARGETS
from sefar_core.model import SefarModel
from sefar_core.perturbation import PERTURBATIONS, drop_color_planes
from sefar_core.pretrained import load_vit
from sefar_core.regulation import choose_regulation
from sefar_core.run_dir import (
    Progress,
    StepTiming,
    TimedBatches,
    add_to_run,
    forget_metrics_after,
    locked,
    open_run,
    refuse_missing_tensorboard,
)
from sefar_core.sampling import SAMPLINGS
from sefar_core.schedule import Schedule, learning_rate, rising_share
from sefar_core.signals import Interrupted, StopRequest
from sefar_core.step import Generators, Method, SslBatch, micro_step
from sefar_core.teacher import EmaTeacher

FREE = ("data.workers", "save_every_epochs", "keep_last", "log")
"""Settings that may differ when a run is resumed: they change no number of it."""
NAMED = 64
"""Clips that an error message lists at most."""
IDLE = 0.5
"""Share of the warm-up model left in a teacher that hardly follows the student."""
IDLE_FIX = "Lower teacher.ema_decay, or train longer."

Validate = Callable[[nn.Module], float]
"""A network's accuracy on the validation clips, in [0, 1]."""


def fit(config: TrainConfig, *, manifest: Path, video_root: Path, run_dir: Path) -> None:
    """Train a recognizer; a run folder that holds states is resumed.

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
        SefarError: another process trains in the run folder, or a data-loader worker died or gave
            no batch for too long.
        WriteError: the disk is full.
        FloatingPointError: a loss or a gradient is not finite.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    began_s = time.monotonic()
    accelerator = start_accelerator(config)
    clips = read_train_clips(manifest, need_unlabeled=config.warmup_epochs < config.epochs)
    refuse_other_data(config, clips)
    held_out = read_validation_clips(manifest, video_root, reader=config.data.reader)
    schedule = plan(config, len(clips.labeled))
    student = fresh_student(config, clips.num_classes)
    with occupied(accelerator, run_dir, config, manifest):
        loop = Loop(student, config, schedule, accelerator, run_dir)
        loop.resume()
        run_on_main(accelerator, partial(open_session, loop, clips, held_out, video_root))
        read = open_reader(loop, clips, video_root)
        validate = partial(top1, loop, held_out) if held_out else None
        bar = open_progress(loop) if accelerator.is_main_process else nullcontext()
        with StopRequest() as stop_request, loader_deaths_explained(stop_request), bar as progress:
            run_steps(
                loop,
                TimedBatches(batches(loop, clips, read)),
                stop_request=stop_request,
                progress=progress,
                validate=validate,
            )
        run_on_main(accelerator, partial(finish, loop, clips, began_s))
    accelerator.end_training()


def run_steps(
    loop: "Loop",
    batches: TimedBatches,
    *,
    stop_request: StopRequest,
    progress: Progress | None,
    validate: Validate | None,
) -> None:
    """Train from the loop's step to the end of its schedule.

    `batches` are micro-batches in order, from the loop's step on. `progress` is None on all but the
    main process, `validate` without validation clips. FloatingPointError if a loss or a gradient is
    not finite; Interrupted if a signal stopped the run, whose state is then saved.
    """
    schedule, accelerator = loop.schedule, loop.accelerator
    while loop.step < schedule.num_steps:
        if loop.step >= schedule.warmup_steps and loop.teacher is None:
            loop.teacher = loop.make_teacher()
        metrics = optimizer_step(loop, batches)
        loop.step += 1
        timing = batches.end_step(loop.clips_per_step)

        stop_signal = highest(accelerator, stop_request.number)
        over = loop.step == schedule.num_steps
        due = over or loop.step % schedule.steps_in(loop.config.save_every_epochs) == 0
        scored = validate if due else None
        run_on_main(accelerator, partial(log_step, loop, metrics, timing, progress, scored))
        if due or stop_signal:
            run_on_main(accelerator, loop.save)
        if stop_signal and not over:
            raise Interrupted(
                stop_signal, f"stopped after step {loop.step}; saved in {loop.states}"
            )


def optimizer_step(loop: "Loop", batches: Iterator[SslBatch]) -> dict[str, float]:
    """Accumulate the micro-batches of one step, move the student, then the teacher.

    Returns the step's line of metrics.jsonl: means over its micro-batches and all processes, and
    `grad_norm` before any clipping. FloatingPointError if a loss or a gradient is not finite. It
    changed no network; a teacher that moves with each micro-batch has followed those before.
    """
    config, accelerator, teacher = loop.config, loop.accelerator, loop.teacher
    here = (config.seed, loop.step, accelerator.process_index)
    shares = random.Random(seeded("shares", *here).initial_seed())
    generators = Generators(seeded("views", *here), shares.betavariate)
    torch.manual_seed(seeded("dropout", *here).initial_seed())
    rate, ramp = loop.set_rate(), loop.ramp()
    loop.student.train()
    reports, clip_ids = [], []
    for micro in range(loop.num_micro):
        batch = next(batches)
        last = micro == loop.num_micro - 1
        # Processes add their gradients up once a step.
        with nullcontext() if last else accelerator.no_sync(loop.student):
            with accelerator.autocast():
                losses, report = micro_step(loop.student, teacher, batch, loop.method, generators)
            loss = losses.total(
                ramp=ramp, gamma_un=config.loss.gamma_un, gamma_mix=config.loss.gamma_mix
            )
            accelerator.backward(loss / loop.num_micro)
        reports.append({"loss": loss.item(), **report})
        clip_ids.append(batch.clip_ids)
        if teacher and config.teacher.ema_every == "micro_batch" and not last:
            teacher.update(loop.network)
    # Not finite if any gradient is not.
    norm = nn.utils.get_total_norm(
        [p.grad for p in loop.network.parameters() if p.grad is not None]
    )
    metrics = means(accelerator, average(reports)) | {"grad_norm": norm.item()}
    refuse_infinite(loop, metrics, [report["loss"] for report in reports], clip_ids)
    if config.optim.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(loop.network.parameters(), config.optim.clip_norm, norm)
    loop.optimizer.step()
    loop.optimizer.zero_grad()
    if teacher:
        teacher.update(loop.network)
    return {"lr": rate, "ramp": ramp, **metrics}


def average(reports: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each number."""
    return {name: sum(r[name] for r in reports) / len(reports) for name in reports[0]}


def refuse_infinite(
    loop: "Loop",
    metrics: dict[str, float],
    losses: Sequence[float],
    clip_ids: Sequence[Sequence[str]],
) -> None:
    """Stop all processes if a loss or the gradient is not finite on any of them: FloatingPointError
    on the main process, StoppedByAnother on the others.

    The message names the clips of the micro-batches whose loss is not finite, or all clips where
    every loss is.
    """
    broken = [name for name in ("loss", "grad_norm") if not math.isfinite(metrics[name])]
    if not broken:
        return
    batches = list(zip(losses, clip_ids, strict=True))
    guilty = [clip for loss, clips in batches if not math.isfinite(loss) for clip in clips]
    clips = gather_lists(loop.accelerator, guilty) or gather_lists(
        loop.accelerator, [clip for _, clips in batches for clip in clips]
    )
    what = " and ".join(f"{name} became {metrics[name]}" for name in broken)
    saved = complete_states(loop.states)
    kept = f"the last good state is in {loop.states}" if saved else "no state was saved before it"
    error = FloatingPointError(
        f"{what} in step {loop.step + 1}; nothing was updated by it, and {kept}. Lower optim.lr, "
        f"or check the clips: {', '.join(first_few(clips, NAMED))}"
    )
    stop_all(loop.accelerator, error)


def log_step(
    loop: "Loop",
    metrics: dict[str, float],
    timing: StepTiming,
    progress: Progress | None,
    validate: Validate | None,
) -> None:
    """Report a step, with the accuracies on validation clips if they are due."""
    scores = loop.validate(validate) if validate else {}
    if progress is not None:
        progress.log_step(loop.step, metrics | scores, timing)


class Loop:
    """The state of a run: networks, optimizer, and the step they have reached.

    The student, fresh or pretrained, is moved to the device of the process; states go to run_dir.
    """

    def __init__(
        self,
        student: SefarModel,
        config: TrainConfig,
        schedule: Schedule,
        accelerator: Accelerator,
        run_dir: Path,
    ):
        self.config, self.schedule, self.accelerator = config, schedule, accelerator
        self.method = choose_method(config.loss)
        self.run_dir, self.states = run_dir, run_dir / "states"
        student.to(accelerator.device)
        if config.compile:
            student.compile(dynamic=False)  # sizes of a batch are few, and fixed ones run faster
        fused = accelerator.device.type == "cuda"
        optimizer = build_optimizer(config.optim, student, fused=fused)
        self.student, self.optimizer = accelerator.prepare(student, optimizer)
        self.teacher: EmaTeacher | None = None
        self.step = 0
        self.best: Best | None = None

    @property
    def network(self) -> SefarModel:
        """The student without the wrapper of distributed training."""
        return self.accelerator.unwrap_model(self.student)

    @property
    def origin(self) -> Origin:
        accelerator = self.accelerator
        return Origin(self.config.seed, accelerator.num_processes, accelerator.mixed_precision)

    @property
    def num_micro(self) -> int:
        """Micro-batches of one step on one process."""
        at_once = self.config.micro_batch_size * self.accelerator.num_processes
        return self.config.batch_size // at_once

    @property
    def warmup_left(self) -> float:
        """Share of the warm-up model in the teacher at the end of the run; 0 without a teacher."""
        if self.schedule.warmup_steps == self.schedule.num_steps:
            return 0.0
        each = self.config.teacher.ema_every == "micro_batch"
        return self.schedule.warmup_left(self.config.ema_decay, self.num_micro if each else 1)

    @property
    def clips_per_step(self) -> int:
        """Labeled and unlabeled clips of one step on all processes."""
        unlabeled = self.config.unlabeled_per_labeled if self.teacher else 0
        return self.config.batch_size * (1 + unlabeled)

    def make_teacher(self) -> EmaTeacher:
        settings = self.config.teacher
        return EmaTeacher(
            self.network, decay=self.config.ema_decay, dropout_passes=settings.dropout_passes
        )

    def resume(self) -> None:
        """Continue from the newest whole state of the run folder, if there is one."""
        folder = broadcast(self.accelerator, partial(latest_whole, self.states))
        if folder is None:
            return
        state = read_state(folder, self.origin)
        load_exactly(self.network, state.student, folder)
        restore_optimizer(self.optimizer, state.optimizer)
        if state.teacher:
            self.teacher = self.make_teacher()
            load_exactly(self.teacher.network, state.teacher, folder)
        self.step, self.best = state.step, state.best

    def save(self) -> None:
        """Write a state from which the run resumes exactly."""
        state = TrainState(
            step=self.step,
            origin=self.origin,
            student=self.network.state_dict(),
            teacher=self.teacher.network.state_dict() if self.teacher else {},
            optimizer=optimizer_tensors(self.optimizer),
            best=self.best,
        )
        sync(self.run_dir / "metrics.jsonl")
        save_state(self.states, state, keep_last=self.config.keep_last)
        if self.best is not None:
            named = {"state": state_folder(self.states, self.best.step).name}
            write_json(self.run_dir / "best.json", named | self.best._asdict())

    def set_rate(self) -> float:
        """Give the optimizer the learning rate of the step."""
        optim = self.config.optim
        progress = self.step / self.schedule.num_steps
        rate = learning_rate(optim.lr, optim.schedule, progress)
        rate *= rising_share(self.step, optim.rate_warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def ramp(self) -> float:
        """Weight of the unsupervised losses of the step."""
        if self.teacher is None:
            return 0.0
        return 1.0 if self.config.loss.ramp == "none" else self.schedule.ramp(self.step)

    def validate(self, validate: Validate) -> dict[str, float]:
        """Accuracies of student and teacher on the validation clips; remembers the best."""
        accuracies = {"student": validate(self.network)}
        if self.teacher is not None:
            accuracies["teacher"] = validate(self.teacher.network)
        for name, top1 in accuracies.items():
            if self.best is None or top1 > self.best.top1:
                self.best = Best(self.step, name, top1)
        return {f"val_{name}": top1 for name, top1 in accuracies.items()}


def choose_method(config: LossConfig) -> Method:
    """The parts of the step that the settings name."""
    return Method(
        perturb=PERTURBATIONS[config.perturbation],
        drop_colors=partial(drop_color_planes, drop=config.color_dropout),
        regulate=choose_regulation(config.regulation, threshold=config.threshold),
        mix_concentration=config.mix_concentration if config.gamma_mix > 0 else None,
        mix_partners=ELEMENT_DRAWS[config.mix_partners],
        mix_targets=MIX_TARGETS[config.mix_targets],
        mix_loss=MIX_LOSSES[config.mix_on],
    )


def build_optimizer(
    config: OptimConfig, student: nn.Module, *, fused: bool = False
) -> torch.optim.Optimizer:
    shared: Any = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": fused}
    if config.kind == "adamw":
        return torch.optim.AdamW(student.parameters(), **shared)
    return torch.optim.SGD(student.parameters(), momentum=0.9, nesterov=True, **shared)


def start_accelerator(config: TrainConfig) -> Accelerator:
    """The device or devices of this process, and its number format. ValueError if the processes do
    not know of one another or cannot share the batch, or a package is missing.
    """
    if config.log == "tensorboard":
        refuse_missing_tensorboard()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(config.deterministic)
    # The main process alone scores networks on validation clips, which may take a while.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    accelerator = Accelerator(mixed_precision=choose_precision(config), kwargs_handlers=[patience])
    refuse_separate_runs(accelerator.num_processes)
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
    expected, rate = config.expected_classes, config.expected_rate
    if expected is not None and clips.num_classes != expected:
        raise ValueError(
            f"the manifest has {clips.num_classes} classes, but {expected} are expected; give the "
            f"manifest of that data set, take its own preset, or set expected_classes to None"
        )
    found = len(clips.labeled) / (len(clips.labeled) + len(clips.unlabeled))
    if rate is not None and not 0.8 * rate <= found <= 1.2 * rate:
        raise ValueError(
            f"{found:.1%} of the training clips are labeled, but {rate:.0%} are expected; cut the "
            f"manifest with make_splits.py --rate {rate}, or set expected_rate to None"
        )


def plan(config: TrainConfig, num_labeled: int) -> Schedule:
    """The run in optimizer steps. ValueError if the rate would still rise when the run ends, or no
    whole batch is left.
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


@contextmanager
def occupied(
    accelerator: Accelerator, run_dir: Path, config: TrainConfig, manifest: Path
) -> Iterator[None]:
    """Keep other processes out of the run folder, and write into it what runs. ValueError if it
    holds a run of other settings; SefarError if another process trains in it.
    """
    data = {"manifest_sha256": file_hash(manifest)}
    with ExitStack() as until_the_end:

        def occupy() -> None:
            until_the_end.enter_context(locked(run_dir))
            open_run(run_dir, config, seed=config.seed, data=data, free=FREE)
            sweep(run_dir / "states")

        run_on_main(accelerator, occupy)
        yield


def open_session(
    loop: Loop, clips: TrainClips, held_out: ValidationClips | None, video_root: Path
) -> None:
    """Add to run.json where this session starts, and check the clips unless the run is over.
    VideoReadError if a clip that the run needs has no file.
    """
    bare = classes_without_labels(clips)
    session = {
        "first_step": loop.step,
        "class_names": clips.class_names,
        "classes_without_labels": bare,
    }
    add_to_run(loop.run_dir, session)
    if loop.step < loop.schedule.num_steps:
        refuse_missing(files_needed(clips, held_out, loop.config), video_root)
        warn_of_bare_classes(bare, clips.num_classes)


def open_reader(loop: Loop, clips: TrainClips, video_root: Path) -> Reader:
    """Where frames come from. A frame cache is filled first, which may take long."""
    data, store = loop.config.data, None
    if data.store != "none":
        store = CacheConfig(loop.run_dir.parent / "frames", data.store, data.store_short_side)
    return choose_reader(clips, video_root, store, workers=data.workers, reader=data.reader)


def choose_views(config: TrainConfig) -> ViewConfig:
    """What the student and the teacher see of a clip."""
    model, data = config.model, config.data
    augment = partial(Augmentation, data.short_side, share=ELEMENT_DRAWS[data.placement])
    return ViewConfig(
        views=TwoViews(
            sample=partial(SAMPLINGS[model.sampling].draw, model.sizes),
            moments=MOMENTS[data.moments],
            weak=augment(flip=data.flip and data.weak_flip),
            strong=augment(flip=data.flip),
        ),
        crop_size=model.image_size,
        seed=config.seed,
    )


def batches(loop: Loop, clips: TrainClips, read: Reader) -> Iterator[SslBatch]:
    """Micro-batches of this process from the loop's step on, on its device."""
    config, accelerator = loop.config, loop.accelerator
    model, data = config.model, config.data
    schedule = BatchSchedule(
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        unlabeled_per_labeled=config.unlabeled_per_labeled,
        first_step=loop.step,
        warmup_steps=loop.schedule.warmup_steps,
        shard=Shard(accelerator.process_index, accelerator.num_processes),
        labeled_per_pass=loop.schedule.per_pass,
    )
    loader = LoaderConfig(workers=data.workers, pin_memory=accelerator.device.type == "cuda")
    to_network = partial(
        to_device,
        device=accelerator.device,
        pixels=Pixels(model.image_size, model.mean, model.std),
    )
    for batch in training_batches(clips, read, choose_views(config), schedule, loader):
        yield SslBatch(
            labeled=to_network(batch.labeled),
            labels=batch.labels.to(accelerator.device, non_blocking=True),
            weak=to_network(batch.weak),
            strong=to_network(batch.strong),
            clip_ids=batch.clip_ids,
        )


@contextmanager
def open_progress(loop: Loop) -> Iterator[Progress]:
    """The progress bar and the files of lines, less the lines of steps that are repeated.

    Warns at once if the teacher will hardly follow the student.
    """
    for name in ("metrics.jsonl", "timing.jsonl"):
        forget_metrics_after(loop.run_dir, loop.step, name=name)
    if loop.warmup_left > IDLE:
        print(
            f"warning: at the end, {loop.warmup_left:.0%} of the teacher will still be the warm-up "
            f"model. {IDLE_FIX}"
        )
    total = loop.schedule.num_steps
    with closing(
        Progress(loop.run_dir, total=total, initial=loop.step, log=loop.config.log)
    ) as progress:
        yield progress


@contextmanager
def loader_deaths_explained(stop_request: StopRequest) -> Iterator[None]:
    """Explain in one line why a data-loader worker may have died.

    Interrupted if a stop signal reached the workers as well, so that no batch was left to finish
    the step with; SefarError if a worker was killed, or gave no batch for too long.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as cause:
        # The last two: it died while it handed a batch over.
        if isinstance(cause, RuntimeError) and not str(cause).startswith("DataLoader "):
            raise
        if stop_request.number:
            raise Interrupted(
                stop_request.number,
                "stopped; the steps after the last saved state, if there is one, are lost with the "
                "data-loader workers, which the signal reached as well",
            ) from cause
        raise SefarError(
            f"a data-loader worker died ({str(cause).strip()}), usually out of memory. Lower "
            f"data.workers and rerun: training resumes from the last saved state, if there is one"
        ) from cause


def top1(loop: Loop, held_out: ValidationClips, network: nn.Module) -> float:
    """Accuracy on the validation clips, one view of each, in [0, 1]."""
    views = validation_views(loop.network, held_out, workers=loop.config.data.workers)
    with loop.accelerator.autocast():
        probs, labels = predict(network, views, loop.accelerator.device)
    return (probs.argmax(dim=-1) == labels).float().mean().item()


def finish(loop: Loop, clips: TrainClips, began_s: float) -> None:
    """Write student, teacher and the best network as encoders, and add the end to run.json."""
    encoders = {"student": loop.network}
    if loop.teacher is not None:
        encoders["teacher"] = loop.teacher.network
        print(f"share of the warm-up model left in the teacher: {loop.warmup_left:.1%}")
        if loop.warmup_left > IDLE:
            print(f"more than half: the teacher hardly followed the student. {IDLE_FIX}")
    if loop.best is not None:
        folder = state_folder(loop.states, loop.best.step)
        weights = getattr(read_state(folder, loop.origin), loop.best.network)
        encoders["best"] = copy.deepcopy(loop.network)
        load_exactly(encoders["best"], weights, folder)
        print(f"best on validation clips: {loop.best.network} after step {loop.best.step}")
    for name, network in encoders.items():
        save_encoder(network, loop.config.model, loop.run_dir / name, class_names=clips.class_names)
    add_to_run(loop.run_dir, {"steps": loop.step, "last_session_s": time.monotonic() - began_s})
