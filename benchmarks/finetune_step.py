"""Our fine-tuning against transformers' Trainer with peft, on the same dataset.

All make one pass over the same prompts and tokens with the same model, adapters, collator and
batch size, and save a checkpoint. Ours checks and logs every loss. The plain Trainer gets the same
batches, to compare the step, and batches in its own order, to measure length bucketing.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState
from peft import PeftModel
from transformers import PrinterCallback, Trainer, TrainingArguments

from sefar_core.signals import StopRequest
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.dataset import Collator, LengthBucketedSampler, QuestionDataset, padding_share
from sefar_mllm.stages import run_stage, stages

OURS = "ours"
SAME = "plain Trainer, the same batches"
OWN = "plain Trainer, batches in its own order"


def passes(
    config: FinetuneConfig, model: PeftModel, dataset: QuestionDataset, folder: Path
) -> dict[str, Callable[[], None]]:
    """One pass over the dataset by each method, for `timing.alternate`; the model is trained."""
    one_pass = replace(config, projector_epochs=0, epochs=1, save_every_steps=0)

    def ours() -> None:
        (stage,) = stages(one_pass, len(dataset), folder / "ours")
        shutil.rmtree(stage.run_dir, ignore_errors=True)  # else the last pass would be resumed
        stage.run_dir.mkdir(parents=True)
        run_stage(one_pass, model, dataset, stage, stop_signal=StopRequest())

    def same_batches() -> None:
        dataset.begin_epoch(0)  # as ours does
        plain_pass(SameBatches, config, model, dataset, folder)

    def own_order() -> None:
        plain_pass(Trainer, config, model, dataset, folder)

    return {OURS: ours, SAME: same_batches, OWN: own_order}


class SameBatches(Trainer):
    """The plain Trainer with our batches."""

    def _get_train_sampler(self, train_dataset=None) -> LengthBucketedSampler:
        size = self.args.per_device_train_batch_size
        return LengthBucketedSampler(self.train_dataset, batch_size=size, multiple=1)


def plain_pass(
    kind: type[Trainer],
    config: FinetuneConfig,
    model: PeftModel,
    dataset: QuestionDataset,
    folder: Path,
) -> None:
    """One pass by the plain Trainer of transformers."""
    cuda = PartialState().device.type == "cuda"
    arguments = TrainingArguments(
        output_dir=str(folder / "plain"),
        per_device_train_batch_size=config.batch_size,
        num_train_epochs=1,
        learning_rate=config.lora.lr,
        save_strategy="epoch",
        logging_steps=50,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        use_cpu=not cuda,
        bf16=cuda,
    )
    trainer = kind(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=Collator(dataset.tokenizer.pad_token_id),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def padding(dataset: QuestionDataset, batch_size: int) -> dict[str, float]:
    """Share of positions that are padding: in our order, and in a random order."""
    shuffled = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    orders = {
        "ours": LengthBucketedSampler(dataset, batch_size=batch_size, multiple=1),
        "plain": shuffled,
    }
    return {
        name: padding_share([dataset.lengths[index] for index in order], batch_size=batch_size)
        for name, order in orders.items()
    }
