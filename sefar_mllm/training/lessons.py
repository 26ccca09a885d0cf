"""Questions as lessons of an epoch: which order the options have, and how the answer is spoken.

Every draw is a function of (seed, epoch, question): nothing here touches a global random state, so
a resumed run sees the same batches. Everything that cannot be used is refused before training,
all at once. Nothing is ever cut.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from qa_data.schema import Question
from sefar_mllm.config import AnswerStyle
from sefar_mllm.data import LessonError
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
from sefar_mllm.tokens.cache import TokenCache

FILLER = -1  # the place of a lesson that teaches nothing

Redraw = Callable[[int], Sequence[Question]]
"""The questions of an epoch: about the same clips with the same answers, beside other options."""


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
        redraw: the questions of each epoch, if they are to have other options in each.

    Attributes:
        epoch: the one that the items are of.
        lengths: tokens of each lesson's prompt in this epoch.

    Raises:
        LessonError: no questions, or `redraw` gives other ones.
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
        redraw: Redraw | None = None,
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
        self.redraw = redraw
        self._asked = questions
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
            refuse_other_questions(self._asked, self.questions, epoch)
        self.prompts = [self._encode(question) for question in self.questions]
        self.lengths = [len(prompt.ids) for prompt in self.prompts]

    def _encode(self, question: Question) -> EncodedPrompt:
        frames, rows, columns = self.cache.token_shape
        rng = draw_source(self.seed, self.epoch, question.question_id)
        return encode_lesson(
            self.tokenizer,
            [lesson(question, self.answer_style, rng)],
            num_video_tokens=frames * rows * columns,
            video_id=self.video_id,
        )

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, place: int) -> dict[str, Any]:
        """The lesson at a place; at FILLER the shortest, with nothing left to learn."""
        if place == FILLER:
            item = self[min(range(len(self)), key=self.lengths.__getitem__)]
            ids = item["prompt"].ids
            return {**item, "prompt": EncodedPrompt(ids, [IGNORE] * len(ids))}
        question = self.questions[place]
        tokens = self.cache[question.video].float()
        if self.token_noise > 0:
            rng = draw_source(self.seed, self.epoch, question.question_id, "noise")
            generator = torch.Generator().manual_seed(rng.getrandbits(63))
            spread = tokens.std(dim=-1, keepdim=True)
            noise = torch.randn(tokens.shape, generator=generator)
            tokens = tokens + self.token_noise * spread * noise
        return {"prompt": self.prompts[place], "video_tokens": tokens, "clip_id": question.video}


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


def refuse_other_questions(
    asked: Sequence[Question], drawn: Sequence[Question], epoch: int
) -> None:
    """Questions of an epoch must be about the same clips, with the same answers.

    Raises:
        LessonError: they are not; the message names what differs.
    """
    wanted, found = (
        Counter((one.video, one.options[one.answer]) for one in questions)
        for questions in (asked, drawn)
    )
    lost, added = wanted - found, found - wanted
    if lost or added:
        clip, text = next(iter(lost or added))
        where = "is missing" if lost else "was not asked for"
        raise LessonError(
            f"the questions drawn for epoch {epoch} differ from those that were given: "
            f"{lost.total()} are missing and {added.total()} are others; the one about {clip} with "
            f"the answer {text!r} {where}. Draw them from the clips and classes of these questions"
        )


def refuse_too_long(lessons: Lessons, max_length: int, *, epochs: int = 1) -> None:
    """Check the length of every prompt of every epoch, and leave the lessons in the first.

    Raises:
        LessonError: some prompts are longer than the model reads, which would cut the video or
            the question.
    """
    fixed = lessons.redraw is None and lessons.answer_style == "letter"
    for epoch in range(1 if fixed else epochs):  # the order of the options hardly matters
        lessons.begin_epoch(epoch)
        names = [question.question_id for question in lessons.questions]
        long = [
            (length, name)
            for name, length in zip(names, lessons.lengths, strict=True)
            if length > max_length
        ]
        if long:
            most, name = max(long)
            raise LessonError(
                f"{len(long)} of {len(names)} prompts exceed {max_length} tokens, the longest is "
                f"question {name} with {most}; pool the video to fewer tokens (--grid), or raise "
                f"max_length if the language model reads more"
            )
    lessons.begin_epoch(0)
