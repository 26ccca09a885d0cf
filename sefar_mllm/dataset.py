"""Questions about clips with cached tokens -> padded training batches.

`QuestionDataset` shuffles the options of every question anew in each epoch, `Collator` pads items
to a batch, and `LengthBucketedSampler` puts prompts of about one length into a batch, so that
little padding is computed. Every draw is a function of (seed, epoch, question): nothing here
touches a global random state, so a resumed run sees the same batches. The processes split the
questions of a step and do not change which these are. What cannot be used is refused before
training, all at once; nothing is ever cut.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from qa_data.files import SefarError
from qa_data.manifest import read_manifest
from qa_data.questions import LETTERS, Question, attach_classes, read_any
from sefar_mllm.config import AnswerStyle
from sefar_mllm.feature_cache import TokenCache
from sefar_mllm.prompt import (
    BOTH_REQUEST,
    IGNORE,
    TEXT_REQUEST,
    EncodedPrompt,
    Turn,
    encode_example,
    question_text,
)

PAD_ITEM = -1
"""Index of the item that fills up the last step of several processes: it has no labels."""
SORTED_BATCHES = 10
"""Questions of so many batches, drawn at random, are sorted by length."""

Redraw = Callable[[int], Sequence[Question]]
"""The questions of an epoch: about the same clips with the same answers, with other options."""


@dataclass(eq=False)
class QuestionDataset(Dataset):
    """Questions with their answers and their clips' tokens, options shuffled anew every epoch.

    The attribute `epoch` is that of the current items, `lengths` has the tokens of each prompt in
    it. SefarError if there are no questions, or `redraw` gives other ones.
    """

    questions: Sequence[Question]
    """The questions of the epoch."""
    cache: TokenCache
    """Tokens of their clips."""
    tokenizer: PreTrainedTokenizerBase
    _: KW_ONLY
    video_id: int
    """The placeholder's id."""
    answer_style: AnswerStyle = "letter"
    token_noise: float = 0.0
    """Standard deviation of the noise on tokens, in units of each token's spread."""
    seed: int = 0
    """Of all draws."""
    redraw: Redraw | None = None
    """The questions of each epoch, if their options are drawn anew in each."""

    def __post_init__(self):
        if not self.questions:
            raise SefarError("there are no questions to train on; check the question file")
        self._given = self.questions
        self._begin(0)

    def begin_epoch(self, epoch: int) -> None:
        """Choose options, their order and the form of the answers; called as an epoch starts.

        Not `set_epoch`: accelerate's loader would call that, with the count of the stage.
        """
        if epoch != self.epoch:
            self._begin(epoch)

    def _begin(self, epoch: int) -> None:
        self.epoch = epoch
        if self.redraw is not None:
            self.questions = self.redraw(epoch)
            refuse_other_questions(self._given, self.questions, epoch)
        self.prompts = [self._encode(question) for question in self.questions]
        self.lengths = [len(prompt.ids) for prompt in self.prompts]

    def _encode(self, question: Question) -> EncodedPrompt:
        frames, rows, columns = self.cache.token_shape
        rng = seeded_random(self.seed, self.epoch, question.question_id)
        return encode_example(
            self.tokenizer,
            [example_turn(question, self.answer_style, rng)],
            num_video_tokens=frames * rows * columns,
            video_id=self.video_id,
        )

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The item at an index; at PAD_ITEM the shortest, without labels."""
        if index == PAD_ITEM:
            item = self[min(range(len(self)), key=self.lengths.__getitem__)]
            ids = item["prompt"].ids
            return {**item, "prompt": EncodedPrompt(ids, [IGNORE] * len(ids))}
        question = self.questions[index]
        tokens = self.cache[question.video].float()
        if self.token_noise > 0:
            rng = seeded_random(self.seed, self.epoch, question.question_id, "noise")
            generator = torch.Generator().manual_seed(rng.getrandbits(63))
            spread = tokens.std(dim=-1, keepdim=True)
            noise = torch.randn(tokens.shape, generator=generator)
            tokens = tokens + self.token_noise * spread * noise
        return {"prompt": self.prompts[index], "video_tokens": tokens, "clip_id": question.video}


def example_turn(question: Question, style: AnswerStyle, rng: random.Random) -> Turn:
    """The question with shuffled options, and the answer in the given style."""
    order = list(range(len(question.options)))
    rng.shuffle(order)
    options = [question.options[place] for place in order]
    answer = order.index(question.answer)
    in_words = style == "text" or (style == "mixed" and rng.random() < 0.5)
    if not in_words:
        return Turn(question_text(question.stem, options), LETTERS[answer])
    if rng.random() < 0.5:
        return Turn(f"{question.stem} {TEXT_REQUEST}", options[answer])
    return Turn(
        question_text(question.stem, options, BOTH_REQUEST),
        f"{LETTERS[answer]}. {options[answer]}",
    )


@dataclass(frozen=True)
class Collator:
    """Items of `QuestionDataset` -> the keywords of the model's forward."""

    pad_id: int

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = pad_batch([item["prompt"] for item in items], self.pad_id)
        batch["video_tokens"] = torch.stack([item["video_tokens"] for item in items])
        batch["clip_ids"] = [item["clip_id"] for item in items]
        return batch


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


@dataclass(eq=False)
class LengthBucketedSampler(Sampler[int]):
    """Indices of an epoch's items, for a loader that cuts batches from them in turn.

    With several processes the last step is filled up with items without labels, so that each
    process takes part in every step and no question is trained on twice.
    """

    dataset: QuestionDataset
    """It knows its seed, its epoch, and the length of each prompt in it."""
    _: KW_ONLY
    batch_size: int
    """Questions of a step, over all processes."""
    multiple: int
    """The number of indices is brought to a multiple of this: what all processes take at a time, or
    1 if there is one process."""

    def __len__(self) -> int:
        return len(self.dataset) + self.num_pads

    @property
    def num_pads(self) -> int:
        return -len(self.dataset) % self.multiple

    def __iter__(self) -> Iterator[int]:
        rng = seeded_random(self.dataset.seed, "order", self.dataset.epoch)
        yield from bucketed(self.dataset.lengths, batch_size=self.batch_size, rng=rng)
        yield from [PAD_ITEM] * self.num_pads


def seeded_random(*names: object) -> random.Random:
    """A generator of Python that depends on these names alone."""
    text = "\n".join(map(str, names)).encode()
    return random.Random(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big"))


def bucketed(lengths: Sequence[int], *, batch_size: int, rng: random.Random) -> list[int]:
    """Every place once, in an order whose consecutive batches are of about one length.

    The places are shuffled, each run of some batches is sorted by length and cut into batches,
    and the batches are shuffled. What fills no batch is drawn at random like all else, and comes
    last.
    """
    places = list(range(len(lengths)))
    rng.shuffle(places)
    whole = len(places) - len(places) % batch_size
    batches = []
    for start in range(0, whole, SORTED_BATCHES * batch_size):
        run = places[start : min(start + SORTED_BATCHES * batch_size, whole)]
        run.sort(key=lengths.__getitem__)
        batches += [run[i : i + batch_size] for i in range(0, len(run), batch_size)]
    rng.shuffle(batches)
    last = sorted(places[whole:], key=lengths.__getitem__)
    return [*(place for batch in batches for place in batch), *last]


def padding_share(lengths: Sequence[int], *, batch_size: int) -> float:
    """Share of the positions computed that are padding, if batches are cut from this order."""
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    return 1 - sum(lengths) / sum(max(batch) * len(batch) for batch in batches)


def split_batch(batch_size: int, micro_batch_size: int, processes: int) -> tuple[int, int]:
    """Questions that a process takes at a time, and how many times, for one step.

    `batch_size` counts over all processes; a process takes at most `micro_batch_size` at a time.
    SefarError if the processes cannot have equal parts.
    """
    part, rest = divmod(batch_size, processes)
    if rest or not part:
        raise SefarError(
            f"batch_size {batch_size} cannot be split among {processes} processes; choose a "
            f"multiple of {processes}"
        )
    at_a_time = next(size for size in range(min(micro_batch_size, part), 0, -1) if part % size == 0)
    return at_a_time, part // at_a_time


def refuse_other_questions(
    given: Sequence[Question], drawn: Sequence[Question], epoch: int
) -> None:
    """Questions of an epoch must be about the same clips, with the same answers. SefarError if they
    are not; the message names what differs.
    """
    wanted, found = (
        Counter((one.video, one.options[one.answer]) for one in questions)
        for questions in (given, drawn)
    )
    lost, added = wanted - found, found - wanted
    if lost or added:
        clip, text = next(iter(lost or added))
        where = "is missing" if lost else "was not given"
        raise SefarError(
            f"the questions drawn for epoch {epoch} differ from those that were given: "
            f"{lost.total()} are missing and {added.total()} are others; the one about {clip} with "
            f"the answer {text!r} {where}. Draw them from the clips and classes of these questions"
        )


def refuse_too_long(dataset: QuestionDataset, max_length: int, *, epochs: int = 1) -> None:
    """Check the length of every prompt of every epoch, and leave the dataset in the first.
    SefarError if some prompts are longer than the model reads, which would cut the video or the
    question.
    """
    fixed = dataset.redraw is None and dataset.answer_style == "letter"
    for epoch in range(1 if fixed else epochs):  # the order of the options hardly matters
        dataset.begin_epoch(epoch)
        names = [question.question_id for question in dataset.questions]
        long = [
            (length, name)
            for name, length in zip(names, dataset.lengths, strict=True)
            if length > max_length
        ]
        if long:
            most, name = max(long)
            raise SefarError(
                f"{len(long)} of {len(names)} prompts exceed {max_length} tokens, the longest is "
                f"question {name} with {most}; pool the video to fewer tokens (--grid), or raise "
                f"max_length if the language model reads more"
            )
    dataset.begin_epoch(0)


def load_questions(path: Path, manifest: Path | None = None) -> list[Question]:
    """Questions of a file of any form that `schema.read_any` takes.

    A manifest of their clips gives questions without a class their class, apparatus and source.

    Raises:
        QuestionError: the file is missing, is not a question file, or does not fit the manifest.
        ManifestError: the manifest is not readable.
    """
    questions = read_any(path)
    return questions if manifest is None else attach_classes(questions, read_manifest(manifest))


def name_sets(paths: Sequence[Path]) -> list[str]:
    """A name for each question file: its stem, after its folder's name where two stems are equal.
    SefarError if a file is given twice.
    """
    stems = [path.stem for path in paths]
    names = [
        path.stem if stems.count(path.stem) == 1 else f"{path.resolve().parent.name}-{path.stem}"
        for path in paths
    ]
    if len(set(names)) < len(names):
        raise SefarError(f"two question files have the same name among {names}; rename one")
    return names
