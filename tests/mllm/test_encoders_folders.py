"""What is refused under the names of CLIP and EVA-CLIP."""

import json
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models._hub import save_config_for_hf

from sefar_core.checkpoint import CheckpointError
from sefar_mllm.encoders import ENCODERS
from sefar_mllm.encoders.image_models import CLIP, EVA, image_encoder
from tests.oracles import image_folders as toy


@pytest.fixture(scope="module", autouse=True)
def miniature():
    with toy.published_in_miniature():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("weights")
    return {name: toy.timm_folder(base / name, name) for name in ("clip", "eva")}


@pytest.fixture
def changed(folders, tmp_path):
    """A copy of a folder whose settings are changed."""

    def change(name, edit):
        folder = tmp_path / "copy"
        shutil.copytree(folders[name], folder)
        settings = json.loads((folder / "config.json").read_text())
        edit(settings)
        (folder / "config.json").write_text(json.dumps(settings))
        return folder

    return change


@pytest.mark.parametrize("name", ["clip", "eva"])
def test_without_weights_there_is_no_encoder(folders, tmp_path, name):
    with pytest.raises(CheckpointError, match=f"{tmp_path.name} holds no image model.* put .*hub"):
        ENCODERS[name](tmp_path)
    with pytest.raises(CheckpointError, match="nowhere holds no image model"):
        ENCODERS[name](tmp_path / "nowhere")
    shutil.copy(folders[name] / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match=f"{tmp_path.name} has no model.safetensors; put"):
        ENCODERS[name](tmp_path)


def test_a_pickle_is_refused_by_name(folders, tmp_path):
    shutil.copy(folders["clip"] / "config.json", tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="only pytorch_model.bin, and a pickle can run code"):
        ENCODERS["clip"](tmp_path)


def test_plain_gelu_is_refused_with_the_mend(changed):
    folder = changed("clip", lambda s: s.update(architecture="vit_large_patch14_clip_224"))
    with pytest.raises(CheckpointError, match='set "architecture" to .*quickgelu_224'):
        ENCODERS["clip"](folder)


def test_a_network_that_computes_plain_gelu_in_disguise_is_refused(changed):
    folder = changed("clip", lambda s: s["model_args"].update(act_layer="gelu"))
    with pytest.raises(CheckpointError, match="block 0 .* was trained with quick_gelu"):
        ENCODERS["clip"](folder)


def test_plain_gelu_in_a_folder_of_transformers_is_refused(tmp_path):
    toy.transformers_folder(tmp_path / "openai")
    path = tmp_path / "openai" / "config.json"
    path.write_text(path.read_text().replace("quick_gelu", "gelu"))
    with pytest.raises(CheckpointError, match='"hidden_act" to "quick_gelu"'):
        ENCODERS["clip"](tmp_path / "openai")


@pytest.mark.parametrize("name, other", [("clip", "eva"), ("eva", "clip")])
def test_the_other_model_is_refused(folders, name, other):
    with pytest.raises(CheckpointError, match=f"but {name} is "):
        ENCODERS[name](folders[other])


def test_weights_of_other_training_data_are_refused(changed):
    folder = changed("clip", lambda s: s["pretrained_cfg"].update(tag="metaclip_400m"))
    with pytest.raises(CheckpointError, match="trained on metaclip_400m, but clip is .* openai"):
        ENCODERS["clip"](folder)


def test_another_color_scale_is_refused(changed):
    folder = changed("eva", lambda s: s["pretrained_cfg"].update(mean=[0.5, 0.5, 0.5]))
    with pytest.raises(CheckpointError, match=r"mean \(0.5, 0.5, 0.5\).* trained with \(0.48"):
        ENCODERS["eva"](folder)


@pytest.mark.parametrize("missing", ["mean", "std", "input_size", "tag"])
def test_settings_are_never_guessed(changed, missing):
    folder = changed("clip", lambda s: s["pretrained_cfg"].pop(missing))
    with pytest.raises(CheckpointError, match=f"KeyError.'{missing}'"):
        ENCODERS["clip"](folder)


def test_settings_cannot_make_timm_open_files(changed):
    folder = changed("clip", lambda s: s["model_args"].update(checkpoint_path="evil.pth"))
    with pytest.raises(CheckpointError, match="model_args sets checkpoint_path"):
        ENCODERS["clip"](folder)


def test_another_image_size_is_refused(changed):
    folder = changed("clip", lambda s: s["pretrained_cfg"].update(input_size=[3, 42, 42]))
    with pytest.raises(CheckpointError, match="images of 42 px, but clip takes 28 px"):
        ENCODERS["clip"](folder)


@pytest.mark.parametrize("published", [CLIP, EVA])
def test_a_smaller_network_never_goes_by_a_published_name(folders, published):
    """The folders of these tests are all right but for their size."""
    with pytest.raises(CheckpointError, match=f"img_size = 28 and .* but {published.name} has 224"):
        image_encoder(published, folders[published.name])


@pytest.mark.parametrize(
    "name, value",
    [("img_size", 21), ("patch_size", 14), ("embed_dim", 32), ("depth", 4), ("num_heads", 4),
     ("mlp_ratio", 2.0), ("in_chans", 1)],
)  # fmt: skip
def test_a_network_of_any_other_size_is_refused(changed, name, value):
    folder = changed("clip", lambda s: s["model_args"].update({name: value}))
    with pytest.raises(CheckpointError, match=f"a network with {name} = {value}, but clip has .*;"):
        ENCODERS["clip"](folder)


def test_a_network_of_another_size_in_a_folder_of_transformers_is_refused(tmp_path):
    toy.transformers_folder(tmp_path / "openai")
    path = tmp_path / "openai" / "config.json"
    settings = json.loads(path.read_text())
    settings["vision_config"]["num_attention_heads"] = 4  # the tensors know nothing of it
    path.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="a network with num_heads = 4, but clip has 2; put"):
        ENCODERS["clip"](tmp_path / "openai")


def test_sizes_that_settings_do_not_tell_are_told_by_the_tensors(changed):
    folder = changed("clip", lambda s: s["model_args"].clear())
    file = folder / "model.safetensors"
    state = load_file(file)
    save_file({n: v for n, v in state.items() if not n.startswith("blocks.2.")}, file)
    with pytest.raises(CheckpointError, match=r"does not fit .*blocks\.2\..* is missing.*; put"):
        ENCODERS["clip"](folder)


def test_settings_as_timm_writes_them_are_understood(folders, tmp_path):
    folder = tmp_path / "saved"
    shutil.copytree(folders["clip"], folder)
    model = toy.network("clip")
    model.pretrained_cfg.update(input_size=(3, 28, 28), tag="openai")
    save_config_for_hf(model, folder / "config.json", model_args=toy.SIZES)
    settings = json.loads((folder / "config.json").read_text())
    settings["model_args"] |= {"img_size": [28, 28], "global_pool": "token"}
    (folder / "config.json").write_text(json.dumps(settings))
    assert ENCODERS["clip"](folder).digest == ENCODERS["clip"](folders["clip"]).digest


@pytest.mark.parametrize("name", ["clip", "eva"])
def test_weights_as_a_network_begins_with_are_refused(folders, tmp_path, name):
    folder = tmp_path / "fresh"
    shutil.copytree(folders[name], folder)
    fresh = timm.create_model(toy.ARCHITECTURES[name][0], num_classes=5, **toy.SIZES)
    save_file(fresh.state_dict(), folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"never trained: .* do not go by the name {name}"):
        ENCODERS[name](folder)


@pytest.mark.parametrize(
    "edit, told",
    [
        (lambda s: s.pop("blocks.1.attn.qkv.weight"), "blocks.1.attn.qkv.weight is missing"),
        (lambda s: s.update(extra=torch.ones(2)), "extra is unknown"),
        (lambda s: s.update(pos_embed=torch.ones(1, 5, 16)), r"pos_embed has shape \(1, 5, 16\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folders, tmp_path, edit, told):
    folder = tmp_path / "copy"
    shutil.copytree(folders["clip"], folder)
    state = load_file(folder / "model.safetensors")
    edit(state)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=told):
        ENCODERS["clip"](folder)


def test_a_key_without_its_query_and_value_is_named(tmp_path):
    toy.transformers_folder(tmp_path / "openai")
    file = tmp_path / "openai" / "model.safetensors"
    state = load_file(file)
    del state["vision_model.encoder.layers.1.self_attn.v_proj.bias"]
    save_file(state, file)
    with pytest.raises(CheckpointError, match="blocks.1.attn.qkv.bias is missing"):
        ENCODERS["clip"](tmp_path / "openai")
