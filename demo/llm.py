"""Make the demo's toy language model: tokenizer, text-only pretraining, card.

    demo/llm.py --out demo/llm

The paper starts from Vicuna; the demo starts from this. It is taught on text alone to match a
description in words with options, in Vicuna's prompt: random combinations of gymnastic words, no
clip, no question and no class frequency of the demo, and the demo's class texts held out.
About 20 minutes of one CPU core; the result is shipped in demo/llm.

Pretraining of the toy language model: a curriculum, from one word to the whole prompt.

Letters do not come by themselves at this size: the final answer is one token in a hundred, and it
is right only after several layers have each done their part. Three things make it quick. Key and
query weights start equal, so that heads look for equal words from the first step. Hints, thrown
away afterwards, ask the middle layers for their part: is this word in the description, is this
option the right one and which letter has it. And the loss is on answers only.

Text-only exercises: a described move, options, an answer.

Where a video will stand, a description in words stands: `slots`, each a mixture of the embeddings
of a few words. In the clean form every slot is one word of the right move, shuffled and repeated.
In the mixed form some of the words are another option's and noise is added, as projected video
tokens will be: redundant, partial, and not quite sure.

Gymnastic moves in words, for the text-only pretraining of the toy language model.

Moves are composed uniformly from factors (family, direction, shape, number of turns, ...), so
no class frequency of any data set is in them. The classes of the demo share every word with
them but are held out as whole texts: `HELD_OUT` never is an option or an answer here, and the
accuracy on `HELD_OUT` therefore tests the matching, not the memory.

The toy language model's tokenizer: a real SentencePiece model, in a folder as Vicuna's.

The shipped folder of the toy language model: tokenizer, weights, and a card that says how.
"""

import io
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import chain, product
from pathlib import Path

from sefar_core.cli import refuse_unwritable, start

import sentencepiece
import torch
import tyro
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from qa_data.files import new_folder
from qa_data.questions import LETTER_REQUEST, LETTERS, STEM
from sefar_core.config import check_seed
from sefar_core.run_dir import surroundings
from sefar_mllm.build import load_tokenizer
from sefar_mllm.dataset import pad_batch
from sefar_mllm.model import word_table
from sefar_mllm.prompt import (
    BOTH_REQUEST,
    IGNORE,
    SYSTEM,
    TEXT_REQUEST,
    VIDEO_WORD,
    EncodedPrompt,
    Turn,
    encode_example,
    letter_ids,
    question_text,
)

STEMS = (
    STEM,
    "Which move does the athlete show?",
    "What is this element called?",
    "Which element is performed in the video?",
)

_DIRECTIONS = ("forward", "backward", "sideward")
_SHAPES = ("tucked", "piked", "stretched")
_NUMBERS = ("0.5", "1", "1.5", "2", "2.5", "3")
_TWISTS = ("", *(f"with {number} twist" for number in _NUMBERS))
_TURNS = ("", *(f"with {number} turn" for number in _NUMBERS))

# Each family is a list of factors; a move takes one value of each, "" for none.
FAMILIES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("salto", "double salto", "arabian salto", "gainer salto"), _DIRECTIONS, _SHAPES, _TWISTS),
    (
        ("giant circle", "clear hip circle", "stalder", "pike sole circle", "clear pike circle"),
        _DIRECTIONS[:2],
        _TURNS,
        ("", "to handstand"),
    ),
    (
        (
            *("switch leap", "split leap", "split jump", "stag jump", "wolf jump", "cat leap"),
            *("straddle pike jump", "ring jump", "sheep jump", "sissone", "johnson"),
        ),
        ("", "forward", "backward", "to ring position", "in side position"),
        _TURNS,
    ),
    (
        tuple(f"{number} turn" for number in _NUMBERS),
        ("on one leg", "in tuck stand", "with free leg held upward", "with heel forward"),
        ("", "to handstand", "in cross position"),
    ),
    (
        ("walkover", "aerial walkover", "aerial cartwheel", "handspring", "flic-flac", "kip"),
        _DIRECTIONS,
        ("", "with step-out", "to land on both feet", "to side stand", "to hang"),
    ),
    (
        ("round-off, flic-flac on,", "handspring on,", "tsukahara,", "yurchenko,"),
        tuple(f"{shape} salto" for shape in _SHAPES),
        _DIRECTIONS[:2],
        (*_TURNS, *_TWISTS[1:]),
        ("off", "off to stand"),
    ),
    (
        ("swing forward,", "swing backward,", "under-swing,", "counter swing,"),
        ("salto", "double salto", "straddle flight", "hecht"),
        _DIRECTIONS[:2],
        _SHAPES,
        ("to hang on high bar", "to hang on low bar", "over low bar"),
    ),
)

HELD_OUT = frozenset(
    [f"salto {way} {shape}" for way, shape in product(_DIRECTIONS[:2], _SHAPES)]
    + [f"double salto {way} {shape}" for way, shape in product(_DIRECTIONS[:2], _SHAPES)]
    + [
        f"{circle} {way}{end}"
        for circle, way, end in product(
            ("giant circle", "clear hip circle", "stalder"),
            _DIRECTIONS[:2],
            ("", " to handstand"),
        )
    ]
)


def draw_options(count: int, hard: float, rng: random.Random) -> list[str]:
    """`count` different moves, none held out.

    Args:
        count: number of options.
        hard: probability that the moves are near relatives that share most words; otherwise
            they come from any families.
        rng: source of every draw. The caller draws the answer among the options, so all of
            them are exchangeable and no option can be told without the description.
    """
    family = rng.choice(FAMILIES)
    seed = [rng.choice(values) for values in family]
    related = rng.random() < hard
    options: list[str] = []
    while len(options) < count:
        if related:
            words = _changed(seed, family, rng)
            seed = words if rng.random() < 0.3 else seed
        else:
            words = [rng.choice(values) for values in rng.choice(FAMILIES)]
        text = _text(words)
        if text not in options and text not in HELD_OUT:
            options.append(text)
    return options


def draw_words(count: int, length: int, vocabulary: Sequence[str], rng: random.Random) -> list[str]:
    """`count` different nonsense texts of `length` words: matching without any grammar."""
    texts: list[str] = []
    while len(texts) < count:
        text = " ".join(rng.choice(vocabulary) for _ in range(length))
        if text not in texts:
            texts.append(text)
    return texts


def held_out_options(count: int, rng: random.Random) -> list[str]:
    """`count` held-out texts that share at least a word: what the demo's hard set asks."""
    first = rng.choice(sorted(HELD_OUT))
    family = [text for text in sorted(HELD_OUT) if set(text.split()) & set(first.split())]
    return rng.sample(family, count)


def vocabulary() -> list[str]:
    """Every word of the grammar, sorted."""
    parts = [part for family in FAMILIES for values in family for part in values]
    return sorted({word for part in parts for word in part.split()})


def _changed(
    words: Sequence[str], family: Sequence[Sequence[str]], rng: random.Random
) -> list[str]:
    """The same move with one factor drawn anew."""
    place = rng.randrange(len(family))
    return [rng.choice(family[i]) if i == place else word for i, word in enumerate(words)]


def _text(words: Sequence[str]) -> str:
    return " ".join(word for word in words if word)


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
        self.vocabulary = vocabulary()
        self.encode = lru_cache(maxsize=50_000)(self._encode)
        self.marker = self.encode("A.")

    def draw(self, lesson: Lesson, rng: random.Random) -> Exercise:
        """An exercise of a lesson; the answer is drawn among exchangeable options."""
        if rng.random() < lesson.nonsense:
            length = rng.randint(*lesson.words)
            options = draw_words(4, length, self.vocabulary, rng)
        else:
            options = draw_options(4, lesson.hard, rng)
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
            prompt = encode_example(
                self.tokenizer, turns, num_video_tokens=count, video_id=len(self.tokenizer)
            )
        else:
            prompt = self._bare(options, answer, count)
        return Exercise(prompt, words, shares, noise, answer, encoded)

    def _bare(self, options: Sequence[str], answer: int, count: int) -> EncodedPrompt:
        """Slots, options and letter without the conversation around them."""
        prompt = EncodedPrompt()
        prompt.as_prompt([self.tokenizer.bos_token_id, *[len(self.tokenizer)] * count])
        for letter, option in zip(LETTERS, options, strict=False):
            prompt.as_prompt([*self.encode(f"{letter}."), *self.encode(option)])
        prompt.as_prompt(self.encode("ASSISTANT:"))
        prompt.as_target([self.letters[answer]])
        return prompt

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def draw_turns(
    options: Sequence[str], answer: int, spoken: float, rng: random.Random
) -> list[Turn]:
    """The question with a letter for an answer, or one of the forms that answer in words."""
    stem = rng.choice(STEMS)
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


BATCH = 32
WARMUP_STEPS = 50
DECAY = 0.5  # share of the steps in which the learning rate falls to a twentieth


def curriculum(scale: float) -> list[Lesson]:
    """One word, short moves, mixed descriptions, and the whole prompt; steps times `scale`."""
    word = Lesson(steps=200, template=False, nonsense=1.0, words=(1, 1), slots=(2, 6), mixed=0.0)
    short = Lesson(steps=600, template=False, nonsense=0.4, words=(1, 3), slots=(6, 14), mixed=0.0)
    unsure = Lesson(steps=300, template=False, nonsense=0.2, slots=(12, 28))
    whole = Lesson(steps=1200, spoken=0.25)
    return [
        replace(lesson, steps=max(1, round(scale * lesson.steps)))
        for lesson in (word, short, unsure, whole)
    ]


def new_model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A toy Llama whose heads attend to equal tokens. Draws from torch's global generator."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        word_table(model).weight.normal_(std=1.0)
        for layer in model.model.layers:
            query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
            query.normal_(std=1 / math.sqrt(config.hidden_size))
            key.copy_(query)
    return model


class Hints(nn.Module):
    """Questions to the middle layers, each with a linear head of its own.

    Args:
        dim: width of the hidden states.
        marker: ids of the first option's marker.
    """

    def __init__(self, dim: int, marker: Sequence[int]):
        super().__init__()
        self.marker = marker
        self.dim = dim
        self.word_heads = nn.ModuleList([nn.Linear(dim, 2) for _ in range(2)])
        self.option_heads = nn.ModuleList([nn.Linear(dim, 5) for _ in range(2)])

    def forward(self, hidden: Sequence[Tensor], exercises: Sequence[Exercise]) -> Tensor:
        """Mean loss of the hints; `hidden` are the embeddings and each layer's output."""
        words, options = [], []
        for row, one in enumerate(exercises):
            right = set(one.options[one.answer])
            for letter, places in enumerate(one.option_places(self.marker)):
                words += [(row, place, int(one.prompt.ids[place] in right)) for place in places]
                verdict = letter + 1 if letter == one.answer else 0
                options.append((row, places[-1], verdict))
        total = torch.zeros(())
        if options:
            for heads, layers, asked in (
                (self.word_heads, hidden[1:3], torch.tensor(words)),
                (self.option_heads, hidden[2:4], torch.tensor(options)),
            ):
                for head, states in zip(heads, layers, strict=True):
                    seen = F.rms_norm(states[asked[:, 0], asked[:, 1]], (self.dim,))
                    total = total + F.cross_entropy(head(seen), asked[:, 2])
        return total


def answer_loss(
    model: LlamaForCausalLM,
    last: Float[Tensor, "batch token dim"],
    labels: Int[Tensor, "batch token"],
) -> Float[Tensor, ""]:
    """Cross-entropy of the answers' tokens alone; no logits are made elsewhere."""
    taught = labels[:, 1:] != IGNORE
    return F.cross_entropy(model.lm_head(last[:, :-1][taught]), labels[:, 1:][taught])


def rate(step: int, steps: int) -> float:
    """Learning rate at a step, as a share of the highest: up, flat, down to a twentieth."""
    left = (steps - step) / max(1, DECAY * steps)
    return min(1.0, (step + 1) / WARMUP_STEPS) * max(0.05, min(1.0, left))


def pretrain(
    tokenizer: PreTrainedTokenizerBase,
    lessons: Sequence[Lesson],
    video_word: int,
    *,
    lr: float,
    seed: int,
) -> LlamaForCausalLM:
    """The toy language model after the curriculum.

    Args:
        tokenizer: its tokenizer.
        lessons: the curriculum.
        video_word: token that marks the slots, see `embed`.
        lr: highest learning rate of AdamW.
        seed: of weights, exercises and noise.
    """
    torch.manual_seed(seed)
    model = new_model(tokenizer)
    examiner = Examiner(tokenizer)
    hints = Hints(model.config.hidden_size, examiner.marker)
    learned = list(chain(model.parameters(), hints.parameters()))
    optimizer = torch.optim.AdamW(learned, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    rng, noise = random.Random(seed), torch.Generator().manual_seed(seed)
    plan = [lesson for lesson in lessons for _ in range(lesson.steps)]
    bar = tqdm(plan, desc="toy language model", mininterval=5)
    for step, lesson in enumerate(bar):
        for group in optimizer.param_groups:
            group["lr"] = lr * rate(step, len(plan))
        exercises = [examiner.draw(lesson, rng) for _ in range(BATCH)]
        embeds, mask, labels = embed(model, exercises, video_word, noise)
        states = model.model(inputs_embeds=embeds, attention_mask=mask, output_hidden_states=True)
        loss = answer_loss(model, states.last_hidden_state, labels)
        hint = hints(states.hidden_states, exercises)
        optimizer.zero_grad()
        (loss + hint / 2).backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.2f}", hint=f"{hint.item():.2f}", refresh=False)
    return model.eval()


@torch.inference_mode()
def letter_accuracy(
    model: LlamaForCausalLM,
    examiner: Examiner,
    exercises: Sequence[Exercise],
    video_word: int,
) -> float:
    """Share of exercises whose first answer token, among the letters, is the right one."""
    right = 0
    generator = torch.Generator().manual_seed(0)
    for first in range(0, len(exercises), 64):
        some = exercises[first : first + 64]
        embeds, mask, labels = embed(model, some, video_word, generator)
        last = model.model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        first = (labels != IGNORE).int().argmax(dim=1) - 1
        logits = model.lm_head(last[torch.arange(len(some)), first])[:, examiner.letters]
        right += int((logits.argmax(dim=1) == torch.tensor([one.answer for one in some])).sum())
    return right / len(exercises)


def examine(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    video_word: int,
    *,
    count: int,
    seed: int,
) -> dict[str, float]:
    """Letter accuracies in the whole prompt, on texts of training's kind and on held-out ones."""
    examiner, rng = Examiner(tokenizer), random.Random(seed)
    accuracies = {}
    for form, mixed in (("clean", 0.0), ("mixed", 1.0)):
        lesson = Lesson(steps=1, mixed=mixed, nonsense=0.0)
        drawn = [examiner.draw(lesson, rng) for _ in range(count)]
        held_out = [examiner.exercise(held_out_options(4, rng), lesson, rng) for _ in range(count)]
        accuracies[f"new combinations, {form} description"] = drawn
        accuracies[f"held-out texts, {form} description"] = held_out
    return {
        name: letter_accuracy(model, examiner, exercises, video_word)
        for name, exercises in accuracies.items()
    }


# What transformers must know beside tokenizer.model; Vicuna v1.5's file says the same, but for
# the padding token, which it leaves to the user.
SETTINGS = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "</s>",
    "legacy": False,
    "model_max_length": 1024,
    "pad_token": "<unk>",
    "padding_side": "right",
    "sp_model_kwargs": {},
    "tokenizer_class": "LlamaTokenizer",
    "unk_token": "<unk>",
}


def corpus(num_moves: int, rng: random.Random) -> Iterator[str]:
    """Moves and the prompt's own words. A letter never stands before a period, so that an
    option's marker is the letter's token and a period, as in Vicuna's vocabulary."""
    for _ in range(num_moves):
        yield from draw_options(4, 0.3, rng)
    for _ in range(400):
        yield from (SYSTEM, LETTER_REQUEST, TEXT_REQUEST, BOTH_REQUEST, *STEMS)
        yield "USER: A B C D ASSISTANT: A B C D"


def make_tokenizer(folder: Path, *, size: int, seed: int) -> None:
    """Train a byte-fallback BPE tokenizer and write it with its settings.

    Args:
        folder: made if missing; gets tokenizer.model and tokenizer_config.json.
        size: tokens in the vocabulary, of which 259 are bytes and marks.
        seed: of the moves in the corpus.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=corpus(3000, random.Random(seed)),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        byte_fallback=True,
        normalization_rule_name="identity",
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps(SETTINGS, indent=2) + "\n")


EXAM_QUESTIONS = 1000
EXAM_SEED = 1_000_003  # far from the seeds of training

CARD = """\
---
license: apache-2.0
language: en
---
# The demo's toy language model

A `LlamaForCausalLM` of {parameters} parameters ({layers} layers, width {width}, {tokens}
tokens) that stands in for Vicuna-7B in the demo: real tokenizer, real architecture, toy size. It
can do one thing: read Vicuna's prompt, compare the words where the video will stand with the
options, and answer with a letter or with the name of the move. It knows nothing else.

**Taught on** text alone: {exercises} exercises of random combinations of gymnastic words, drawn
uniformly. The description of the right move stands where the video will stand: its words shuffled
and repeated, or mixed with another option's under noise. No clip, no question and no class
frequency of the demo is in it. {held_out} class texts, among them all of the demo's, were never an
option or an answer.

**Letters right** in the whole prompt, four options, {exam} questions each (chance 25 %):

{accuracies}

A mixed description is ambiguous by construction: up to two words in five are another option's.

**Made by** `demo/llm.py --vocab-size {tokens} --lr {lr} --scale {scale} --seed {seed}`
(python {python}, torch {torch}, transformers {transformers}, one thread of {machine}).
"""


def make(folder: Path, *, vocab_size: int, lr: float, scale: float, seed: int) -> dict[str, float]:
    """Train tokenizer and model, examine, and write all of it, all or nothing.

    Args:
        folder: replaced if it exists.
        vocab_size: tokens of the vocabulary.
        lr: highest learning rate.
        scale: length of the curriculum as a multiple of the usual.
        seed: of everything.

    Returns:
        Letter accuracies, by kind of text and of description.
    """
    with new_folder(folder) as draft:
        make_tokenizer(draft, size=vocab_size, seed=seed)
        tokenizer = load_tokenizer(draft)
        (video_word,) = tokenizer(VIDEO_WORD, add_special_tokens=False)["input_ids"]
        lessons = curriculum(scale)
        model = pretrain(tokenizer, lessons, video_word, lr=lr, seed=seed)
        # What is examined is what is shipped: weights rounded to 16 bits.
        model = model.half().float()
        accuracies = examine(model, tokenizer, video_word, count=EXAM_QUESTIONS, seed=EXAM_SEED)
        model.to(torch.float16).save_pretrained(draft)
        here = surroundings()
        card = CARD.format(
            parameters=f"{model.num_parameters():,}",
            layers=model.config.num_hidden_layers,
            width=model.config.hidden_size,
            tokens=len(tokenizer),
            exercises=f"{BATCH * sum(lesson.steps for lesson in lessons):,}",
            held_out=len(HELD_OUT),
            exam=EXAM_QUESTIONS,
            accuracies="\n".join(f"- {name}: {100 * a:.1f} %" for name, a in accuracies.items()),
            lr=lr,
            scale=scale,
            seed=seed,
            python=here["python"],
            torch=here["packages"]["torch"],
            transformers=here["packages"]["transformers"],
            machine=here["machine"],
        )
        (draft / "README.md").write_text(card, encoding="utf-8")
    return accuracies


@dataclass(frozen=True, kw_only=True)
class MakeDemoLlm:
    out: Path = Path("demo/llm")
    """Folder to write; what is in it is replaced."""
    vocab_size: int = 768
    """Tokens of the SentencePiece model, 259 of them bytes and marks."""
    lr: float = 2e-3
    """Highest learning rate."""
    scale: float = 1.0
    """Length of the curriculum, as a multiple of the shipped model's."""
    seed: int = 0
    """Of tokenizer, weights and exercises."""

    def __post_init__(self):
        check_seed(self.seed)
        if self.vocab_size <= 259:
            raise ValueError(f"vocab_size must be more than 259, got {self.vocab_size}")
        for name in ("lr", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")


def main(settings: MakeDemoLlm) -> None:
    refuse_unwritable(folders=[settings.out])

    torch.set_num_threads(1)
    accuracies = make(
        settings.out,
        vocab_size=settings.vocab_size,
        lr=settings.lr,
        scale=settings.scale,
        seed=settings.seed,
    )
    for name, accuracy in accuracies.items():
        print(f"{100 * accuracy:5.1f} % letters right: {name}")


if __name__ == "__main__":
    start(main, partial(tyro.cli, MakeDemoLlm, description=__doc__))
