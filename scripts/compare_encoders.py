"""Train and score every encoder and control under one budget: one table, plots, and the verdict.

    scripts/compare_encoders.py demo --manifest data/splits/manifest.csv --video-root data/videos \\
        --questions data/qa-public data/qa-hard --sefar runs/sefar --supervised runs/supervised \\
        --out runs/comparison --finetune.epochs 16 --jobs 2

The first word is a preset of the fine-tuning, `demo` or `vicuna_7b`; --finetune.NAME overrides its
settings for all rows alike. --sefar and --supervised take one run folder, or one for each of
--seeds: then training i is fine-tuned on recognizer i, and what is said of several seeds holds for
the training of both. With --clip and --eva, folders of their weights, the rows of CLIP and EVA-CLIP
are measured too. The same command again goes on where it was stopped. What is found is in
OUT/comparison.md.
"""

import sys
from typing import Any

import tyro

from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.presets import PRESETS


def main(settings: CompareConfig) -> None:
    from qa_data.manifest import ManifestError
    from sefar_core.checkpoint import CheckpointError
    from sefar_core.data.video import VideoReadError
    from sefar_core.runs.interruption import Interrupted
    from sefar_core.runs.lock import RunFolderBusy
    from sefar_mllm.comparison.run import compare_encoders
    from sefar_mllm.folders.checkpoint import FolderError
    from sefar_mllm.tokens.cache import CacheError
    from sefar_mllm.training.train import LaunchError

    try:
        found = compare_encoders(settings)
    except Interrupted as wish:
        print(wish, file=sys.stderr)
        raise SystemExit(wish.exit_code) from wish
    except (
        CacheError,
        CheckpointError,
        FloatingPointError,
        FolderError,
        LaunchError,
        ManifestError,
        OSError,
        RunFolderBusy,
        ValueError,
        VideoReadError,
    ) as cause:
        raise SystemExit(f"error: {cause}") from cause
    for verdict in found["verdicts"]:
        print(verdict["words"])
    print(f"the tables are in {settings.out / 'comparison.md'}")


def parse() -> CompareConfig:
    """The command line: a preset of the fine-tuning, then what is changed in it."""
    asked: Any = tyro.MISSING
    presets = {
        name: CompareConfig(
            manifest=asked,
            video_root=asked,
            questions=asked,
            sefar=asked,
            out=asked,
            finetune=finetune,
        )
        for name, finetune in PRESETS.items()
    }
    return tyro.cli(tyro.extras.subcommand_type_from_defaults(presets), description=__doc__)


if __name__ == "__main__":
    main(parse())
