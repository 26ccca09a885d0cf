"""Time one semi-supervised step against the public code's schedule, alternated in one run.

    python -m benchmarks.ssl_step --cases s112 s224 --out benchmarks/results

The public schedule (public_schedule.py) runs the whole teacher R times, the student three times,
and each element by itself with explicit attention; it is timed in fp32, as published, and with
fused attention. Ours is timed in fp32 and in bf16, with and without recomputed activations. A turn
runs every variant once; the ratio is that of the medians over the turns. Times are CPU seconds and
wall seconds of this process. Memory is the peak of the process minus its memory before the step,
with each variant in its own process.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

import torch
import tyro
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode
from transformers import TimesformerConfig, TimesformerModel

from benchmarks.public_schedule import Plain, eager
from benchmarks.timing import alternate, report
from sefar_core.checkpoint import build_model
from sefar_core.config import LossConfig, ModelConfig
from sefar_core.model import SefarModel
from sefar_core.presets import preset
from sefar_core.step import Generators, SslBatch, plan_mixing, ssl_step
from sefar_core.teacher import EmaTeacher
from sefar_core.train import choose_method

Case = Literal["s112", "s224", "b224", "toy"]


@dataclass(frozen=True, kw_only=True)
class SslStep:
    """Settings of the measurement."""

    cases: tuple[Case, ...] = ("s112",)
    """Network and image size: ViT-S at 112 and 224 pixels, ViT-B at 224, the demo's network."""
    labeled: int = 1
    """Number of labeled clips of a step; there are three times as many unlabeled ones, as in the
    paper."""
    passes: int = 10
    """Number of stochastic predictions of the teacher (R)."""
    turns: int = 3
    """Number of timed turns of every variant, after one that is not timed."""
    threads: int = 1
    """Number of threads of torch."""
    variants: tuple[str, ...] = ()
    """Names of the variants to run; all if none is given."""
    memory: bool = True
    """Measure the memory as well, with each variant in its own process."""
    out: Path | None = None
    """Folder for a dated result file."""


NUM_CLASSES = 99
CASES = {
    "s112": ("vit_s", 112),
    "s224": ("vit_s", 224),
    "b224": ("vit_b", 224),
    "toy": ("demo", 64),
}


def model_of(case: Case) -> ModelConfig:
    word, image_size = CASES[case]
    return replace(preset(word).model, image_size=image_size)


class Variant(NamedTuple):
    """One implementation of the step."""

    name: str
    public: bool = False
    attention: Literal["eager", "fused"] = "fused"
    bf16: bool = False
    recompute: bool = False
    passes: int | None = None


VARIANTS = (
    Variant("public, fp32", public=True, attention="eager"),
    Variant("public, fp32, fused attention", public=True),
    Variant("ours, fp32"),
    Variant("ours, fp32, R = 2", passes=2),
    Variant("ours, fp32, R = 1000", passes=1000),
    Variant("ours, bf16", bf16=True),
    Variant("ours, bf16, recompute", bf16=True, recompute=True),
)


def build_networks(
    model: ModelConfig, *, passes: int, recompute: bool, device: str
) -> tuple[SefarModel, EmaTeacher]:
    """A student with random weights and its teacher."""
    torch.manual_seed(0)
    student = build_model(model, NUM_CLASSES).train().to(device)
    student.backbone.recompute = recompute
    return student, EmaTeacher(student, decay=0.9992, dropout_passes=passes)


def draws() -> Generators:
    return Generators(torch.Generator().manual_seed(0), Random(0).betavariate)


def random_batch(model: ModelConfig, labeled: int, *, device: str) -> SslBatch:
    """Clips of noise, three unlabeled for each labeled one."""

    def clips(number: int) -> list[torch.Tensor]:
        side = model.image_size
        return [torch.randn(number, 3, size, side, side, device=device) for size in model.sizes]

    labels = torch.arange(labeled, device=device) % NUM_CLASSES
    return SslBatch(clips(labeled), labels, clips(3 * labeled), clips(3 * labeled))


def prepare(case: Case, variant: Variant, settings: SslStep) -> Callable[[], None]:
    """The step of one variant, forward and backward, as a function."""
    model, passes = model_of(case), variant.passes or settings.passes
    student, teacher = build_networks(
        model, passes=passes, recompute=variant.recompute, device="cpu"
    )
    batch, generators = random_batch(model, settings.labeled, device="cpu"), draws()
    method = choose_method(LossConfig())
    mix = plan_mixing(student, 3 * settings.labeled, method, generators)
    plain = Plain(eager if variant.attention == "eager" else scaled_dot_product_attention)

    def step() -> None:
        given = (student, teacher, batch, method, mix, generators.tensors)
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.bf16):
            losses = plain.step(*given) if variant.public else ssl_step(*given).losses
        losses.total(ramp=1.0, gamma_un=1.0, gamma_mix=1.0).backward()
        student.zero_grad()

    return step


def peak_memory_mib(case: Case, variant: Variant, settings: SslStep) -> float:
    """Peak memory of a step above the networks and the batch, in a new process."""
    code = (
        "from benchmarks.ssl_step import *\n"
        f"settings = SslStep(labeled={settings.labeled}, passes={settings.passes})\n"
        f"torch.set_num_threads({settings.threads})\n"
        f"step = prepare({case!r}, Variant{tuple(variant)!r}, settings)\n"
        "held = lambda field: int(open('/proc/self/status').read().split(field)[1].split()[0])\n"
        "before = held('VmRSS:')\n"
        "step()\n"
        "print((held('VmHWM:') - before) / 1024)\n"
    )
    root = Path(__file__).parents[1]
    # Large tensors are returned to the system when they are freed.
    returning = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return float(subprocess.check_output([sys.executable, "-c", code], cwd=root, env=returning))


def forward_gflop(case: Case) -> float:
    """Cost of one plain forward pass of one clip, in 10^9 operations (a multiply-add is two)."""
    model = model_of(case)
    with torch.device("meta"):
        network = build_model(model, num_classes=NUM_CLASSES)
        side = model.image_size
        clip = [torch.randn(1, 3, frames, side, side) for frames in model.sizes]
    with FlopCounterMode(display=False) as counter:
        Plain().logits(network, clip)
    return counter.get_total_flops() / 1e9


def against_transformers(case: Case, settings: SslStep) -> float:
    """Time of the plain backbone relative to transformers' TimeSformer, both eager, one clip.

    The clip has 8 frames in one element; forward and backward in fp32, medians of alternated turns.
    """
    model = model_of(case)
    ours = build_model(replace(model, sizes=(8,)), num_classes=NUM_CLASSES)
    config = TimesformerConfig(
        image_size=model.image_size,
        num_frames=8,
        hidden_size=model.dim,
        num_hidden_layers=model.depth,
        num_attention_heads=model.num_heads,
        intermediate_size=4 * model.dim,
        drop_path_rate=0,
    )
    theirs = TimesformerModel(config)
    clip = torch.randn(1, 3, 8, model.image_size, model.image_size)
    runs = {
        "plain": lambda: Plain().features(ours.eval(), [clip]).sum().backward(),
        "theirs": lambda: theirs.eval()(clip.transpose(1, 2)).last_hidden_state.sum().backward(),
    }
    timings = alternate(runs, turns=settings.turns)
    return timings["plain"].cpu / timings["theirs"].cpu


def measure(case: Case, chosen: Sequence[Variant], settings: SslStep) -> tuple[list[str], dict]:
    """The table of one network, and its figures."""
    steps = {variant.name: prepare(case, variant, settings) for variant in chosen}
    timings = alternate(steps, turns=settings.turns)
    memory = {
        v.name: peak_memory_mib(case, v, settings) if settings.memory else None for v in chosen
    }
    gflop, beside = forward_gflop(case), against_transformers(case, settings)
    lines = [
        f"\n{case}: {settings.labeled} labeled and {3 * settings.labeled} unlabeled clips, "
        f"R = {settings.passes}, {settings.threads} thread(s); a plain forward pass of a clip is "
        f"{gflop:.1f} GFLOP; the plain backbone takes {beside:.2f} of the time of transformers' "
        f"TimeSformer\n",
        "| variant | CPU s (range) | wall s | times as fast, CPU | memory, MiB | ratio |",
        "|---|---|---|---|---|---|",
    ]
    first = chosen[0].name
    for name, timing in timings.items():
        held, base = memory[name], memory[first]
        of_memory = f"{held:.0f} | {held / base:.2f}" if held and base else "- | -"
        lines.append(
            f"| {name} | {timing.cpu:.2f} ({min(timing.cpu_s):.2f}-{max(timing.cpu_s):.2f}) | "
            f"{timing.wall:.2f} | {timings[first].cpu / timing.cpu:.2f} | {of_memory} |"
        )
    seconds = {name: timing._asdict() for name, timing in timings.items()}
    figures = {"gflop": gflop, "plain_over_transformers": beside, "seconds": seconds}
    return lines, figures | {"memory_mib": memory}


def main(settings: SslStep) -> None:
    torch.set_num_threads(settings.threads)
    chosen = [v for v in VARIANTS if not settings.variants or v.name in settings.variants]
    lines, figures = [], {}
    for case in settings.cases:
        table, figures[case] = measure(case, chosen, settings)
        lines += table
    report(f"ssl-step-{'-'.join(settings.cases)}", lines, figures, settings.out)


if __name__ == "__main__":
    main(tyro.cli(SslStep, description=__doc__))
