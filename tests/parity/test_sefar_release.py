"""Checkpoints of the public code against a slow network that has its names of parameters."""

from argparse import Namespace
from collections import OrderedDict

import pytest
import torch
import yaml

import sefar_core
from sefar_core.checkpoint import CheckpointError, build_model
from sefar_core.config import ModelConfig
from sefar_core.pretrained import release_name, release_state
from tests.oracles import tiny
from tests.oracles.public_model import PublicModel

TOY = {"width": 128, "depth": 2, "grid": 2, "classes": 5}
COLORS = {"MEAN": [0.4, 0.45, 0.5], "STD": [0.2, 0.225, 0.25], "SAMPLE_FRAMES": [2, 2, 4]}
CFG = yaml.safe_dump({"DATA": COLORS, "MODEL": {"MODEL_TYPE": "small"}})


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


def save(path, model=None, *, zipped=True, **changed):
    """What the public code saves after an epoch, or parts of it changed."""
    model = model or public_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9).state_dict()
    parts = {"epoch": 3, "model_state": model.state_dict(), "optimizer_state": optimizer}
    torch.save(parts | {"cfg": CFG} | changed, path, _use_new_zipfile_serialization=zipped)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "public.pyth"


def assert_same_logits(path, public, frames=(2, 2, 4), *, batch=2, atol=1e-4):
    loaded = sefar_core.load_sefar_release(path)
    clips = tiny.elements(batch, frames, side=public.grid * public.patch)
    theirs = public(clips)
    assert theirs.std() > 0.1
    torch.testing.assert_close(loaded(clips), theirs, atol=atol, rtol=0)
    return loaded


@pytest.mark.parametrize(
    ("frames", "sizes"),
    [
        ((2, 2, 4), {"width": 64, "grid": 3, "depth": 3}),
        ((2, 4), {"classes": 9}),
        ((1, 2, 3, 2), {"patch": 8, "grid": 4}),
    ],
)
def test_logits_equal_the_public_model_s(path, frames, sizes):
    public = public_model(frames, **sizes)
    save(path, public)
    assert_same_logits(path, public, frames)


@pytest.mark.parametrize("zipped", [True, False])
def test_both_forms_of_torch_files_are_read_whole_and_then_not_needed(path, zipped):
    public = public_model()
    save(path, public, zipped=zipped)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    loaded = sefar_core.load_sefar_release(path)
    assert torch.equal(torch.rand(3), expected)  # nothing was drawn
    path.write_bytes(b"\0" * path.stat().st_size)
    theirs, found = public.state_dict(), release_state(loaded)
    assert found.keys() == theirs.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in theirs.items())
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert (loaded.sizes, loaded.image_size, loaded.dim) == ((2, 2, 4), 32, 128)
    assert (loaded.mean, loaded.std) == ((0.4, 0.45, 0.5), (0.2, 0.225, 0.25))
    assert loaded.classifier.out_features == 5 and loaded.dropout.p == 0.5


def test_every_tensor_reaches_the_logits(path):
    save(path)
    loaded, clips = sefar_core.load_sefar_release(path), tiny.elements()
    before = loaded(clips)
    for name, parameter in loaded.named_parameters():
        kept = parameter.clone()
        parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
        assert (loaded(clips) - before).abs().max() > 1e-5, name
        parameter.copy_(kept)


def test_settings_that_name_no_colors_mean_the_public_code_s(path):
    save(path, cfg="MODEL:\n  NUM_CLASSES: 5\n")
    loaded = sefar_core.load_sefar_release(path)
    assert (loaded.mean, loaded.std) == ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))


def test_the_prefix_of_a_wrapper_is_taken_off_when_all_names_have_it(path):
    public = public_model()
    wrapped = OrderedDict((f"module.{name}", t) for name, t in public.state_dict().items())
    save(path, model_state=wrapped)
    assert_same_logits(path, public)
    wrapped["fc.bias"] = wrapped.pop("module.fc.bias")
    save(path, model_state=wrapped)
    with pytest.raises(CheckpointError, match="vit.model.patch_embed.proj.weight is missing"):
        sefar_core.load_sefar_release(path)


def without(name):
    return lambda state: state.pop(name)


def put(name, *shape, value=1.0):
    return lambda state: state.update({name: torch.full(shape, value)})


def doubled(name):
    return lambda state: state.update({name: torch.cat([state[name], state[name]], dim=-1)})


# The sizes of the network are read from five of them.
MISSING = (
    "vit.model.patch_embed.proj.weight",
    "vit.model.pos_embed",
    "vit.model.time_embed.0",
    "global_fusion.weight",
    "fc.weight",
    "vit.model.blocks.1.mlp.fc2.bias",
    "ln3.bias",
)
UNKNOWN = ("vit.model.head.weight", "vit.model.time_embed.3", "vit.model.blocks.x.y", "backbone")
WIDENED = ("vit.model.blocks.1.attn.qkv.weight", "ln2.bias", "vit.model.time_embed.1")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        *((without(name), rf"public\.pyth.*\b{name} is missing") for name in MISSING),
        *((put(name, 2), f"{name} is unknown") for name in UNKNOWN),
        *((doubled(name), rf"{name} has shape \(.*, not \(") for name in WIDENED),
        (put("ln1.weight", 256, value=torch.inf), r"NaN or infinity in 1 tensors: ln1\.weight"),
        (put("fc.weight", 5), r"fc\.weight has shape \(5,\), not one of 2 axes"),
        (put("vit.model.pos_embed", 1, 6, 128), "6 positions of width 128"),
        (put("vit.model.patch_embed.proj.weight", 100, 3, 16, 16), "width 100"),
        (put("vit.model.time_embed.0", 1, 0, 128), "does not describe.*a frame in every element"),
    ],
)
def test_tensors_that_are_not_those_of_a_network_are_named(path, edit, message):
    state = public_model().state_dict()
    edit(state)
    save(path, model_state=state)
    with pytest.raises(CheckpointError, match=message):
        sefar_core.load_sefar_release(path)


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
        (Namespace(a=1), "object of argparse.Namespace.*save it again with"),
        ("DATA: !!python/object/apply:os.mkdir [made]", "cfg cannot be read"),
    ],
)
def test_settings_that_make_no_sense_are_refused_and_make_no_objects(
    path, cfg, message, monkeypatch
):
    monkeypatch.chdir(path.parent)
    save(path, cfg=cfg)
    with pytest.raises(CheckpointError, match=message):
        sefar_core.load_sefar_release(path)
    assert not (path.parent / "made").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "torch.save did not write it"),
        (b"hello world", "torch.save did not write it"),
        ({"fc.bias": torch.ones(2)}, r"it holds \['fc.bias'\], not model_state and cfg"),
        ([1, 2], "it holds list, not model_state"),
        ({"model_state": {"fc.bias": 3}, "cfg": ""}, "fc.bias is a int, not a plain tensor"),
    ],
)
def test_other_files_are_refused(path, content, message):
    for missing in (path, path.parent):
        with pytest.raises(CheckpointError, match="is not a file"):
            sefar_core.load_sefar_release(missing)
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        sefar_core.load_sefar_release(path)


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (768, 12)])
def test_all_names_and_shapes_of_both_published_sizes_agree(width, heads):
    with torch.device("meta"):
        theirs = PublicModel(width=width).state_dict()
        ours = build_model(ModelConfig(dim=width, num_heads=heads), num_classes=99).state_dict()
    assert {release_name(name): tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }


@pytest.mark.slow
def test_logits_of_the_small_size_at_224_pixels_equal_the_public_model_s(path):
    public = public_model(width=384, depth=12, grid=14, classes=99)
    save(path, public)
    assert_same_logits(path, public, batch=1, atol=1e-5)
