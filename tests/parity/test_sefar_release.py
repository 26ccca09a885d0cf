"""Checkpoints of the public code against a slow network that has its names of parameters."""

import os
from argparse import Namespace
from collections import OrderedDict

import pytest
import torch
import yaml

import sefar_core
from sefar_core.checkpoint import CheckpointError, build_model
from sefar_core.config import ModelConfig
from sefar_core.pretrained import release_name, release_state
from tests.oracles.public_model import PublicModel

TOY = {"width": 128, "depth": 2, "grid": 2, "classes": 5}
CFG = yaml.safe_dump(
    {
        "DATA": {"MEAN": [0.4, 0.45, 0.5], "STD": [0.2, 0.225, 0.25], "SAMPLE_FRAMES": [2, 2, 4]},
        "MODEL": {"MODEL_TYPE": "small"},
    }
)


def public_model(frames=(2, 2, 4), **sizes) -> PublicModel:
    """Random weights, none of them hidden behind a zero start or equal to another."""
    generator = torch.Generator().manual_seed(7)
    model = PublicModel(frames, **(TOY | sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            width = parameter[0].numel() if parameter.ndim > 1 else 1
            scale = 0.5 if "embed" in name or "token" in name else width**-0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def checkpoint(model: PublicModel, **changed) -> dict:
    """What the public code saves after an epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    parts = {
        "epoch": 3,
        "model_state": model.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "cfg": CFG,
    }
    return parts | changed


def elements(frames=(2, 2, 4), *, side=32, batch=2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 3, t, side, side, generator=generator) for t in frames]


@pytest.fixture
def saved(tmp_path):
    model = public_model()
    torch.save(checkpoint(model), tmp_path / "checkpoint_epoch_00004.pyth")
    return model, tmp_path / "checkpoint_epoch_00004.pyth"


def save(tmp_path, state=None, **changed):
    path = tmp_path / "public.pyth"
    model = public_model()
    torch.save(checkpoint(model, model_state=state or model.state_dict()) | changed, path)
    return path


@pytest.mark.parametrize(
    ("frames", "sizes"),
    [
        ((2, 2, 4), {}),
        ((2, 2, 4), {"width": 64, "grid": 3, "depth": 3}),
        ((2, 4), {"classes": 9}),
        ((1, 2, 3, 2), {"patch": 8, "grid": 4}),
    ],
)
def test_logits_equal_the_public_model_s(tmp_path, frames, sizes):
    public = public_model(frames, **sizes)
    torch.save(checkpoint(public), tmp_path / "public.pyth")
    loaded = sefar_core.load_sefar_release(tmp_path / "public.pyth")
    clips = elements(frames, side=public.grid * public.patch)
    theirs = public(clips)
    assert theirs.std() > 0.1
    torch.testing.assert_close(loaded(clips), theirs, atol=1e-4, rtol=0)


def test_every_tensor_reaches_the_logits(saved):
    public, path = saved
    loaded = sefar_core.load_sefar_release(path)
    before = loaded(elements())
    for name, parameter in loaded.named_parameters():
        kept = parameter.clone()
        parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
        assert (loaded(elements()) - before).abs().max() > 1e-5, name
        parameter.copy_(kept)


def test_the_loaded_model_is_frozen_and_knows_its_settings(saved):
    loaded = sefar_core.load_sefar_release(saved[1])
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training
    assert (loaded.sizes, loaded.image_size, loaded.dim) == ((2, 2, 4), 32, 128)
    assert (loaded.mean, loaded.std) == ((0.4, 0.45, 0.5), (0.2, 0.225, 0.25))
    assert loaded.classifier.out_features == 5 and loaded.dropout.p == 0.5


def test_settings_that_name_no_colors_mean_the_public_code_s(tmp_path):
    loaded = sefar_core.load_sefar_release(save(tmp_path, cfg="MODEL:\n  NUM_CLASSES: 5\n"))
    assert (loaded.mean, loaded.std) == ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))


def test_loading_draws_no_random_numbers_of_the_caller(saved):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    sefar_core.load_sefar_release(saved[1])
    assert torch.equal(torch.rand(3), expected)


def test_the_loaded_model_outlives_its_file(saved):
    public, path = saved
    loaded = sefar_core.load_sefar_release(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    torch.testing.assert_close(loaded(elements()), public(elements()), atol=1e-4, rtol=0)


@pytest.mark.parametrize("zipped", [True, False])
def test_both_forms_of_torch_files_are_read(tmp_path, zipped):
    public = public_model()
    path = tmp_path / "old.pyth"
    torch.save(checkpoint(public), path, _use_new_zipfile_serialization=zipped)
    loaded = sefar_core.load_sefar_release(path)
    torch.testing.assert_close(loaded(elements()), public(elements()), atol=1e-4, rtol=0)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_the_prefix_of_a_wrapper_is_taken_off_when_all_names_have_it(tmp_path, prefix):
    public = public_model()
    wrapped = OrderedDict((f"{prefix}{name}", t) for name, t in public.state_dict().items())
    loaded = sefar_core.load_sefar_release(save(tmp_path, wrapped))
    torch.testing.assert_close(loaded(elements()), public(elements()), atol=1e-4, rtol=0)
    wrapped = OrderedDict((f"module.{name}", t) for name, t in public.state_dict().items())
    wrapped["fc.bias"] = wrapped.pop("module.fc.bias")
    with pytest.raises(CheckpointError, match="vit.model.patch_embed.proj.weight is missing"):
        sefar_core.load_sefar_release(save(tmp_path, wrapped))


def test_weights_that_are_not_finite_are_named(tmp_path):
    state = public_model().state_dict()
    state["ln1.weight"][0] = torch.inf
    with pytest.raises(CheckpointError, match=r"holds NaN or infinity in 1 tensors: ln1\.weight"):
        sefar_core.load_sefar_release(save(tmp_path, state))


@pytest.mark.parametrize("name", sorted(PublicModel(**TOY).state_dict()))
def test_a_missing_tensor_is_named(tmp_path, name):
    state = public_model().state_dict()
    del state[name]
    with pytest.raises(CheckpointError, match=rf"public\.pyth.*\b{name} is missing"):
        sefar_core.load_sefar_release(save(tmp_path, state))


@pytest.mark.parametrize(
    "name", ["vit.model.head.weight", "vit.model.time_embed.3", "vit.model.blocks.x.y", "backbone"]
)
def test_an_unknown_tensor_is_named(tmp_path, name):
    state = public_model().state_dict() | {name: torch.ones(2)}
    with pytest.raises(CheckpointError, match=f"{name} is unknown"):
        sefar_core.load_sefar_release(save(tmp_path, state))


@pytest.mark.parametrize(
    "name", ["vit.model.blocks.1.attn.qkv.weight", "ln2.bias", "vit.model.time_embed.1"]
)
def test_a_tensor_of_another_shape_is_named(tmp_path, name):
    state = public_model().state_dict()
    state[name] = torch.cat([state[name], state[name]], dim=-1)
    with pytest.raises(CheckpointError, match=rf"{name} has shape \(.*, not \("):
        sefar_core.load_sefar_release(save(tmp_path, state))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("fc.weight", (5,), r"fc\.weight has shape \(5,\), not one of 2 axes"),
        ("vit.model.pos_embed", (1, 6, 128), "6 positions of width 128"),
        ("vit.model.patch_embed.proj.weight", (100, 3, 16, 16), "width 100"),
        (
            "vit.model.time_embed.0",
            (1, 0, 128),
            "does not describe a network.*a frame in every element",
        ),
    ],
)
def test_shapes_that_tell_of_no_network_are_refused(tmp_path, name, shape, message):
    state = public_model().state_dict() | {name: torch.zeros(shape)}
    with pytest.raises(CheckpointError, match=message):
        sefar_core.load_sefar_release(save(tmp_path, state))


class Canary:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("part", ["model_state", "optimizer_state", "cfg", "epoch", "extra"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_a_program_is_refused_and_does_nothing(tmp_path, part, zipped):
    parts = checkpoint(public_model()) | {part: {"fc.bias": Canary(tmp_path / "dead")}}
    path = tmp_path / "evil.pyth"
    torch.save(parts, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"evil\.pyth holds an object of posix\.mkdir"):
        sefar_core.load_sefar_release(path)
    assert not (tmp_path / "dead").exists()


def test_an_object_that_is_not_a_tensor_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="object of argparse.Namespace.*save it again with"):
        sefar_core.load_sefar_release(save(tmp_path, cfg=Namespace(a=1)))


def test_settings_in_yaml_make_no_objects(tmp_path):
    text = f"DATA: !!python/object/apply:os.mkdir ['{tmp_path / 'dead'}']"
    with pytest.raises(CheckpointError, match="cfg cannot be read"):
        sefar_core.load_sefar_release(save(tmp_path, cfg=text))
    assert not (tmp_path / "dead").exists()


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ("DATA: [", "cfg cannot be read"),
        ("just text", "cfg cannot be read"),
        ("[" * 100_000, "cfg cannot be read"),
        ("DATA: {MEAN: [red, green, blue]}", "cfg cannot be read"),
        ("DATA: {MEAN: [0.5, 0.5]}", "not three numbers"),
        ("DATA: {STD: [0.2, 0.0, 0.2]}", "above 0"),
        ("DATA: {MEAN: [.nan, 0.5, 0.5]}", "not three numbers"),
        (b"DATA: {}", "cfg is a bytes, not text"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, cfg, message):
    with pytest.raises(CheckpointError, match=message):
        sefar_core.load_sefar_release(save(tmp_path, cfg=cfg))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "weights.pyth"
    with pytest.raises(CheckpointError, match="weights.pyth is not a file"):
        sefar_core.load_sefar_release(path)
    with pytest.raises(CheckpointError, match="is not a file"):
        sefar_core.load_sefar_release(tmp_path)
    for content in (b"", b"hello world", b"{}"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="torch.save did not write it"):
            sefar_core.load_sefar_release(path)
    torch.save(public_model().state_dict(), path)
    with pytest.raises(CheckpointError, match=r"it holds \['fc.bias'.*not model_state and cfg"):
        sefar_core.load_sefar_release(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="it holds list, not model_state"):
        sefar_core.load_sefar_release(path)
    torch.save({"model_state": {"fc.bias": 3}, "cfg": ""}, path)
    with pytest.raises(CheckpointError, match="fc.bias is a int, not a plain tensor"):
        sefar_core.load_sefar_release(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.001, 0.01, 0.3, 0.9, 0.9999])
def test_a_cut_off_file_is_named(tmp_path, kept, zipped):
    path = tmp_path / "cut.pyth"
    torch.save(checkpoint(public_model()), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(CheckpointError, match=r"cut\.pyth is not a whole checkpoint"):
        sefar_core.load_sefar_release(path)


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (768, 12)])
def test_all_names_and_shapes_of_both_published_sizes_agree(width, heads):
    with torch.device("meta"):
        theirs = PublicModel(width=width).state_dict()
        ours = build_model(ModelConfig(dim=width, num_heads=heads), num_classes=99)
        state = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert {release_name(name): shape for name, shape in state.items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }


def test_what_was_loaded_is_what_the_file_holds(saved):
    public, path = saved
    loaded = release_state(sefar_core.load_sefar_release(path))
    assert loaded.keys() == public.state_dict().keys()
    assert all(torch.equal(loaded[name], t) for name, t in public.state_dict().items())


def test_logits_of_the_small_size_at_224_pixels_equal_the_public_model_s(tmp_path):
    public = public_model(width=384, depth=12, grid=14, classes=99)
    torch.save(checkpoint(public), tmp_path / "public.pyth")
    loaded = sefar_core.load_sefar_release(tmp_path / "public.pyth")
    clips = elements(side=224, batch=1)
    torch.testing.assert_close(loaded(clips), public(clips), atol=1e-5, rtol=0)
