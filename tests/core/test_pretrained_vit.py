"""Pretrained weights of images and of videos, from files and from timm."""

import os

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F
from transformers import TimesformerConfig, TimesformerForVideoClassification, TimesformerModel

from sefar_core.checkpoint import CheckpointError, build_model
from sefar_core.config import ModelConfig
from sefar_core.pretrained import load_vit
from sefar_core.sampling import SAMPLINGS
from tests.oracles.timesformer import assert_same_tokens, renamed

TINY = {"image_size": 32, "patch_size": 16, "dim": 16, "depth": 2, "num_heads": 2}


def new_backbone(**changed):
    torch.manual_seed(1)
    return build_model(ModelConfig(**(TINY | changed)), num_classes=5).backbone.eval()


def timm_vit(image_size: int = 32, patch_size: int = 16, num_heads: int = 2):
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=16,
        depth=2,
        num_heads=num_heads,
        num_classes=3,
    )
    with torch.no_grad():  # biases and norms start out equal to one another
        for parameter in vit.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return vit.eval()


def saved(tmp_path, vit):
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


def pictures(side: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def sees_frames_as(backbone, vit) -> None:
    """Every frame of a still clip gives the tokens of the ViT; so does a clip of one frame."""
    with torch.no_grad():
        theirs = vit.forward_features(pictures())
        for element, frames in enumerate(time.shape[1] for time in backbone.time_embed):
            still = pictures()[:, :, None].expand(-1, -1, frames, -1, -1)
            cls, patches = backbone(still, element)
            torch.testing.assert_close(cls, theirs[:, 0], atol=1e-5, rtol=1e-4)
            for moment in range(frames):
                torch.testing.assert_close(patches[:, moment], theirs[:, 1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sizes", [(2, 2, 4), (1,)])
def test_a_vit_s_weights_make_the_backbone_see_each_frame_as_the_vit_does(tmp_path, sizes):
    backbone = new_backbone(sizes=sizes)
    load_vit(backbone, saved(tmp_path, timm_vit()))
    sees_frames_as(backbone, timm_vit())


WRAPPERS = ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.module.")
CONTAINERS = (None, "model", "state_dict", "model_state", "model_state_dict", "state_dict_ema")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("prefix", WRAPPERS)
def test_a_vit_is_read_from_a_torch_file_in_every_wrapping(tmp_path, prefix, container):
    state = {f"{prefix}{name}": tensor for name, tensor in timm_vit().state_dict().items()}
    torch.save({container: state, "epoch": 3} if container else state, tmp_path / "vit.pth")
    backbone = new_backbone()
    load_vit(backbone, tmp_path / "vit.pth")
    sees_frames_as(backbone, timm_vit())


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused_by_file_and_tensor(tmp_path, number, dtype):
    state = {name: tensor.to(dtype) for name, tensor in timm_vit().state_dict().items()}
    state["blocks.1.mlp.fc1.weight"][3, 0] = number
    save_file(state, tmp_path / "diverged.safetensors")
    backbone = new_backbone()
    before = backbone.state_dict()["blocks.1.mlp.fc1.weight"].clone()
    message = (
        r"diverged\.safetensors holds NaN or infinity in 1 tensors: blocks\.1\.mlp\.fc1\.weight;"
    )
    with pytest.raises(CheckpointError, match=message):
        load_vit(backbone, tmp_path / "diverged.safetensors")
    assert torch.equal(backbone.state_dict()["blocks.1.mlp.fc1.weight"], before)


def test_half_precision_weights_become_single_ones(tmp_path):
    save_file({n: t.half() for n, t in timm_vit().state_dict().items()}, tmp_path / "h.safetensors")
    backbone = new_backbone()
    load_vit(backbone, tmp_path / "h.safetensors")
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
    state = timm_vit(image_size=64).state_dict()
    row = torch.arange(4.0).view(4, 1, 1).expand(4, 4, 16)
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], row.reshape(1, 16, 16)], dim=1)
    save_file(state, tmp_path / "vit.safetensors")
    backbone = new_backbone()
    load_vit(backbone, tmp_path / "vit.safetensors")
    resized = backbone.pos_embed[0, 1:].view(2, 2, 16)
    torch.testing.assert_close(resized[:, 0], resized[:, 1])  # rows differ, columns do not
    assert (resized[1] > resized[0] + 1).all()
    assert torch.equal(backbone.pos_embed[:, :1], state["pos_embed"][:, :1])


def test_patches_of_another_size_see_an_enlarged_picture_as_the_vit_sees_the_picture(tmp_path):
    vit, backbone = timm_vit(), new_backbone(image_size=64, patch_size=32)
    load_vit(backbone, saved(tmp_path, vit))
    patches = pictures().unfold(2, 16, 16).unfold(3, 16, 16)  # each enlarged on its own
    large = F.interpolate(
        patches.flatten(0, 3)[:, None], size=32, mode="bicubic", antialias=True
    ).view(2, 3, 2, 2, 32, 32)
    large = large.permute(0, 1, 2, 4, 3, 5).reshape(2, 3, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone.patch_embed(large)[:, 0], vit.patch_embed(pictures()), atol=1e-4, rtol=1e-4
        )


def test_a_vit_of_another_width_is_refused_by_name(tmp_path):
    path = saved(tmp_path, timm_vit())
    with pytest.raises(
        CheckpointError, match=r"vit\.safetensors.*blocks\.0\.attn\.\w+\.\w+ has sh"
    ):
        load_vit(new_backbone(dim=32), path)


@pytest.mark.parametrize("name", ["cls_token", "pos_embed", "blocks.1.norm1.weight", "norm.bias"])
def test_a_missing_and_an_unknown_tensor_are_named(tmp_path, name):
    state = timm_vit().state_dict()
    state["reg_token"] = state.pop(name)
    save_file(state, tmp_path / "vit.safetensors")
    with pytest.raises(
        CheckpointError, match=rf"in 2 tensors: {name} is missing; reg_token is unk"
    ):
        load_vit(new_backbone(), tmp_path / "vit.safetensors")


def test_positions_that_are_no_square_are_refused_by_name(tmp_path):
    state = timm_vit().state_dict()
    state["pos_embed"] = torch.zeros(1, 7, 16)
    save_file(state, tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError, match=r"pos_embed has shape \(1, 7, 16\), not \(1, 5, 16"):
        load_vit(new_backbone(), tmp_path / "vit.safetensors")


class Canary:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_other_files_are_refused_and_run_nothing(tmp_path):
    torch.save({"model": Canary(tmp_path / "dead")}, tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"cls_token": torch.ones(1), "step": 3}, tmp_path / "step.pth")
    for name, message in {
        "evil.pth": "evil.pth holds an object of posix.mkdir",
        "list.pth": "list.pth holds a list instead of named tensors",
        "step.pth": "step.pth: step is a int, not a plain tensor",
        "none.pth": "none.pth is not a file",
        "none.safetensors": "none.safetensors does not exist",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            load_vit(new_backbone(), tmp_path / name)
    assert not (tmp_path / "dead").exists()


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


@pytest.mark.parametrize(
    ("name", "dim", "num_heads"),
    [
        ("vit_small_patch16_224", 384, 6),
        ("vit_base_patch16_224", 768, 12),
        ("vit_base_patch16_384", 768, 12),
        ("vit_base_patch8_224", 768, 12),
        ("vit_small_patch32_224", 384, 6),
        ("deit_small_patch16_224", 384, 6),
    ],
)
def test_timm_s_families_have_the_parts_that_the_published_sizes_need(name, dim, num_heads):
    with torch.device("meta"):
        vit = timm.create_model(name, num_classes=0)
        ours = build_model(ModelConfig(dim=dim, num_heads=num_heads), num_classes=5).backbone
    own = {n: t.shape for n, t in ours.state_dict().items() if "temporal" not in n}
    theirs = {n: t.shape for n, t in vit.state_dict().items()}
    resized = ("pos_embed", "patch_embed.proj.weight", "time_embed.0", "time_embed.1")
    for places in (*resized, "time_embed.2"):
        own.pop(places), theirs.pop(places, None)
    assert theirs == own
    assert vit.blocks[0].attn.num_heads == num_heads


def test_a_network_of_timm_sees_as_it_does_there(monkeypatch):
    def make():
        torch.manual_seed(0)
        return timm_create("vit_tiny_patch16_224", num_classes=7).eval()

    timm_create = timm.create_model
    offered(monkeypatch, make)
    backbone = new_backbone(image_size=224, dim=192, depth=12, num_heads=3, sizes=(1,))
    load_vit(backbone, "timm:vit_tiny_patch16_224")
    frame = pictures(224)
    with torch.no_grad():
        cls, patches = backbone(frame[:, :, None], 0)
        theirs = make().forward_features(frame)
    torch.testing.assert_close(cls, theirs[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(patches[:, 0], theirs[:, 1:], atol=1e-4, rtol=1e-4)


def test_timm_s_other_networks_are_refused(monkeypatch):
    offered(monkeypatch, lambda: timm_vit(num_heads=4))
    with pytest.raises(
        CheckpointError, match="has 4 heads, the network 2; set model.num_heads to 4"
    ):
        load_vit(new_backbone(), "timm:vit_small_patch16_224")
    offered(monkeypatch, lambda: timm.models.resnet.resnet10t())
    with pytest.raises(CheckpointError, match="timm:resnet10t does not fit.*is missing"):
        load_vit(new_backbone(), "timm:resnet10t")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_enormous", "timm has no model 'vit_enormous'; choose one of timm.list_pretrained"),
        ("hf-hub:someone/vit", "timm has no model 'hf-hub:someone/vit'"),
        ("vit_tiny_patch16_224.nothing", "cannot give.*Invalid pretrained tag"),
    ],
)
def test_a_name_that_timm_does_not_know_is_refused(name, message):
    with pytest.raises(CheckpointError, match=message):
        load_vit(new_backbone(), f"timm:{name}")


def test_a_missing_network_is_reported_with_the_fix(monkeypatch, tmp_path):
    def unreachable():
        raise FileNotFoundError("cannot find the requested files in the local cache")

    offered(monkeypatch, unreachable)
    with pytest.raises(CheckpointError, match="cannot be fetched.*give the file"):
        load_vit(new_backbone(), "timm:vit_tiny_patch16_224")


def kinetics_model(frames: int = 8, head: bool = False):
    """transformers' TimeSformer with random weights, none behind a zero start."""
    torch.manual_seed(0)
    config = TimesformerConfig(
        image_size=32,
        patch_size=16,
        num_frames=frames,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        drop_path_rate=0,
    )
    model = (TimesformerForVideoClassification if head else TimesformerModel)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_transformers_timesformer_gives_the_same_tokens(tmp_path, head, suffix):
    model = kinetics_model(head=head)
    path = tmp_path / f"model.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(model.state_dict(), path)
    backbone = new_backbone(sizes=(8,))
    load_vit(backbone, path)
    assert_same_tokens(backbone, model.timesformer if head else model, 8)


def public_timesformer_state(model) -> dict[str, torch.Tensor]:
    """The same weights under the names of facebookresearch/TimeSformer."""
    state = {"model.head.weight": torch.ones(400, 16), "model.head.bias": torch.ones(400)}
    named = renamed(model, time_embed="time_embed")
    return state | {f"model.{name}": tensor for name, tensor in named.items()}


def test_the_public_timesformer_gives_the_same_tokens(tmp_path):
    model = kinetics_model()
    content = {"epoch": 14, "model_state": public_timesformer_state(model), "cfg": "A: 1"}
    torch.save(content, tmp_path / "TimeSformer_divST_8x32_224_K400.pyth")
    backbone = new_backbone(sizes=(8,))
    load_vit(backbone, tmp_path / "TimeSformer_divST_8x32_224_K400.pyth")
    assert_same_tokens(backbone, model, 8)


@pytest.mark.parametrize(
    ("sizes", "frames", "dealt"),
    [
        ((2, 2, 4), 8, [[3, 7], [1, 5], [0, 2, 4, 6]]),  # each frame has the embedding of its time
        ((2, 2, 4), 4, [[1, 3], [0, 2], [0, 1, 2, 3]]),
        ((8,), 4, [[0, 0, 1, 1, 2, 2, 3, 3]]),
        ((4,), 8, [[1, 3, 5, 7]]),
        ((1, 2), 96, [[48], [16, 80]]),
        ((5,), 10, [[1, 3, 5, 7, 9]]),
    ],
)
def test_a_frame_gets_the_time_embedding_of_its_moment(tmp_path, sizes, frames, dealt):
    model = kinetics_model(frames)
    with torch.no_grad():
        moment = torch.arange(float(frames))[:, None].expand(frames, 16)
        model.embeddings.time_embeddings.copy_(moment[None])
    save_file(model.state_dict(), tmp_path / "k400.safetensors")
    backbone = new_backbone(sizes=sizes)
    load_vit(backbone, tmp_path / "k400.safetensors")
    assert [time[0, :, 0].tolist() for time in backbone.time_embed] == dealt


def test_frames_of_short_windows_get_the_embeddings_of_their_moments(tmp_path):
    model = kinetics_model(8)
    with torch.no_grad():
        moment = torch.arange(8.0)[:, None].expand(8, 16)
        model.embeddings.time_embeddings.copy_(moment[None])
    save_file(model.state_dict(), tmp_path / "k400.safetensors")
    backbone = new_backbone()
    load_vit(backbone, tmp_path / "k400.safetensors", sampling=SAMPLINGS["local_window"])
    dealt = [time[0, :, 0].tolist() for time in backbone.time_embed]
    assert dealt == [[1, 2], [5, 6], [1, 3, 5, 7]]


def test_a_video_model_s_positions_are_resized_too(tmp_path):
    save_file(kinetics_model().state_dict(), tmp_path / "k400.safetensors")
    backbone = new_backbone(image_size=48)
    load_vit(backbone, tmp_path / "k400.safetensors")
    assert backbone.pos_embed.shape == (1, 10, 16)
    assert backbone.blocks[1].temporal_fc.weight.abs().min() > 0


def test_a_video_model_without_its_temporal_part_is_refused_by_name(tmp_path):
    state = kinetics_model().state_dict()
    for name in list(state):
        if "temporal" in name:
            del state[name]
    save_file(state, tmp_path / "k400.safetensors")
    with pytest.raises(CheckpointError, match=r"blocks\.0\.temporal_attn\.proj\.bias is missing"):
        load_vit(new_backbone(), tmp_path / "k400.safetensors")


@pytest.mark.parametrize("shape", [(8, 16), (1, 0, 16)])
def test_time_embeddings_of_no_sense_are_refused_by_name(tmp_path, shape):
    state = kinetics_model().state_dict() | {"embeddings.time_embeddings": torch.zeros(shape)}
    save_file(state, tmp_path / "k400.safetensors")
    with pytest.raises(CheckpointError, match="time_embed is unknown"):
        load_vit(new_backbone(), tmp_path / "k400.safetensors")
