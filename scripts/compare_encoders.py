"""Train and score every encoder and control under one budget: tables, plots and a decision.

    scripts/compare_encoders.py demo --manifest data/splits/manifest.csv --video-root data/videos \\
        --questions data/qa-public data/qa-hard --sefar runs/sefar --supervised runs/supervised \\
        --out runs/comparison --finetune.epochs 16 --jobs 2

The first argument is a preset of the fine-tuning, `demo` or `vicuna_7b`; `--help` alone shows the
values of `vicuna_7b`. --finetune.NAME replaces one of its settings, for all rows. --sefar and
--supervised take one run folder, or one for each seed: then seed i is fine-tuned on recognizer i,
and the spread over seeds covers the training of both. --clip and --eva, folders of their weights or
hub names, add the rows of CLIP and EVA-CLIP. The same command resumes an interrupted comparison.
The result is OUT/comparison.md.
"""

import sys
from collections.abc import Sequence
from functools import partial

from sefar_core.cli import refuse_unwritable, start

import tyro

from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.config import choose_preset


def main(settings: CompareConfig) -> None:
    refuse_unwritable(folders=[settings.out])  # before the slow imports

    from sefar_mllm.comparison.run import compare_encoders

    for decision in compare_encoders(settings)["verdicts"]:
        print(decision["words"])
    print(f"the tables are in {settings.out / 'comparison.md'}")


def parse(arguments: Sequence[str]) -> CompareConfig:
    """The command line: a preset of the fine-tuning, then settings that replace its own."""
    finetune, prog, changes = choose_preset(arguments, "scripts/compare_encoders.py")
    config = partial(CompareConfig, finetune=finetune)
    return tyro.cli(config, args=changes, prog=prog, description=__doc__)


if __name__ == "__main__":
    start(main, partial(parse, sys.argv[1:]))
