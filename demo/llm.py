"""Make the demo's toy language model: tokenizer, text-only pretraining, evaluation, model card.

    python -m demo.llm --out sefar_mllm/demo_weights

The paper starts from Vicuna; the demo starts from this model. It learns from text alone to match a
description with options, in Vicuna's prompt. Moves are random combinations of gymnastic words: no
clip, no question and no class frequency of the demo is used, and the demo's class texts are held
out. It takes about 20 minutes on one CPU core. sefar_mllm/demo_weights holds the result.

A description takes the place of the video: `slots`, each a mixture of the embeddings of a few
words. In the clean form each slot is one word of the right move, shuffled and repeated. In the
mixed form some words belong to another option and noise is added, as in projected video tokens.

A model of this size does not learn to answer with letters by itself: the answer is one token in a
hundred, and it needs several layers that each do their part. Three things help. Key and query
weights start equal, so that heads attend to equal tokens from the first step. Auxiliary tasks,
removed after training, train the middle layers: whether a word is in the description, whether an
option is right and which letter it has. The loss is on the answers only. A curriculum goes from one
word to the whole prompt.
"""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import chain, product
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import TypeAlias

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

BATCH_SIZE = 32
WARMUP_STEPS = 50
DECAY = 0.5  # share of the steps in which the learning rate falls to a twentieth
VOCABULARY_SIZE = 768  # of the SentencePiece model; 259 tokens are bytes and marks
AUXILIARY_CLASSES = (2, 2, 5, 5)  # a word is right, twice; an option is none, or A to D, twice
PAD_ID = 0  # of the toy tokenizer: unk pads, as in Vicuna
WORDS_PER_SLOT = 4
MAX_NOISE = 0.6  # in units of the standard deviation of the embeddings
MIN_TRUST = 0.6  # least share of words of the right move in a mixed description
EVAL_EXAMPLES = 1000
EVAL_SEED = 1_000_003  # far from the seeds of training


@dataclass(frozen=True, kw_only=True)
class Settings:
    out: Path = Path("sefar_mllm/demo_weights")
    """Folder to write; its content is replaced."""
    lr: float = 2e-3
    """Highest learning rate of AdamW."""
    scale: float = 1.0
    """Length of the curriculum, as a multiple of the shipped model's."""
    seed: int = 0
    """Random seed of tokenizer, weights and examples."""

    def __post_init__(self):
        check_seed(self.seed)
        for name in ("lr", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")


def main(settings: Settings) -> None:
    """Train tokenizer and model, evaluate, and write the folder, all or nothing."""
    refuse_unwritable(folders=[settings.out])

    torch.set_num_threads(1)
    with TemporaryDirectory() as temporary:
        words = Path(temporary) / "tokenizer"
        make_tokenizer(words, seed=settings.seed)
        tokenizer = load_tokenizer(words)
        (video_word,) = tokenizer(VIDEO_WORD, add_special_tokens=False)["input_ids"]
        stages = curriculum(settings.scale)
        model = pretrain(tokenizer, stages, video_word, lr=settings.lr, seed=settings.seed)
        # The shipped model is evaluated: weights rounded to 16 bits.
        accuracies = evaluate(model.half().float(), tokenizer, video_word)
        lines = [f"{name}: {100 * accuracy:.1f} %" for name, accuracy in accuracies.items()]
        model.to(torch.float16)
        with new_folder(settings.out) as draft:
            copytree(words, draft, dirs_exist_ok=True)
            model.save_pretrained(draft)
            (draft / "README.md").write_text(card(model, stages, lines, settings), encoding="utf-8")
    print("letters right", *lines, sep="\n")


@dataclass(frozen=True, kw_only=True)
class CurriculumStage:
    """One stage of the curriculum: the number and difficulty of its examples."""

    steps: int
    """Optimizer steps."""
    template: bool = True
    """Whether the question is in Vicuna's prompt; else slots, options and letter alone."""
    nonsense: float = 0.1
    """Share of examples whose options are random words."""
    words: tuple[int, int] = (1, 4)
    """Range of the number of words of a nonsense option."""
    hard: float = 0.7
    """Probability that the moves of an example share most of their words."""
    slots: tuple[int, int] = (32, 32)
    """Range of the number of slots of a description."""
    mixed: float = 0.7
    """Share of examples with mixed slots."""
    in_words: float = 0.0
    """Share of examples answered in words, or with a second turn that is."""


def curriculum(scale: float) -> list[CurriculumStage]:
    """One word, short moves, mixed descriptions, and the whole prompt; steps times `scale`."""
    bare = partial(CurriculumStage, template=False)
    stages = (
        bare(steps=200, nonsense=1.0, words=(1, 1), slots=(2, 6), mixed=0.0),
        bare(steps=600, nonsense=0.4, words=(1, 3), slots=(6, 14), mixed=0.0),
        bare(steps=300, nonsense=0.2, slots=(12, 28)),
        CurriculumStage(steps=1200, in_words=0.25),
    )
    return [replace(stage, steps=max(1, round(scale * stage.steps))) for stage in stages]


def pretrain(
    tokenizer: PreTrainedTokenizerBase,
    stages: Sequence[CurriculumStage],
    video_word: int,
    *,
    lr: float,
    seed: int,
) -> LlamaForCausalLM:
    """The toy language model after the curriculum; `video_word` marks its slots, see `embed`."""
    torch.manual_seed(seed)
    model = new_model(tokenizer)
    sampler = ExampleSampler(tokenizer)
    width = model.config.hidden_size
    heads = nn.ModuleList([nn.Linear(width, kinds) for kinds in AUXILIARY_CLASSES])
    trained = list(chain(model.parameters(), heads.parameters()))
    optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    rng, noise = random.Random(seed), torch.Generator().manual_seed(seed)
    plan = [stage for stage in stages for _ in range(stage.steps)]
    bar = tqdm(plan, desc="toy language model", mininterval=5)
    for step, stage in enumerate(bar):
        for group in optimizer.param_groups:
            group["lr"] = lr * lr_factor(step, len(plan))
        examples = [sampler.draw(stage, rng) for _ in range(BATCH_SIZE)]
        embeds, mask, labels = embed(model, examples, video_word, noise)
        states = model.model(inputs_embeds=embeds, attention_mask=mask, output_hidden_states=True)
        loss = answer_loss(model, states.last_hidden_state, labels)
        auxiliary = auxiliary_loss(heads, states.hidden_states, examples, sampler.marker)
        optimizer.zero_grad()
        (loss + auxiliary / 2).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        bar.set_postfix(
            loss=f"{loss.item():.2f}", auxiliary=f"{auxiliary.item():.2f}", refresh=False
        )
    return model.eval()


def lr_factor(step: int, steps: int) -> float:
    """Learning rate at a step, as a share of the highest: linear warmup, flat, linear decay."""
    left = (steps - step) / max(1, DECAY * steps)
    return min(1.0, (step + 1) / WARMUP_STEPS) * max(0.05, min(1.0, left))


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


def embed(
    model: LlamaForCausalLM,
    examples: Sequence[Example],
    video_word: int,
    generator: torch.Generator,
) -> tuple[
    Float[Tensor, "batch token dim"], Int[Tensor, "batch token"], Int[Tensor, "batch token"]
]:
    """Input embeddings with the slots in place, attention mask, labels; padded on the right.

    Args:
        model: model whose embeddings are mixed.
        examples: one row each.
        video_word: token whose embedding is added to every slot, to mark it as video.
        generator: source of the noise.
    """
    batch = pad_batch([one.prompt for one in examples], PAD_ID)
    table = word_table(model)
    is_slot = batch["input_ids"] == table.num_embeddings
    embeds = table(batch["input_ids"].masked_fill(is_slot, 0))
    shares = torch.tensor([share for one in examples for share in one.shares])
    words = torch.tensor([word for one in examples for word in one.words])
    noise = torch.tensor([one.noise for one in examples for _ in one.words])[:, None]
    spread = table.weight.detach().std()
    slots = torch.einsum("sw,swd->sd", shares, table(words))
    slots = slots + noise * spread * torch.randn(slots.shape, generator=generator)
    slots = slots * spread / slots.detach().std(dim=1, keepdim=True) + table.weight[video_word]
    embeds = embeds.masked_scatter(is_slot[..., None], slots)
    return embeds, batch["attention_mask"], batch["labels"]


def answer_loss(
    model: LlamaForCausalLM,
    last: Float[Tensor, "batch token dim"],
    labels: Int[Tensor, "batch token"],
) -> Float[Tensor, ""]:
    """Cross-entropy of the answer tokens; no other logits are computed."""
    labeled = labels[:, 1:] != IGNORE
    return F.cross_entropy(model.lm_head(last[:, :-1][labeled]), labels[:, 1:][labeled])


def auxiliary_loss(
    heads: nn.ModuleList,
    hidden: Sequence[Tensor],
    examples: Sequence[Example],
    marker: Sequence[int],
) -> Float[Tensor, ""]:
    """Loss of the auxiliary tasks on the middle layers.

    Args:
        heads: one linear layer for each of AUXILIARY_CLASSES.
        hidden: the embeddings and the output of each layer, one row an example.
        examples: the rows.
        marker: token ids of the first option's marker.
    """
    words, options = [], []
    for row, one in enumerate(examples):
        right = set(one.options[one.answer])
        for letter, span in enumerate(one.option_spans(marker)):
            words += [(row, index, int(one.prompt.ids[index] in right)) for index in span]
            options.append((row, span[-1], letter + 1 if letter == one.answer else 0))
    total = torch.zeros(())
    if options:
        word_targets, option_targets = torch.tensor(words), torch.tensor(options)
        targets = (word_targets, word_targets, option_targets, option_targets)
        layers = (hidden[1], hidden[2], hidden[2], hidden[3])
        for head, states, target in zip(heads, layers, targets, strict=True):
            row, index, label = target.unbind(dim=1)
            features = F.rms_norm(states[row, index], (states.shape[-1],))
            total = total + F.cross_entropy(head(features), label)
    return total


def evaluate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, video_word: int
) -> dict[str, float]:
    """Letter accuracies in the whole prompt, on new combinations and on held-out texts."""
    sampler, rng, count = ExampleSampler(tokenizer), random.Random(EVAL_SEED), EVAL_EXAMPLES
    sets = {}
    for form, mixed in (("clean", 0.0), ("mixed", 1.0)):
        stage = CurriculumStage(steps=1, mixed=mixed, nonsense=0.0)
        drawn = [sampler.draw(stage, rng) for _ in range(count)]
        held_out = [sampler.example(held_out_options(4, rng), stage, rng) for _ in range(count)]
        sets[f"new combinations, {form} description"] = drawn
        sets[f"held-out texts, {form} description"] = held_out
    return {
        name: letter_accuracy(model, sampler.letters, examples, video_word)
        for name, examples in sets.items()
    }


def letter_accuracy(
    model: LlamaForCausalLM,
    letters: Sequence[int],
    examples: Sequence[Example],
    video_word: int,
) -> float:
    """Share of examples whose likeliest first answer token, among the letters, is right."""
    right = 0
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for begin in range(0, len(examples), 64):
            batch = examples[begin : begin + 64]
            embeds, mask, labels = embed(model, batch, video_word, generator)
            last = model.model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
            before_answer = (labels != IGNORE).int().argmax(dim=1) - 1
            logits = model.lm_head(last[torch.arange(len(batch)), before_answer])[:, letters]
            answers = torch.tensor([one.answer for one in batch])
            right += int((logits.argmax(dim=1) == answers).sum())
    return right / len(examples)


@dataclass(frozen=True)
class Example:
    """A prompt with placeholders for the slots, its labels, and the content of the slots."""

    prompt: EncodedPrompt
    words: list[list[int]]
    """Token ids mixed into each slot."""
    shares: list[list[float]]
    """Weights of these tokens; those of a slot add up to 1."""
    noise: float
    """Standard deviation, in units of that of the embeddings."""
    answer: int
    """Index of the right option."""
    options: list[list[int]] = field(default_factory=list)
    """Token ids of the options."""

    def option_spans(self, marker: Sequence[int]) -> list[range]:
        """Positions of each option's tokens in the prompt; empty if it shows no options."""
        ids, width = self.prompt.ids, len(marker)
        starts = [i for i in range(len(ids)) if ids[i : i + width] == list(marker)]
        spans, begin = [], starts[0] if starts else 0
        for option in self.options if starts else []:
            spans.append(range(begin + width, begin + width + len(option)))
            begin += width + len(option)
        return spans


class ExampleSampler:
    """Draws examples for a tokenizer.

    Args:
        tokenizer: a toy tokenizer whose letters are single tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.letters = letter_ids(tokenizer, 4)
        self.vocabulary = vocabulary()
        self.encode = lru_cache(maxsize=50_000)(
            lambda text: tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        )
        self.marker = self.encode("A.")

    def draw(self, stage: CurriculumStage, rng: random.Random) -> Example:
        """An example of a stage; the answer is drawn among exchangeable options."""
        if rng.random() < stage.nonsense:
            options = draw_nonsense(4, rng.randint(*stage.words), self.vocabulary, rng)
        else:
            options = draw_options(4, stage.hard, rng)
        return self.example(options, stage, rng)

    def example(
        self, options: Sequence[str], stage: CurriculumStage, rng: random.Random
    ) -> Example:
        """An example with these options, one of which is drawn and described."""
        answer = rng.randrange(len(options))
        encoded = [list(self.encode(option)) for option in options]
        count = rng.randint(*stage.slots)
        if rng.random() < stage.mixed:
            words, shares, noise = mixed_slots(encoded[answer], rng.choice(encoded), count, rng)
        else:
            words, shares, noise = clean_slots(encoded[answer], count, rng)
        if stage.template:
            turns = draw_turns(options, answer, stage.in_words, rng)
            prompt = encode_example(
                self.tokenizer, turns, num_video_tokens=count, video_id=len(self.tokenizer)
            )
        else:
            prompt = self._bare_prompt(options, answer, count)
        return Example(prompt, words, shares, noise, answer, encoded)

    def _bare_prompt(self, options: Sequence[str], answer: int, count: int) -> EncodedPrompt:
        """Slots, options and letter without the conversation around them."""
        prompt = EncodedPrompt()
        prompt.as_prompt([self.tokenizer.bos_token_id, *[len(self.tokenizer)] * count])
        for letter, option in zip(LETTERS, options, strict=False):
            prompt.as_prompt([*self.encode(f"{letter}."), *self.encode(option)])
        prompt.as_prompt(self.encode("ASSISTANT:"))
        prompt.as_target([self.letters[answer]])
        return prompt


Slots: TypeAlias = tuple[list[list[int]], list[list[float]], float]
"""Tokens and weights of each slot, and the noise of all: fields of `Example`."""


def clean_slots(right: Sequence[int], count: int, rng: random.Random) -> Slots:
    """Every slot is one token of the right move; all appear if there is room, shuffled."""
    drawn = list(right) * (count // len(right)) + rng.sample(list(right), count % len(right))
    rng.shuffle(drawn)
    return [[token] * WORDS_PER_SLOT for token in drawn], [[1.0, 0.0, 0.0, 0.0]] * count, 0.0


def mixed_slots(
    right: Sequence[int], other: Sequence[int], count: int, rng: random.Random
) -> Slots:
    """Slots of several tokens each, some of them of another option, with noise."""
    trust = rng.uniform(MIN_TRUST, 1.0)
    words, shares, slot = [], [], range(WORDS_PER_SLOT)
    for _ in range(count):
        words.append([rng.choice(right if rng.random() < trust else other) for _ in slot])
        weights = [rng.expovariate(1.0) ** 2 for _ in slot]
        shares.append([weight / sum(weights) for weight in weights])
    return words, shares, rng.uniform(0.0, MAX_NOISE)


STEMS = (
    STEM,
    "Which move does the athlete show?",
    "What is this element called?",
    "Which element is performed in the video?",
)


def draw_turns(
    options: Sequence[str], answer: int, in_words: float, rng: random.Random
) -> list[Turn]:
    """The question answered with a letter, or, with probability `in_words`, in words."""
    stem = rng.choice(STEMS)
    letter = Turn(question_text(stem, options), LETTERS[answer])
    if rng.random() >= in_words:
        return [letter]
    name = Turn(f"{stem} {TEXT_REQUEST}", options[answer])
    both = Turn(question_text(stem, options, BOTH_REQUEST), f"{LETTERS[answer]}. {options[answer]}")
    return rng.choice([[name], [both], [letter, name], [Turn(stem, options[answer])]])


_DIRECTIONS = ("forward", "backward", "sideward")
_SHAPES = ("tucked", "piked", "stretched")
_NUMBERS = ("0.5", "1", "1.5", "2", "2.5", "3")
_TWISTS = ("", *(f"with {number} twist" for number in _NUMBERS))
_TURNS = ("", *(f"with {number} turn" for number in _NUMBERS))

# Each family is a list of factors; a move has one value of each, "" for none.
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

# The demo's classes share every word with these moves but are held out as whole texts, so that the
# accuracy on them measures matching and not memory.
HELD_OUT_TEXTS = frozenset(
    f"{what} {way}{end}"
    for whats, ends in (
        (("salto", "double salto"), tuple(f" {shape}" for shape in _SHAPES)),
        (("giant circle", "clear hip circle", "stalder"), ("", " to handstand")),
    )
    for what, way, end in product(whats, _DIRECTIONS[:2], ends)
)


def draw_options(count: int, hard: float, rng: random.Random) -> list[str]:
    """`count` different moves, none held out.

    They are drawn uniformly, and the caller draws the answer among them, so all are exchangeable
    and none can be told without the description. With probability `hard` they share most of their
    words; otherwise each comes from any family.
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
        text = " ".join(word for word in words if word)
        if text not in options and text not in HELD_OUT_TEXTS:
            options.append(text)
    return options


def draw_nonsense(
    count: int, length: int, vocabulary: Sequence[str], rng: random.Random
) -> list[str]:
    """`count` different nonsense texts of `length` words: matching without any grammar."""
    texts: list[str] = []
    while len(texts) < count:
        text = " ".join(rng.choice(vocabulary) for _ in range(length))
        if text not in texts:
            texts.append(text)
    return texts


def held_out_options(count: int, rng: random.Random) -> list[str]:
    """`count` held-out texts that share a word with one of them, as in the demo's hard set."""
    first = rng.choice(sorted(HELD_OUT_TEXTS))
    family = [text for text in sorted(HELD_OUT_TEXTS) if set(text.split()) & set(first.split())]
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


# What transformers needs beside tokenizer.model. Vicuna v1.5 has the same settings, without the
# padding token.
TOKENIZER_CONFIG = {
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
    """Moves, and the words of the prompt. No letter is before a period, so that an option's marker
    is the token of the letter and a period, as in Vicuna's vocabulary."""
    for _ in range(num_moves):
        yield from draw_options(4, 0.3, rng)
    for _ in range(400):
        yield from (SYSTEM, LETTER_REQUEST, TEXT_REQUEST, BOTH_REQUEST, *STEMS)
        yield "USER: A B C D ASSISTANT: A B C D"


def make_tokenizer(folder: Path, *, seed: int) -> None:
    """Train a byte-fallback BPE tokenizer and write it with its settings, into a folder that is
    made if it is missing; the seed is that of the moves in the corpus."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=corpus(3000, random.Random(seed)),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY_SIZE,
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
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2) + "\n")


def card(
    model: LlamaForCausalLM,
    stages: Sequence[CurriculumStage],
    accuracies: Sequence[str],
    settings: Settings,
) -> str:
    """README.md of the folder: what the model is, how it was made, and how often it is right."""
    shape, here, listed = model.config, surroundings(), "\n- ".join(["", *accuracies])
    packages = here["packages"]
    return f"""\
---
license: apache-2.0
language: en
---
# The demo's toy language model

A `LlamaForCausalLM` of {model.num_parameters():,} parameters ({shape.num_hidden_layers} layers, \
width {shape.hidden_size}, {shape.vocab_size}
tokens) that takes the place of Vicuna-7B in the demo: real tokenizer, real architecture, toy size.
It does one thing: it reads Vicuna's prompt, compares the words in the place of the video with the
options, and answers with a letter or with the name of the move. It knows nothing else.

**Trained on** text alone: {BATCH_SIZE * sum(stage.steps for stage in stages):,} examples of \
random combinations of gymnastic words, drawn
uniformly. The description of the right move is in the place of the video: its words shuffled and
repeated, or mixed with those of another option, with noise. No clip, no question and no class
frequency of the demo was used. {len(HELD_OUT_TEXTS)} class texts, among them all \
of the demo's, were never an
option or an answer.

**Letters right** in the whole prompt, four options, {EVAL_EXAMPLES} questions each (chance 25 %):
{listed}

A mixed description is ambiguous by construction: up to two words in five belong to another option.

**Made by** `python -m demo.llm --lr {settings.lr} --scale {settings.scale} --seed {settings.seed}`
(python {here["python"]}, torch {packages["torch"]}, transformers {packages["transformers"]}, \
one thread of {here["machine"]}).
"""


if __name__ == "__main__":
    start(main, partial(tyro.cli, Settings, description=__doc__))
