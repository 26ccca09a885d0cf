"""The benchmark of the step on a GPU, tried on the CPU: what it counts, and what it lacks."""

import json

import pytest
import torch

from benchmarks import gpu_step
from benchmarks.gpu_step import Figures, GpuStep, Variant, gflop_a_labeled_clip, told, whole_step


def test_public_schedule_costs_more_than_twice_the_operations():
    # R = 10 passes of the teacher and three of the student, against one and a share of the work.
    ours, public = (gflop_a_labeled_clip("toy", public=public) for public in (False, True))
    assert 2.0 < public / ours < 3.5


def test_operations_grow_with_the_batch():
    from torch.utils.flop_counter import FlopCounterMode

    step = whole_step("toy", Variant("counted"), 2, "cpu")
    with FlopCounterMode(display=False) as counter:
        step()
    double = counter.get_total_flops() / 1e9
    # All but the products of small matrices that a step makes once (block.py, over_time).
    assert double == pytest.approx(2 * gflop_a_labeled_clip("toy", public=False), rel=0.02)
    assert double < 2 * gflop_a_labeled_clip("toy", public=False)


def test_figures_follow_from_seconds_and_operations(monkeypatch):
    monkeypatch.setattr(gpu_step, "gflop_a_labeled_clip", lambda network, *, public: 790.0)
    cells = told("toy", 10, Figures([0.05, 0.02, 0.01], memory_gib=1.5)).split(" | ")
    # 10 x 790 GFLOP in 20 ms are 395 TFLOP/s; 40 clips in 20 ms are 2,000 a second.
    assert cells == ["20.0", "2000", "50.0%", "39.9%", "1.5"]


def test_every_variant_makes_a_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        gpu_step, "VARIANTS", [v for v in gpu_step.VARIANTS if not v.compile]
    )  # compiling is tested in integration/test_compile.py
    settings = GpuStep(networks=("toy",), labeled=(2,), device="cpu", turns=1, out=tmp_path)
    gpu_step.main(settings)
    (written,) = tmp_path.glob("*-gpu-step.json")
    figures = json.loads(written.read_text())["figures"]
    measured = {f"toy, 2 | {variant.name}" for variant in gpu_step.VARIANTS}
    assert measured <= figures.keys()
    assert all(figures[name]["seconds"][0] > 0 for name in measured)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without CUDA lacks")
def test_without_cuda_operations_are_counted_and_times_are_not_measured(capsys):
    gpu_step.main(GpuStep(networks=("toy",)))
    told = capsys.readouterr().out
    assert "not measured" in told
    assert f"{gflop_a_labeled_clip('toy', public=False):,.0f}" in told
