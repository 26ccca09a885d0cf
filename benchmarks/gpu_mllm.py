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

import tyro

from benchmarks.gpu_settings import GpuMllm
from benchmarks.mllm_arithmetic import GOALS, Figures, bounds, scoring_bounds, weights_of


def score(model: Any, tokenizer: Any, settings: GpuMllm) -> Figures:
    """Letter likelihoods of one order of the options and of all orders, with their bounds."""
    from benchmarks.gpu_lora import memory_gb
    from benchmarks.option_forwards import last_logits
    from benchmarks.random_vlm import lengths_of, like_llamas, video_tokens
    from benchmarks.timing import seconds
    from qa_data.questions import LETTERS
    from sefar_mllm.adapters import composite
    from sefar_mllm.scoring import letter_logits, rotated_prompts

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
    from benchmarks.random_vlm import lengths_of, like_llamas, llama_config

    return bounds(
        weights_of(llama_config(settings.size, words=len(tokenizer))),
        lengths_of(tokenizer, like_llamas(tokenizer, settings.batch_size)),
        rows=settings.rows,
        row_tokens=settings.row_tokens,
    )


def measure(tokenizer: Any, settings: GpuMllm) -> dict[str, Figures]:
    """All parts on the device."""
    from benchmarks.gpu_lora import train_in_four_bits

    found = measure_whole(tokenizer, settings)
    gc.collect()  # the model refers to itself; its memory must not count in the next part
    return found | {"LoRA step, 4-bit": train_in_four_bits(len(tokenizer), settings)}


def measure_whole(tokenizer: Any, settings: GpuMllm) -> dict[str, Figures]:
    """The parts in which the language model is not quantized."""
    from benchmarks.gpu_chat import cold_first_token, decoding
    from benchmarks.gpu_lora import train
    from benchmarks.random_vlm import adapted, language_model

    language = language_model(settings.size, words=len(tokenizer), device=settings.device)
    model = adapted(language, device=settings.device)
    return {
        "LoRA step": train(model, settings),
        "LoRA step, recompute": train(model, settings, recompute=True),
        "scoring": score(model, tokenizer, settings),
        "chat": decoding(model, tokenizer, settings) | cold_first_token(model, tokenizer, settings),
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
    import torch

    from benchmarks.random_vlm import tokenizer_of
    from benchmarks.timing import report

    tokenizer = tokenizer_of(settings.tokenizer)
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
