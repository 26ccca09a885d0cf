"""Time the semi-supervised step on a GPU: seconds, clips per second, MFU, memory.

    python -m benchmarks.gpu_step --out benchmarks/results          # make bench-gpu
    python -m benchmarks.gpu_step --networks vit_b --labeled 8 --variants "ours, bf16"    # a part
    python -m benchmarks.gpu_step --device cpu --networks toy --labeled 2 --turns 1   # a dry run

Ours runs under bf16 autocast with the fused optimizer, as in training, with and without compiling
and recomputing; the public schedule (public_schedule.py) runs in fp32 with TF32 off and on. A step
is forward, backward, optimizer and teacher. MFU counts the operations that ours needs (a multiply-
add is two) against the measured and the data sheet's bf16 rate of an H200; the public schedule has
the same count, since its result is the same. Variants that do not fit into memory are reported so.
Operations are counted first, on any machine; without CUDA the rest reads "not measured". The file
is rewritten with every line, so that an interrupted run keeps its measurements.
"""

import gc
import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.mllm_arithmetic import DATA_SHEET_FLOPS, MEASURED_FLOPS
from benchmarks.public_schedule import Plain
from benchmarks.ssl_step import build_networks, draws, random_batch
from benchmarks.timing import Row, report_incrementally, result_name, wall_times
from sefar_core.config import LossConfig, OptimConfig
from sefar_core.presets import preset
from sefar_core.step import plan_mixing, ssl_step
from sefar_core.train import build_optimizer, choose_method

GOAL = "goal: at least 40.0 % MFU of 790 TFLOP/s for vit_b"


class Variant(NamedTuple):
    """One implementation of the step."""

    public: bool = False
    tf32: bool = False
    compile: bool = False
    recompute: bool = False


VARIANTS = {
    "public, fp32": Variant(public=True),
    "public, TF32": Variant(public=True, tf32=True),
    "ours, bf16": Variant(),
    "ours, bf16, compiled": Variant(compile=True),
    "ours, bf16, recompute": Variant(recompute=True),
}
VariantName = Literal[*VARIANTS]


@dataclass(frozen=True, kw_only=True)
class GpuStep:
    """Settings of the measurement."""

    networks: tuple[Literal["vit_s", "vit_b", "toy"], ...] = ("vit_s", "vit_b")
    """Networks, at 224 pixels; `toy` is the demo's."""
    labeled: tuple[int, ...] = (8, 32, 64)
    """Numbers of labeled clips of a step; there are three times as many unlabeled ones."""
    variants: tuple[VariantName, ...] = tuple(VARIANTS)
    """Implementations of the step; with none, only operations are counted."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Device; cpu is for a dry run."""
    turns: int = 10
    """Number of timed steps, after three that are not timed."""
    out: Path | None = None
    """Folder for a dated result file."""


class Figures(NamedTuple):
    """Measurements of one variant with one batch."""

    seconds: list[float]
    memory_gib: float | None


def measure(network: str, variant: Variant, labeled: int, settings: GpuStep) -> Figures:
    """Time one variant with a new network and batch, after the last one is freed."""
    # Without a reset, batch sizes that differ from the last ones are compiled as variables. Without
    # a collection, a compiled student, which refers to itself, keeps its memory.
    torch.compiler.reset()
    gc.collect()
    torch.set_float32_matmul_precision("high" if variant.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = variant.tf32
    cuda = settings.device == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step = whole_step(network, variant, labeled, settings.device)
    seconds = wall_times(step, settings.turns, settings.device, untimed=3)
    memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
    return Figures(seconds, memory)


@cache
def gflop_a_labeled_clip(network: str, *, public: bool) -> float:
    """Operations of a step on a labeled clip and its three unlabeled ones, without computing it."""
    step = whole_step(network, Variant(public=public), 1, "meta")
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9


def whole_step(network: str, variant: Variant, labeled: int, device: str) -> Callable[[], None]:
    """Forward, backward, optimizer and teacher of one batch, as a function.

    The device "meta" has no values, which is enough to count operations.
    """
    model = preset("demo" if network == "toy" else network).model
    student, teacher = build_networks(model, passes=10, recompute=variant.recompute, device=device)
    if variant.compile:
        student.compile(dynamic=False)  # as in training
    fused = device == "cuda" and not variant.public
    optimizer = build_optimizer(OptimConfig(), student, fused=fused)
    batch, generators = random_batch(model, labeled, device=device), draws()
    method = choose_method(LossConfig())
    bf16 = not variant.public and device != "meta"  # meta has no autocast
    if device == "meta":  # the check of the confidence needs a value
        method = method._replace(regulate=lambda confidence, spread: confidence)

    def step() -> None:
        mix = plan_mixing(student, 3 * labeled, method, generators)
        given = (student, teacher, batch, method, mix, generators.tensors)
        with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            losses = Plain().step(*given) if variant.public else ssl_step(*given).losses
        losses.total(ramp=1.0, gamma_un=1.0, gamma_mix=1.0).backward()
        optimizer.step()
        optimizer.zero_grad()
        teacher.update(student)

    return step


def rows(settings: GpuStep) -> Iterator[Row]:
    """All lines of the report, as they become known."""
    yield "Operations of a step for each labeled clip with its three unlabeled ones:", {}
    yield "", {}
    yield from count(settings)
    yield f"\n{GOAL}\n", {}
    if settings.device == "cuda":
        if not torch.cuda.is_available():
            yield "Times, MFU and memory: not measured, this machine has no CUDA device.", {}
            return
        gpu = torch.cuda.get_device_name()
        yield f"GPU: {gpu}\n", {"gpu": gpu}
    yield from time_all(settings)


def count(settings: GpuStep) -> Iterator[Row]:
    """The table of operations: a line for each network."""
    yield "| network | GFLOP, ours | public | ratio | ms at 790 TFLOP/s by labeled clips |", {}
    yield "|---|---|---|---|---|", {}
    for network in settings.networks:
        ours, public = (gflop_a_labeled_clip(network, public=public) for public in (False, True))
        least = ", ".join(f"{n}: {1e12 * n * ours / MEASURED_FLOPS:.1f}" for n in settings.labeled)
        yield (
            f"| {network} | {ours:,.0f} | {public:,.0f} | {public / ours:.2f} | {least} |",
            {f"{network}, GFLOP, ours": ours, f"{network}, GFLOP, public": public},
        )


def time_all(settings: GpuStep) -> Iterator[Row]:
    """The table of times: a line for each network, batch and variant."""
    head = "| network, labeled clips | variant | ms a step | clips/s | MFU, 790 | MFU, 989 | GiB |"
    yield head, {}
    yield "|---|---|---|---|---|---|---|", {}
    for network, labeled, variant in product(
        settings.networks, settings.labeled, settings.variants
    ):
        name = f"{network}, {labeled} | {variant}"
        try:
            figures = measure(network, VARIANTS[variant], labeled, settings)
        except torch.cuda.OutOfMemoryError:
            yield f"| {name} | does not fit | | | | |", {}
            continue
        yield f"| {name} | {cells(network, labeled, figures)} |", {name: figures._asdict()}


def cells(network: str, labeled: int, figures: Figures) -> str:
    """Milliseconds, clips per second, both MFUs and memory, as cells of a table."""
    middle = statistics.median(figures.seconds)
    rate = labeled * gflop_a_labeled_clip(network, public=False) * 1e9 / middle
    memory = f"{figures.memory_gib:.1f}" if figures.memory_gib else "-"
    return (
        f"{1e3 * middle:.1f} | {4 * labeled / middle:.0f} "
        f"| {rate / MEASURED_FLOPS:.1%} | {rate / DATA_SHEET_FLOPS:.1%} | {memory}"
    )


def main(settings: GpuStep) -> None:
    report_incrementally(result_name("gpu-step", settings), rows(settings), settings.out)


if __name__ == "__main__":
    main(tyro.cli(GpuStep, description=__doc__))
