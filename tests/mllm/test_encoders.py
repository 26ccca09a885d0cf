import json
import shutil
from dataclasses import asdict, replace
from typing import get_args

import pytest
import torch

from qa_data.files import write_json
from sefar_core import load_encoder
from sefar_core.checkpoint import CheckpointError, build_model, save_encoder
from sefar_core.config import ModelConfig
from sefar_core.presets import preset
from sefar_mllm.config import EncoderName
from sefar_mllm.encoders import ENCODERS, pool, recognizer_moments, refuse_unequal_moments

SETTINGS = ModelConfig(
    image_size=32,
    patch_size=8,
    dim=16,
    depth=1,
    num_heads=2,
    fusion_dim=8,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.4),
)
PATCHES = ("sefar", "supervised", "random", "constant")
SHAPES = {"sefar_elements": (2, 3, 1, 1, 16), "sefar_fused": (2, 1, 1, 1, 8)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoders") / "encoder"
    torch.manual_seed(0)
    model = build_model(SETTINGS, num_classes=3)
    for parameter in model.parameters():  # temporal layers start at zero, where they do nothing
        torch.nn.init.normal_(parameter, std=0.2)
    save_encoder(model, SETTINGS, path)
    return path


def telltale_frames(batch=2, height=32, width=32):
    """Every clip and frame has a picture of its own."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 8, height, width, 3), generator=generator).byte()


def normalized(frames):
    scale = torch.tensor(SETTINGS.std).view(1, 3, 1, 1, 1)
    shift = torch.tensor(SETTINGS.mean).view(1, 3, 1, 1, 1)
    return ((frames.float() / 255).permute(0, 4, 1, 2, 3) - shift) / scale


def assert_near(one, other):
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def moved_places(encode, frames, frame):
    """Which of the tokens along time change with one frame."""
    changed = frames.clone()
    changed[:, frame] = 0
    return ((encode(frames) - encode(changed)).abs().amax(dim=(0, 2, 3, 4)) > 1e-6).tolist()


@pytest.mark.parametrize("name", [*PATCHES, *SHAPES])
def test_every_encoder_keeps_the_same_contract(folder, name):
    encoder = ENCODERS[name](folder)
    tokens = encoder.encode(telltale_frames())
    assert tokens.shape == SHAPES.get(name, (2, 8, 4, 4, 16))
    assert tokens.dtype == torch.float32
    assert encoder.name == name
    assert encoder.dim == tokens.shape[-1]
    assert encoder.moments == pytest.approx([(i + 0.5) / 8 for i in range(8)])
    assert torch.equal(pool(tokens, 1), tokens) == (name in SHAPES)


def test_tokens_are_the_recognizers_own_on_elements_cut_by_hand(folder):
    frames = telltale_frames()
    clip, model = normalized(frames), load_encoder(folder)
    # Elements 2-2-4 of eight segments: frames 3 and 7, 1 and 5, and the even ones.
    elements = [clip[:, :, [3, 7]], clip[:, :, [1, 5]], clip[:, :, 0::2]]
    assert_near(ENCODERS["sefar"](folder).encode(frames), model.frame_tokens(elements))
    seen = [model.backbone(clip, place)[0] for place, clip in enumerate(elements)]
    tokens = ENCODERS["sefar_elements"](folder).encode(frames)
    assert_near(tokens[:, :, 0, 0], torch.stack(seen, 1))
    fused = ENCODERS["sefar_fused"](folder).encode(frames)[:, 0, 0, 0]
    assert_near(model.classifier(fused), model(elements))


def test_a_frame_changes_the_tokens_of_its_element_alone(folder):
    frames = telltale_frames(batch=1)
    patches, elements, fused = (ENCODERS[name](folder).encode for name in ("sefar", *SHAPES))
    assert moved_places(patches, frames, 3) == [place in (3, 7) for place in range(8)]
    assert moved_places(elements, frames, 1) == [False, True, False]
    assert moved_places(fused, frames, 1) == [True]


def copy_with(folder, made, **changes):
    """The same tensors under other settings."""
    made.mkdir()
    settings = json.loads((folder / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(settings | changes))
    (made / "model.safetensors").symlink_to(folder / "model.safetensors")
    return made


@pytest.mark.parametrize("name", ["sefar", "supervised", "sefar_elements", "sefar_fused", "random"])
def test_networks_that_differ_in_heads_alone_have_other_digests_and_tokens(folder, tmp_path, name):
    two = ENCODERS[name](folder)
    four = ENCODERS[name](copy_with(folder, tmp_path / "four", num_heads=4))
    assert two.digest == ENCODERS[name](folder).digest != four.digest
    frames = telltale_frames(batch=1)
    assert not torch.allclose(two.encode(frames), four.encode(frames), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"mean": [0.5, 0.5, 0.5]}, True),
        ({"sampling": "local_window"}, True),
        ({"dropout": 0.1, "drop_path_rate": 0.3, "pretrained": "vit.safetensors"}, False),
    ],
)
def test_the_digest_has_the_settings_that_tokens_depend_on(folder, tmp_path, change, counts):
    other = ENCODERS["sefar"](copy_with(folder, tmp_path / "other", **change))
    assert (other.digest != ENCODERS["sefar"](folder).digest) is counts


def test_tokens_of_local_windows_are_in_the_order_of_time(folder, tmp_path):
    local = copy_with(folder, tmp_path / "local", sampling="local_window")
    assert preset("recommended").model.sampling == "local_window"
    frames = telltale_frames()
    model, expected = load_encoder(local), torch.zeros(2, 8, 4, 4, 16)
    for number, places in enumerate(([1, 2], [5, 6], [0, 3, 4, 7])):
        _, patches = model.backbone(normalized(frames)[:, :, places], number)
        expected[:, places] = patches.view(2, len(places), 4, 4, 16)
    encoder = ENCODERS["sefar"](local)
    seen = (0.125, 0.21875, 0.28125, 0.375, 0.625, 0.71875, 0.78125, 0.875)
    assert encoder.moments == pytest.approx(seen)
    assert_near(encoder.encode(frames), expected)


def test_encoders_of_unequal_moments_are_not_compared(folder, tmp_path):
    local = copy_with(folder, tmp_path / "local", sampling="local_window")
    keys = {name: ENCODERS[name](local).key(1) for name in (*PATCHES, *SHAPES)}
    refuse_unequal_moments(keys)
    refuse_unequal_moments({})
    assert keys["sefar"]["moments"] == list(recognizer_moments(local))
    keys["other"] = ENCODERS["sefar"](folder).key(1)
    words = r"different moments .*: sefar, supervised, .*: \[0.125.*; other: \[0.0625"
    with pytest.raises(ValueError, match=words):
        refuse_unequal_moments(keys)


def test_moments_that_coincide_are_shown_twice(tmp_path):
    """A fine window may meet the context's moment: both elements get its frame."""
    settings = replace(SETTINGS, sizes=(1, 1), sampling="local_window")
    save_encoder(build_model(settings, num_classes=3), settings, tmp_path / "pair")
    encoder = ENCODERS["sefar"](tmp_path / "pair")
    assert encoder.moments == (0.5, 0.5)
    frames = telltale_frames()[:, :1].repeat_interleave(2, dim=1)
    assert encoder.encode(frames).shape == (2, 2, 4, 4, 16)


@pytest.fixture
def run(folder, tmp_path):
    """The folder of a training run with so many of 4 epochs on labels alone."""

    def make(warmup_epochs):
        made = tmp_path / f"run{warmup_epochs}"
        for part in ("student", "teacher", "best"):
            shutil.copytree(folder, made / part)
        settings = replace(preset("demo"), epochs=4, warmup_epochs=warmup_epochs)
        write_json(made / "config.json", asdict(settings))
        return made

    return make


@pytest.mark.parametrize("part", ["", "student", "teacher", "best"])
def test_a_run_goes_by_the_way_that_it_was_trained(run, folder, part):
    semi, alone = run(2) / part, run(4) / part
    for name in ("sefar", *SHAPES):
        assert ENCODERS[name](semi).digest == ENCODERS[name](folder).digest
        with pytest.raises(CheckpointError, match=f"{alone} was trained on labels alone, .*give a"):
            ENCODERS[name](alone)
    assert ENCODERS["supervised"](alone).digest == ENCODERS["sefar"](folder).digest
    with pytest.raises(CheckpointError, match=f"{semi} was trained on unlabeled clips.*supervised"):
        ENCODERS["supervised"](semi)
    for made in (semi, alone):
        for name in ("constant", "random"):
            assert ENCODERS[name](made).moments == recognizer_moments(made)


def test_a_damaged_or_empty_folder_is_named(run, tmp_path):
    made = run(2)
    (made / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=f"{made}/config.json is damaged"):
        ENCODERS["supervised"](made)
    (tmp_path / "empty").mkdir()
    for build in ENCODERS.values():
        with pytest.raises(CheckpointError, match="empty"):
            build(tmp_path / "empty")
    assert set(get_args(EncoderName)) == set(ENCODERS)


def test_larger_frames_are_scaled_and_cropped_by_the_encoder(folder):
    encoder = ENCODERS["sefar"](folder)
    small = telltale_frames(height=32, width=32)
    wide = torch.zeros(2, 8, 32, 64, 3, dtype=torch.uint8)
    wide[:, :, :, 16:48] = small
    torch.testing.assert_close(encoder.encode(wide), encoder.encode(small))


def test_random_weights_follow_the_seed_and_leave_the_global_state_alone(folder):
    frames = telltale_frames()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = (ENCODERS["random"](folder, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert first.digest == again.digest != other.digest
    assert torch.equal(first.encode(frames), again.encode(frames))
    assert not torch.equal(first.encode(frames), other.encode(frames))
    assert first.digest != ENCODERS["sefar"](folder).digest


def test_the_constant_encoder_is_blind(folder):
    encoder = ENCODERS["constant"](folder)
    tokens = encoder.encode(telltale_frames())
    assert torch.equal(tokens, tokens[:1, :1, :1, :1].expand_as(tokens))
    assert torch.equal(tokens, encoder.encode(torch.zeros_like(telltale_frames())))


@pytest.mark.parametrize("grid", [1, 2, 3])
def test_pooling_takes_the_mean_of_each_place(grid):
    tokens = torch.arange(1 * 2 * 4 * 4 * 3.0).view(1, 2, 4, 4, 3)
    got = pool(tokens, grid)
    assert got.shape == (1, 2, grid, grid, 3)
    for row in range(grid):
        for column in range(grid):
            tall = slice(row * 4 // grid, -(-(row + 1) * 4 // grid))
            wide = slice(column * 4 // grid, -(-(column + 1) * 4 // grid))
            expected = tokens[:, :, tall, wide].mean(dim=(2, 3))
            torch.testing.assert_close(got[:, :, row, column], expected)


@pytest.mark.parametrize(
    ("rows", "columns", "grid", "words"),
    [
        (2, 2, 0, "at least 1, got 0"),
        (1, 1, 2, "1 x 1 tokens a frame.* to 2 x 2; give grid 1"),
        (4, 3, 4, "4 x 3 tokens.* to 4 x 4; give grid 3"),
    ],
)
def test_a_grid_that_tokens_do_not_fill_is_refused(rows, columns, grid, words):
    with pytest.raises(ValueError, match=words):
        pool(torch.zeros(1, 2, rows, columns, 5), grid)
