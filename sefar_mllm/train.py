"""Settings -> transformers.Trainer: stage A teaches the projector alone, stage B LoRA with it.

The loop, its resuming and its distribution over devices are the Trainer's; ours are the data, what
learns at which rate (`create_optimizer`), and the folder that is left behind.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import PartialState
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

from qa_data.schema import Question
from sefar_core.runs.folder import append_metrics, open_run
from sefar_mllm.adapters import add_adapters, composite, learn_projector_alone, optimizer_groups
from sefar_mllm.checkpoint import assemble, load_tokenizer, save_trained
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.data import Collator, Lessons, refuse_too_long
from sefar_mllm.prompt import VIDEO_WORD, letter_ids
from sefar_mllm.token_cache import TokenCache

COMPLETE = "complete"  # a checkpoint without this file was not written to its end
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class LaunchError(RuntimeError):
    """A run that must not start as it was asked for; the message says what to change."""


class LessonTrainer(Trainer):
    """The Trainer with a learning rate of its own for LoRA and for the projector."""

    def __init__(self, *args, lora_lr: float, projector_lr: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.rates = {"lora_lr": lora_lr, "projector_lr": projector_lr}

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            groups = optimizer_groups(self.model, **self.rates)
            self.optimizer = torch.optim.AdamW(groups, weight_decay=self.args.weight_decay)
        return self.optimizer


class Diary(TrainerCallback):
    """Tells the data which epoch begins, writes the numbers down, and marks whole checkpoints."""

    def __init__(self, lessons: Lessons, run_dir: Path, stage: str):
        self.lessons = lessons
        self.run_dir = run_dir
        self.stage = stage

    def on_epoch_begin(self, args, state, control, **_):
        self.lessons.set_epoch(int(state.epoch or 0))

    def on_log(self, args, state, control, logs=None, **_):
        if state.is_world_process_zero and logs and "loss" in logs:
            append_metrics(self.run_dir, {"stage": self.stage, "step": state.global_step, **logs})

    def on_save(self, args, state, control, **_):
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (folder / COMPLETE).write_text("")


def finetune(
    config: FinetuneConfig, questions: Sequence[Question], features: Path, run_dir: Path
) -> Path:
    """Fine-tune the language model on questions about clips with cached tokens.

    A run folder that holds whole checkpoints is gone on with, exactly.

    Args:
        config: all settings.
        questions: what to learn.
        features: token cache that holds all their clips.
        run_dir: gets config.json, run.json, metrics.jsonl, checkpoints and the model.

    Returns:
        The folder of the trained model, run_dir/model.

    Raises:
        LaunchError: several processes were started that do not know of one another, or the run
            folder holds checkpoints of other settings.
        CacheError: the cache lacks clips.
        LessonError: prompts are too long.
    """
    refuse_lone_ranks()
    refuse_other_settings(config, run_dir)
    cache = TokenCache(features, [question.video for question in questions])
    tokenizer = load_tokenizer(config.language_model)
    letter_ids(tokenizer, max(len(question.options) for question in questions))
    torch.manual_seed(config.seed)  # LoRA's start; peft offers no generator
    model = build(config, cache, tokenizer)
    vlm = composite(model).config
    lessons = Lessons(
        questions,
        cache,
        tokenizer,
        video_id=vlm.video_token_id,
        answer_style=config.answer_style,
        token_noise=config.token_noise,
        seed=config.seed,
    )
    refuse_too_long(lessons, min(config.max_length, vlm.text_config.max_position_embeddings))
    main_process = PartialState().is_main_process
    if main_process:
        open_run(run_dir, config, seed=config.seed)
    for stage, epochs in (("projector", config.projector_epochs), ("joint", config.epochs)):
        if epochs > 0:
            learn_projector_alone(model, stage == "projector")
            run_stage(config, model, lessons, run_dir, stage=stage, epochs=epochs)
    if main_process:
        save_trained(model, tokenizer, run_dir / "model")
    PartialState().wait_for_everyone()
    return run_dir / "model"


def build(
    config: FinetuneConfig, cache: TokenCache, tokenizer: PreTrainedTokenizerBase
) -> PeftModel:
    """The composite model for the tokens of a cache, with adapters."""
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model = assemble(
        config.language_model,
        token_dim=cache.token_dim,
        token_shape=cache.token_shape,
        encoder={"key": cache.key, "origin": cache.origin},
        anchor_ids=tokenizer(VIDEO_WORD, add_special_tokens=False)["input_ids"],
        seed=config.seed,
        dtype=DTYPES.get(config.dtype, dtype),
    )
    lora = config.lora
    return add_adapters(model, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout)


def run_stage(
    config: FinetuneConfig,
    model: PeftModel,
    lessons: Lessons,
    run_dir: Path,
    *,
    stage: str,
    epochs: int,
) -> None:
    """Train what learns in this stage, from its last whole checkpoint if there is one."""
    folder = run_dir / "checkpoints" / stage
    trainer = LessonTrainer(
        model=model,
        args=arguments(config, folder, num_items=len(lessons), epochs=epochs),
        train_dataset=lessons,
        data_collator=Collator(lessons.tokenizer.pad_token_id),
        callbacks=[Diary(lessons, run_dir, stage)],
        lora_lr=config.lora.lr,
        projector_lr=config.projector_lr,
    )
    trainer.train(resume_from_checkpoint=last_whole(folder))


def arguments(
    config: FinetuneConfig, folder: Path, *, num_items: int, epochs: int
) -> TrainingArguments:
    """The Trainer's settings for one stage."""
    processes = PartialState().num_processes
    pieces = max(1, config.batch_size // (config.micro_batch_size * processes))
    steps = epochs * -(-num_items // config.batch_size)
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=min(
            config.micro_batch_size, max(1, config.batch_size // processes)
        ),
        gradient_accumulation_steps=pieces,
        num_train_epochs=epochs,
        lr_scheduler_type="cosine",
        warmup_steps=int(config.warmup * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=1.0,
        logging_steps=max(1, steps // 50),
        logging_nan_inf_filter=False,
        save_strategy="steps" if config.save_every_steps else "no",
        save_steps=config.save_every_steps or 500,
        save_total_limit=2,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        use_cpu=not cuda,
        bf16=cuda,
        seed=config.seed,
    )


def last_whole(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; unfinished ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    whole = [path for path in found if (path / COMPLETE).exists()]
    for path in set(found) - set(whole):
        shutil.rmtree(path)
    return str(whole[-1]) if whole else None


def refuse_lone_ranks() -> None:
    """Several started processes must be one group, or each would train and write alone.

    Raises:
        LaunchError: the environment names more processes than accelerate knows of.
    """
    started, known = int(os.environ.get("WORLD_SIZE", "1")), PartialState().num_processes
    if started != known:
        raise LaunchError(
            f"{started} processes were started, but accelerate knows of {known}; on CPU set "
            f"ACCELERATE_USE_CPU=true and launch with --multi_gpu --num_processes {started}"
        )


def refuse_other_settings(config: FinetuneConfig, run_dir: Path) -> None:
    """A run that has checkpoints goes on with its own settings or not at all.

    Raises:
        LaunchError: a setting differs; the message names it.
    """
    stored = run_dir / "config.json"
    if not stored.exists() or not any(run_dir.glob("checkpoints/*/checkpoint-*")):
        return
    before, asked = json.loads(stored.read_text()), json.loads(json.dumps(asdict(config)))
    changed = [name for name in asked if before.get(name) != asked[name]]
    if changed:
        name = changed[0]
        raise LaunchError(
            f"{run_dir} has checkpoints of a run with {name} = {before.get(name)}, this one asks "
            f"for {asked[name]}; choose another run folder, or delete its checkpoints"
        )
