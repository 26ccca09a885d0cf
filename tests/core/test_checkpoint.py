"""Encoders and states of training on disk: what comes back, and what is refused."""

import json
import os

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

import sefar_core
from qa_data import files
from qa_data.files import WriteError
from sefar_core import checkpoint
from sefar_core.checkpoint import (
    Best,
    CheckpointError,
    Origin,
    TrainState,
    build_model,
    complete_states,
    latest_whole,
    optimizer_tensors,
    read_class_names,
    read_state,
    restore_optimizer,
    save_encoder,
    save_state,
    sweep,
)
from tests.oracles import tiny

ORIGIN = Origin(seed=0, num_processes=1, precision="no")


@pytest.fixture
def encoder(tmp_path):
    model = tiny.network()
    save_encoder(model, tiny.CONFIG, tmp_path / "student")
    return model.eval(), tmp_path / "student"


def test_a_loaded_encoder_or_a_run_s_student_is_the_network_and_frozen(encoder):
    model, folder = encoder
    clips = tiny.elements()
    for place in (folder, folder.parent):
        loaded = sefar_core.load_encoder(place)
        found = loaded.state_dict()
        assert found.keys() == model.state_dict().keys()
        assert all(torch.equal(found[name], one) for name, one in model.state_dict().items())
        # Where tensors lie in memory may change how a processor sums them.
        torch.testing.assert_close(loaded(clips), model(clips), rtol=1e-5, atol=1e-5)
        assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
        seen = (loaded.sizes, loaded.image_size, loaded.mean)
        assert seen == ((2, 2, 4), 32, tiny.CONFIG.mean)


def test_saving_again_replaces_the_encoder_and_leaves_no_rest(encoder):
    _, folder = encoder
    save_encoder(build_model(tiny.CONFIG, num_classes=7), tiny.CONFIG, folder)
    assert sefar_core.load_encoder(folder).classifier.out_features == 7
    assert [path.name for path in folder.parent.iterdir()] == ["student"]


def weights(folder):
    return folder / "model.safetensors"


def rewrite(folder, edit):
    state = load_file(weights(folder))
    edit(state)
    save_file(state, weights(folder))


def change_settings(folder, **changed):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: weights(f).unlink(), r"model\.safetensors does not exist; check the path"),
        (
            lambda f: (weights(f).unlink(), weights(f).mkdir()),
            r"\.safetensors is not a file; check",
        ),
        (
            lambda f: os.truncate(weights(f), weights(f).stat().st_size - 100),
            "not a whole safetensors",
        ),
        (
            lambda f: rewrite(f, lambda state: state["single.norm.bias"][2:3].fill_(torch.nan)),
            r"model\.safetensors holds NaN or infinity in 1 tensors: single\.norm\.bias",
        ),
        (
            lambda f: rewrite(f, lambda state: state.update(odd=state.pop("single.norm.bias"))),
            r"odd is unknown; single\.norm\.bias is missing",
        ),
        (
            lambda f: change_settings(f, num_classes=6),
            r"classifier\.bias has shape \(5,\), not \(6,",
        ),
        (lambda f: f.rename(f.parent / "gone"), "student is not an encoder"),
    ],
)
def test_an_encoder_that_does_not_load_is_refused_by_what_is_wrong(encoder, damage, message):
    _, folder = encoder
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        sefar_core.load_encoder(folder)


@pytest.mark.parametrize(
    "changed", [{"num_classes": "12"}, {"num_classes": -3}, {"class_names": [["x"]] * 5}]
)
def test_senseless_settings_of_an_encoder_are_named(encoder, changed):
    _, folder = encoder
    change_settings(folder, **changed)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_class_names(folder)


def trained(steps: int):
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for step in range(steps):
        advance(network, optimizer, step)
    return network, optimizer


def advance(network, optimizer, step: int) -> None:
    torch.manual_seed(step)
    optimizer.zero_grad()
    network(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()


def state_at(step: int, *, best: Best | None = None) -> TrainState:
    network, optimizer = trained(1)
    student = {name: tensor + step for name, tensor in network.state_dict().items()}
    return TrainState(step, ORIGIN, student, {}, optimizer_tensors(optimizer), best)


def names(states) -> list[int]:
    return [int(folder.name.removeprefix("step-")) for folder in complete_states(states)]


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    straight, _ = trained(6)
    network, optimizer = trained(3)
    teacher = {"weight": torch.ones(2, 3)}
    tensors = optimizer_tensors(optimizer)
    save_state(tmp_path, TrainState(3, ORIGIN, network.state_dict(), teacher, tensors))

    fresh, fresh_optimizer = trained(0)
    state = read_state(latest_whole(tmp_path), ORIGIN)
    fresh.load_state_dict(state.student)
    restore_optimizer(fresh_optimizer, state.optimizer)
    assert torch.equal(state.teacher["weight"], teacher["weight"])
    for step in range(state.step, 6):
        advance(fresh, fresh_optimizer, step)
    assert all(map(torch.equal, fresh.state_dict().values(), straight.state_dict().values()))


def test_the_newest_states_are_kept_and_the_best_as_long_as_one_of_them_names_it(tmp_path):
    for step in (1, 2, 3, 4):
        save_state(tmp_path / "three", state_at(step), keep_last=3)
    assert names(tmp_path / "three") == [2, 3, 4]
    first, better = Best(1, "teacher", 0.5), Best(5, "student", 0.6)
    for step in (1, 2, 3, 4):
        save_state(tmp_path, state_at(step, best=first))
    assert names(tmp_path) == [1, 3, 4]
    save_state(tmp_path, state_at(5, best=better))
    assert 1 in names(tmp_path)  # step 4 may have to be gone back to
    save_state(tmp_path, state_at(6, best=better))
    assert names(tmp_path) == [5, 6]
    newest = read_state(latest_whole(tmp_path), ORIGIN)
    assert (newest.step, newest.best) == (6, better)


@pytest.mark.parametrize("fault", ["cut", "flip", "remove", "no manifest"])
def test_a_damaged_state_is_named_and_the_one_before_is_taken(tmp_path, fault):
    save_state(tmp_path, state_at(1))
    newest = save_state(tmp_path, state_at(2))
    file = newest / ("manifest.json" if fault == "no manifest" else "student.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content[:-4] if fault == "cut" else content)
    if fault in ("remove", "no manifest"):
        file.unlink()
    with pytest.warns(
        UserWarning, match=f"step-00000002: {file.name} .*resuming from the state before"
    ):
        assert read_state(latest_whole(tmp_path), ORIGIN).step == 1


def test_a_state_without_its_final_name_is_never_read_and_is_swept(tmp_path):
    save_state(tmp_path, state_at(5)).rename(tmp_path / ".step-00000005.123")
    assert latest_whole(tmp_path) is None
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("origin", "schema", "named"),
    [
        (Origin(1, 1, "no"), 1, "seed = 0.*has 1"),
        (Origin(0, 2, "no"), 1, "num_processes = 1.*has 2"),
        (Origin(0, 1, "bf16"), 1, "precision = no.*has bf16"),
        (ORIGIN, 99, "schema = 99"),
    ],
)
def test_a_state_of_other_draws_or_another_form_is_refused(tmp_path, origin, schema, named):
    folder = save_state(tmp_path, state_at(1))
    head = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(head | {"schema": schema}))
    with pytest.raises(ValueError, match=named):
        read_state(folder, origin)


def test_a_full_disk_is_reported_in_one_line_and_leaves_the_state_before(tmp_path, monkeypatch):
    save_state(tmp_path, state_at(1))

    def half_written(tensors, path):
        path.write_bytes(b"half")
        raise SafetensorError("No space left")

    monkeypatch.setattr(checkpoint, "save_file", half_written)
    with pytest.raises(WriteError) as failure:
        save_state(tmp_path, state_at(2))
    message = str(failure.value)
    # 6 + 2 numbers of the network, two moments of each, and two step counts; 4 bytes a number.
    assert "step-00000002" in message and f"needs {(8 + 16 + 2) * 4} bytes" in message
    assert "are free" in message and "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_everything_is_on_the_disk_before_a_state_gets_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        files, "sync", lambda path: synced.append((path.name, (tmp_path / final).exists()))
    )
    final = "step-00000007"
    save_state(tmp_path, state_at(7))
    before = {name for name, named in synced if not named}
    content = {"manifest.json", "optimizer.safetensors", "state.json", "student.safetensors"}
    assert {name for name in before if not name.startswith(".step")} == content
    assert any(name.startswith(".step") for name in before)
    assert synced[-1] == (tmp_path.name, True)
