"""Settings -> a fine-tuned model: stage A trains the projector alone, stage B LoRA with it."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from qa_data.files import SefarError
from qa_data.questions import Question
from sefar_core.distributed import refuse_separate_runs
from sefar_core.run_dir import add_to_run, forget_metrics_after, locked, open_run
from sefar_core.signals import StopRequest
from sefar_mllm.adapters import (
    add_adapters,
    composite,
    learn_projector_alone,
    lora_parameters,
    projector_parameters,
)
from sefar_mllm.build import build_vlm, load_tokenizer
from sefar_mllm.checkpoint import save_trained
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.dataset import QuestionDataset, Redraw, refuse_too_long, split_batch
from sefar_mllm.feature_cache import TokenCache
from sefar_mllm.model_config import lasting_place
from sefar_mllm.prompt import VIDEO_WORD, letter_ids
from sefar_mllm.stages import run_stage, stages, steps_done
from sefar_mllm.validation import best_epoch, cut_validation, validation_scores

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FREE = ("save_every_steps",)
"""Settings that may differ when a run is resumed."""


def finetune(
    config: FinetuneConfig,
    questions: Sequence[Question],
    features: Path,
    run_dir: Path,
    *,
    redraw: Redraw | None = None,
    files: Sequence[Path] = (),
) -> Path:
    """Fine-tune the language model on questions about clips with cached tokens.

    A run whose folder holds complete checkpoints resumes exactly; a finished run is not trained
    further.

    Args:
        config: all settings.
        questions: the questions to train on, with the validation questions among them.
        features: token cache that holds all their clips.
        run_dir: gets config.json, run.json, metrics.jsonl, checkpoints and the model.
        redraw: the questions of an epoch, if `config.redraw` draws their options anew in each;
            about the same clips with the same answers, and a function of the epoch alone.
        files: where the questions come from, for run.json.

    Returns:
        The folder of the trained model, run_dir/model.

    Raises:
        SefarError: the started processes would round the projector; `redraw` and `config.redraw`
            do not agree; another process trains in the run folder; the processes cannot split a
            step's questions; prompts are too long; redrawn questions differ; or no validation
            questions can be held out.
        ValueError: the started processes do not form one group; or the run folder belongs to other
            settings, questions or tokens, or to another number of processes.
        CacheError: the cache lacks clips.
        FloatingPointError: loss or gradient is no longer a finite number.
        Interrupted: SIGTERM or SIGINT came; a checkpoint is saved.
    """
    # The first call decides whether this process is one of a group, and on which device it runs.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    refuse_separate_runs(PartialState(cpu=cpu).num_processes)
    refuse_rounding_shards()
    split_batch(config.batch_size, config.micro_batch_size, PartialState().num_processes)
    if (redraw is None) != (config.redraw == "none"):
        raise SefarError(
            f"redraw is {config.redraw}, but questions are {'not ' * (redraw is None)}drawn for "
            f"each epoch; give both or neither"
        )
    train, validation = cut_validation(questions, config.dev_rate, config.seed)
    cache = TokenCache(features, [question.video for question in questions])
    tokenizer = load_tokenizer(config.language_model)
    letter_ids(tokenizer, max(len(question.options) for question in questions))
    torch.manual_seed(config.seed)  # LoRA's initial weights; peft takes no generator
    model = build_trainable(config, cache, tokenizer)
    vlm = composite(model).config
    dataset = QuestionDataset(
        train,
        cache,
        tokenizer,
        video_id=vlm.video_token_id,
        answer_style=config.answer_style,
        token_noise=config.token_noise,
        seed=config.seed,
        redraw=redraw and partial(without, redraw, {question.video for question in validation}),
    )
    limit = min(config.max_length, vlm.text_config.max_position_embeddings)
    refuse_too_long(dataset, limit, epochs=config.projector_epochs + config.epochs)
    validate_fn = (
        partial(validation_scores, model, tokenizer, validation, cache) if validation else None
    )
    planned = stages(config, len(train), run_dir)
    with ExitStack() as until_the_end:
        if PartialState().is_main_process:
            until_the_end.enter_context(locked(run_dir))
            lines = (json.dumps(vars(question), sort_keys=True) for question in questions)
            data = {
                "questions": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
                "features": json.dumps(cache.key),
                # Each draws its own dropout, and gradients are summed in another order.
                "num_processes": str(PartialState().num_processes),
            }
            open_run(run_dir, config, seed=config.seed, data=data, free=FREE)
            add_to_run(run_dir, facts(model, cache, train, validation, files=files))
            forget_metrics_after(run_dir, steps_done(planned))
        PartialState().wait_for_everyone()
        stop_signal = until_the_end.enter_context(StopRequest())
        for stage in planned:
            learn_projector_alone(model, stage.name == "projector")
            run_stage(
                config, model, dataset, stage, stop_signal=stop_signal, validate_fn=validate_fn
            )
        writes = PartialState().is_main_process
        save_trained(model, tokenizer, run_dir / "model", writes=writes)
        if writes and validation:
            add_to_run(run_dir, {"best_dev": best_epoch(run_dir)})
        PartialState().wait_for_everyone()
    return run_dir / "model"


def build_trainable(
    config: FinetuneConfig, cache: TokenCache, tokenizer: PreTrainedTokenizerBase
) -> PeftModel:
    """The composite model for the tokens of a cache, with adapters."""
    origin = cache.origin | {"folder": lasting_place(cache.origin["folder"])}
    dtype = torch.bfloat16 if PartialState().device.type == "cuda" else torch.float32
    model = build_vlm(
        config.language_model,
        token_dim=cache.token_dim,
        token_shape=cache.token_shape,
        encoder={"key": cache.key, "origin": origin},
        anchor_ids=tokenizer(VIDEO_WORD, add_special_tokens=False)["input_ids"],
        seed=config.seed,
        dtype=DTYPES.get(config.dtype, dtype),
        device=PartialState().device if config.four_bit else "cpu",
        four_bit=config.four_bit,
    )
    lora = config.lora
    return add_adapters(model, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout)


def without(redraw: Redraw, videos: set[str], epoch: int) -> list[Question]:
    """The questions of an epoch, without those about these clips: the validation questions'."""
    return [question for question in redraw(epoch) if question.video not in videos]


def facts(
    model: PeftModel,
    cache: TokenCache,
    train: Sequence[Question],
    validation: Sequence[Question],
    *,
    files: Sequence[Path],
) -> dict:
    """What a run trains, and on what, for run.json."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "processes": PartialState().num_processes,
        "question_files": [file.name for file in files],
        "train_questions": len(train),
        "dev_questions": len(validation),
        "dev_sources": sorted({question.source for question in validation}),
        "features": cache.key,
        "lora_parameters": sum(p.numel() for _, p in lora_parameters(model)),
        "projector_parameters": sum(p.numel() for _, p in projector_parameters(model)),
    }


def refuse_rounding_shards() -> None:
    """Refuse FSDP settings that checkpoints do not support, or that round the projector. SefarError
    for FSDP of version 1, or with mixed precision.
    """
    version = os.environ.get("FSDP_VERSION", "1")
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if parse_flag_from_env("ACCELERATE_USE_FSDP") and (version, precision) != ("2", "no"):
        raise SefarError(
            f"FSDP is set to version {version} with mixed precision {precision}; launch "
            f"with scripts/accelerate/fsdp2.yaml: version 2 and no mixed precision, which would "
            f"round the projector (the language model is in bfloat16 anyway)"
        )
