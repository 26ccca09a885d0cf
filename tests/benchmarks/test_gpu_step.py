"""The benchmark of the step on a GPU, tried on the CPU: what it counts, and what it lacks."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu_step
from benchmarks.gpu_step import (
    Figures,
    GpuStep,
    Variant,
    cells,
    gflop_a_labeled_clip,
    whole_step,
)
from sefar_core import run_dir

DRY_RUN = GpuStep(networks=("toy",), labeled=(2,), device="cpu", turns=1)


def computed_gflop(*, public: bool, labeled: int) -> float:
    """Operations of a step that is made in earnest."""
    step = whole_step("toy", Variant(public=public), labeled, "cpu")
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9


@pytest.mark.parametrize("public", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_step_without_values_has_the_operations_of_one_with_values(public):
    assert gflop_a_labeled_clip("toy", public=public) == computed_gflop(public=public, labeled=1)


def test_public_schedule_costs_more_than_twice_the_operations_which_grow_with_the_batch():
    # R = 10 passes of the teacher and three of the student, against one and a share of the work.
    ours, public = (gflop_a_labeled_clip("toy", public=public) for public in (False, True))
    assert 2.0 < public / ours < 3.5
    double = computed_gflop(public=False, labeled=2)
    # All but the products of small matrices that a step makes once (block.py, over_time).
    assert double == pytest.approx(2 * ours, rel=0.02) and double < 2 * ours


def test_figures_follow_from_seconds_and_operations(monkeypatch):
    monkeypatch.setattr(gpu_step, "gflop_a_labeled_clip", lambda network, *, public: 790.0)
    row = cells("toy", 10, Figures([0.05, 0.02, 0.01], memory_gib=1.5)).split(" | ")
    # 10 x 790 GFLOP in 20 ms are 395 TFLOP/s; 40 clips in 20 ms are 2,000 a second.
    assert row == ["20.0", "2000", "50.0%", "39.9%", "1.5"]


@pytest.mark.slow
def test_the_variants_in_bf16_make_steps(tmp_path):
    # Compiling is tested in integration/test_train.py; the public step is made above.
    names = ("ours, bf16", "ours, bf16, recompute")
    gpu_step.main(replace(DRY_RUN, variants=names, out=tmp_path))
    (written,) = tmp_path.glob("*.json")
    figures = json.loads(written.read_text())["figures"]
    assert all(figures[f"toy, 2 | {name}"]["seconds"][0] > 0 for name in names)


def test_what_was_measured_before_a_stop_is_in_the_file(tmp_path, monkeypatch, capsys):
    def stopped_at_the_third(network, variant, labeled, settings):
        if variant.recompute:
            raise KeyboardInterrupt
        if variant.public:
            raise torch.cuda.OutOfMemoryError
        return Figures([0.5], None)

    monkeypatch.setattr(gpu_step, "measure", stopped_at_the_third)
    commits = itertools.chain(["clean"], itertools.repeat("dirty by the first line"))
    monkeypatch.setattr(run_dir, "commit", lambda: next(commits))
    names = ("ours, bf16", "public, fp32", "ours, bf16, recompute")
    with pytest.raises(KeyboardInterrupt):
        gpu_step.main(replace(DRY_RUN, variants=names, out=tmp_path))
    (written,) = tmp_path.glob("*.json")
    record = json.loads(written.read_text())
    assert record["commit"] == "clean"  # of the beginning, though the file is written anew
    assert record["figures"]["toy, 2 | ours, bf16"] == {"seconds": [0.5], "memory_gib": None}
    lines = written.with_suffix(".md").read_text().splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.startswith("| toy, 2 | ours"))
    assert "| 500.0 | 16 |" in lines[first]
    assert lines[first + 1 : first + 3] == ["| toy, 2 | public, fp32 | does not fit | | | | |", ""]
    # Each line is printed once, as it comes.
    assert capsys.readouterr().out.splitlines() == lines[: first + 2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without CUDA lacks")
def test_without_cuda_operations_are_counted_and_times_are_not_measured(capsys):
    gpu_step.main(GpuStep(networks=("toy",)))
    printed = capsys.readouterr().out
    assert (
        "not measured" in printed and f"{gflop_a_labeled_clip('toy', public=False):,.0f}" in printed
    )
