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

from typing import Any

from sefar_core.cli import refuse_unwritable, start

import tyro

from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.presets import PRESETS


def main(settings: CompareConfig) -> None:
    refuse_unwritable(folders=[settings.out])  # before the slow imports

    from sefar_mllm.comparison.run import compare_encoders

    found = compare_encoders(settings)
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
    start(main, parse)
