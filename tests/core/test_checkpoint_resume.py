import errno
import json
import os

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from qa_data import files
from qa_data.files import WriteError
from sefar_core import checkpoint
from sefar_core.checkpoint import (
    Best,
    Origin,
    TrainState,
    complete_states,
    latest_whole,
    optimizer_tensors,
    read_state,
    restore_optimizer,
    save_state,
    sweep,
)

ORIGIN = Origin(seed=0, num_processes=1, precision="no")


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


def state_at(step: int, *, best: Best | None = None, origin: Origin = ORIGIN) -> TrainState:
    network, optimizer = trained(1)
    student = {name: tensor + step for name, tensor in network.state_dict().items()}
    return TrainState(step, origin, student, {}, optimizer_tensors(optimizer), best)


def names(states) -> list[str]:
    return [folder.name for folder in complete_states(states)]


def test_a_state_is_read_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        folder = save_state(tmp_path, state_at(1))
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}


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


def test_the_newest_states_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        save_state(tmp_path / "two", state_at(step))
        save_state(tmp_path / "three", state_at(step), keep_last=3)
    assert names(tmp_path / "two") == ["step-00000003", "step-00000004"]
    assert len(names(tmp_path / "three")) == 3
    assert read_state(latest_whole(tmp_path / "two"), ORIGIN).step == 4


def test_the_best_state_stays_as_long_as_a_kept_one_names_it(tmp_path):
    first, better = Best(1, "teacher", 0.5), Best(5, "student", 0.6)
    for step in (1, 2, 3, 4):
        save_state(tmp_path, state_at(step, best=first))
    assert names(tmp_path) == ["step-00000001", "step-00000003", "step-00000004"]
    save_state(tmp_path, state_at(5, best=better))
    assert "step-00000001" in names(tmp_path)  # step 4 may have to be gone back to
    save_state(tmp_path, state_at(6, best=better))
    assert names(tmp_path) == ["step-00000005", "step-00000006"]
    assert read_state(latest_whole(tmp_path), ORIGIN).best == better


@pytest.mark.parametrize("fault", ["cut", "flip", "remove", "no manifest"])
def test_a_damaged_state_is_named_and_the_one_before_is_taken(tmp_path, fault):
    save_state(tmp_path, state_at(1))
    newest = save_state(tmp_path, state_at(2))
    file = newest / ("manifest.json" if fault == "no manifest" else "student.safetensors")
    content = bytearray(file.read_bytes())
    if fault == "cut":
        file.write_bytes(content[:-4])
    elif fault == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    with pytest.warns(
        UserWarning, match=f"step-00000002: {file.name} .*resuming from the state before"
    ):
        assert read_state(latest_whole(tmp_path), ORIGIN).step == 1


def test_a_state_without_its_final_name_is_never_read_and_is_swept(tmp_path):
    whole = save_state(tmp_path, state_at(5))
    whole.rename(tmp_path / ".step-00000005.123")
    assert latest_whole(tmp_path) is None
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("origin", "named"),
    [
        (Origin(1, 1, "no"), "seed = 0.*has 1"),
        (Origin(0, 2, "no"), "num_processes = 1.*has 2"),
        (Origin(0, 1, "bf16"), "precision = no.*has bf16"),
    ],
)
def test_a_run_of_other_draws_is_refused_by_name(tmp_path, origin, named):
    folder = save_state(tmp_path, state_at(1))
    with pytest.raises(ValueError, match=named):
        read_state(folder, origin)


def test_a_state_of_another_form_is_refused(tmp_path):
    folder = save_state(tmp_path, state_at(1))
    head = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(head | {"schema": 99}))
    with pytest.raises(ValueError, match="schema = 99"):
        read_state(folder, ORIGIN)


@pytest.mark.parametrize(
    "full", [SafetensorError("No space left"), OSError(errno.ENOSPC, "No space left")]
)
def test_a_full_disk_is_reported_in_one_line_and_leaves_the_state_before(
    tmp_path, monkeypatch, full
):
    save_state(tmp_path, state_at(1))

    def half_written(tensors, path):
        path.write_bytes(b"half")
        raise full

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

    def watched(path):
        synced.append((path.name, (tmp_path / "step-00000007").exists()))

    monkeypatch.setattr(files, "sync", watched)
    save_state(tmp_path, state_at(7))
    before = {name for name, named in synced if not named}
    content = {"manifest.json", "optimizer.safetensors", "state.json", "student.safetensors"}
    assert {name for name in before if not name.startswith(".step")} == content
    assert any(name.startswith(".step") for name in before)
    assert synced[-1] == (tmp_path.name, True)
