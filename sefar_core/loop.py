"""The state of a run: networks, optimizer, step; saved and gone on with, exact to the bit."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from sefar_core.checkpoint import load_exactly
from sefar_core.config import OptimConfig, TrainConfig
from sefar_core.model import SefarModel
from sefar_core.runs.folder import sync, write_json
from sefar_core.runs.ranks import told_by_main
from sefar_core.runs.resume import (
    Best,
    Origin,
    TrainState,
    latest_whole,
    optimizer_tensors,
    read_state,
    restore_optimizer,
    save_state,
    state_folder,
)
from sefar_core.schedule import Schedule, learning_rate, rising_share
from sefar_core.teacher import EmaTeacher

Judge = Callable[[nn.Module], float]  # accuracy on the validation clips, in [0, 1]


def build_optimizer(
    config: OptimConfig, student: nn.Module, *, fused: bool = False
) -> torch.optim.Optimizer:
    if config.kind == "adamw":
        return torch.optim.AdamW(
            student.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=fused
        )
    return torch.optim.SGD(
        student.parameters(),
        lr=config.lr,
        momentum=0.9,
        nesterov=True,
        weight_decay=config.weight_decay,
        fused=fused,
    )


class Loop:
    """The state of a run: networks, optimizer, and the step they have reached.

    Args:
        student: fresh or pretrained; moved to the device of the process.
        config: of the run.
        schedule: its plan.
        accelerator: of the process.
        run_dir: gets the states.
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
    def updates_per_step(self) -> int:
        """How often the teacher moves."""
        return self.num_micro if self.config.teacher.ema_every == "micro_batch" else 1

    @property
    def warmup_left(self) -> float:
        """Share of the warm-up model in the teacher at the end of the run; 0 without a teacher."""
        if self.schedule.warmup_steps == self.schedule.num_steps:
            return 0.0
        return self.schedule.warmup_left(self.config.ema_decay, self.updates_per_step)

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
        """Go on from the newest whole state of the run folder, if there is one."""
        folder = told_by_main(self.accelerator, partial(latest_whole, self.states))
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
        """Write a state from which the run goes on exactly."""
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

    def judge(self, judge: Judge) -> dict[str, float]:
        """Accuracies of student and teacher on the validation clips; the best is remembered."""
        found = {"student": judge(self.network)}
        if self.teacher is not None:
            found["teacher"] = judge(self.teacher.network)
        for name, top1 in found.items():
            if self.best is None or top1 > self.best.top1:
                self.best = Best(self.step, name, top1)
        return {f"val_{name}": top1 for name, top1 in found.items()}

    def saved_network(self, best: Best) -> SefarModel:
        """The network that scored highest on the validation clips."""
        folder = state_folder(self.states, best.step)
        network = copy.deepcopy(self.network)
        weights = getattr(read_state(folder, self.origin), best.network)
        load_exactly(network, weights, folder)
        return network
