"""The training loop: schedule, optimizer, teacher's updates, states to resume from.

Every random draw is a function of (seed, step, rank) here and of (seed, epoch, clip, view) in the
loader, so a resumed run equals an uninterrupted one. docs/paper_map.md, row 9.
"""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from sefar_core.checkpoint import load_exactly, save_encoder
from sefar_core.config import OptimConfig, TrainConfig
from sefar_core.loss import ramp
from sefar_core.model import SefarModel
from sefar_core.recipe import Draws, micro_step
from sefar_core.resume import load_latest, restore_optimizer, save_state
from sefar_core.run_folder import append_metrics
from sefar_core.step import SslBatch
from sefar_core.teacher import EmaTeacher


def learning_rate(config: OptimConfig, progress: float) -> float:
    """The rate at a part of the run, `progress` in [0, 1)."""
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return config.lr * (1.0 if progress < 25 / 30 else 0.1 if progress < 28 / 30 else 0.01)


def build_optimizer(config: OptimConfig, student: nn.Module) -> torch.optim.Optimizer:
    if config.kind == "adamw":
        return torch.optim.AdamW(
            student.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
    return torch.optim.SGD(
        student.parameters(),
        lr=config.lr,
        momentum=0.9,
        nesterov=True,
        weight_decay=config.weight_decay,
    )


class Schedule(NamedTuple):
    """The run in optimizer steps. An epoch is one pass over the labeled clips; none is dropped:
    a batch that begins in one pass ends in the next."""

    num_labeled: int
    batch_size: int
    epochs: int
    warmup_epochs: int

    @property
    def num_steps(self) -> int:
        return max(1, round(self.epochs * self.num_labeled / self.batch_size))

    @property
    def warmup_steps(self) -> int:
        if self.warmup_epochs == self.epochs:
            return self.num_steps
        return round(self.warmup_epochs * self.num_labeled / self.batch_size)

    def epoch(self, step: int) -> int:
        """The pass in which a step begins."""
        return min(step * self.batch_size // self.num_labeled, self.epochs - 1)

    def ramp(self, step: int) -> float:
        """Weight of the unsupervised losses, constant within an epoch, as published."""
        stage = self.epochs - self.warmup_epochs
        done = self.epoch(step) + 1 - self.warmup_epochs
        return ramp(min(max(done / stage, 0.0), 1.0))


class Loop:
    """The state of a run: networks, optimizer, and the step they have reached."""

    def __init__(
        self, student: SefarModel, config: TrainConfig, accelerator: Accelerator, run_dir: Path
    ):
        self.config, self.accelerator, self.run_dir = config, accelerator, run_dir
        self.optimizer = build_optimizer(config.optim, student)
        self.student, self.optimizer = accelerator.prepare(student, self.optimizer)
        self.teacher: EmaTeacher | None = None
        self.step = 0

    @property
    def network(self) -> SefarModel:
        """The student without the wrapper of distributed training."""
        return self.accelerator.unwrap_model(self.student)

    def make_teacher(self) -> EmaTeacher:
        settings = self.config.teacher
        return EmaTeacher(
            self.network, decay=settings.ema_decay, dropout_passes=settings.dropout_passes
        )

    def resume(self) -> None:
        """Go on from the newest whole state of the run folder, if there is one."""
        state = load_latest(self.run_dir / "states")
        if state is None:
            return
        load_exactly(self.network, state.student, self.run_dir / "states")
        restore_optimizer(self.optimizer, state.optimizer)
        if state.teacher is not None:
            self.teacher = self.make_teacher()
            load_exactly(self.teacher.network, state.teacher, self.run_dir / "states")
        self.step = state.step

    def save(self) -> None:
        if self.accelerator.is_main_process:
            save_state(
                self.run_dir / "states", self.step, self.network, self.teacher, self.optimizer
            )
        self.accelerator.wait_for_everyone()


def run_steps(loop: Loop, schedule: Schedule, batches: Iterator[SslBatch]) -> None:
    """Train from the loop's step to the end of the schedule.

    Args:
        loop: networks and optimizer, fresh or resumed; its run folder gets metrics and states.
        schedule: how many steps, and of which kind.
        batches: micro-batches in order, from the loop's step on. During the warm-up the
            unlabeled part is empty.

    Raises:
        FloatingPointError: the loss is no longer a finite number.
    """
    config, main = loop.config, loop.accelerator.is_main_process
    bar = tqdm(
        total=schedule.num_steps, initial=loop.step, desc="train", unit="step", disable=not main
    )
    save_every = max(1, round(config.save_every_epochs * schedule.num_labeled / config.batch_size))
    while loop.step < schedule.num_steps:
        if loop.step >= schedule.warmup_steps and loop.teacher is None:
            loop.teacher = loop.make_teacher()
        metrics = optimizer_step(loop, schedule, batches)
        loop.step += 1
        if main:
            append_metrics(loop.run_dir, {"step": loop.step, **metrics})
            bar.set_postfix(loss=f"{metrics['loss']:.3f}")
            bar.update()
        if loop.step % save_every == 0 or loop.step == schedule.num_steps:
            loop.save()
    bar.close()


def optimizer_step(loop: Loop, schedule: Schedule, batches: Iterator[SslBatch]) -> dict[str, float]:
    """Accumulate the micro-batches of one step, move the student, then the teacher."""
    config, accelerator = loop.config, loop.accelerator
    step_seed = config.seed * 1_000_003 + loop.step * 1009 + accelerator.process_index
    torch.manual_seed(step_seed)
    generator = torch.Generator().manual_seed(step_seed)
    rate = learning_rate(config.optim, loop.step / schedule.num_steps)
    for group in loop.optimizer.param_groups:
        group["lr"] = rate

    loop.student.train()
    num_micro = config.batch_size // (config.micro_batch_size * accelerator.num_processes)
    reports = []
    for micro in range(num_micro):
        batch = next(batches)
        with accelerator.autocast():
            losses, report = micro_step(
                loop.student,
                loop.teacher,
                batch,
                config.loss,
                Draws(generator, random.Random(step_seed + micro)),
            )
        weight = 0.0 if loop.teacher is None else schedule.ramp(loop.step)
        loss = losses.total(
            ramp=weight, gamma_un=config.loss.gamma_un, gamma_mix=config.loss.gamma_mix
        )
        refuse_infinite(loss, loop)
        accelerator.backward(loss / num_micro)
        reports.append({"loss": loss.item(), **report, "ramp": weight})
    loop.optimizer.step()
    loop.optimizer.zero_grad()
    if loop.teacher is not None:
        loop.teacher.update(loop.network)
    return {"lr": rate} | {
        name: sum(report[name] for report in reports) / num_micro for name in reports[0]
    }


def refuse_infinite(loss: Tensor, loop: Loop) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f"the loss became {loss.item()} at step {loop.step}; nothing was updated by it. "
            f"Lower optim.lr; the last good state is in {loop.run_dir / 'states'}"
        )


def finish(loop: Loop, schedule: Schedule) -> None:
    """Write student and teacher as encoders, and say how much of the warm-up is in the teacher."""
    if not loop.accelerator.is_main_process:
        return
    save_encoder(loop.network, loop.config.model, loop.run_dir / "student")
    if loop.teacher is None:
        return
    save_encoder(loop.teacher.network, loop.config.model, loop.run_dir / "teacher")
    left = loop.teacher.decay ** (schedule.num_steps - schedule.warmup_steps)
    print(f"share of the warm-up model left in the teacher: {left:.1%}")
    if left > 0.5:
        print("more than half: the teacher hardly learned; lower teacher.ema_decay or train longer")
