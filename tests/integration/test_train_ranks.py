"""Two processes train as one, stop as one, and do not begin as two."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sefar_core.train import fit, start_accelerator
from tests.integration.tiny_run import (
    CLIP_NORM,
    CONFIG,
    NOTHING_RANDOM,
    SGD,
    make_world,
    order,
    run,
)

ROLES = ("student", "teacher")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def straight(world) -> Path:
    """A run of two processes that nothing disturbed, with everything random."""
    code, output = run(order(world, world / "straight"), ranks=2)
    assert code == 0, output
    return world / "straight"


def fingerprints(run_dir: Path) -> dict[str, str]:
    files = [run_dir / role / "model.safetensors" for role in ROLES]
    files += [run_dir / "states/step-00000008/optimizer.safetensors", run_dir / "metrics.jsonl"]
    return {str(f.relative_to(run_dir)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def lines(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def newest(run_dir: Path) -> str:
    return max(path.name for path in (run_dir / "states").iterdir())


@pytest.mark.slow
def test_two_processes_equal_one_at_the_same_global_batch(world):
    """Two micro-batches on each of two processes, or four on one."""
    changes = {"batch_size": 8, "unlabeled_per_labeled": 2}
    argument = order(world, world / "two", config="nothing random, sgd", changes=changes)
    code, output = run(argument, ranks=2)
    assert code == 0, output
    places = {"manifest": world / "manifest.csv", "video_root": world / "gym/videos"}
    config = replace(NOTHING_RANDOM, optim=SGD, **changes)
    fit(config, **places, run_dir=world / "one")

    for role in ROLES:
        one = load_file(world / "one" / role / "model.safetensors")
        two = load_file(world / "two" / role / "model.safetensors")
        start = load_file(world / "two/states/step-00000006" / f"{role}.safetensors")
        moved = max((one[name] - start[name]).abs().max().item() for name in one)
        assert moved > 1e-3  # so that equality says something
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5, msg=name)
    assert sum(line["grad_norm"] > CLIP_NORM for line in lines(world / "one")) > 2
    for first, second in zip(lines(world / "one"), lines(world / "two"), strict=True):
        first.pop("utilization", 0), second.pop("utilization", 0)  # of a micro-batch: not a mean
        assert second == pytest.approx(first, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_run_that_one_process_stopped_twice_equals_an_undisturbed_one(world, straight):
    """First by a loss that is not a number, then by a signal; each on the second process alone."""
    run_dir = world / "disturbed"
    code, output = run(order(world, run_dir, nan_at=[3, 1]), ranks=2)
    assert code != 0
    assert output.count("error: loss became nan and grad_norm became nan in step 4") == 1
    named = output.partition("check the clips: ")[2].splitlines()[0].split(", ")
    assert len(named) == 2 + 2 * 3  # the micro-batch of the second process
    assert newest(run_dir) == "step-00000002" and len(lines(run_dir)) == 3

    code, output = run(order(world, run_dir, signal_at=[4, 1, "SIGTERM"]), ranks=2)
    assert code != 0 and "143" in output
    assert "stopped after step 5; saved in" in output
    assert newest(run_dir) == "step-00000005" and len(lines(run_dir)) == 5

    code, output = run(order(world, run_dir), ranks=2)
    assert code == 0, output
    assert fingerprints(run_dir) == fingerprints(straight)


@pytest.mark.slow
def test_another_number_of_processes_is_refused_by_name(world, straight):
    places = {"manifest": world / "manifest.csv", "video_root": world / "gym/videos"}
    with pytest.raises(ValueError, match="num_processes = 2, but this run has 1"):
        fit(CONFIG, **places, run_dir=straight)


def test_processes_that_do_not_know_of_one_another_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="started 2 processes.*ACCELERATE_USE_CPU=true"):
        start_accelerator(CONFIG)
