"""Two processes fine-tune as one; runs that are killed, stopped or spoiled resume exactly."""

import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from qa_data.files import SefarError
from sefar_core.signals import Interrupted
from sefar_mllm.checkpoint import load_trained
from sefar_mllm.config import LoraSettings
from sefar_mllm.stages import MetricsCallback, QuestionTrainer
from tests.integration.run_folders import fingerprints, lines
from tests.integration.tiny_finetune import ADAPTER, make_toy

MODEL = f"model/{ADAPTER}"
MICRO_BATCHES = 24  # 15 questions, two at a time, in three epochs


@pytest.fixture(scope="module")
def toy(world, tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("resume"), world.language_model)


@pytest.fixture(scope="module")
def straight(toy) -> Path:
    """An undisturbed run without checkpoints."""
    toy.finetune(toy.root / "straight", toy.all_random(save_every_steps=0))
    return toy.root / "straight"


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """Grows with each micro-batch that is learned."""
    whole, counted = QuestionTrainer.training_step, []

    def step(trainer, *parts):
        counted.append(len(counted) + 1)
        return whole(trainer, *parts)

    monkeypatch.setattr(QuestionTrainer, "training_step", step)
    return counted


def complete(run_dir: Path) -> list[str]:
    found = run_dir.glob("checkpoints/*/checkpoint-*/complete")
    return sorted(str(path.parent.relative_to(run_dir / "checkpoints")) for path in found)


SIGNALS = {  # micro-batch that the signal comes in: last step, checkpoints that are left
    5: (3, ["projector/checkpoint-3"]),
    7: (5, ["joint/checkpoint-1", "projector/checkpoint-4"]),  # goes over into the next stage
    13: (7, ["joint/checkpoint-3", "projector/checkpoint-4"]),
}


@pytest.mark.parametrize(
    "micro_batch",
    [7, pytest.param(5, marks=pytest.mark.slow), pytest.param(13, marks=pytest.mark.slow)],
)
def test_a_signal_saves_a_checkpoint_where_none_was_asked_for(
    toy, tmp_path, monkeypatch, seen, straight, micro_batch
):
    """In either stage, and in the last step of one; nothing is learned or written twice."""
    whole, config = QuestionTrainer.compute_loss, toy.all_random(save_every_steps=0)
    step, kept = SIGNALS[micro_batch]

    def loss(trainer, *parts, **named):
        if len(seen) == micro_batch:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(trainer, *parts, **named)

    monkeypatch.setattr(QuestionTrainer, "compute_loss", loss)
    message = f"stopped after step {step}; saved in .*{kept[0]}"
    with pytest.raises(Interrupted, match=message) as stop:
        toy.finetune(tmp_path, config)
    assert stop.value.exit_code == 143
    assert not (tmp_path / "model").exists() and complete(tmp_path) == kept
    monkeypatch.setattr(QuestionTrainer, "compute_loss", whole)
    toy.finetune(tmp_path, config)
    assert len(seen) == MICRO_BATCHES
    assert fingerprints(tmp_path, MODEL) == fingerprints(straight, MODEL)
    toy.finetune(tmp_path, config)  # a finished run is not learned again
    assert len(seen) == MICRO_BATCHES
    assert fingerprints(tmp_path, MODEL) == fingerprints(straight, MODEL)


def test_a_model_that_is_no_longer_finite_is_not_asked_about_dev(toy, tmp_path, monkeypatch, seen):
    whole = QuestionTrainer.compute_loss

    def loss(trainer, *parts, **named):
        found = whole(trainer, *parts, **named)
        return found * torch.nan if len(seen) == 16 else found

    monkeypatch.setattr(QuestionTrainer, "compute_loss", loss)
    with pytest.raises(FloatingPointError, match="loss became nan in step 8 .joint, step 4"):
        toy.finetune(tmp_path, toy.all_random(save_every_steps=0))
    assert [line["step"] for line in lines(tmp_path) if "loss" in line] == [1, 2, 3, 4, 5, 6, 7]
    assert [line["step"] for line in lines(tmp_path) if "dev_micro" in line] == [4]


def test_a_damaged_checkpoint_is_named(toy, tmp_path):
    checkpoint = tmp_path / "checkpoints/joint/checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "complete").touch()
    (checkpoint / "trainer_state.json").write_text('{"global_step": ')
    message = rf"^{re.escape(str(checkpoint))}/trainer_state\.json is damaged .*delete"
    with pytest.raises(ValueError, match=message):
        toy.finetune(tmp_path, toy.config())


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


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights_and_none_may_join_it(toy, tmp_path, scripts):
    config, run_dir = toy.all_random(), tmp_path / "killed"
    toy.finetune(tmp_path / "whole", config)
    killed = scripts.start(*toy.command(run_dir, config), pause_s=0.2)
    killed.wait_for(run_dir / "checkpoints/projector/checkpoint-2/complete")
    with pytest.raises(SefarError, match="is in use by process"):
        toy.finetune(run_dir, config)
    killed.send(signal.SIGKILL)
    assert killed.wait()[0] == [-signal.SIGKILL]
    assert not (run_dir / "model").exists()
    toy.finetune(run_dir, config)
    assert fingerprints(run_dir, MODEL) == fingerprints(tmp_path / "whole", MODEL)
    # As if it was killed again, while it wrote the last checkpoint.
    newest = max((run_dir / "checkpoints/joint").iterdir(), key=lambda path: path.stat().st_mtime)
    (newest / "complete").unlink()
    (newest / "optimizer.pt").write_bytes(b"half")
    toy.finetune(run_dir, config)
    assert fingerprints(run_dir, MODEL) == fingerprints(tmp_path / "whole", MODEL)


def check_holds_no_base(run_dir: Path, base: Path) -> None:
    """Every tensor of every checkpoint is of LoRA, of the projector, or of their optimizer."""
    frozen = {tuple(tensor.shape) for tensor in load_file(base / "model.safetensors").values()}
    learned: set[tuple[int, ...]] = set()
    for folder in run_dir.glob("checkpoints/*/checkpoint-*"):
        names = {path.name for path in folder.iterdir()}
        assert not {"model.safetensors", "pytorch_model.bin"} & names
        for name, tensor in load_file(folder / ADAPTER).items():
            assert "lora_" in name or "multi_modal_projector" in name, name
            learned.add(tuple(tensor.shape))
        state = torch.load(folder / "optimizer.pt", weights_only=True)["state"]
        for kept in state.values():
            assert tuple(kept["exp_avg"].shape) in learned
    assert learned and (640, 32) in frozen - learned  # the table of embeddings is in none


@pytest.mark.slow
def test_two_processes_equal_one_at_the_same_global_batch_whole_or_in_pieces(
    toy, tmp_path, monkeypatch, scripts
):
    """One micro-batch on each of two processes, or two on one; a filler fills the last step."""
    lora = LoraSettings(rank=2, alpha=4.0, dropout=0.0, lr=1e-2)
    config = toy.all_random(dev_rate=0.0, lora=lora)
    words = toy.command(tmp_path / "whole", config)
    codes, output = scripts.run(*words, ranks=2, sgd=True)
    assert codes == [0, 0] and output.count("the trained model is in") == 1, output
    words = toy.command(tmp_path / "pieces", config)
    codes, output = scripts.run(*words, ranks=2, sgd=True, sharded=True)
    assert codes == [0, 0] and output.count("the trained model is in") == 1, output
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, weight_decay: torch.optim.SGD(groups))
    toy.finetune(tmp_path / "one", config)
    one = load_file(tmp_path / "one" / MODEL)
    began = load_file(tmp_path / "one/checkpoints/projector/checkpoint-6" / ADAPTER)
    assert max((one[name] - began[name]).abs().max().item() for name in one) > 1e-3
    for run_dir, apart in ((tmp_path / "whole", 1e-5), (tmp_path / "pieces", 1e-4)):
        two = load_file(run_dir / MODEL)
        assert set(two) == set(one)
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=10 * apart, atol=apart, msg=name)
        for first, second in zip(lines(tmp_path / "one"), lines(run_dir), strict=True):
            assert first.pop("stage") == second.pop("stage")
            assert second == pytest.approx(first, rel=1e-3, abs=1e-5)
        load_trained(run_dir / "model")  # computes the logits that it was saved with


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
def test_a_disturbed_run_of_two_processes_equals_an_undisturbed_one(
    toy, tmp_path, scripts, sharded
):
    """First by a loss that is no number, then by a signal; each on the second process alone."""
    straight, run_dir, how = tmp_path / "straight", tmp_path / "disturbed", {"ranks": 2}
    if sharded:
        how["sharded"] = True
    codes, output = scripts.run(*toy.command(straight, toy.all_random()), **how)
    assert codes == [0, 0], output
    if not sharded:
        check_holds_no_base(straight, toy.language_model)
    words = toy.command(run_dir, toy.all_random())
    codes, output = scripts.run(*words, **how, nan_at=[7, 1])
    assert codes == [1, 1]
    assert output.count("error: loss became nan in step 7 (joint, step 3); check the clips") == 1
    assert "The last complete checkpoint is" in output
    assert "checkpoints/joint/checkpoint-2" in output
    assert [line["step"] for line in lines(run_dir) if "loss" in line] == [1, 2, 3, 4, 5, 6]
    codes, output = scripts.run(*words, **how, signal_at=[2, 1, "SIGTERM"])
    assert codes == [143, 1]  # the first process tells it for both
    assert "stopped after step 8; saved in" in output
    codes, output = scripts.run(*words, **how)
    assert codes == [0, 0], output
    assert fingerprints(run_dir, MODEL) == fingerprints(straight, MODEL)
    if sharded:
        load_trained(run_dir / "model")
