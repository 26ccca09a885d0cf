"""Time Vicuna-7B's exact config with random weights on a GPU: LoRA steps, scoring, chat.

    python -m benchmarks.gpu_mllm --out benchmarks/results          # make bench-gpu
    python -m benchmarks.gpu_mllm --size toy --device cpu --turns 2     # a dry run

A LoRA step on a frozen language model of N weights needs 4 N operations a token (forward, and
backward to the activations; a multiply-add is two), with recomputing 6 N, of which 4 N count as
useful. Scoring needs 2 N a token. Shares are of the measured 790 and of the data sheet's 989
TFLOP/s in bf16. Decoding one token reads all weights once: the limit is the memory's measured
4.3 TB/s over their bytes.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.random_vlm import Size

MEASURED_FLOPS = 790e12
DATA_SHEET_FLOPS = 989e12
MEASURED_BYTES_A_S = 4.3e12


@dataclass(frozen=True, kw_only=True)
class GpuMllm:
    """The settings of the measurement."""

    size: Size = "vicuna_7b"
    """Of the language model."""
    device: Literal["cuda", "cpu"] = "cuda"
    """cpu is for trying the benchmark out."""
    tokenizer: str = "demo/llm"
    """Folder of a tokenizer; Llama's makes a fifth more tokens of a question than the demo's."""
    rows: int = 4
    """Rows of a LoRA step."""
    row_tokens: int = 1024
    """Tokens of a row."""
    batch_size: int = 64
    """Questions scored at a time, in four rotations each."""
    new_tokens: int = 128
    """Tokens of a chat's answer."""
    turns: int = 10
    """Calls that are timed, after two that are not; the median counts."""
    out: Path | None = None
    """Folder for a dated result."""


def seconds(call: Callable[[], object], turns: int, device: str) -> float:
    """Median wall seconds of a call, the device's work included."""
    import torch

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    took = []
    for turn in range(turns + 2):
        finish()
        began = time.perf_counter()
        call()
        finish()
        if turn >= 2:
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def memory_gb(device: str) -> float | None:
    """The most that was held since the last look, in units of 10^9 bytes."""
    import torch

    if device != "cuda":
        return None
    held = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return held


def train(model: Any, settings: GpuMllm, *, recompute: bool) -> dict[str, float | None]:
    """LoRA steps on full rows: forward, backward, optimizer."""
    import torch

    from benchmarks.random_vlm import video_tokens
    from sefar_mllm.adapters import composite, optimizer_groups

    vlm = composite(model)
    words, placeholder = vlm.config.text_config.vocab_size, vlm.config.video_token_id
    ids = torch.randint(3, words, (settings.rows, settings.row_tokens), device=settings.device)
    ids[:, 1 : 1 + vlm.config.num_video_tokens] = placeholder
    labels = torch.full_like(ids, -100)
    labels[:, -2:] = ids[:, -2:]
    tokens = video_tokens(settings.rows).to(settings.device)
    optimizer = torch.optim.AdamW(
        optimizer_groups(model, lora_lr=1e-4, projector_lr=1e-4), fused=settings.device == "cuda"
    )
    model.train()
    language = vlm.model.language_model
    if recompute:
        language.activation_checkpointing_enable({"use_reentrant": False})
    memory_gb(settings.device)

    def step() -> None:
        with torch.autocast(settings.device, torch.bfloat16, enabled=settings.device == "cuda"):
            loss = model(input_ids=ids, video_tokens=tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    took = seconds(step, settings.turns, settings.device)
    if recompute:
        language.activation_checkpointing_disable()
    model.eval()
    rate = ids.numel() / took
    flops = 4 * num_weights(vlm) * rate
    return {
        "seconds": took,
        "tokens_a_s": rate,
        "mfu_790": flops / MEASURED_FLOPS,
        "mfu_989": flops / DATA_SHEET_FLOPS,
        "memory_gb": memory_gb(settings.device),
    }


def score(model: Any, tokenizer: Any, settings: GpuMllm) -> dict[str, float | None]:
    """Letter likelihoods in all rotations, and the bound of the tokens that they compute."""
    from benchmarks.random_vlm import questions, video_tokens
    from sefar_mllm.adapters import composite
    from sefar_mllm.prompt import LETTERS
    from sefar_mllm.scoring.letters import letter_logits, rotated_prompts
    from sefar_mllm.scoring.shared_prefix import join

    vlm = composite(model)
    asked = questions(settings.batch_size)
    tokens = list(video_tokens(settings.batch_size))
    prompts = [rotated_prompts(tokenizer, one, vlm.config, LETTERS) for one in asked]
    computed = sum(len(join(some).ids) for some in prompts) / len(asked)
    memory_gb(settings.device)
    took = seconds(
        lambda: letter_logits(model, tokenizer, asked, tokens), settings.turns, settings.device
    )
    items = settings.batch_size / took
    bound = MEASURED_FLOPS / (2 * num_weights(vlm) * computed)
    return {
        "items_a_s": items,
        "prompts_a_s": 4 * items,
        "tokens_a_prompt": sum(len(p) for some in prompts for p in some) / (4 * len(asked)),
        "tokens_computed_an_item": computed,
        "bound_items_a_s": bound,
        "share_of_bound": items / bound,
        "memory_gb": memory_gb(settings.device),
    }


def chat(model: Any, tokenizer: Any, settings: GpuMllm) -> dict[str, float | None]:
    """One answer at a time: tokens a second, and seconds to the first token."""
    from benchmarks.random_vlm import questions, video_tokens
    from sefar_mllm.adapters import composite
    from sefar_mllm.chat.generation import generate_ids
    from sefar_mllm.prompt import LETTERS
    from sefar_mllm.scoring.letters import rotated_prompts

    vlm = composite(model)
    ids = rotated_prompts(tokenizer, questions(1)[0], vlm.config, LETTERS)[:1]
    tokens = list(video_tokens(1))
    found: dict[str, float | None] = {}
    for name, static in (("dynamic", False), ("static, compiled", True)):

        def answer(count: int, static: bool = static) -> None:
            generate_ids(model, ids, tokens, max_new_tokens=count, static_cache=static)

        whole = seconds(lambda: answer(settings.new_tokens), settings.turns, settings.device)
        first = seconds(lambda: answer(1), settings.turns, settings.device)
        found[f"{name}: tokens_a_s"] = (settings.new_tokens - 1) / (whole - first)
        found[f"{name}: first_token_s"] = first
    weights = sum(p.numel() * p.element_size() for p in vlm.parameters())
    found["limit_tokens_a_s"] = MEASURED_BYTES_A_S / weights
    found["cold_first_token_s"] = cold_first_token(settings) + (
        found["dynamic: first_token_s"] or 0
    )
    return found


def cold_first_token(settings: GpuMllm) -> float:
    """Seconds for a file of 3 s, 320x256 pixels, to become the tokens of ViT-B."""
    import tempfile

    import torch

    from benchmarks.moving_clips import write_clip
    from sefar_core.checkpoint import build_model, save_encoder
    from sefar_core.presets import preset
    from sefar_mllm.encoders import ENCODERS, pool

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        clip = write_clip(root / "clip.mp4", num_frames=75, gop=25, seed=0)
        network = preset("demo" if settings.size == "toy" else "vit_b").model
        torch.manual_seed(0)
        save_encoder(build_model(network, 99), network, root / "encoder")
        encoder = ENCODERS["sefar"](root / "encoder", device=settings.device)

        def look() -> None:
            from sefar_core.data.video import read_fractions

            pool(encoder.encode(read_fractions(clip, encoder.moments)[None]), 2)

        return seconds(look, settings.turns, settings.device)


def num_weights(vlm: Any) -> int:
    """Weights that a token goes through: all linears of the language model and its output layer."""
    linears = [p for n, p in vlm.named_parameters() if "layers." in n and "lora_" not in n]
    return sum(p.numel() for p in linears) + vlm.lm_head.weight.numel()


def main(settings: GpuMllm) -> None:
    import torch

    from benchmarks.random_vlm import adapted, language_model, tokenizer_of
    from benchmarks.timing import report

    tokenizer = tokenizer_of(settings.tokenizer)
    language = language_model(settings.size, words=len(tokenizer), device=settings.device)
    model = adapted(language, device=settings.device)
    found = {
        "LoRA step": train(model, settings, recompute=False),
        "LoRA step, recompute": train(model, settings, recompute=True),
        "scoring": score(model, tokenizer, settings),
        "chat": chat(model, tokenizer, settings),
    }
    where = torch.cuda.get_device_name() if settings.device == "cuda" else "CPU"
    lines = [f"{settings.size} on {where}, {settings.rows} x {settings.row_tokens} tokens", ""]
    lines += ["| part | figure | value |", "|---|---|---|"]
    for part, figures in found.items():
        for name, value in figures.items():
            lines.append(f"| {part} | {name} | {'-' if value is None else f'{value:.4g}'} |")
    report("gpu-mllm", lines, found, settings.out)


if __name__ == "__main__":
    main(tyro.cli(GpuMllm, description=__doc__))
