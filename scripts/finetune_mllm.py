"""Fine-tune a language model on questions about clips whose tokens are cached.

    accelerate launch scripts/finetune_mllm.py demo --encoder-features data/tokens/sefar \\
        --questions data/qa-public/train.jsonl data/qa-hard/train.jsonl --run-dir runs/mllm-sefar
    accelerate launch --config_file scripts/accelerate/one_gpu_bf16.yaml \\
        scripts/finetune_mllm.py vicuna_7b --encoder-features data/tokens/sefar \\
        --questions data/qa-hard/train.jsonl --run-dir runs/mllm-sefar --dev-rate 0.1 \\
        --redraw hard --manifest data/gym99-5/manifest.csv --categories gym99_categories.txt

The first word is a preset: `demo` (the toy language model, two CPU cores, a minute) or
`vicuna_7b`; every setting of it can be overridden, for example `--language-model DIR`. The
run folder gets config.json, run.json, metrics.jsonl, and `model`, which evaluate_mllm.py and
chat.py take. The same command again goes on from the last whole checkpoint; SIGTERM and Ctrl-C save
one first. In scripts/accelerate lie launch settings: one_gpu_bf16.yaml, and for several GPUs
ddp.yaml, fsdp2.yaml and zero2.yaml. Two processes on CPUs:

    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 --num_machines 1 \\
        --mixed_precision no scripts/finetune_mllm.py demo ...
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from sefar_core.cli import refuse_unwritable, start

import tyro

from qa_data.build import classes_of
from qa_data.generate import resample_distractors
from qa_data.manifest import read_manifest
from qa_data.questions import Question, QuestionError
from qa_data.taxonomy import read_categories
from sefar_mllm.config import FinetuneConfig
from sefar_mllm.presets import PRESETS


@dataclass(frozen=True, kw_only=True)
class FinetuneMllm:
    encoder_features: Path
    """Token cache that extract_features.py wrote."""
    questions: tuple[Path, ...]
    """What to learn: one or several files, .jsonl or public .json, or lines of yours."""
    run_dir: Path
    """Folder of this run; one that was interrupted is gone on with."""
    manifest: Path | None = None
    """Table of clips: it knows the class and source of questions that do not tell them, which
    --dev-rate needs, and is what --redraw draws from."""
    categories: Path | None = None
    """FineGym's class list, in which the labels count; --redraw hard needs it."""
    merge: Path | None = None
    """Folder for a plain copy of the trained model with LoRA merged, as merge_mllm.py makes it."""
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
    """What draws the wrong options of each epoch, if they are to be drawn anew."""
    rule = settings.config.redraw
    if rule == "none":
        return None
    if settings.manifest is None or (rule == "hard" and settings.categories is None):
        raise QuestionError(
            f"--redraw {rule} draws from the clips of --manifest"
            f"{' and reads the apparatus off --categories' * (rule == 'hard')}; give them"
        )
    clips = read_manifest(settings.manifest)
    classes = read_categories(settings.categories) if settings.categories else classes_of(clips)
    return resample_distractors(questions, clips, classes, rule=rule, seed=settings.config.seed)


def parse() -> FinetuneMllm:
    """The command line: a preset, then what is changed in it."""
    asked = tyro.MISSING
    presets = {
        name: FinetuneMllm(encoder_features=asked, questions=asked, run_dir=asked, config=config)
        for name, config in PRESETS.items()
    }
    return tyro.cli(tyro.extras.subcommand_type_from_defaults(presets), description=__doc__)


if __name__ == "__main__":
    start(main, parse)
