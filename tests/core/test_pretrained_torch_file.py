import os
import random
from pathlib import Path

import pytest
import torch

from sefar_core.checkpoint import CheckpointError
from sefar_core.pretrained import named_tensors, read_torch, unwrapped, without_prefix


class Canary:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_numbers_and_text_are_read_from_a_torch_file(tmp_path, zipped):
    content = {"a": torch.arange(6.0).view(2, 3), "b": [1, "text", None], "c": {"d": 2.5}}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = read_torch(tmp_path / "x.pt")
    assert torch.equal(found.pop("a"), content.pop("a"))
    assert found == content


@pytest.mark.parametrize("zipped", [True, False])
def test_no_program_in_a_torch_file_is_run(tmp_path, zipped):
    content = {"a": torch.ones(2), "b": Canary(tmp_path / "dead")}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"x\.pt holds an object of posix\.mkdir"):
        read_torch(tmp_path / "x.pt")
    assert not (tmp_path / "dead").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_torch_file_is_read_or_refused_by_name(tmp_path, zipped):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(3), "b": "text"}, path, _use_new_zipfile_serialization=zipped)
    whole, draw = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole[: draw.randrange(4, len(whole))])
        damaged[draw.randrange(4, len(damaged)) if len(damaged) > 4 else 3] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            read_torch(path)
        except CheckpointError as refusal:
            assert "x.pt" in str(refusal)
            refused += 1
    assert refused > 150


def test_what_torch_did_not_write_is_refused(tmp_path):
    (tmp_path / "x.pt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"x\.pt is not a checkpoint"):
        read_torch(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="is not a file"):
        read_torch(tmp_path / "y.pt")


def test_names_of_wrappers_come_off_in_any_order():
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."):
        assert unwrapped({f"{prefix}a": 1, f"{prefix}module.b": 2}) == {"a": 1, "module.b": 2}
    assert unwrapped({"a._orig_mod.b": 1, "module.c": 2}) == {"a.b": 1, "module.c": 2}
    assert unwrapped({}) == {}


def test_a_wrapper_s_prefix_comes_off_when_all_names_have_it():
    assert without_prefix({"m.a": 1, "m.m.b": 2}, "m.") == {"a": 1, "m.b": 2}
    assert without_prefix({"m.a": 1, "b": 2}, "m.") == {"m.a": 1, "b": 2}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (3, "int"),
        (torch.arange(3), "tensor of torch.int64"),
        (torch.eye(3).to_sparse(), "tensor of torch.float32"),
        (torch.ones(3, device="meta"), "tensor of torch.float32"),
    ],
)
def test_what_is_not_a_plain_tensor_is_named(value, kind):
    with pytest.raises(CheckpointError, match=f"x.pt: odd is a {kind}, not a plain tensor"):
        named_tensors({"fine": torch.ones(2).half(), "odd": value}, Path("x.pt"))
    with pytest.raises(CheckpointError, match="x.pt holds a list instead of named tensors"):
        named_tensors([value], Path("x.pt"))
