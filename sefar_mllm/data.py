"""Question files -> questions, and prompts with tokens -> padded batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qa_data.manifest import read_manifest
from qa_data.schema import Question, attach_classes, read_any
from sefar_mllm.prompt import IGNORE, EncodedPrompt


class LessonError(ValueError):
    """Questions that cannot be learned from; the message lists what is wrong and the mend."""


def load_questions(path: Path, manifest: Path | None = None) -> list[Question]:
    """Questions of a file of any form that `schema.read_any` takes.

    Args:
        path: the file.
        manifest: table of their clips, which gives questions without a class their class,
            apparatus and source.

    Raises:
        QuestionError: the file is missing or no question file, or does not fit the manifest.
        ManifestError: the manifest is not readable.
    """
    questions = read_any(path)
    return questions if manifest is None else attach_classes(questions, read_manifest(manifest))


def name_sets(paths: Sequence[Path]) -> list[str]:
    """A name for each question file: its own, behind its folder's where two are called alike.

    Raises:
        LessonError: a file is given twice.
    """
    stems = [path.stem for path in paths]
    names = [
        path.stem if stems.count(path.stem) == 1 else f"{path.resolve().parent.name}-{path.stem}"
        for path in paths
    ]
    if len(set(names)) < len(names):
        raise LessonError(f"two question files have one name among {names}; rename one")
    return names


def pad_batch(
    prompts: Sequence[EncodedPrompt], pad_id: int, *, side: str = "right"
) -> dict[str, Tensor]:
    """Ids, attention mask and labels of unequal prompts, padded on the right or the left.

    Training and scoring pad on the right, generation on the left.
    """
    longest = max(len(prompt.ids) for prompt in prompts)

    def padded(values: Sequence[int], fill: int) -> list[int]:
        gap = [fill] * (longest - len(values))
        return [*gap, *values] if side == "left" else [*values, *gap]

    return {
        "input_ids": torch.tensor([padded(p.ids, pad_id) for p in prompts]),
        "attention_mask": torch.tensor([padded([1] * len(p.ids), 0) for p in prompts]),
        "labels": torch.tensor([padded(p.labels, IGNORE) for p in prompts]),
    }


class Collator:
    """Items of `Lessons` -> the keywords of the model's forward."""

    def __init__(self, pad_id: int):
        self.pad_id = pad_id

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = pad_batch([item["prompt"] for item in items], self.pad_id)
        batch["video_tokens"] = torch.stack([item["video_tokens"] for item in items])
        batch["clip_ids"] = [item["clip_id"] for item in items]
        return batch
