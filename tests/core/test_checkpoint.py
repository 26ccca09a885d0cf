import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

import sefar_core
from sefar_core.checkpoint import CheckpointError, build_model, read_class_names, save_encoder
from sefar_core.config import ModelConfig

TINY = ModelConfig(image_size=32, patch_size=16, dim=16, depth=2, num_heads=2, fusion_dim=8)


@pytest.fixture
def encoder(tmp_path):
    torch.manual_seed(0)
    model = build_model(TINY, num_classes=5)
    save_encoder(model, TINY, tmp_path / "student")
    return model.eval(), tmp_path / "student"


def assert_same_tensors(one: torch.nn.Module, other: torch.nn.Module) -> None:
    found, expected = one.state_dict(), other.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, frames, 32, 32, generator=generator) for frames in (2, 2, 4)]


def test_a_loaded_encoder_gives_the_same_logits_and_is_frozen(encoder):
    model, folder = encoder
    loaded = sefar_core.load_encoder(folder)
    assert_same_tensors(loaded, model)
    # Where tensors lie in memory may change how a processor sums them.
    torch.testing.assert_close(loaded(clips()), model(clips()), rtol=1e-5, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training
    assert (loaded.sizes, loaded.image_size, loaded.mean) == ((2, 2, 4), 32, TINY.mean)


def test_a_run_folder_means_its_student(encoder):
    _, folder = encoder
    loaded = sefar_core.load_encoder(folder.parent)
    assert loaded.classifier.out_features == 5


@pytest.mark.parametrize("kind", ["missing", "a folder"])
def test_weights_that_are_no_file_are_named(encoder, kind):
    _, folder = encoder
    (folder / "model.safetensors").unlink()
    if kind == "a folder":
        (folder / "model.safetensors").mkdir()
    problem = "does not exist" if kind == "missing" else "is not a file"
    with pytest.raises(CheckpointError, match=rf"model\.safetensors {problem}; check the path"):
        sefar_core.load_encoder(folder)


def test_saving_again_replaces_the_encoder_and_leaves_no_rest(encoder):
    _, folder = encoder
    save_encoder(build_model(TINY, num_classes=7), TINY, folder)
    assert sefar_core.load_encoder(folder).classifier.out_features == 7
    assert [path.name for path in folder.parent.iterdir()] == ["student"]


def test_weights_that_are_not_finite_are_named(encoder):
    _, folder = encoder
    state = load_file(folder / "model.safetensors")
    state["single.norm.bias"][2] = torch.nan
    save_file(state, folder / "model.safetensors")
    message = r"model\.safetensors holds NaN or infinity in 1 tensors: single\.norm\.bias"
    with pytest.raises(CheckpointError, match=message):
        sefar_core.load_encoder(folder)


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_an_encoder_is_read_by_whom_the_umask_allows(tmp_path, umask):
    before = os.umask(umask)
    try:
        save_encoder(build_model(TINY, num_classes=2), TINY, tmp_path / "shared")
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "shared").iterdir()}
    assert modes == dict.fromkeys(("config.json", "model.safetensors"), 0o666 & ~umask)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere is not an encoder"):
        sefar_core.load_encoder(tmp_path / "nowhere")


def test_weights_of_another_shape_are_named(encoder):
    _, folder = encoder
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"num_classes": 6}))
    with pytest.raises(CheckpointError, match=r"classifier\.bias has shape \(5,\), not \(6,\)"):
        sefar_core.load_encoder(folder)


def test_a_cut_off_file_is_named(encoder):
    _, folder = encoder
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        sefar_core.load_encoder(folder)


def test_missing_and_unknown_tensors_are_named(encoder):
    _, folder = encoder
    weights = load_file(folder / "model.safetensors")
    weights["surprise"] = weights.pop("backbone.norm.bias")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"backbone\.norm\.bias is missing; surprise is unk"):
        sefar_core.load_encoder(folder)


@pytest.mark.parametrize(
    "changed",
    [{"num_classes": "12"}, {"num_classes": -3}, {"class_names": [["x"]] * 5}],
)
def test_senseless_settings_of_an_encoder_are_named(encoder, changed):
    _, folder = encoder
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_class_names(folder)
