"""Fine-tune a language model on questions about clips with cached tokens.

    accelerate launch scripts/finetune_mllm.py demo --encoder-features data/tokens/sefar \\
        --questions data/qa-public/train.jsonl data/qa-hard/train.jsonl --run-dir runs/mllm-sefar
    accelerate launch --config_file scripts/accelerate/one_gpu_bf16.yaml \\
        scripts/finetune_mllm.py vicuna_7b --encoder-features data/tokens/sefar \\
        --questions data/qa-hard/train.jsonl --run-dir runs/mllm-sefar --dev-rate 0.1 \\
        --redraw hard --manifest data/gym99-5/manifest.csv --categories gym99_categories.txt

The first argument is a preset: `demo` (the toy language model, two CPU cores, a minute) or
`vicuna_7b`. Options override single settings of it, for example `--language-model DIR`. `--help`
alone shows the values of `vicuna_7b`, `scripts/finetune_mllm.py demo --help` those of `demo`.

The run folder gets config.json, run.json, metrics.jsonl, and `model`, which evaluate_mllm.py and
chat.py read. SIGTERM and Ctrl-C save a checkpoint; the same command resumes from the last complete
one. Launch settings are in scripts/accelerate: one_gpu_bf16.yaml, and for several GPUs ddp.yaml,
fsdp2.yaml and zero2.yaml. Two processes on CPUs:

    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 --num_machines 1 \\
        --mixed_precision no scripts/finetune_mllm.py demo ...
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from sefar_core.cli import refuse_unwritable, start

import tyro

from qa_data.build import classes_of
from qa_data.generate import resample_distractors
from qa_data.manifest import read_manifest
from qa_data.questions import Question, QuestionError
from qa_data.taxonomy import read_categories
from sefar_mllm.config import FinetuneConfig, choose_preset


@dataclass(frozen=True, kw_only=True)
class FinetuneMllm:
    encoder_features: Path
    """Token cache that extract_features.py wrote."""
    questions: tuple[Path, ...]
    """Question files to train on: .jsonl, public .json, or lines of your own."""
    run_dir: Path
    """Folder of the run. An interrupted run in it is resumed."""
    manifest: Path | None = None
    """CSV of clips, written by make_splits.py. It gives class and source to questions without them,
    which --dev-rate needs, and the clips that --redraw draws from."""
    categories: Path | None = None
    """FineGym's class list, in the order of the labels. --redraw hard needs it."""
    merge: Path | None = None
    """Also write the model with LoRA merged to this folder, as merge_mllm.py does."""
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")]


def main(settings: FinetuneMllm) -> None:
    refuse_unwritable(folders=[settings.run_dir, settings.merge])  # before the slow imports

    import torch
    from accelerate import PartialState

    from sefar_mllm.checkpoint import merge, refuse_foreign
    from sefar_mllm.dataset import load_questions
    from sefar_mllm.train import finetune

    try:
        if settings.merge is not None:
            refuse_foreign(settings.merge)
        questions = [
            one for path in settings.questions for one in load_questions(path, settings.manifest)
        ]
        folder = finetune(
            settings.config,
            questions,
            settings.encoder_features,
            settings.run_dir,
            redraw=drawer(settings, questions),
            files=settings.questions,
        )
        if settings.merge is not None and PartialState().is_main_process:
            merge(folder, settings.merge)
    finally:
        if torch.distributed.is_initialized():  # or a process may abort while Python ends
            torch.distributed.destroy_process_group()
    if PartialState().is_main_process:
        print(f"the trained model is in {folder}")


def drawer(
    settings: FinetuneMllm, questions: Sequence[Question]
) -> Callable[[int], list[Question]] | None:
    """The function that draws the wrong options of each epoch anew; None without --redraw."""
    rule = settings.config.redraw
    if rule == "none":
        return None
    if settings.manifest is None or (rule == "hard" and settings.categories is None):
        raise QuestionError(
            f"--redraw {rule} draws from --manifest{' and --categories' * (rule == 'hard')}; "
            f"add them to the command"
        )
    clips = read_manifest(settings.manifest)
    classes = read_categories(settings.categories) if settings.categories else classes_of(clips)
    return resample_distractors(questions, clips, classes, rule=rule, seed=settings.config.seed)


def parse(arguments: Sequence[str]) -> FinetuneMllm:
    """The command line: a preset, then options that change it."""
    config, prog, changes = choose_preset(arguments, "scripts/finetune_mllm.py")
    with_preset = partial(FinetuneMllm, config=config)
    return tyro.cli(with_preset, args=changes, prog=prog, description=__doc__)


if __name__ == "__main__":
    start(main, partial(parse, sys.argv[1:]))
