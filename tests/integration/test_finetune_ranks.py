"""Two processes fine-tune as one; runs that are killed, stopped or spoiled go on exactly."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from qa_data.files import SefarError
from sefar_core.checkpoint import CheckpointError
from sefar_core.signals import Interrupted
from sefar_mllm.dataset import load_questions
from sefar_mllm.stages import MetricsCallback, QuestionTrainer
from sefar_mllm.train import finetune
from tests.integration.tiny_finetune import make_world, run, run_here, settled, start
from tests.script_process import LIMIT_S

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
    assert output.count("the trained model is in") == 1
    check_holds_no_base(world / "straight", world / "llm")
    run_dir = world / "disturbed"
    code, output = run(2, world=world, run_dir=run_dir, nan_at=[7, 1])
    assert code != 0
    assert output.count("error: loss became nan in step 7 (joint, step 3); check the clips") == 1
    assert (
        "The last complete checkpoint is" in output and "checkpoints/joint/checkpoint-2" in output
    )
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
        deadline = time.monotonic() + LIMIT_S
        while not checkpoints(run_dir):
            assert time.monotonic() < deadline and process.poll() is None, process.stdout.read()
            time.sleep(0.01)
        with pytest.raises(SefarError, match="is in use by process"):
            here(world, run_dir)
    assert not (run_dir / "model").exists()
    here(world, run_dir)
    assert fingerprints(run_dir) == fingerprints(straight)


MICRO_BATCHES = 24  # 15 questions, two at a time, in three epochs


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """Grows with each micro-batch that is learned."""
    whole, counted = QuestionTrainer.training_step, []

    def step(trainer, *parts):
        counted.append(len(counted) + 1)
        return whole(trainer, *parts)

    monkeypatch.setattr(QuestionTrainer, "training_step", step)
    return counted


@pytest.fixture(scope="module")
def unwished(world) -> Path:
    return here(world, world / "unwished", save_every_steps=0)


SIGNALS = {  # micro-batch that the signal comes in: last step, checkpoints that are left
    5: (3, ["projector/checkpoint-3"]),
    7: (5, ["joint/checkpoint-1", "projector/checkpoint-4"]),  # goes over into the next stage
    13: (7, ["joint/checkpoint-3", "projector/checkpoint-4"]),
}


@pytest.mark.parametrize("micro_batch", SIGNALS)
def test_a_signal_saves_a_checkpoint_where_none_was_asked_for(
    world, tmp_path, monkeypatch, seen, unwished, micro_batch
):
    """In either stage, and in the last step of one; nothing is learned or written twice."""
    whole = QuestionTrainer.compute_loss

    def loss(trainer, *parts, **named):
        if len(seen) == micro_batch:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(trainer, *parts, **named)

    step, kept = SIGNALS[micro_batch]
    message = f"stopped after step {step}; saved in .*{kept[0]}"
    monkeypatch.setattr(QuestionTrainer, "compute_loss", loss)
    with pytest.raises(Interrupted, match=message) as stop:
        here(world, tmp_path, save_every_steps=0)
    assert stop.value.exit_code == 130
    assert not (tmp_path / "model").exists()
    found = [path.parent.relative_to(tmp_path / "checkpoints") for path in checkpoints(tmp_path)]
    assert list(map(str, found)) == kept
    monkeypatch.setattr(QuestionTrainer, "compute_loss", whole)
    here(world, tmp_path, save_every_steps=0)
    assert len(seen) == MICRO_BATCHES
    assert lines(tmp_path) == lines(unwished)
    assert fingerprints(tmp_path) == fingerprints(unwished)


def test_a_finished_run_is_not_learned_again(world, unwished, seen):
    before = fingerprints(unwished)
    here(world, unwished, save_every_steps=0)
    assert not seen
    assert fingerprints(unwished) == before


def test_a_folder_that_merging_would_refuse_is_refused_before_anything_is_learned(world, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1.tex").touch()
    with pytest.raises(CheckpointError, match="thesis holds something that is not a merged model"):
        run_here(world, tmp_path / "run", {}, merge=tmp_path / "thesis")
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_as_many_processes_or_not_at_all(world, tmp_path):
    here(world, tmp_path, projector_epochs=0, epochs=1)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["num_processes"] == "1"
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_processes": "2"}))
    with pytest.raises(ValueError, match="a run with num_processes = 2, but 1 is requested"):
        here(world, tmp_path, projector_epochs=0, epochs=1)


def test_a_model_that_is_no_longer_finite_is_not_asked_about_dev(
    world, tmp_path, monkeypatch, seen
):
    whole = QuestionTrainer.compute_loss

    def loss(trainer, *parts, **named):
        found = whole(trainer, *parts, **named)
        return found * torch.nan if len(seen) == 16 else found

    monkeypatch.setattr(QuestionTrainer, "compute_loss", loss)
    with pytest.raises(FloatingPointError, match="loss became nan in step 8 .joint, step 4"):
        here(world, tmp_path, save_every_steps=0)
    assert [line["step"] for line in lines(tmp_path) if "loss" in line] == [1, 2, 3, 4, 5, 6, 7]
    assert [line["step"] for line in lines(tmp_path) if "dev_micro" in line] == [4]


def test_a_checkpoint_is_whole_once_every_process_has_written_its_part(tmp_path):
    complete = tmp_path / "checkpoint-3/complete"
    complete.parent.mkdir()
    waited = []

    class Two:
        def wait_for_everyone(self):
            waited.append(complete.exists())

    state = SimpleNamespace(is_world_process_zero=True, global_step=3)
    arguments = SimpleNamespace(output_dir=str(tmp_path))
    MetricsCallback.on_save(SimpleNamespace(accelerator=Two()), arguments, state, None)  # type: ignore[arg-type]
    assert waited == [False] and complete.exists()
