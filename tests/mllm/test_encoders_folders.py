"""What is refused under the names of CLIP and EVA-CLIP."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sefar_core.checkpoint import CheckpointError
from sefar_mllm.encoders import ENCODERS, image_models
from sefar_mllm.encoders.image_models import CLIP, EVA, image_encoder, read_folder
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
def copy(folders, tmp_path):
    """A copy of CLIP's folder to change."""
    return shutil.copytree(folders["clip"], tmp_path / "copy")


def edit_settings(folder, edit):
    settings = json.loads((folder / "config.json").read_text())
    edit(settings)
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("name", ["clip", "eva"])
def test_without_weights_there_is_no_encoder(folders, tmp_path, name):
    with pytest.raises(
        CheckpointError, match=f"{tmp_path.name} does not hold an image model.* put .*hub"
    ):
        ENCODERS[name](tmp_path)
    with pytest.raises(CheckpointError, match="nowhere is not a folder, nor .*put"):
        ENCODERS[name](tmp_path / "nowhere")
    shutil.copy(folders[name] / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match=f"{tmp_path.name} has no model.safetensors; put"):
        ENCODERS[name](tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="only pytorch_model.bin, and a pickle can run code"):
        ENCODERS[name](tmp_path)


BAD_COLORS = (
    [math.nan] * 3, [math.inf] * 3, [None] * 3, [[0.5]] * 3, "abc", ["0.5"] * 3, [True] * 3,
    [0.5], [0.5] * 4, [], 0.5, {"r": 0.5, "g": 0.5, "b": 0.5}, [10**400] * 3, [1e300] * 3,
)  # fmt: skip


@pytest.mark.parametrize("key", ["mean", "std"])
def test_colors_that_are_not_three_numbers_are_refused(copy, key):
    for value in BAD_COLORS:
        edit_settings(copy, lambda s, v=value: s["pretrained_cfg"].update({key: v}))
        words = r"config\.json has the mean .*not three .*; put"
        with pytest.raises(CheckpointError, match=words):
            read_folder(copy, "weights")
    edit_settings(copy, lambda s: s["pretrained_cfg"].pop(key))
    with pytest.raises(CheckpointError, match=f"KeyError.'{key}'"):
        ENCODERS["clip"](copy)


@pytest.mark.parametrize("std", [[0, 0, 0], [0.2, -0.1, 0.2], [0.2, 0.2, 1e-50]])
@pytest.mark.parametrize("layout", ["timm", "transformers", "open_clip"])
def test_deviations_that_are_not_above_0_are_refused_in_every_layout(tmp_path, layout, std):
    folder = tmp_path / "weights"
    if layout == "timm":
        path, place = toy.timm_folder(folder, "clip") / "config.json", "pretrained_cfg"
    elif layout == "open_clip":
        path, place = toy.open_clip_folder(folder) / "open_clip_config.json", "preprocess_cfg"
    else:
        toy.transformers_folder(folder)
        path, place = folder / "preprocessor_config.json", None
    settings = json.loads(path.read_text())
    colors = settings if place is None else settings[place]
    colors["std" if place else "image_std"] = std
    path.write_text(json.dumps(settings))
    found = re.escape(f"{path} has the mean [0.48") + ".*" + re.escape(f"the deviation {std}")
    with pytest.raises(CheckpointError, match=f"{found}.*above 0; put"):
        read_folder(folder, "weights")


def test_settings_cannot_make_timm_open_files(copy, folders):
    edit_settings(copy, lambda s: s["model_args"].update(checkpoint_path="evil.pth"))
    assert ENCODERS["clip"](copy).digest == ENCODERS["clip"](folders["clip"]).digest


def test_a_name_on_the_hub_is_fetched_and_announced(folders, tmp_path, monkeypatch, capsys):
    names = []

    def snapshot_download(name, allow_patterns):
        names.append(name)
        assert not any(pattern.endswith((".bin", ".pt")) for pattern in allow_patterns)
        return str(folders["clip"])

    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="nobody/nothing .* be fetched from the hub .*; put"):
        ENCODERS["clip"](Path("nobody/nothing"))  # the network is off
    monkeypatch.setattr(image_models, "snapshot_download", snapshot_download)
    encoder = ENCODERS["clip"](Path("openai/clip-vit-large-patch14"))
    assert names == ["openai/clip-vit-large-patch14"]
    assert "openai/clip-vit-large-patch14 is not a folder here: its" in capsys.readouterr().err
    assert encoder.origin == ENCODERS["clip"](folders["clip"]).origin


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("weights/clip", "weights is here, so this is a path"),
        ("weights/file", "weights is here, so this is a path"),
        ("clip", "a name on the hub is OWNER/NAME"),
        ("./clip", "a name on the hub is OWNER/NAME"),
        ("../clip", "a name on the hub is OWNER/NAME"),
        ("~/clip", "a name on the hub is OWNER/NAME"),
        ("/clip", "a name on the hub is OWNER/NAME"),
        ("models/weights/clip", "a name on the hub is OWNER/NAME"),
    ],
)
def test_a_mistyped_folder_is_not_fetched_from_the_hub(tmp_path, monkeypatch, given, reason):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(image_models, "snapshot_download", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(CheckpointError, match=rf"(clip|file) is not a folder.*\({reason}.*; check"):
        ENCODERS["clip"](Path(given))


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        (CLIP, "clip"),  # of full size: the folders of these tests are miniatures
        (EVA, "eva"),
        (toy.in_miniature(CLIP), "eva"),
        (toy.in_miniature(EVA), "clip"),
        (toy.in_miniature(CLIP, img_size=21), "clip"),
        (toy.in_miniature(CLIP, patch_size=14), "clip"),
        (toy.in_miniature(CLIP, embed_dim=32), "clip"),
        (toy.in_miniature(CLIP, depth=4), "clip"),
        (toy.in_miniature(CLIP, mlp_ratio=2.0), "clip"),
        (toy.in_miniature(CLIP, in_chans=1), "clip"),
    ],
)
def test_tensors_of_another_model_are_refused(folders, model, folder):
    with pytest.raises(CheckpointError, match="does not fit the network in .* tensors.*; put conf"):
        image_encoder(model, folders[folder])


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda s: s.pop("blocks.1.attn.qkv.weight"), "blocks.1.attn.qkv.weight is missing"),
        (lambda s: s.update(extra=torch.ones(2)), "extra is unknown"),
        (lambda s: s.update(pos_embed=torch.ones(1, 5, 16)), r"pos_embed has shape \(1, 5, 16\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(copy, edit, words):
    state = load_file(copy / "model.safetensors")
    edit(state)
    save_file(state, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=words):
        ENCODERS["clip"](copy)


def test_a_key_without_its_query_and_value_is_named(tmp_path):
    toy.transformers_folder(tmp_path / "openai")
    file = tmp_path / "openai" / "model.safetensors"
    state = load_file(file)
    del state["vision_model.encoder.layers.1.self_attn.v_proj.bias"]
    save_file(state, file)
    with pytest.raises(CheckpointError, match="blocks.1.attn.qkv.bias is missing"):
        ENCODERS["clip"](tmp_path / "openai")
