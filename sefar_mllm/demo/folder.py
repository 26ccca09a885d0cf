"""The shipped folder of the toy language model: tokenizer, weights, and a card that says how."""

import os
from pathlib import Path

import torch

from qa_data.atomic import by_umask
from sefar_core.checkpoint import replace_folder
from sefar_core.runs.folder import surroundings
from sefar_mllm.demo.moves import HELD_OUT
from sefar_mllm.demo.pretrain import BATCH, curriculum, examine, pretrain
from sefar_mllm.demo.tokenizer import make_tokenizer
from sefar_mllm.folders.checkpoint import load_tokenizer
from sefar_mllm.prompt import VIDEO_WORD

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

**Made by** `scripts/make_demo_llm.py --vocab-size {tokens} --lr {lr} --scale {scale} --seed {seed}`
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
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    make_tokenizer(fresh, size=vocab_size, seed=seed)
    tokenizer = load_tokenizer(fresh)
    (video_word,) = tokenizer(VIDEO_WORD, add_special_tokens=False)["input_ids"]
    lessons = curriculum(scale)
    model = pretrain(tokenizer, lessons, video_word, lr=lr, seed=seed)
    # What is examined is what is shipped: weights rounded to 16 bits.
    model = model.half().float()
    accuracies = examine(model, tokenizer, video_word, count=EXAM_QUESTIONS, seed=EXAM_SEED)
    model.to(torch.float16).save_pretrained(fresh)
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
    (fresh / "README.md").write_text(card, encoding="utf-8")
    folder.parent.mkdir(parents=True, exist_ok=True)
    by_umask(fresh)
    replace_folder(fresh, folder)
    return accuracies
