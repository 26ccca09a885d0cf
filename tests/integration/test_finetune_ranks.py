"""Two processes fine-tune as one; runs that are killed, stopped or spoiled go on exactly."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sefar_core.runs.interruption import Interrupted
from sefar_core.runs.lock import RunFolderBusy
from sefar_mllm.data import load_questions
from sefar_mllm.training.stage import LessonTrainer
from sefar_mllm.training.train import finetune
from tests.integration.tiny_finetune import make_world, run, settled, start

ADAPTER = "model/adapter_model.safetensors"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("ranks"))


def here(world: Path, run_dir: Path, **changes) -> Path:
    """The same run in this process, undisturbed."""
    asked = load_questions(world / "questions.jsonl")
    finetune(settled(world, changes), asked, world / "tokens", run_dir)
    return run_dir


def fingerprints(run_dir: Path) -> list[str]:
    files = [run_dir / ADAPTER, run_dir / "metrics.jsonl"]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def lines(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def checkpoints(run_dir: Path) -> list[Path]:
    return sorted(run_dir.glob("checkpoints/*/checkpoint-*/complete"))


def check_holds_no_base(run_dir: Path, base: Path) -> None:
    """Every tensor of every checkpoint is of LoRA, of the projector, or of their optimizer."""
    frozen = {tuple(tensor.shape) for tensor in load_file(base / "model.safetensors").values()}
    learned: set[tuple[int, ...]] = set()
    for folder in run_dir.glob("checkpoints/*/checkpoint-*"):
        names = {path.name for path in folder.iterdir()}
        assert not {"model.safetensors", "pytorch_model.bin"} & names
        for name, tensor in load_file(folder / "adapter_model.safetensors").items():
            assert "lora_" in name or "multi_modal_projector" in name, name
            learned.add(tuple(tensor.shape))
        state = torch.load(folder / "optimizer.pt", weights_only=True)["state"]
        for kept in state.values():
            assert tuple(kept["exp_avg"].shape) in learned
    assert learned and (640, 32) in frozen - learned  # the table of embeddings is in none


@pytest.mark.slow
def test_two_processes_equal_one_at_the_same_global_batch(world, monkeypatch):
    """One micro-batch on each of two processes, or two on one; a filler fills the last step."""
    changes = {"dev_rate": 0.0, "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.0, "lr": 1e-2}}
    code, output = run(2, world=world, run_dir=world / "on-2", sgd=True, changes=changes)
    assert code == 0, output
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, weight_decay: torch.optim.SGD(groups))
    here(world, world / "on-1", **changes)
    one, two = (load_file(world / f"on-{ranks}" / ADAPTER) for ranks in (1, 2))
    began = load_file(world / "on-1/checkpoints/projector/checkpoint-6/adapter_model.safetensors")
    assert max((one[name] - began[name]).abs().max().item() for name in one) > 1e-3
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5, msg=name)
    for first, second in zip(lines(world / "on-1"), lines(world / "on-2"), strict=True):
        assert first.pop("stage") == second.pop("stage")
        assert second == pytest.approx(first, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_disturbed_run_of_two_processes_equals_an_undisturbed_one(world):
    """First by a loss that is no number, then by a signal; each on the second process alone."""
    code, output = run(2, world=world, run_dir=world / "straight")
    assert code == 0, output
    check_holds_no_base(world / "straight", world / "llm")
    run_dir = world / "disturbed"
    code, output = run(2, world=world, run_dir=run_dir, nan_at=[7, 1])
    assert code != 0
    assert output.count("error: loss became nan in step 7 (joint, step 3); look at the clips") == 1
    assert "The last whole checkpoint is" in output and "checkpoints/joint/checkpoint-2" in output
    assert [line["step"] for line in lines(run_dir) if "loss" in line] == [1, 2, 3, 4, 5, 6]

    code, output = run(2, world=world, run_dir=run_dir, signal_at=[2, 1, "SIGTERM"])
    assert code != 0
    assert "stopped after step 8; saved in" in output

    code, output = run(2, world=world, run_dir=run_dir)
    assert code == 0, output
    assert fingerprints(run_dir) == fingerprints(world / "straight")


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights_and_none_may_join_it(world):
    straight = here(world, world / "whole")
    run_dir = world / "killed"
    with start(world=world, run_dir=run_dir, pause_s=0.3) as process:
        deadline = time.monotonic() + 60
        while not checkpoints(run_dir):
            assert time.monotonic() < deadline and process.poll() is None, process.stdout.read()
            time.sleep(0.01)
        with pytest.raises(RunFolderBusy, match="is in use by process"):
            here(world, run_dir)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (run_dir / "model").exists()
    here(world, run_dir)
    assert fingerprints(run_dir) == fingerprints(straight)


def test_a_signal_saves_a_checkpoint_where_none_was_asked_for(world, monkeypatch):
    whole, seen = LessonTrainer.training_step, []

    def step(trainer, *parts):
        seen.append(1)
        if len(seen) == 5:  # the first micro-batch of the third step
            os.kill(os.getpid(), signal.SIGINT)
        return whole(trainer, *parts)

    monkeypatch.setattr(LessonTrainer, "training_step", step)
    with pytest.raises(Interrupted, match="stopped after step 3; saved in .*checkpoint-3") as wish:
        here(world, world / "wished", save_every_steps=0)
    assert wish.value.exit_code == 130
    assert len(checkpoints(world / "wished")) == 1
    assert not (world / "wished/model").exists()
    monkeypatch.undo()
    assert fingerprints(here(world, world / "wished", save_every_steps=0)) == fingerprints(
        here(world, world / "unwished", save_every_steps=0)
    )
