"""A model in pieces on two processes (FSDP2): the shipped settings, on CPUs."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qa_data.files import SefarError
from sefar_mllm.checkpoint import load_trained
from sefar_mllm.train import refuse_rounding_shards
from tests.integration.tiny_finetune import make_world, run, shipped_fsdp

ADAPTER = "model/adapter_model.safetensors"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("sharded"))


@pytest.fixture(scope="module")
def straight(world) -> Path:
    """An undisturbed run, its weights in pieces."""
    code, output = run(2, world=world, run_dir=world / "straight", sharded=True)
    assert code == 0, output
    assert output.count("the trained model is in") == 1
    return world / "straight"


def lines(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_pieces_learn_what_whole_models_learn(world, straight):
    """LoRA, projector, validation scores; what is saved computes the logits it was saved with."""
    code, output = run(2, world=world, run_dir=world / "whole")
    assert code == 0, output
    pieces, whole = (load_file(run_dir / ADAPTER) for run_dir in (straight, world / "whole"))
    assert set(pieces) == set(whole)
    assert max(whole[name].abs().max().item() for name in whole if "lora_B" in name) > 1e-3
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name], rtol=1e-3, atol=1e-4, msg=name)
    for one, other in zip(lines(straight), lines(world / "whole"), strict=True):
        assert one.pop("stage") == other.pop("stage")
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
    load_trained(straight / "model")
    assert (straight / "model/fingerprint.json").exists()


@pytest.mark.slow
def test_a_run_in_pieces_that_was_stopped_goes_on_to_the_same_weights(world, straight):
    run_dir = world / "stopped"
    wishes = {"world": world, "run_dir": run_dir, "sharded": True}
    code, output = run(2, **wishes, signal_at=[6, 1, "SIGTERM"])
    assert code != 0 and "stopped after step 6; saved in" in output, output
    code, output = run(2, **wishes)
    assert code == 0, output
    for name in (ADAPTER, "metrics.jsonl"):
        assert (run_dir / name).read_bytes() == (straight / name).read_bytes()


@pytest.mark.parametrize("changed", [{"FSDP_VERSION": "1"}, {"ACCELERATE_MIXED_PRECISION": "bf16"}])
def test_sharding_that_would_round_the_projector_is_refused(monkeypatch, changed):
    for name, value in (shipped_fsdp() | {"ACCELERATE_MIXED_PRECISION": "no"}).items():
        monkeypatch.setenv(name, value)
    refuse_rounding_shards()
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SefarError, match="launch with scripts/accelerate/fsdp2.yaml"):
        refuse_rounding_shards()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    refuse_rounding_shards()
