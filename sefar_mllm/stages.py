"""The stages of fine-tuning by transformers' Trainer, and the checkpoints that each leaves.

Stage A trains the projector alone, stage B trains LoRA with it. The loop, resuming and
distribution are the Trainer's; ours are the order of the questions, the learning rates, and
`MetricsCallback`, which writes metrics.jsonl, checks every loss and gradient, and ends a run on a
signal. The Trainer counts steps and epochs within a stage; metrics.jsonl counts them over the
whole run. A stage always ends with a checkpoint, so that no step is computed twice.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env
from peft import PeftModel
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from qa_data.files import by_umask
from sefar_core.distributed import highest, stop_all
from sefar_core.run_dir import append_metrics
from sefar_core.signals import Interrupted, StopRequest
from sefar_mllm.adapters import optimizer_groups
from sefar_mllm.build import is_sharded
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.dataset import Collator, LengthBucketedSampler, QuestionDataset, split_batch

CHECKPOINTS = "checkpoints"
COMPLETE = "complete"  # a checkpoint without this file was not written to its end


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Epochs in which one set of parameters is trained."""

    name: str
    epochs: int
    run_dir: Path
    first_step: int
    """Optimizer steps of the stages before; the run numbers all its steps in one series."""
    first_epoch: int
    """Epochs of the stages before, so that no draw of an epoch comes in two stages."""
    steps_per_epoch: int

    @property
    def num_steps(self) -> int:
        """Optimizer steps of this stage."""
        return self.epochs * self.steps_per_epoch

    @property
    def folder(self) -> Path:
        """Folder of its checkpoints."""
        return self.run_dir / CHECKPOINTS / self.name


def stages(config: FinetuneConfig, num_questions: int, run_dir: Path) -> list[Stage]:
    """The stages that have any epochs."""
    per_epoch = -(-num_questions // config.batch_size)
    before = config.projector_epochs
    both = (("projector", before, 0), ("joint", config.epochs, before))
    return [
        Stage(
            name=name,
            epochs=epochs,
            run_dir=run_dir,
            first_step=first_epoch * per_epoch,
            first_epoch=first_epoch,
            steps_per_epoch=per_epoch,
        )
        for name, epochs, first_epoch in both
        if epochs
    ]


ValidateFn = Callable[[Accelerator], dict[str, float]]
"""Scores of the validation questions, by name."""


def run_stage(
    config: FinetuneConfig,
    model: PeftModel,
    dataset: QuestionDataset,
    stage: Stage,
    *,
    stop_signal: StopRequest,
    validate_fn: ValidateFn | None = None,
) -> None:
    """Train the parameters of this stage, from its last complete checkpoint if there is one.

    Parameters that this stage does not train are frozen. `validate_fn` scores the validation
    questions at the end of each epoch.

    Raises:
        FloatingPointError: loss or gradient is no longer a finite number.
        Interrupted: SIGTERM or SIGINT came; a checkpoint is saved.
        ValueError: the last complete checkpoint is damaged.
    """
    start = last_whole(stage.folder, clean=PartialState().is_main_process)
    if start is not None:
        refuse_damaged(start)
    trainer = QuestionTrainer(
        model=model,
        args=arguments(config, stage),
        train_dataset=dataset,
        data_collator=Collator(dataset.tokenizer.pad_token_id),
        settings=config,
    )
    sampler = LengthBucketedSampler(dataset, batch_size=config.batch_size, multiple=1)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(
        MetricsCallback(
            trainer.accelerator, sampler, stage, stop_signal=stop_signal, validate_fn=validate_fn
        )
    )
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    number = highest(trainer.accelerator, stop_signal.number)
    if number and trainer.state.global_step < trainer.state.max_steps:
        at = stage.first_step + trainer.state.global_step
        saved = last_whole(stage.folder, clean=False)
        stop_all(
            trainer.accelerator, Interrupted(number, f"stopped after step {at}; saved in {saved}")
        )


def arguments(config: FinetuneConfig, stage: Stage) -> TrainingArguments:
    """The Trainer's settings for one stage. SefarError if the processes cannot split a step's
    questions.
    """
    processes = PartialState().num_processes
    at_a_time, pieces = split_batch(config.batch_size, config.micro_batch_size, processes)
    cuda = PartialState().device.type == "cuda"
    recompute: Any = "activation_checkpointing"
    if recompute not in TrainingArguments.__dataclass_fields__:
        recompute = "gradient_checkpointing"  # its name in transformers 5.3
    return TrainingArguments(
        output_dir=str(stage.folder),
        per_device_train_batch_size=at_a_time,
        gradient_accumulation_steps=pieces,
        num_train_epochs=stage.epochs,
        lr_scheduler_type="cosine",
        warmup_steps=int(config.warmup * stage.num_steps),
        weight_decay=config.weight_decay,
        max_grad_norm=1.0,
        logging_steps=1,  # each is checked: a loss that is not a number stops the run
        logging_nan_inf_filter=False,
        save_strategy="steps",  # and at the end of the stage, whatever the number
        save_steps=config.save_every_steps or stage.num_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        ddp_find_unused_parameters=False,
        use_cpu=not cuda,
        bf16=cuda and not parse_flag_from_env("ACCELERATE_USE_FSDP"),  # would round the projector
        seed=config.seed,
        **{recompute: config.recompute, f"{recompute}_kwargs": {"use_reentrant": False}},  # type: ignore[arg-type]
    )


class QuestionTrainer(Trainer):
    """The Trainer with our order of questions, and learning rates for LoRA and projector."""

    def __init__(self, *args, settings: FinetuneConfig, **kwargs):
        super().__init__(*args, **kwargs)
        # The loss is a mean over the step's labels already; transformers 5.3 would divide it
        # again, by the number of micro-batches.
        self.accelerator.gradient_accumulation_steps = 1
        if is_sharded(kwargs["model"]):  # by the stage before; its layers' class has another name
            self.accelerator.state.fsdp_plugin.auto_wrap_policy = None
        self.dataset: QuestionDataset = kwargs["train_dataset"]
        self.settings = settings

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            lora, projector = self.settings.lora.lr, self.settings.projector_lr
            groups = optimizer_groups(self.model, lora_lr=lora, projector_lr=projector)
            self.optimizer = torch.optim.AdamW(groups, weight_decay=self.args.weight_decay)
        return self.optimizer

    def _get_train_sampler(self, train_dataset=None) -> LengthBucketedSampler:
        at_a_time = self.args.per_device_train_batch_size * self.args.world_size
        return LengthBucketedSampler(
            self.dataset,
            batch_size=self.settings.batch_size,
            multiple=at_a_time if self.args.world_size > 1 else 1,
        )


@dataclass(eq=False)
class MetricsCallback(TrainerCallback):
    """Writes metrics.jsonl, marks complete checkpoints, and ends a run that must end."""

    accelerator: Accelerator
    """Of the processes that train together."""
    sampler: LengthBucketedSampler
    """Order of the questions."""
    stage: Stage
    """Its run folder gets the metrics."""
    _: KW_ONLY
    stop_signal: StopRequest
    """SIGTERM or SIGINT, if one came."""
    validate_fn: ValidateFn | None
    """Scores the validation questions at the end of each epoch."""

    def on_train_begin(self, args, state, control, **_):
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.stage.name,
            unit="step",
            disable=not state.is_world_process_zero,
        )

    def on_epoch_begin(self, args, state, control, **_):
        self.sampler.dataset.begin_epoch(self.stage.first_epoch + int(state.epoch or 0))

    def on_optimizer_step(self, args, state, control, optimizer=None, **_):
        self.rates = {f"{group['name']}_lr": group["lr"] for group in optimizer.param_groups}

    def on_step_end(self, args, state, control, **_):
        self.bar.update(1)
        if highest(self.accelerator, self.stop_signal.number):
            control.should_save = control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **_):
        """The metrics of a step are written before its checkpoint, so that both are there."""
        if not logs or "loss" not in logs:
            return
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                self.stop_at(state, name, logs[name])
        metrics = {name: logs[name] for name in ("loss", "grad_norm")}
        self.write(state, metrics | self.rates)
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}")
        if self.validate_fn is not None and state.global_step % self.stage.steps_per_epoch == 0:
            self.write(state, self.validate_fn(self.accelerator))

    def on_save(self, args, state, control, **_):
        self.accelerator.wait_for_everyone()  # each process has written its random state
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            by_umask(folder)
            (folder / COMPLETE).write_text("")

    def on_train_end(self, args, state, control, **_):
        self.bar.close()

    def write(self, state, numbers: dict[str, float]) -> None:
        if state.is_world_process_zero:
            step = {
                "stage": self.stage.name,
                "step": self.stage.first_step + state.global_step,
                "epoch": state.global_step / self.stage.steps_per_epoch,
            }
            append_metrics(self.stage.run_dir, step | numbers)

    def stop_at(self, state, name: str, value: float) -> None:
        """End the run on every process; the weights of this step are saved nowhere."""
        size = self.sampler.batch_size
        start = (state.global_step - 1) % self.stage.steps_per_epoch * size
        indices = list(self.sampler)[start : start + size]
        clips = [self.sampler.dataset.questions[index].video for index in indices]
        kept = last_whole(self.stage.folder, clean=False)
        stop_all(
            self.accelerator,
            FloatingPointError(
                f"{name} became {value} in step {self.stage.first_step + state.global_step} "
                f"({self.stage.name}, step {state.global_step}); check the clips: "
                f"{', '.join(clips)}; or lower lora.lr and projector_lr. The last complete "
                f"checkpoint is {kept or 'none: save_every_steps makes them'}"
            ),
        )


def steps_done(stages: Sequence[Stage]) -> int:
    """Steps of the run up to its last complete checkpoint."""
    return max(
        (
            stage.first_step + step_of(start)
            for stage in stages
            if (start := last_whole(stage.folder, clean=False))
        ),
        default=0,
    )


def last_whole(folder: Path, *, clean: bool) -> Path | None:
    """The newest checkpoint that was written to its end; with `clean` others are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=step_of)
    whole = [path for path in found if (path / COMPLETE).exists()]
    if clean:
        for path in set(found) - set(whole):
            shutil.rmtree(path)
    return whole[-1] if whole else None


def refuse_damaged(checkpoint: Path) -> None:
    """Check the file that the Trainer reads first; the Trainer's own message names no file.
    ValueError if it is damaged.
    """
    path = checkpoint / "trainer_state.json"
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError) as cause:
        raise ValueError(
            f"{path} is damaged ({cause}); delete {checkpoint}: the same command resumes from the "
            f"checkpoint before it, or starts again"
        ) from cause


def step_of(checkpoint: Path) -> int:
    """The step of its stage that a checkpoint was saved after."""
    return int(checkpoint.name.split("-")[1])


def forget_checkpoints(run_dir: Path) -> None:
    """Delete the checkpoints of a run that has ended and will not be resumed."""
    shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)
