import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

import sefar_core
from sefar_core.checkpoint import CheckpointError, build_model, load_vit, save_encoder
from sefar_core.config import ModelConfig

TINY = ModelConfig(image_size=32, patch_size=16, dim=16, depth=2, num_heads=2, fusion_dim=8)


@pytest.fixture
def encoder(tmp_path):
    torch.manual_seed(0)
    model = build_model(TINY, num_classes=5)
    save_encoder(model, TINY, tmp_path / "student")
    return model.eval(), tmp_path / "student"


def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, frames, 32, 32, generator=generator) for frames in (2, 2, 4)]


def test_a_loaded_encoder_gives_the_same_logits_and_is_frozen(encoder):
    model, folder = encoder
    loaded = sefar_core.load_encoder(folder)
    torch.testing.assert_close(loaded(clips()), model(clips()), rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training
    assert (loaded.sizes, loaded.image_size, loaded.mean) == ((2, 2, 4), 32, TINY.mean)


def test_a_run_folder_stands_for_its_student(encoder):
    _, folder = encoder
    loaded = sefar_core.load_encoder(folder.parent)
    assert loaded.classifier.out_features == 5


def test_saving_again_replaces_the_encoder_and_leaves_no_rest(encoder):
    _, folder = encoder
    save_encoder(build_model(TINY, num_classes=7), TINY, folder)
    assert sefar_core.load_encoder(folder).classifier.out_features == 7
    assert [path.name for path in folder.parent.iterdir()] == ["student"]


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


def timm_vit(tmp_path, image_size: int = 32):
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=image_size, patch_size=16, embed_dim=16, depth=2, num_heads=2, num_classes=3
    )
    path = tmp_path / "vit.safetensors"
    save_file(vit.state_dict(), path)
    return vit.eval(), path


def test_a_vit_s_weights_make_the_backbone_see_each_frame_as_the_vit_does(tmp_path):
    vit, path = timm_vit(tmp_path)
    backbone = build_model(TINY, num_classes=5).backbone.eval()
    load_vit(backbone, path)
    frame = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    still = frame[:, :, None].expand(-1, -1, 4, -1, -1)
    with torch.no_grad():
        theirs = vit.forward_features(frame)
        cls, patches = backbone(still, 2)
    torch.testing.assert_close(cls, theirs[:, 0], atol=1e-5, rtol=1e-4)
    for moment in range(4):
        torch.testing.assert_close(patches[:, moment], theirs[:, 1:], atol=1e-5, rtol=1e-4)


def test_a_vit_s_attention_is_copied_to_its_temporal_twin(tmp_path):
    vit, path = timm_vit(tmp_path)
    backbone = build_model(TINY, num_classes=5).backbone
    load_vit(backbone, path)
    block = backbone.blocks[1]
    assert torch.equal(block.temporal_attn.qkv.weight, vit.blocks[1].attn.qkv.weight)
    assert torch.equal(block.temporal_norm1.weight, vit.blocks[1].norm1.weight)
    assert not block.temporal_fc.weight.any() and not backbone.time_embed[2].any()


def test_positions_of_another_grid_are_resized_in_the_plane(tmp_path):
    _, path = timm_vit(tmp_path, image_size=64)
    state = load_file(path)
    row = torch.arange(4.0).view(4, 1, 1).expand(4, 4, 16)
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], row.reshape(1, 16, 16)], dim=1)
    save_file(state, path)
    backbone = build_model(TINY, num_classes=5).backbone
    load_vit(backbone, path)
    resized = backbone.pos_embed[0, 1:].view(2, 2, 16)
    assert torch.equal(resized[:, 0], resized[:, 1])  # rows differ, columns do not
    assert (resized[1] > resized[0] + 1).all()


def test_a_vit_of_another_width_is_refused_by_name(tmp_path):
    _, path = timm_vit(tmp_path)
    wide = build_model(ModelConfig(image_size=32, dim=32, depth=2, num_heads=2), num_classes=5)
    with pytest.raises(CheckpointError, match="shape"):
        load_vit(wide.backbone, path)
