"""Merge a fine-tuned adapter into its language model: one plain folder for transformers.

    scripts/merge_mllm.py runs/mllm-sefar/model --out models/sefar-vicuna

The folder holds config, weights, tokenizer and a model card; chat.py and evaluate_mllm.py
read it like the adapter's, and so does

    import sefar_mllm.model
    AutoModelForImageTextToText.from_pretrained("models/sefar-vicuna")

Merging runs in float32: a 7B model needs 28 GB of memory.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sefar_core.cli import refuse_unwritable, start

import tyro

from sefar_mllm.config import DtypeName


@dataclass(frozen=True, kw_only=True)
class MergeMllm:
    model: tyro.conf.Positional[Path]
    """Folder that finetune_mllm.py wrote, RUN/model."""
    out: Path
    """Folder to write. An older merged model in it is replaced; any other folder is refused."""
    language_model: str | None = None
    """Folder or hub name of the language model, if it is not where it was in training."""
    dtype: DtypeName = "auto"
    """Precision of the merged language model; auto: that of its files."""


def main(settings: MergeMllm) -> None:
    refuse_unwritable(folders=[settings.out])  # before the slow imports

    import torch

    from sefar_mllm.checkpoint import merge

    dtypes = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}
    merge(
        settings.model,
        settings.out,
        language_model=settings.language_model,
        dtype=dtypes[settings.dtype],
    )
    print(f"the merged model is in {settings.out}")


if __name__ == "__main__":
    start(main, partial(tyro.cli, MergeMllm, description=__doc__))
