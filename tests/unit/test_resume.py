import pytest
import torch
from torch import nn

from sefar_core.resume import complete_states, load_latest, restore_optimizer, save_state


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


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    straight, _ = trained(6)
    network, optimizer = trained(3)
    save_state(tmp_path, 3, network, None, optimizer)

    fresh, fresh_optimizer = trained(0)
    state = load_latest(tmp_path)
    fresh.load_state_dict(state.student)
    restore_optimizer(fresh_optimizer, state.optimizer)
    for step in range(state.step, 6):
        advance(fresh, fresh_optimizer, step)
    assert all(map(torch.equal, fresh.state_dict().values(), straight.state_dict().values()))


def test_the_two_newest_states_are_kept(tmp_path):
    network, optimizer = trained(1)
    for step in (1, 2, 3):
        save_state(tmp_path, step, network, None, optimizer)
    names = [folder.name for folder in complete_states(tmp_path)]
    assert names == ["step-00000002", "step-00000003"]
    assert load_latest(tmp_path).step == 3


@pytest.mark.parametrize("fault", ["cut", "flip", "remove", "no manifest"])
def test_a_damaged_state_is_named_and_the_one_before_is_taken(tmp_path, fault):
    network, optimizer = trained(1)
    save_state(tmp_path, 1, network, None, optimizer)
    newest = save_state(tmp_path, 2, network, None, optimizer)
    file = newest / ("manifest.json" if fault == "no manifest" else "student.safetensors")
    content = bytearray(file.read_bytes())
    if fault == "cut":
        file.write_bytes(content[:-4])
    elif fault == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    with pytest.warns(UserWarning, match="step-00000002: .*going back"):
        assert load_latest(tmp_path).step == 1


def test_a_state_without_its_final_name_is_never_read(tmp_path):
    network, optimizer = trained(1)
    whole = save_state(tmp_path, 5, network, None, optimizer)
    whole.rename(tmp_path / ".step-00000005.123")
    assert load_latest(tmp_path) is None
