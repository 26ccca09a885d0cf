"""Fine-tune a language model on questions about clips whose tokens are cached.

    accelerate launch scripts/finetune_mllm.py demo --encoder-features data/tokens/sefar \
        --questions data/qa-public/train.jsonl data/qa-hard/train.jsonl --run-dir runs/mllm-sefar

The first word is a preset: `demo` (the toy language model, two CPU cores, a minute) or
`vicuna_7b`; every setting of it can be overridden, for example `--language-model DIR`. The
run folder gets config.json, run.json, metrics.jsonl, and `model`, which evaluate_mllm.py and
chat.py take. The same command again goes on from the last whole checkpoint.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

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
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")]


def main(settings: FinetuneMllm) -> None:
    from qa_data.schema import QuestionError
    from sefar_mllm.checkpoint import FolderError
    from sefar_mllm.data import LessonError, load_questions
    from sefar_mllm.token_cache import CacheError
    from sefar_mllm.train import LaunchError, finetune

    try:
        questions = [one for path in settings.questions for one in load_questions(path)]
        folder = finetune(settings.config, questions, settings.encoder_features, settings.run_dir)
    except (
        QuestionError,
        CacheError,
        LessonError,
        FolderError,
        LaunchError,
        OSError,
        ValueError,
    ) as cause:
        raise SystemExit(f"error: {cause}") from cause
    print(f"the trained model is in {folder}")


def parse() -> FinetuneMllm:
    """The command line: a preset, then what is changed in it."""
    asked = tyro.MISSING
    presets = {
        name: FinetuneMllm(encoder_features=asked, questions=asked, run_dir=asked, config=config)
        for name, config in PRESETS.items()
    }
    return tyro.cli(tyro.extras.subcommand_type_from_defaults(presets), description=__doc__)


if __name__ == "__main__":
    main(parse())
