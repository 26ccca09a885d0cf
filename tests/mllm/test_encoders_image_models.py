"""CLIP and EVA-CLIP: their tokens, their identity, and what is refused under their names."""

import hashlib
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sefar_core.checkpoint import CheckpointError, build_model, refuse_misfits, save_encoder
from sefar_core.config import ModelConfig
from sefar_core.sampling import SAMPLINGS, center_fractions
from sefar_mllm.encoders import ENCODERS, image_models, refuse_unequal_moments, with_frame_times
from sefar_mllm.encoders.image_models import (
    CLIP,
    EVA,
    image_encoder,
    make_network,
    read_folder,
    timm_names,
)
from tests.oracles import image_folders as toy


@pytest.fixture(scope="module", autouse=True)
def miniature():
    with toy.published_in_miniature():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("weights")
    return {name: toy.timm_folder(base / name, name) for name in ("clip", "eva")}


def telltale_frames(batch=2, frames=8, height=36, width=44):
    """Smooth pictures, one of its own for each clip and frame."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(batch * frames, 3, 6, 7, generator=generator) * 255
    large = torch.nn.functional.interpolate(small, (height, width), mode="bicubic")
    return large.clamp(0, 255).byte().view(batch, frames, 3, height, width).permute(0, 1, 3, 4, 2)


def by_pillow(frames):
    """What CLIP's own preparation makes of frames: short side to 28, center square, normalized."""
    prepared = []
    for frame in frames.flatten(0, 1).numpy():
        image = Image.fromarray(frame)
        scale = 28 / min(image.size)
        image = image.resize([int(side * scale) for side in image.size], Image.Resampling.BICUBIC)
        left, top = [round((side - 28) / 2) for side in image.size]
        square = np.asarray(image.crop((left, top, left + 28, top + 28)), np.float32) / 255
        prepared.append((square - np.array(toy.MEAN)) / np.array(toy.STD))
    return torch.from_numpy(np.stack(prepared)).permute(0, 3, 1, 2).float()


def into_last_block(model, images):
    """Patch tokens that go into the last block of timm's network, caught on the way."""
    caught = []
    model.blocks[-1].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        model(images)
    return caught[0][:, 1:].view(2, 8, 4, 4, 16)


@pytest.mark.parametrize("name", ["clip", "eva"])
def test_tokens_are_what_goes_into_the_last_block_without_the_class_token(folders, name):
    encoder, network = ENCODERS[name](folders[name]), toy.network(name)
    frames = telltale_frames()
    tokens, expected = encoder.encode(frames), into_last_block(network, by_pillow(frames))
    assert tokens.shape == (2, 8, 4, 4, 16) and tokens.dtype == torch.float32
    # Pillow and torch round to whole colors apart by one of 255 at the most.
    torch.testing.assert_close(tokens, expected, atol=0.1, rtol=0.02)
    assert (tokens - expected).abs().mean() < 0.01 * expected.std()
    exact = telltale_frames(height=28, width=28)  # not scaled
    expected = into_last_block(network, by_pillow(exact))
    torch.testing.assert_close(encoder.encode(exact), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("whole", [True, False])
def test_a_folder_of_transformers_gives_the_tokens_of_transformers(tmp_path, whole):
    model = toy.transformers_folder(tmp_path / "openai", whole=whole)
    frames = telltale_frames(height=28, width=28)
    vision = model.vision_model if whole else model
    with torch.no_grad():
        hidden = vision(by_pillow(frames), output_hidden_states=True).hidden_states
    tokens = ENCODERS["clip"](tmp_path / "openai").encode(frames)
    expected = hidden[-2][:, 1:].view(2, 8, 4, 4, 16)
    torch.testing.assert_close(tokens, expected, atol=1e-4, rtol=1e-4)


def test_a_frame_is_encoded_by_itself(folders):
    encoder = ENCODERS["clip"](folders["clip"])
    frames = telltale_frames(batch=1)
    changed = frames.clone()
    changed[:, 3] = 0
    moved = (encoder.encode(frames) - encoder.encode(changed)).abs().amax(dim=(0, 2, 3, 4)) > 1e-6
    assert moved.tolist() == [place == 3 for place in range(8)]


@pytest.mark.parametrize("name", ["clip", "eva"])
def test_what_identifies_an_image_model(folders, name):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    encoder = ENCODERS[name](folders[name])
    assert torch.equal(torch.rand(1), expected)  # loading leaves the global state alone
    recognizers = sorted(float(f) for part in center_fractions((2, 2, 4)) for f in part)
    assert encoder.key(2)["moments"] == list(encoder.moments) == recognizers
    assert (encoder.name, encoder.dim) == (name, 16)
    digest = hashlib.sha256((folders[name] / "model.safetensors").read_bytes()).hexdigest()
    text = "weights not verified against a published hash: model.safetensors has sha256 "
    assert encoder.origin["weights"] == text + digest


def test_the_digest_follows_what_the_tokens_depend_on(folders, tmp_path):
    digest = ENCODERS["clip"](folders["clip"]).digest
    for tensor, counts in (("pos_embed", True), ("norm.weight", False), ("head.bias", False)):
        folder = shutil.copytree(folders["clip"], tmp_path / tensor)
        state = load_file(folder / "model.safetensors")
        state[tensor].view(-1)[0] += 1
        save_file(state, folder / "model.safetensors")
        assert (ENCODERS["clip"](folder).digest != digest) is counts
    two = image_encoder(toy.in_miniature(CLIP), folders["clip"])
    four = image_encoder(toy.in_miniature(CLIP, num_heads=4), folders["clip"])
    assert two.digest == digest != four.digest
    frames = telltale_frames(batch=1)
    assert not torch.allclose(two.encode(frames), four.encode(frames), atol=0.01)


def test_one_model_has_one_digest_in_every_layout(tmp_path):
    toy.transformers_folder(tmp_path / "openai")
    folder = toy.timm_folder(tmp_path / "timm", "clip")
    save_file(read_folder(tmp_path / "openai", "weights").state, folder / "model.safetensors")
    first, second = ENCODERS["clip"](tmp_path / "openai"), ENCODERS["clip"](folder)
    assert first.digest == second.digest
    frames = telltale_frames()
    # Where tensors lie in memory may change how a processor sums them.
    torch.testing.assert_close(first.encode(frames), second.encode(frames), rtol=1e-5, atol=1e-5)


def test_a_folder_of_open_clip_gives_the_image_half(tmp_path):
    folder = toy.open_clip_folder(tmp_path / "open_clip")
    found = read_folder(folder, "weights")
    assert ENCODERS["eva"](folder).encode(telltale_frames()).shape == (2, 8, 4, 4, 16)
    assert (found.mean, found.std) == (toy.MEAN, toy.STD)
    assert found.state.keys() == toy.network("eva", num_classes=0).state_dict().keys()


@pytest.mark.parametrize(
    ("published", "dim", "depth", "hidden", "millions"),
    [(CLIP, 1024, 24, 4096, 303.2), (EVA, 1408, 40, 6144, 1011.1)],
)
def test_the_published_sizes_are_timms(published, dim, depth, hidden, millions):
    with torch.device("meta"):
        model = make_network(published)
        timms = timm.create_model(published.architecture, num_classes=0)
    assert model.patch_embed.img_size == timms.patch_embed.img_size == (224, 224)
    assert model.blocks[0].attn.num_heads == timms.blocks[0].attn.num_heads == 16
    refuse_misfits(timms.state_dict(), model.state_dict(), "meta", fix="")
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["patch_embed.proj.weight"] == (dim, 3, 14, 14)
    assert shapes["pos_embed"] == (1, 1 + 16 * 16, dim)
    assert shapes[f"blocks.{depth - 1}.mlp.fc1.weight"] == (hidden, dim)
    assert f"blocks.{depth}.norm1.weight" not in shapes
    assert ("norm_pre.weight" in shapes) == (published is CLIP)
    assert ("blocks.0.attn.q_bias" in shapes) == (published is EVA)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(millions * 1e6, rel=1e-3)


def test_full_size_names_of_transformers_become_timms():
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
    )
    with torch.device("meta"):
        model = make_network(CLIP)
        state = CLIPVisionModel(config).state_dict()
    bare = {name.removeprefix("vision_model."): value for name, value in state.items()}
    refuse_misfits(model.state_dict(), timm_names(bare), "meta", fix="")


@pytest.fixture
def recognizer(tmp_path):
    """Makes a recognizer of elements of these sizes, sampled in this way."""

    def make(name, sampling, sizes=(2, 2, 4)):
        settings = ModelConfig(image_size=32, patch_size=8, dim=16, depth=1, num_heads=2,
                               fusion_dim=8, sampling=sampling, sizes=sizes)  # fmt: skip
        save_encoder(build_model(settings, 4), settings, tmp_path / name)
        return ENCODERS["sefar"](tmp_path / name)

    return make


def test_an_image_model_is_shown_other_moments_and_a_recognizer_is_not(folders, recognizer):
    encoder, frames = ENCODERS["clip"](folders["clip"]), telltale_frames()
    moved = with_frame_times(encoder, [0.1, 1 / 3, 0.7])
    assert moved.key(2)["moments"] == [0.1, 1 / 3, 0.7] == list(moved.moments)
    assert with_frame_times(moved, encoder.moments).key(2) == encoder.key(2)
    torch.testing.assert_close(moved.encode(frames), encoder.encode(frames))
    plain, local = recognizer("a", "interleaved"), recognizer("b", "local_window")
    assert with_frame_times(plain, plain.moments) is plain
    with pytest.raises(ValueError, match=r"made for the moments .*compare networks of the same"):
        with_frame_times(plain, local.moments)
    refuse_unequal_moments({"sefar": plain.key(2), "clip": encoder.key(2)})
    with pytest.raises(ValueError, match="different moments of a clip cannot be compared: sefar"):
        refuse_unequal_moments({"sefar": local.key(2), "clip": encoder.key(2)})


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_image_model_sees_the_very_frames_of_the_recognizer(folders, recognizer, sampling):
    """Moments often fall on the edge of a frame: one rounded down shows the frame before."""
    clip = ENCODERS["clip"](folders["clip"])
    for sizes in [(2, 2, 4), (2, 2, 2), (3, 3, 6), (1, 1)]:
        sefar = recognizer(f"sefar{sum(sizes)}", sampling, sizes)
        seen = with_frame_times(clip, sefar.moments)
        for count in range(1, 200):
            frames = [[math.floor(at * count) for at in one.moments] for one in (sefar, seen)]
            assert frames[0] == frames[1]
        refuse_unequal_moments({"sefar": sefar.key(2), "clip": seen.key(2)})


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


HERE = ("weights/clip", "weights/file")
OTHERS = ("clip", "./clip", "../clip", "~/clip", "/clip", "models/weights/clip")


@pytest.mark.parametrize("given", [*HERE, *OTHERS])
def test_a_mistyped_folder_is_not_fetched_from_the_hub(tmp_path, monkeypatch, given):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(image_models, "snapshot_download", lambda *_, **__: pytest.fail("fetched"))
    here = "weights is here, so this is a path"
    reason = here if given in HERE else "a name on the hub is OWNER/NAME"
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
