"""One stage of fine-tuning by transformers' Trainer: what it is given, what it leaves behind.

The loop, its resuming and its distribution over devices are the Trainer's; ours are the order of
the questions and the learning rates, and what `diary` writes.
"""

from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from peft import PeftModel
from transformers import PrinterCallback, Trainer, TrainingArguments

from sefar_core.runs.interruption import Interrupted, Interruption
from sefar_core.runs.ranks import highest, stop_all
from sefar_mllm.adapters import optimizer_groups
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.data import Collator
from sefar_mllm.sharded import is_sharded
from sefar_mllm.training.batching import Order, share
from sefar_mllm.training.diary import Diary, Judge
from sefar_mllm.training.lessons import Lessons
from sefar_mllm.training.plan import Stage, last_whole, refuse_damaged


class LessonTrainer(Trainer):
    """The Trainer with our order of questions, and learning rates for LoRA and projector."""

    def __init__(self, *args, settings: FinetuneConfig, **kwargs):
        super().__init__(*args, **kwargs)
        # The loss is a mean over the step's labels already; under transformers 5.3 it would be
        # divided once more, by the number of pieces that the step comes in.
        self.accelerator.gradient_accumulation_steps = 1
        if is_sharded(kwargs["model"]):  # by the stage before; its layers' class has another name
            self.accelerator.state.fsdp_plugin.auto_wrap_policy = None
        self.lessons: Lessons = kwargs["train_dataset"]
        self.settings = settings

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            lora, projector = self.settings.lora.lr, self.settings.projector_lr
            groups = optimizer_groups(self.model, lora_lr=lora, projector_lr=projector)
            self.optimizer = torch.optim.AdamW(groups, weight_decay=self.args.weight_decay)
        return self.optimizer

    def _get_train_sampler(self, train_dataset=None) -> Order:
        at_a_time = self.args.per_device_train_batch_size * self.args.world_size
        return Order(
            self.lessons,
            batch_size=self.settings.batch_size,
            multiple=at_a_time if self.args.world_size > 1 else 1,
        )


def run_stage(
    config: FinetuneConfig,
    model: PeftModel,
    lessons: Lessons,
    stage: Stage,
    *,
    wish: Interruption,
    judge: Judge | None = None,
) -> None:
    """Train what learns in this stage, from its last whole checkpoint if there is one.

    Args:
        config: all settings.
        model: with adapters; frozen is what does not learn in this stage.
        lessons: what is learned.
        stage: its name, length and place.
        wish: a signal that asks the run to end.
        judge: scores of the dev part, asked at the end of each epoch.

    Raises:
        FloatingPointError: loss or gradient is no longer a finite number.
        Interrupted: SIGTERM or SIGINT came; a checkpoint is saved.
        ValueError: the last whole checkpoint is damaged.
    """
    start = last_whole(stage.folder, clean=PartialState().is_main_process)
    if start is not None:
        refuse_damaged(start)
    trainer = LessonTrainer(
        model=model,
        args=arguments(config, stage),
        train_dataset=lessons,
        data_collator=Collator(lessons.tokenizer.pad_token_id),
        settings=config,
    )
    order = Order(lessons, batch_size=config.batch_size, multiple=1)
    diary = Diary(trainer.accelerator, order, stage, wish=wish, judge=judge)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(diary)
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    number = highest(trainer.accelerator, wish.number)
    if number and trainer.state.global_step < trainer.state.max_steps:
        at = stage.first_step + trainer.state.global_step
        told = f"stopped after step {at}; saved in {last_whole(stage.folder, clean=False)}"
        stop_all(trainer.accelerator, Interrupted(number, told))


def arguments(config: FinetuneConfig, stage: Stage) -> TrainingArguments:
    """The Trainer's settings for one stage.

    Raises:
        BatchError: the processes cannot share a step's questions.
    """
    processes = PartialState().num_processes
    at_a_time, pieces = share(config.batch_size, config.micro_batch_size, processes)
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
        logging_steps=1,  # each is looked at: a loss that is no number stops the run
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
