"""Pretraining of the toy language model: a curriculum, from one word to the whole prompt.

Letters do not come by themselves at this size: the final answer is one token in a hundred, and it
is right only after several layers have each done their part. Three things make it quick. Key and
query weights start equal, so that heads look for equal words from the first step. Hints, thrown
away afterwards, ask the middle layers for their part: is this word in the description, is this
option the right one and which letter has it. And the loss is on answers only.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from sefar_mllm.demo import moves
from sefar_mllm.demo.exercises import Examiner, Exercise, Lesson, embed
from sefar_mllm.model import word_table
from sefar_mllm.prompt import IGNORE

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
    for start in range(0, len(exercises), 64):
        some = exercises[start : start + 64]
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
        held_out = [
            examiner.exercise(moves.held_out_options(4, rng), lesson, rng) for _ in range(count)
        ]
        accuracies[f"new combinations, {form} description"] = drawn
        accuracies[f"held-out texts, {form} description"] = held_out
    return {
        name: letter_accuracy(model, examiner, exercises, video_word)
        for name, exercises in accuracies.items()
    }
