import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qa_data.manifest import Clip, write_manifest
from scripts.fit_probe import main as fit_probe_script
from sefar_core.checkpoint import CheckpointError
from sefar_mllm.config import ProbeConfig
from sefar_mllm.encoders import ENCODERS, pool
from sefar_mllm.encoders.probe import on_top, read_probe
from sefar_mllm.feature_cache import CacheError, TokenCache, write_tokens
from sefar_mllm.features import token_key
from sefar_mllm.linear_probe import fit_probe, map_cache, save_probe
from tests.oracles import image_folders as toy
from tests.oracles.permissions import unlike_opened

LABELS = (3, 5, 9)  # class numbers with gaps
SETTINGS = {"max_steps": 50, "lr": 0.01, "seed": 0}


def frames_of(number):
    """Eight frames in the color of the clip's class, with noise of the clip's own."""
    generator = torch.Generator().manual_seed(number)
    color = torch.tensor([(200, 60, 60), (60, 200, 60), (60, 60, 200)][number % 3])
    noise = torch.randint(-50, 50, (8, 28, 28, 3), generator=generator)
    return (color + noise).clamp(0, 255).byte()


def clip(number, split="labeled"):
    return Clip(
        id=f"{split}{number}",
        path=f"{number}.mp4",
        label=None if split == "unlabeled" else LABELS[number % 3],
        source=f"source{number // 3}",
        split=split,
    )


CLIPS = [
    *(clip(number) for number in range(24)),
    *(clip(number, "val") for number in range(24, 33)),
    *(clip(number, "unlabeled") for number in range(33, 36)),
]


def number_of(one):
    return int(Path(one.path).stem)


def extracted(encoder, folder, *, grid=2, frame_order="in_order"):
    """The token cache that an encoder gives for all clips."""
    spans = {one.id: [one.path, one.start_s, one.end_s] for one in CLIPS}
    frames = torch.stack([frames_of(number_of(one)) for one in CLIPS])
    tokens = pool(encoder.encode(frames), grid)
    write_tokens(folder, token_key(encoder, grid, frame_order), encoder.origin, spans, tokens)
    return TokenCache(folder, list(spans))


@pytest.fixture(scope="module", autouse=True)
def miniature():
    with toy.published_in_miniature():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    weights = toy.timm_folder(folder / "weights", "clip")
    return folder, ENCODERS["clip"](weights)


@pytest.fixture(scope="module")
def fitted(base):
    """A token cache, and the probe that learned from it in the folder `probe`."""
    folder, encoder = base
    cache = extracted(encoder, folder / "tokens")
    probe, message = fit_probe(cache, CLIPS, **SETTINGS)
    save_probe(folder / "probe", probe, message)
    return cache, probe, message


def test_the_probe_learns_the_classes_and_says_how_well(base, fitted):
    folder, encoder = base
    _, probe, message = fitted
    settings = json.loads((folder / "probe" / "config.json").read_text())
    assert settings["base"] == {
        "encoder": "clip",
        "digest": encoder.digest,
        "dim": 16,
        "folder": str(folder / "weights"),
        "seed": 0,
        "weights": encoder.origin["weights"],
    }
    assert settings["labels"] == [3, 5, 9]
    assert unlike_opened(folder / "probe") == unlike_opened(folder / "tokens") == []
    assert settings["accuracy"] == message["accuracy"]
    assert message["accuracy"]["val"] > 0.8
    assert message["clips"] == {"labeled": 24, "held_out": 6, "val": 9}
    assert message["settings"]["steps"] in (25, 50)
    assert not torch.allclose(probe.map, torch.eye(16), atol=0.01)


def test_the_accuracy_is_that_of_scores_made_by_hand(fitted):
    cache, probe, message = fitted
    right = 0
    for one in CLIPS[24:33]:
        mean = cache[one.id].double().flatten(0, 2).mean(dim=0)
        scores = [
            sum(float(w) * float(x) for w, x in zip(weight, probe.map.double() @ mean, strict=True))
            + float(bias)
            for weight, bias in zip(probe.weight, probe.bias, strict=True)
        ]
        right += probe.labels[scores.index(max(scores))] == one.label
    assert message["accuracy"]["val"] == pytest.approx(right / 9, abs=1e-4)
    torch.testing.assert_close(
        probe.logits(mean.float()[None])[0], torch.tensor(scores), atol=1e-3, rtol=1e-3
    )


def test_labels_of_val_and_unlabeled_clips_teach_nothing(fitted):
    cache, probe, _ = fitted
    others = [one for one in CLIPS if one.split == "labeled"]
    assert torch.equal(fit_probe(cache, others, **SETTINGS)[0].map, probe.map)
    assert "val" not in fit_probe(cache, others, **SETTINGS)[1]["accuracy"]


def test_the_mapped_cache_is_that_of_the_videos(base, fitted, tmp_path):
    folder, _ = base
    cache, probe, _ = fitted
    encoder = ENCODERS["clip_probe"](folder / "probe")
    map_cache(cache, probe, folder / "probe", tmp_path / "mapped")
    ids = [one.id for one in CLIPS]
    mapped = TokenCache(tmp_path / "mapped", ids)
    videos = extracted(encoder, tmp_path / "videos")
    assert mapped.key == videos.key == token_key(encoder, 2)
    assert mapped.key["encoder"] == "clip_probe"
    assert mapped.origin == videos.origin == encoder.origin
    assert mapped.origin["weights"] == cache.origin["weights"]
    assert "weights not verified" in mapped.origin["weights"]
    assert mapped.spans == videos.spans
    for clip_id in ids:
        size = cache[clip_id].float().abs().max()
        gap = (mapped[clip_id].float() - videos[clip_id].float()).abs().max()
        assert gap < 0.004 * size  # 16-bit floats on both sides
        assert not torch.allclose(mapped[clip_id], cache[clip_id], atol=0.01)


def test_the_probe_is_read_as_it_was_written(base, fitted):
    folder, _ = base
    _, probe, _ = fitted
    read = read_probe(folder / "probe")
    assert torch.equal(read.map, probe.map)
    assert (read.labels, read.digest, read.name) == (probe.labels, probe.digest, "clip_probe")
    assert ENCODERS["clip_probe"](folder / "probe").digest == probe.digest


def test_the_digest_follows_map_and_base(fitted):
    _, probe, _ = fitted
    for change in ({"base_digest": "other"}, {"map": probe.map + 1e-6}):
        assert replace(probe, **change).digest != probe.digest
    for change in ({"bias": probe.bias + 1}, {"base_origin": {"folder": "moved", "seed": 0}}):
        assert replace(probe, **change).digest == probe.digest


def test_each_token_is_mapped(base, fitted):
    folder, encoder = base
    _, probe, _ = fitted
    frames = frames_of(0)[None]
    tokens, mapped = encoder.encode(frames), ENCODERS["clip_probe"](folder / "probe").encode(frames)
    for place in ((0, 0, 0), (3, 1, 2), (7, 3, 3)):
        by_hand = (probe.map * tokens[0][place]).sum(dim=1)
        torch.testing.assert_close(mapped[0][place], by_hand, atol=1e-4, rtol=1e-4)


def test_a_probe_on_other_weights_is_refused(base, fitted, tmp_path):
    folder, _ = base
    _, probe, _ = fitted
    shutil.copytree(folder / "probe", tmp_path / "probe")
    other = toy.timm_folder(tmp_path / "other", "clip", seed=1)
    path = tmp_path / "probe" / "config.json"
    path.write_text(path.read_text().replace(str(folder / "weights"), str(other)))
    with pytest.raises(CheckpointError, match=f"trained on clip with digest {probe.base_digest}"):
        ENCODERS["clip_probe"](tmp_path / "probe")
    with pytest.raises(CheckpointError, match="trained on clip"):
        on_top(ENCODERS["eva"](toy.timm_folder(tmp_path / "eva", "eva")), probe, {"folder": "x"})


def test_a_probe_does_not_go_by_the_name_of_another(base, fitted):
    folder, _ = base
    with pytest.raises(CheckpointError, match="probe.* trained on clip, not on eva"):
        ENCODERS["eva_probe"](folder / "probe")


def test_tokens_of_other_encoders_get_no_probe(fitted, tmp_path):
    cache, *_ = fitted
    for change, message in (
        ({"encoder": "random"}, "tokens of random, but probes are for clip, eva"),
        ({"encoder": "sefar"}, "tokens of sefar"),
        ({"frame_order": "middle"}, "frames shown middle"),
    ):
        folder = tmp_path / next(iter(change.values()))
        tokens = [cache[one.id] for one in CLIPS]
        write_tokens(folder, cache.key | change, cache.origin, cache.spans, tokens)
        with pytest.raises(CacheError, match=message):
            fit_probe(TokenCache(folder, [one.id for one in CLIPS]), CLIPS, **SETTINGS)


def test_labels_that_teach_nothing_are_refused(fitted):
    cache, *_ = fitted
    with pytest.raises(ValueError, match=r"2 classes or more, but the labels are \(3,\)"):
        fit_probe(cache, CLIPS[:24:3], **SETTINGS)
    with pytest.raises(ValueError, match="all labeled clips come from .'source0'"):
        fit_probe(cache, CLIPS[:3], **SETTINGS)


def test_a_folder_of_something_else_is_left_alone(fitted, tmp_path):
    _, probe, message = fitted
    (tmp_path / "notes.txt").write_text("dear reader")
    with pytest.raises(CheckpointError, match="holds something that is not a probe"):
        save_probe(tmp_path, probe, message)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("change", [{"digest": "other"}, {"encoder": "eva"}])
def test_tokens_that_the_probe_did_not_learn_on_are_not_mapped(base, fitted, tmp_path, change):
    folder, _ = base
    cache, probe, _ = fitted
    tokens = (cache[one.id] for one in CLIPS)
    write_tokens(tmp_path / "other", cache.key | change, cache.origin, cache.spans, tokens)
    other = TokenCache(tmp_path / "other", [one.id for one in CLIPS])
    message = (
        f"{other.folder} has tokens of .* but the probe in {folder / 'probe'} was trained on clip"
    )
    with pytest.raises(CacheError, match=f"{message} with digest {probe.base_digest}; give the"):
        map_cache(other, probe, folder / "probe", tmp_path / "mapped")
    assert not (tmp_path / "mapped").exists()


def test_a_mapped_cache_never_replaces_its_base(base, fitted):
    folder, _ = base
    cache, probe, _ = fitted
    with pytest.raises(CacheError, match="encoder = clip"):
        map_cache(cache, probe, folder / "probe", folder / "tokens")


def test_the_script_writes_probe_and_tokens(base, fitted, tmp_path, capsys):
    folder, _ = base
    write_manifest(CLIPS, tmp_path / "manifest.csv")
    settings = ProbeConfig(
        features=folder / "tokens",
        manifest=tmp_path / "manifest.csv",
        out=tmp_path / "probe",
        tokens_out=tmp_path / "mapped",
        **SETTINGS,
    )
    fit_probe_script(settings)
    assert "clip_probe, accuracy {'labeled'" in capsys.readouterr().out
    key = token_key(ENCODERS["clip_probe"](tmp_path / "probe"), 2)
    assert TokenCache(tmp_path / "mapped", [one.id for one in CLIPS]).key == key
    with pytest.raises(CacheError, match="nowhere is not a token cache"):
        fit_probe_script(replace(settings, features=tmp_path / "nowhere"))


@pytest.mark.parametrize("change", [{"max_steps": 30}, {"max_steps": 0}, {"lr": 0.0}])
def test_settings_that_make_no_sense_are_refused(change):
    paths = {name: Path(name) for name in ("features", "manifest", "out")}
    with pytest.raises(ValueError, match=f"{next(iter(change))} must be"):
        ProbeConfig(**paths, **change)


def test_a_damaged_probe_is_named(base, fitted, tmp_path):
    folder, _ = base
    with pytest.raises(CheckpointError, match="is not a probe: it has no config.json"):
        ENCODERS["clip_probe"](tmp_path)
    shutil.copytree(folder / "probe", tmp_path / "probe")
    file = tmp_path / "probe" / "probe.safetensors"
    state = load_file(file)
    save_file({**state, "map": state["map"][:5].clone()}, file)
    with pytest.raises(CheckpointError, match=r"map has shape \(5, 16\), not \(16, 16\)"):
        ENCODERS["clip_probe"](tmp_path / "probe")
    (tmp_path / "probe" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="has no settings of a probe .KeyError.'base'"):
        ENCODERS["clip_probe"](tmp_path / "probe")
