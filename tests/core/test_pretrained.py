"""Pretrained weights of images and of videos, from files and from timm."""

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

from sefar_core.checkpoint import CheckpointError, build_model
from sefar_core.config import ModelConfig
from sefar_core.pretrained import (
    load_sefar_release,
    load_vit,
    named_tensors,
    read_torch,
    unwrapped,
    without_prefix,
)
from sefar_core.sampling import SAMPLINGS
from tests.oracles import tiny
from tests.oracles.timesformer import assert_same_tokens, random_timesformer, renamed


class Canary:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


both_forms = pytest.mark.parametrize("zipped", [True, False])


@both_forms
def test_tensors_numbers_and_text_are_read_from_a_torch_file(tmp_path, zipped):
    content = {"a": torch.arange(6.0).view(2, 3), "b": [1, "text", None], "c": {"d": 2.5}}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = read_torch(tmp_path / "x.pt")
    assert torch.equal(found.pop("a"), content.pop("a"))
    assert found == content


@both_forms
def test_no_program_in_a_torch_file_is_run(tmp_path, zipped):
    content = {"a": torch.ones(2), "b": Canary(tmp_path / "dead")}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    for read in (read_torch, load_sefar_release, lambda path: load_vit(new_backbone(), path)):
        with pytest.raises(CheckpointError, match=r"x\.pt holds an object of posix\.mkdir"):
            read(tmp_path / "x.pt")
    assert not (tmp_path / "dead").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@both_forms
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


def test_names_of_wrappers_come_off_in_any_order_when_all_names_have_them():
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."):
        assert unwrapped({f"{prefix}a": 1, f"{prefix}module.b": 2}) == {"a": 1, "module.b": 2}
    assert unwrapped({"a._orig_mod.b": 1, "module.c": 2}) == {"a.b": 1, "module.c": 2}
    assert unwrapped({}) == {}
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


def new_backbone(**changed):
    torch.manual_seed(1)
    return build_model(replace(tiny.CONFIG, **changed), num_classes=5).backbone.eval()


def timm_vit(image_size: int = 32, num_heads: int = 2):
    torch.manual_seed(0)
    sizes = {"img_size": image_size, "patch_size": 16, "embed_dim": 16, "depth": 2}
    vit = VisionTransformer(**sizes, num_heads=num_heads, num_classes=3)
    tiny.move(vit, 0.1)  # biases and norms start out equal to one another
    return vit.eval()


def saved(tmp_path, weights, **changed):
    """A file of the weights of a network, or of changed ones."""
    state = weights if isinstance(weights, dict) else weights.state_dict()
    save_file(state | changed, tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


def pictures(side: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def sees_frames_as(backbone, vit, side: int = 32) -> None:
    """Every frame of a still clip gives the tokens of the ViT; so does a clip of one frame."""
    theirs = vit.forward_features(pictures(side))
    for element, frames in enumerate(time.shape[1] for time in backbone.time_embed):
        still = pictures(side)[:, :, None].expand(-1, -1, frames, -1, -1)
        cls, patches = backbone(still, element)
        torch.testing.assert_close(cls, theirs[:, 0], atol=1e-4, rtol=1e-4)
        for moment in range(frames):
            torch.testing.assert_close(patches[:, moment], theirs[:, 1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sizes", [(2, 2, 4), (1,)])
def test_a_vit_s_weights_make_the_backbone_see_each_frame_as_the_vit_does(tmp_path, sizes):
    backbone = new_backbone(sizes=sizes)
    load_vit(backbone, saved(tmp_path, timm_vit()))
    sees_frames_as(backbone, timm_vit())


@pytest.mark.parametrize(
    ("prefix", "container"),
    [
        ("", None),
        ("_orig_mod.", "state_dict"),
        ("module._orig_mod.", "model_state"),
        ("model.module.", "state_dict_ema"),
    ],
)
def test_a_vit_is_read_from_a_torch_file_in_every_wrapping(tmp_path, prefix, container):
    state = {f"{prefix}{name}": tensor for name, tensor in timm_vit().state_dict().items()}
    torch.save({container: state, "epoch": 3} if container else state, tmp_path / "vit.pth")
    backbone = new_backbone()
    load_vit(backbone, tmp_path / "vit.pth")
    sees_frames_as(backbone, timm_vit())


@pytest.mark.parametrize(
    ("number", "dtype"),
    [(torch.nan, torch.float32), (torch.inf, torch.float16), (-torch.inf, torch.bfloat16)],
)
def test_weights_that_are_not_finite_are_refused_by_file_and_tensor(tmp_path, number, dtype):
    state = {name: tensor.to(dtype) for name, tensor in timm_vit().state_dict().items()}
    state["blocks.1.mlp.fc1.weight"][3, 0] = number
    backbone = new_backbone()
    before = backbone.state_dict()["blocks.1.mlp.fc1.weight"].clone()
    message = r"vit\.safetensors holds NaN or infinity in 1 tensors: blocks\.1\.mlp\.fc1\.weight;"
    with pytest.raises(CheckpointError, match=message):
        load_vit(backbone, saved(tmp_path, state))
    assert torch.equal(backbone.state_dict()["blocks.1.mlp.fc1.weight"], before)


def test_half_precision_weights_become_single_ones(tmp_path):
    backbone = new_backbone()
    load_vit(backbone, saved(tmp_path, timm_vit().half()))
    assert all(parameter.dtype == torch.float32 for parameter in backbone.parameters())
    torch.testing.assert_close(backbone.norm.weight, timm_vit().norm.weight, atol=1e-3, rtol=0)


def test_a_vit_s_attention_is_copied_to_its_temporal_twin(tmp_path):
    vit, backbone = timm_vit(), new_backbone()
    load_vit(backbone, saved(tmp_path, vit))
    state = backbone.state_dict()
    for i in (0, 1):
        for kind in ("weight", "bias"):
            for module in ("attn.qkv", "attn.proj", "norm1"):
                theirs = vit.state_dict()[f"blocks.{i}.{module}.{kind}"]
                assert torch.equal(state[f"blocks.{i}.temporal_{module}.{kind}"], theirs)
            assert not state[f"blocks.{i}.temporal_fc.{kind}"].any()
    assert not any(time.any() for time in backbone.time_embed)


def test_positions_of_another_grid_are_resized_in_the_plane(tmp_path):
    vit, backbone = timm_vit(image_size=64), new_backbone()
    row = torch.arange(4.0).view(4, 1, 1).expand(4, 4, 16)
    positions = torch.cat([vit.pos_embed[:, :1], row.reshape(1, 16, 16)], dim=1)
    load_vit(backbone, saved(tmp_path, vit, pos_embed=positions.detach()))
    resized = backbone.pos_embed[0, 1:].view(2, 2, 16)
    torch.testing.assert_close(resized[:, 0], resized[:, 1])  # rows differ, columns do not
    assert (resized[1] > resized[0] + 1).all()
    assert torch.equal(backbone.pos_embed[:, :1], positions[:, :1])


def test_patches_of_another_size_see_an_enlarged_picture_as_the_vit_sees_the_picture(tmp_path):
    vit, backbone = timm_vit(), new_backbone(image_size=64, patch_size=32)
    load_vit(backbone, saved(tmp_path, vit))
    patches = pictures().unfold(2, 16, 16).unfold(3, 16, 16)  # each enlarged on its own
    large = F.interpolate(
        patches.flatten(0, 3)[:, None], size=32, mode="bicubic", antialias=True
    ).view(2, 3, 2, 2, 32, 32)
    large = large.permute(0, 1, 2, 4, 3, 5).reshape(2, 3, 1, 64, 64)
    with torch.no_grad():
        ours, theirs = backbone.patch_embed(large)[:, 0], vit.patch_embed(pictures())
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["cls_token", "pos_embed", "blocks.1.norm1.weight", "norm.bias"])
def test_a_missing_and_an_unknown_tensor_are_named(tmp_path, name):
    state = timm_vit().state_dict()
    state["reg_token"] = state.pop(name)
    message = rf"in 2 tensors: {name} is missing; reg_token is unknown"
    with pytest.raises(CheckpointError, match=message):
        load_vit(new_backbone(), saved(tmp_path, state))


def test_tensors_of_other_shapes_and_files_that_are_none_are_refused_by_name(tmp_path):
    path = saved(tmp_path, timm_vit())
    with pytest.raises(CheckpointError, match=r"vit\.safetensors.*blocks\.0\.attn\.\w+\.\w+ has s"):
        load_vit(new_backbone(dim=32), path)
    saved(tmp_path, timm_vit(), pos_embed=torch.zeros(1, 7, 16))
    with pytest.raises(CheckpointError, match=r"pos_embed has shape \(1, 7, 16\), not \(1, 5, 16"):
        load_vit(new_backbone(), path)
    (tmp_path / "text.pth").write_text("hello")
    for name, message in {
        "text.pth": "text.pth is not a checkpoint",
        "none.pth": "none.pth is not a file",
        "none.safetensors": "none.safetensors does not exist",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            load_vit(new_backbone(), tmp_path / name)


def offered(monkeypatch, make):
    """Let timm give what `make` makes, under a name that it knows."""
    requested = []

    def create_model(name, *, pretrained, num_classes):
        requested.append((name, pretrained))
        return make()

    monkeypatch.setattr(timm, "create_model", create_model)
    return requested


def test_timm_s_weights_are_requested_by_name(monkeypatch):
    requested = offered(monkeypatch, timm_vit)
    backbone = new_backbone()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    load_vit(backbone, "timm:vit_small_patch16_224.augreg_in21k_ft_in1k")
    assert torch.equal(torch.rand(2), expected)  # nothing was drawn
    assert requested == [("vit_small_patch16_224.augreg_in21k_ft_in1k", True)]
    sees_frames_as(backbone, timm_vit())


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "deit_small_patch16_224"])
def test_timm_s_families_have_the_parts_that_the_published_sizes_need(name):
    """And so has every other size: they differ in width, patch and grid alone."""
    with torch.device("meta"):
        vit = timm.create_model(name, num_classes=0)
        ours = build_model(ModelConfig(), num_classes=5).backbone
    own = {
        n: t.shape for n, t in ours.state_dict().items() if "tempor" not in n and "time" not in n
    }
    assert {n: t.shape for n, t in vit.state_dict().items()} == own
    assert vit.blocks[0].attn.num_heads == 6


def test_a_network_of_timm_sees_as_it_does_there(monkeypatch):
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=7).eval()
    offered(monkeypatch, lambda: vit)
    backbone = new_backbone(image_size=224, dim=192, depth=12, num_heads=3, sizes=(1,))
    load_vit(backbone, "timm:vit_tiny_patch16_224")
    sees_frames_as(backbone, vit, side=224)


def unreachable():
    raise FileNotFoundError("cannot find the requested files in the local cache")


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (
            lambda: timm_vit(num_heads=4),
            "vit_small_patch16_224",
            "has 4 heads, the network 2; set model.num_heads to 4",
        ),
        (timm.models.resnet.resnet10t, "resnet10t", "timm:resnet10t does not fit.*is missing"),
        (unreachable, "vit_tiny_patch16_224", "cannot be fetched.*give the file"),
        (None, "vit_enormous", "timm has no model 'vit_enormous'; choose one of timm.list_pretr"),
        (None, "hf-hub:someone/vit", "timm has no model 'hf-hub:someone/vit'"),
        (None, "vit_tiny_patch16_224.nothing", "cannot give.*Invalid pretrained tag"),
    ],
)
def test_what_timm_cannot_give_or_does_not_fit_is_refused(monkeypatch, make, name, message):
    if make is not None:
        offered(monkeypatch, make)
    with pytest.raises(CheckpointError, match=message):
        load_vit(new_backbone(), f"timm:{name}")


@pytest.mark.parametrize("form", ["transformers", "with a head, from torch.save", "public"])
def test_a_timesformer_gives_the_same_tokens(tmp_path, form):
    """In the naming of transformers, or of facebookresearch/TimeSformer."""
    model = random_timesformer(8, head=form.startswith("with"))
    path = tmp_path / "k400.pth"
    if form == "transformers":
        path = saved(tmp_path, model)
    elif form == "public":
        state = {"model.head.weight": torch.ones(400, 16), "model.head.bias": torch.ones(400)}
        named = renamed(model, time_embed="time_embed")
        state |= {f"model.{name}": tensor for name, tensor in named.items()}
        torch.save({"epoch": 14, "model_state": state, "cfg": "A: 1"}, path)
    else:
        torch.save(model.state_dict(), path)
    backbone = new_backbone(sizes=(8,))
    load_vit(backbone, path)
    assert_same_tokens(backbone, getattr(model, "timesformer", model), 8)


@pytest.mark.parametrize(
    ("sampling", "sizes", "frames", "dealt"),
    [
        # Each frame has the embedding of its time.
        ("interleaved", (2, 2, 4), 8, [[3, 7], [1, 5], [0, 2, 4, 6]]),
        ("interleaved", (2, 2, 4), 4, [[1, 3], [0, 2], [0, 1, 2, 3]]),
        ("interleaved", (8,), 4, [[0, 0, 1, 1, 2, 2, 3, 3]]),
        ("interleaved", (4,), 8, [[1, 3, 5, 7]]),
        ("interleaved", (1, 2), 96, [[48], [16, 80]]),
        ("interleaved", (5,), 10, [[1, 3, 5, 7, 9]]),
        ("local_window", (2, 2, 4), 8, [[1, 2], [5, 6], [1, 3, 5, 7]]),
    ],
)
def test_a_frame_gets_the_time_embedding_of_its_moment(tmp_path, sampling, sizes, frames, dealt):
    moment = torch.arange(float(frames)).view(1, frames, 1).expand(1, frames, 16).contiguous()
    changed = {"embeddings.time_embeddings": moment}
    backbone = new_backbone(sizes=sizes)
    path = saved(tmp_path, random_timesformer(frames), **changed)
    load_vit(backbone, path, sampling=SAMPLINGS[sampling])
    assert [time[0, :, 0].tolist() for time in backbone.time_embed] == dealt


def test_a_video_model_s_positions_are_resized_too(tmp_path):
    backbone = new_backbone(image_size=48)
    load_vit(backbone, saved(tmp_path, random_timesformer(8)))
    assert backbone.pos_embed.shape == (1, 10, 16)
    assert backbone.blocks[1].temporal_fc.weight.abs().min() > 0


def test_a_video_model_without_its_temporal_part_or_with_no_times_is_refused(tmp_path):
    state = random_timesformer(8).state_dict()
    spatial = {name: tensor for name, tensor in state.items() if "temporal" not in name}
    with pytest.raises(CheckpointError, match=r"blocks\.0\.temporal_attn\.proj\.bias is missing"):
        load_vit(new_backbone(), saved(tmp_path, spatial))
    for shape in ((8, 16), (1, 0, 16)):
        state["embeddings.time_embeddings"] = torch.zeros(shape)
        with pytest.raises(CheckpointError, match="time_embed is unknown"):
            load_vit(new_backbone(), saved(tmp_path, state))
