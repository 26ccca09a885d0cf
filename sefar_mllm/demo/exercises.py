"""Text-only exercises: a described move, options, an answer.

Where a video will stand, a description in words stands: `slots`, each a mixture of the embeddings
of a few words. In the clean form every slot is one word of the right move, shuffled and repeated.
In the mixed form some of the words are another option's and noise is added, as projected video
tokens will be: redundant, partial, and not quite sure.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from sefar_mllm.data import pad_batch
from sefar_mllm.demo import moves
from sefar_mllm.model import word_table
from sefar_mllm.prompt import (
    BOTH_REQUEST,
    LETTERS,
    TEXT_REQUEST,
    EncodedPrompt,
    Turn,
    encode_lesson,
    letter_ids,
    question_text,
)

PAD_ID = 0  # of the toy tokenizer: unk pads, as with Vicuna
WORDS_IN_A_SLOT = 4
MOST_NOISE = 0.6  # in units of the embeddings' own spread
LEAST_TRUST = 0.6  # share of a mixed description's words that are the right move's


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One stretch of the curriculum: how hard its exercises are."""

    steps: int
    """Optimizer steps."""
    template: bool = True
    """Whether the Vicuna prompt stands around the question; else slots, options, letter alone."""
    nonsense: float = 0.1
    """Share of exercises whose options are random words."""
    words: tuple[int, int] = (1, 4)
    """Range of the length of a nonsense option."""
    hard: float = 0.7
    """Probability that an exercise's moves are near relatives."""
    slots: tuple[int, int] = (32, 32)
    """Range of the number of slots of a description."""
    mixed: float = 0.7
    """Share of exercises with mixed slots."""
    spoken: float = 0.0
    """Share of exercises answered in words, or with a second turn that is."""


@dataclass(frozen=True)
class Exercise:
    """Ids with placeholders for the slots, labels, and what the slots are made of."""

    prompt: EncodedPrompt
    words: list[list[int]]
    """Token ids mixed into each slot."""
    shares: list[list[float]]
    """Their weights; each slot's add up to 1."""
    noise: float
    """Standard deviation, in units of the embeddings' own spread."""
    answer: int
    """Position of the right option."""
    options: list[list[int]] = field(default_factory=list)
    """Token ids of the options."""

    def option_places(self, marker: Sequence[int]) -> list[range]:
        """Where each option's tokens stand in the ids; empty if no options are shown."""
        ids, width = self.prompt.ids, len(marker)
        starts = [i for i in range(len(ids)) if ids[i : i + width] == list(marker)]
        places, place = [], starts[0] if starts else 0
        for option in self.options if starts else []:
            places.append(range(place + width, place + width + len(option)))
            place += width + len(option)
        return places


class Examiner:
    """Draws exercises for a tokenizer.

    Args:
        tokenizer: a toy tokenizer whose letters are single tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.letters = letter_ids(tokenizer, 4)
        self.vocabulary = moves.vocabulary()
        self.encode = lru_cache(maxsize=50_000)(self._encode)
        self.marker = self.encode("A.")

    def draw(self, lesson: Lesson, rng: random.Random) -> Exercise:
        """An exercise of a lesson; the answer is drawn among exchangeable options."""
        if rng.random() < lesson.nonsense:
            length = rng.randint(*lesson.words)
            options = moves.draw_words(4, length, self.vocabulary, rng)
        else:
            options = moves.draw_options(4, lesson.hard, rng)
        return self.exercise(options, lesson, rng)

    def exercise(self, options: Sequence[str], lesson: Lesson, rng: random.Random) -> Exercise:
        """An exercise with these options, of which one is drawn to be described."""
        answer = rng.randrange(len(options))
        encoded = [list(self.encode(option)) for option in options]
        count = rng.randint(*lesson.slots)
        if rng.random() < lesson.mixed:
            words, shares, noise = mixed_slots(encoded[answer], rng.choice(encoded), count, rng)
        else:
            words, shares, noise = clean_slots(encoded[answer], count, rng)
        if lesson.template:
            turns = draw_turns(options, answer, lesson.spoken, rng)
            prompt = encode_lesson(
                self.tokenizer, turns, num_video_tokens=count, video_id=len(self.tokenizer)
            )
        else:
            prompt = self._bare(options, answer, count)
        return Exercise(prompt, words, shares, noise, answer, encoded)

    def _bare(self, options: Sequence[str], answer: int, count: int) -> EncodedPrompt:
        """Slots, options and letter without the conversation around them."""
        prompt = EncodedPrompt()
        prompt.give([self.tokenizer.bos_token_id, *[len(self.tokenizer)] * count])
        for letter, option in zip(LETTERS, options, strict=False):
            prompt.give([*self.encode(f"{letter}."), *self.encode(option)])
        prompt.give(self.encode("ASSISTANT:"))
        prompt.teach([self.letters[answer]])
        return prompt

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def draw_turns(
    options: Sequence[str], answer: int, spoken: float, rng: random.Random
) -> list[Turn]:
    """The question with a letter for an answer, or one of the forms that answer in words."""
    stem = rng.choice(moves.STEMS)
    letter = Turn(question_text(stem, options), LETTERS[answer])
    if rng.random() >= spoken:
        return [letter]
    name = Turn(f"{stem} {TEXT_REQUEST}", options[answer])
    both = Turn(question_text(stem, options, BOTH_REQUEST), f"{LETTERS[answer]}. {options[answer]}")
    return rng.choice([[name], [both], [letter, name], [Turn(stem, options[answer])]])


def clean_slots(
    right: Sequence[int], count: int, rng: random.Random
) -> tuple[list[list[int]], list[list[float]], float]:
    """Every slot is one token of the right move; all appear if there is room, shuffled."""
    drawn = list(right) * (count // len(right)) + rng.sample(list(right), count % len(right))
    rng.shuffle(drawn)
    return [[token] * WORDS_IN_A_SLOT for token in drawn], [[1.0, 0.0, 0.0, 0.0]] * count, 0.0


def mixed_slots(
    right: Sequence[int], other: Sequence[int], count: int, rng: random.Random
) -> tuple[list[list[int]], list[list[float]], float]:
    """Slots of several tokens each, some of them of another option, under noise."""
    trust = rng.uniform(LEAST_TRUST, 1.0)
    words, shares = [], []
    for _ in range(count):
        words.append(
            [rng.choice(right if rng.random() < trust else other) for _ in range(WORDS_IN_A_SLOT)]
        )
        parts = [rng.expovariate(1.0) ** 2 for _ in range(WORDS_IN_A_SLOT)]
        shares.append([part / sum(parts) for part in parts])
    return words, shares, rng.uniform(0.0, MOST_NOISE)


def embed(
    model: LlamaForCausalLM,
    exercises: Sequence[Exercise],
    video_word: int,
    generator: torch.Generator,
) -> tuple[
    Float[Tensor, "batch token dim"], Int[Tensor, "batch token"], Int[Tensor, "batch token"]
]:
    """Input embeddings with the slots in place, attention mask, labels; padded on the right.

    Args:
        model: whose embeddings are mixed.
        exercises: one row each.
        video_word: token whose embedding is added to every slot and tells it from a spoken word.
        generator: source of the noise.
    """
    batch = pad_batch([one.prompt for one in exercises], PAD_ID)
    table = word_table(model)
    place = batch["input_ids"] == table.num_embeddings
    embeds = table(batch["input_ids"].masked_fill(place, 0))
    shares = torch.tensor([share for one in exercises for share in one.shares])
    words = torch.tensor([word for one in exercises for word in one.words])
    noise = torch.tensor([one.noise for one in exercises for _ in one.words])[:, None]
    spread = table.weight.detach().std()
    slots = torch.einsum("sw,swd->sd", shares, table(words))
    slots = slots + noise * spread * torch.randn(slots.shape, generator=generator)
    slots = slots * spread / slots.detach().std(dim=1, keepdim=True) + table.weight[video_word]
    return embeds.masked_scatter(place[..., None], slots), batch["attention_mask"], batch["labels"]
