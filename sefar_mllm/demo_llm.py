"""The toy language model: a small Llama taught on text to match a description with options.

It stands to Vicuna as a toy backbone stands to an ImageNet ViT: a starting point that already
reads the prompt, so that fine-tuning only has to learn what the video tokens mean. Where the
video will stand it is shown a description in words, as `slots`: each a noisy mixture of the
embeddings of a few words, most of them of the right move, shuffled, repeated and partial, as
projected video tokens will be. Loss on answers only; key and query weights start equal, which
makes attention look for equal words from the first step.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from sefar_mllm import demo_text
from sefar_mllm.prompt import (
    BOTH_REQUEST,
    IGNORE,
    LETTERS,
    TEXT_REQUEST,
    Turn,
    encode_lesson,
    letter_ids,
    question_text,
)

WORDS_IN_A_SLOT = 4
VIDEO_WORD_ID = 0


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One stretch of the curriculum."""

    steps: int
    batch: int = 64
    template: bool = True
    """Whether the Vicuna prompt stands around the question; else only slots, options, letter."""
    nonsense: float = 0.3
    """Share of questions whose options are random words."""
    words: tuple[int, int] = (1, 4)
    """Range of the length of a nonsense text."""
    hard: float = 0.5
    """Probability that a question's moves are near relatives."""
    slots: tuple[int, int] = (32, 32)
    """Range of the number of slots of a description."""
    mixed: float = 0.0
    """Share of questions whose slots are mixtures; in the others a slot is one clean word."""
    spoken: float = 0.0
    """Share of questions answered in words rather than by a letter."""


@dataclass(frozen=True)
class Exercise:
    """One question: ids with placeholders, labels, and the recipe of its slots."""

    ids: list[int]
    labels: list[int]
    words: list[list[int]]  # token ids mixed into each slot
    shares: list[list[float]]  # their weights
    noise: float  # standard deviation, in units of the embeddings' own
    answer: int  # index of the right option
    ends: list[int]  # position of each option's last token; none if no options are shown
    lengths: list[int]  # tokens of each option


def new_model(tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """A toy Llama whose heads begin by attending to equal tokens (key weights = query weights)."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(std=1.0)
        for layer in model.model.layers:
            torch.nn.init.normal_(layer.self_attn.q_proj.weight, std=1 / math.sqrt(128))
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    return model


def draw_exercise(
    tokenizer: PreTrainedTokenizerBase, lesson: Lesson, rng: random.Random
) -> Exercise:
    """One question of a lesson; the answer is drawn among exchangeable options."""
    if rng.random() < lesson.nonsense:
        length = rng.randint(*lesson.words)
        options = demo_text.draw_words(4, length, demo_text.vocabulary(), rng)
    else:
        options = demo_text.draw_options(4, lesson.hard, rng)
    return exercise(tokenizer, options, rng.randrange(4), lesson, rng)


def exercise(
    tokenizer: PreTrainedTokenizerBase,
    options: Sequence[str],
    answer: int,
    lesson: Lesson,
    rng: random.Random,
) -> Exercise:
    """The question with these options, its description made of `options[answer]`."""
    count = rng.randint(*lesson.slots)
    words, shares, noise = _slots(tokenizer, options, answer, count, lesson, rng)
    if not lesson.template:
        ids, labels = _bare(tokenizer, options, answer, count)
        ends = _ends(tokenizer, ids, options)
        return Exercise(ids, labels, words, shares, noise, answer, *ends)
    stem = rng.choice(demo_text.STEMS)
    turn = Turn(question_text(stem, options), LETTERS[answer])
    if rng.random() < lesson.spoken:
        turn = rng.choice(
            [
                Turn(f"{stem} {TEXT_REQUEST}", options[answer]),
                Turn(
                    question_text(stem, options, BOTH_REQUEST),
                    f"{LETTERS[answer]}. {options[answer]}",
                ),
            ]
        )
    prompt = encode_lesson(tokenizer, [turn], num_video_tokens=count, video_id=len(tokenizer))
    ends = _ends(tokenizer, prompt.ids, options)
    return Exercise(prompt.ids, prompt.labels, words, shares, noise, answer, *ends)


def _bare(tokenizer, options, answer, count):
    ids = [tokenizer.bos_token_id] + [len(tokenizer)] * count
    text = " ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    ids += enc(tokenizer, text + " ASSISTANT:")
    letter = letter_ids(tokenizer, 4)[answer]
    return [*ids, letter], [IGNORE] * len(ids) + [letter]


_ENC = {}


def enc(tokenizer, text):
    if text not in _ENC:
        _ENC[text] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return list(_ENC[text])


def _ends(tokenizer, ids, options):
    """Position of the last token of each option in `ids`, found by its marker."""
    first, dot = enc(tokenizer, "A.")
    starts = [i for i in range(len(ids) - 1) if ids[i] == first and ids[i + 1] == dot]
    if not starts:
        return [], []
    ends, lengths, place = [], [], starts[0] - 1
    for option in options:
        lengths.append(len(enc(tokenizer, option)))
        place += 2 + lengths[-1]
        ends.append(place)
    return ends, lengths


def _slots(tokenizer, options, answer, count, lesson, rng):
    right = enc(tokenizer, options[answer])
    if rng.random() >= lesson.mixed:
        drawn = (
            (right * (count // len(right) + 1))[:count] if count >= len(right) else right[:count]
        )
        rng.shuffle(drawn)
        return [[w] * WORDS_IN_A_SLOT for w in drawn], [[1.0, 0.0, 0.0, 0.0]] * count, 0.0
    other = enc(tokenizer, rng.choice(options))
    trust = rng.uniform(0.6, 1.0)
    words, shares = [], []
    for _ in range(count):
        words.append(
            [rng.choice(right if rng.random() < trust else other) for _ in range(WORDS_IN_A_SLOT)]
        )
        cuts = [rng.expovariate(1.0) ** 2 for _ in range(WORDS_IN_A_SLOT)]
        shares.append([cut / sum(cuts) for cut in cuts])
    return words, shares, rng.uniform(0.0, 0.6)


def embed(
    model: LlamaForCausalLM, exercises: Sequence[Exercise], generator: torch.Generator
) -> tuple[
    Float[Tensor, "batch token dim"], Int[Tensor, "batch token"], Int[Tensor, "batch token"]
]:
    """Input embeddings with the slots in place, attention mask, labels; padded on the right."""
    longest = max(len(e.ids) for e in exercises)
    pad = model.config.pad_token_id
    ids = torch.tensor([e.ids + [pad] * (longest - len(e.ids)) for e in exercises])
    labels = torch.tensor([e.labels + [IGNORE] * (longest - len(e.ids)) for e in exercises])
    mask = torch.tensor([[1] * len(e.ids) + [0] * (longest - len(e.ids)) for e in exercises])
    table = model.get_input_embeddings()
    place = ids == table.num_embeddings
    embeds = table(ids.masked_fill(place, pad))
    words = torch.tensor([w for e in exercises for w in e.words])
    shares = torch.tensor([s for e in exercises for s in e.shares])
    noise = torch.tensor([e.noise for e in exercises for _ in e.words])[:, None]
    slots = torch.einsum("sk,skd->sd", shares, table(words))
    size = table.weight.detach().std()
    slots = slots + noise * size * torch.randn(slots.shape, generator=generator)
    slots = slots * size / slots.detach().std(dim=1, keepdim=True)
    slots = slots + table.weight[VIDEO_WORD_ID]
    return embeds.masked_scatter(place[..., None], slots), mask, labels
