"""Time Vicuna-7B's exact config with random weights on a GPU: LoRA steps, scoring, chat.

    python -m benchmarks.gpu_mllm --out benchmarks/results          # make bench-gpu
    python -m benchmarks.gpu_mllm --size toy --device cpu --turns 2     # a dry run

Without a GPU it writes the arithmetic alone (see `mllm_arithmetic`), and the rest reads "not
measured". Weights are random; questions are as long as Gym-QA's in Llama's vocabulary. The table
lists the goals of the project beside the figures.
"""

import gc
from collections.abc import Mapping
from typing import Any

import torch
import tyro

from benchmarks import gpu_chat, gpu_lora
from benchmarks.gpu_lora import GpuMllm, memory_gb
from benchmarks.mllm_arithmetic import GOALS, Figures, bounds, scoring_bounds, weights_of
from benchmarks.option_forwards import last_logits
from benchmarks.random_vlm import (
    adapted,
    language_model,
    lengths_of,
    like_llamas,
    llama_config,
    video_tokens,
)
from benchmarks.timing import report, seconds
from qa_data.questions import LETTERS
from sefar_mllm.adapters import composite
from sefar_mllm.build import load_tokenizer
from sefar_mllm.scoring import letter_logits, rotated_prompts


def score(model: Any, tokenizer: Any, settings: GpuMllm) -> Figures:
    """Letter likelihoods of one order of the options and of all orders, with their bounds."""
    vlm, count = composite(model), settings.batch_size
    items, tokens = like_llamas(tokenizer, count), list(video_tokens(count))
    lengths = lengths_of(tokenizer, items)
    first = [rotated_prompts(tokenizer, one, vlm.config, LETTERS)[0] for one in items]
    memory_gb(settings.device)
    prompts_a_s = count / seconds(
        lambda: last_logits(model, first, tokens, keep=1, at_once=count),
        settings.turns,
        settings.device,
    )
    items_a_s = count / seconds(
        lambda: letter_logits(model, tokenizer, items, tokens), settings.turns, settings.device
    )
    bound = scoring_bounds(weights_of(vlm.config.text_config), lengths)
    return {
        "prompts_a_s": prompts_a_s,
        "items_a_s": items_a_s,
        **bound,
        "share_of_bound": items_a_s / bound["bound_items_a_s"],
        "memory_gb": memory_gb(settings.device),
    }


def arithmetic(tokenizer: Any, settings: GpuMllm) -> Figures:
    """Bounds of the model and its questions; needs no device."""
    return bounds(
        weights_of(llama_config(settings.size, words=len(tokenizer))),
        lengths_of(tokenizer, like_llamas(tokenizer, settings.batch_size)),
        rows=settings.rows,
        row_tokens=settings.row_tokens,
    )


def measure(tokenizer: Any, settings: GpuMllm) -> dict[str, Figures]:
    """All parts on the device."""
    found = measure_whole(tokenizer, settings)
    gc.collect()  # the model refers to itself; its memory must not count in the next part
    return found | {"LoRA step, 4-bit": gpu_lora.train_in_four_bits(len(tokenizer), settings)}


def measure_whole(tokenizer: Any, settings: GpuMllm) -> dict[str, Figures]:
    """The parts in which the language model is not quantized."""
    language = language_model(settings.size, words=len(tokenizer), device=settings.device)
    model = adapted(language, device=settings.device)
    return {
        "LoRA step": gpu_lora.train(model, settings),
        "LoRA step, recompute": gpu_lora.train(model, settings, recompute=True),
        "scoring": score(model, tokenizer, settings),
        "chat": gpu_chat.decoding(model, tokenizer, settings)
        | gpu_chat.cold_first_token(model, tokenizer, settings),
    }


def table(found: Mapping[str, Figures]) -> list[str]:
    """Rows of figures with their goals; a goal without a figure is listed as not measured."""
    figures = {(part, name): value for part, some in found.items() for name, value in some.items()}
    lines = ["| part | figure | value | goal |", "|---|---|---|---|"]
    for part, name in dict.fromkeys([*figures, *GOALS]):
        value = figures.get((part, name))
        text = "not measured" if value is None else f"{value:.4g}"
        lines.append(f"| {part} | {name} | {text} | {GOALS.get((part, name), '')} |")
    return lines


def main(settings: GpuMllm) -> None:
    tokenizer = load_tokenizer(settings.tokenizer)
    found = {"arithmetic": arithmetic(tokenizer, settings)}
    if settings.device == "cuda" and not torch.cuda.is_available():
        where = "a machine without CUDA: arithmetic alone, no measurement"
    else:
        found |= measure(tokenizer, settings)
        where = torch.cuda.get_device_name() if settings.device == "cuda" else "CPU"
    lines = [f"{settings.size} on {where}; {settings.rows} x {settings.row_tokens} tokens", ""]
    report("gpu-mllm", [*lines, *table(found)], found, settings.out)


if __name__ == "__main__":
    main(tyro.cli(GpuMllm, description=__doc__))
