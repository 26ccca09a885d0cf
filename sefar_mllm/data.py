"""Questions and cached tokens -> padded batches.

Which order the options have in which epoch is a function of (seed, epoch, question), and so is
every other draw: nothing here touches a global random state, so a resumed run sees the same
batches. Everything that cannot be used is refused before training, all at once: clips without
tokens, and prompts that are too long. Nothing is ever cut.
"""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from qa_data.manifest import read_manifest
from qa_data.schema import Question, attach_classes, read_any
from sefar_mllm.config import AnswerStyle
from sefar_mllm.prompt import (
    BOTH_REQUEST,
    IGNORE,
    LETTERS,
    TEXT_REQUEST,
    EncodedPrompt,
    Turn,
    encode_lesson,
    question_text,
)
from sefar_mllm.token_cache import TokenCache


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


class Lessons(Dataset):
    """Questions with their answers and their clips' tokens, options shuffled anew every epoch.

    Args:
        questions: what to learn.
        cache: tokens of their clips.
        tokenizer: the language model's.
        video_id: the placeholder's id.
        answer_style: `letter`, `text`, or `mixed`.
        token_noise: standard deviation of the noise on tokens, in units of each token's spread.
        seed: of all draws.

    Raises:
        LessonError: no questions.
    """

    def __init__(  # noqa: PLR0913 - one place for all that makes an item
        self,
        questions: Sequence[Question],
        cache: TokenCache,
        tokenizer: PreTrainedTokenizerBase,
        *,
        video_id: int,
        answer_style: AnswerStyle = "letter",
        token_noise: float = 0.0,
        seed: int = 0,
    ):
        if not questions:
            raise LessonError("there are no questions to learn; check the question file")
        self.questions = questions
        self.cache = cache
        self.tokenizer = tokenizer
        self.video_id = video_id
        self.answer_style = answer_style
        self.token_noise = token_noise
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the options; called at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        question = self.questions[index]
        rng = draw_source(self.seed, self.epoch, question.question_id)
        frames, rows, columns = self.cache.token_shape
        prompt = encode_lesson(
            self.tokenizer,
            [lesson(question, self.answer_style, rng)],
            num_video_tokens=frames * rows * columns,
            video_id=self.video_id,
        )
        tokens = self.cache[question.video].float()
        if self.token_noise > 0:
            generator = torch.Generator().manual_seed(rng.getrandbits(63))
            spread = tokens.std(dim=-1, keepdim=True)
            noise = torch.randn(tokens.shape, generator=generator)
            tokens = tokens + self.token_noise * spread * noise
        return {"prompt": prompt, "video_tokens": tokens, "clip_id": question.video}


def draw_source(*names: object) -> random.Random:
    """A generator that depends on these names and on nothing else."""
    text = "\n".join(map(str, names)).encode()
    return random.Random(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big"))


def lesson(question: Question, style: AnswerStyle, rng: random.Random) -> Turn:
    """The question with shuffled options, and the answer in the style that is asked for."""
    order = list(range(len(question.options)))
    rng.shuffle(order)
    options = [question.options[place] for place in order]
    answer = order.index(question.answer)
    spoken = style == "text" or (style == "mixed" and rng.random() < 0.5)
    if not spoken:
        return Turn(question_text(question.stem, options), LETTERS[answer])
    if rng.random() < 0.5:
        return Turn(f"{question.stem} {TEXT_REQUEST}", options[answer])
    return Turn(
        question_text(question.stem, options, BOTH_REQUEST),
        f"{LETTERS[answer]}. {options[answer]}",
    )


def refuse_too_long(lessons: Lessons, max_length: int) -> None:
    """Check the length of every prompt once; the order of options hardly changes it.

    Raises:
        LessonError: some prompts are longer than the model reads, which would cut the video or
            the question.
    """
    names = [question.question_id for question in lessons.questions]
    lengths = {name: len(lessons[i]["prompt"].ids) for i, name in enumerate(names)}
    long = {name: length for name, length in lengths.items() if length > max_length}
    if long:
        worst = max(long, key=long.__getitem__)
        raise LessonError(
            f"{len(long)} of {len(lengths)} prompts exceed {max_length} tokens, the longest is "
            f"question {worst} with {long[worst]}; pool the video to fewer tokens (--grid), or "
            f"raise max_length if the language model reads more"
        )


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
