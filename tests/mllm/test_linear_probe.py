import json
import shutil
from dataclasses import replace
from itertools import islice
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
from sefar_mllm.linear_probe import (
    CHECK_STEPS,
    WEIGHT_DECAYS,
    choose_settings,
    fit_probe,
    held_out,
    learn,
    map_cache,
    save_probe,
)
from tests.oracles import image_folders as toy
from tests.oracles.permissions import unlike_opened

LABELS = (3, 5, 9)  # class numbers with gaps
SETTINGS = {"max_steps": 50, "lr": 0.01, "seed": 0}


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
IDS = [one.id for one in CLIPS]


def frames_of(one):
    """Eight frames in the color of the clip's class, with noise of the clip's own."""
    number = int(Path(one.path).stem)
    generator = torch.Generator().manual_seed(number)
    color = torch.tensor([(200, 60, 60), (60, 200, 60), (60, 60, 200)][number % 3])
    noise = torch.randint(-50, 50, (8, 28, 28, 3), generator=generator)
    return (color + noise).clamp(0, 255).byte()


def extracted(encoder, folder):
    """The token cache that an encoder gives for all clips."""
    spans = {one.id: [one.path, one.start_s, one.end_s] for one in CLIPS}
    tokens = pool(encoder.encode(torch.stack([frames_of(one) for one in CLIPS])), 2)
    write_tokens(folder, token_key(encoder, 2), encoder.origin, spans, tokens)
    return TokenCache(folder, IDS)


def with_key(cache, folder, **changes):
    """The same tokens under another key."""
    tokens = [cache[one] for one in IDS]
    write_tokens(folder, cache.key | changes, cache.origin, cache.spans, tokens)
    return TokenCache(folder, IDS)


@pytest.fixture(scope="module", autouse=True)
def miniature():
    with toy.published_in_miniature():
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """CLIP in `weights`, its tokens in `tokens`, and a probe that was fitted to them in `probe`."""
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def encoder(root):
    return ENCODERS["clip"](toy.timm_folder(root / "weights", "clip"))


@pytest.fixture(scope="module")
def cache(root, encoder):
    return extracted(encoder, root / "tokens")


@pytest.fixture(scope="module")
def fitted(root, cache):
    probe, report = fit_probe(cache, CLIPS, **SETTINGS)
    save_probe(root / "probe", probe, report)
    return probe, report


def test_the_probe_learns_the_classes_and_records_how_well(root, encoder, cache, fitted):
    probe, report = fitted
    settings = json.loads((root / "probe" / "config.json").read_text())
    assert settings["base"] == {
        "encoder": "clip",
        "digest": encoder.digest,
        "dim": 16,
        "folder": str(root / "weights"),
        "seed": 0,
        "weights": encoder.origin["weights"],
    }
    assert settings["labels"] == [3, 5, 9]
    assert unlike_opened(root / "probe") == unlike_opened(root / "tokens") == []
    assert settings["accuracy"] == report["accuracy"]
    assert report["accuracy"]["val"] > 0.8
    assert report["clips"] == {"labeled": 24, "held_out": 6, "val": 9}
    assert report["settings"]["steps"] in (25, 50)
    assert not torch.allclose(probe.map, torch.eye(16), atol=0.01)
    # Clips without the split `labeled` teach nothing.
    alone, without = fit_probe(cache, CLIPS[:24], **SETTINGS)
    assert torch.equal(alone.map, probe.map) and "val" not in without["accuracy"]


def test_the_accuracy_is_that_of_scores_made_by_hand(cache, fitted):
    probe, report = fitted
    correct = 0
    for one in CLIPS[24:33]:
        mean = cache[one.id].double().flatten(0, 2).mean(dim=0)
        scores = [
            sum(float(w) * float(x) for w, x in zip(weight, probe.map.double() @ mean, strict=True))
            + float(bias)
            for weight, bias in zip(probe.weight, probe.bias, strict=True)
        ]
        correct += probe.labels[scores.index(max(scores))] == one.label
    assert report["accuracy"]["val"] == pytest.approx(correct / 9, abs=1e-4)
    torch.testing.assert_close(
        probe.logits(mean.float()[None])[0], torch.tensor(scores), atol=1e-3, rtol=1e-3
    )


def test_the_mapped_cache_is_that_of_the_videos(root, cache, fitted, tmp_path):
    probe, _ = fitted
    encoder = ENCODERS["clip_probe"](root / "probe")
    map_cache(cache, probe, root / "probe", tmp_path / "mapped")
    mapped, videos = TokenCache(tmp_path / "mapped", IDS), extracted(encoder, tmp_path / "videos")
    assert mapped.key == videos.key == token_key(encoder, 2)
    assert mapped.key["encoder"] == "clip_probe"
    assert mapped.origin == videos.origin == encoder.origin
    assert mapped.origin["weights"] == cache.origin["weights"]
    assert "weights not verified" in mapped.origin["weights"]
    assert mapped.spans == videos.spans
    for one in IDS:
        size = cache[one].float().abs().max()
        gap = (mapped[one].float() - videos[one].float()).abs().max()
        assert gap < 0.004 * size  # 16-bit floats on both sides
        assert not torch.allclose(mapped[one], cache[one], atol=0.01)


def test_a_saved_probe_maps_each_token_and_has_the_digest_of_map_and_base(root, encoder, fitted):
    probe, _ = fitted
    read, probed = read_probe(root / "probe"), ENCODERS["clip_probe"](root / "probe")
    assert torch.equal(read.map, probe.map)
    assert (read.labels, read.name) == (probe.labels, "clip_probe")
    assert read.digest == probe.digest == probed.digest
    for change in ({"base_digest": "other"}, {"map": probe.map + 1e-6}):
        assert replace(probe, **change).digest != probe.digest
    for change in ({"bias": probe.bias + 1}, {"base_origin": {"folder": "moved", "seed": 0}}):
        assert replace(probe, **change).digest == probe.digest
    frames = frames_of(CLIPS[0])[None]
    tokens, mapped = encoder.encode(frames), probed.encode(frames)
    for place in ((0, 0, 0), (3, 1, 2), (7, 3, 3)):
        by_hand = (probe.map * tokens[0][place]).sum(dim=1)
        torch.testing.assert_close(mapped[0][place], by_hand, atol=1e-4, rtol=1e-4)


def test_a_probe_of_another_encoder_is_refused(root, fitted, tmp_path):
    probe, _ = fitted
    shutil.copytree(root / "probe", tmp_path / "probe")
    other = toy.timm_folder(tmp_path / "other", "clip", seed=1)
    path = tmp_path / "probe" / "config.json"
    path.write_text(path.read_text().replace(str(root / "weights"), str(other)))
    with pytest.raises(CheckpointError, match=f"trained on clip with digest {probe.base_digest}"):
        ENCODERS["clip_probe"](tmp_path / "probe")
    with pytest.raises(CheckpointError, match="trained on clip"):
        on_top(ENCODERS["eva"](toy.timm_folder(tmp_path / "eva", "eva")), probe, {"folder": "x"})
    with pytest.raises(CheckpointError, match="probe.* trained on clip, not on eva"):
        ENCODERS["eva_probe"](root / "probe")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder": "random"}, "tokens of random, but probes are for clip, eva"),
        ({"encoder": "sefar"}, "tokens of sefar"),
        ({"frame_order": "middle"}, "frames shown middle"),
    ],
)
def test_tokens_of_other_encoders_get_no_probe(cache, tmp_path, change, words):
    with pytest.raises(CacheError, match=words):
        fit_probe(with_key(cache, tmp_path, **change), CLIPS, **SETTINGS)


@pytest.mark.parametrize("change", [{"digest": "other"}, {"encoder": "eva"}])
def test_only_tokens_of_the_probes_base_are_mapped(root, cache, fitted, tmp_path, change):
    probe, _ = fitted
    other = with_key(cache, tmp_path / "other", **change)
    words = f"{other.folder} has tokens of .* but the probe in {root / 'probe'} was trained on clip"
    with pytest.raises(CacheError, match=f"{words} with digest {probe.base_digest}; give the"):
        map_cache(other, probe, root / "probe", tmp_path / "mapped")
    assert not (tmp_path / "mapped").exists()
    with pytest.raises(CacheError, match="encoder = clip"):  # its base is not replaced
        map_cache(cache, probe, root / "probe", root / "tokens")


def test_unusable_labels_and_settings_are_refused(cache):
    with pytest.raises(ValueError, match=r"2 classes or more, but the labels are \(3,\)"):
        fit_probe(cache, CLIPS[:24:3], **SETTINGS)
    with pytest.raises(ValueError, match="all labeled clips come from .'source0'"):
        fit_probe(cache, CLIPS[:3], **SETTINGS)
    paths = {name: Path(name) for name in ("features", "manifest", "out")}
    for change in ({"max_steps": 30}, {"max_steps": 0}, {"lr": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(change))} must be"):
            ProbeConfig(**paths, **change)


def test_a_folder_of_something_else_is_left_as_it_is(fitted, tmp_path):
    (tmp_path / "notes.txt").write_text("dear reader")
    with pytest.raises(CheckpointError, match="holds something that is not a probe"):
        save_probe(tmp_path, *fitted)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_probe_is_named(root, fitted, tmp_path):
    with pytest.raises(CheckpointError, match="is not a probe: it has no config.json"):
        ENCODERS["clip_probe"](tmp_path)
    probe = shutil.copytree(root / "probe", tmp_path / "probe")
    state = load_file(probe / "probe.safetensors")
    save_file({**state, "map": state["map"][:5].clone()}, probe / "probe.safetensors")
    with pytest.raises(CheckpointError, match=r"map has shape \(5, 16\), not \(16, 16\)"):
        ENCODERS["clip_probe"](probe)
    (probe / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="has no settings of a probe .KeyError.'base'"):
        ENCODERS["clip_probe"](probe)


def test_the_script_writes_probe_and_tokens(cache, tmp_path, capsys):
    write_manifest(CLIPS, tmp_path / "manifest.csv")
    settings = ProbeConfig(
        features=cache.folder,
        manifest=tmp_path / "manifest.csv",
        out=tmp_path / "probe",
        tokens_out=tmp_path / "mapped",
        **SETTINGS,
    )
    fit_probe_script(settings)
    assert "clip_probe, accuracy {'labeled'" in capsys.readouterr().out
    key = token_key(ENCODERS["clip_probe"](tmp_path / "probe"), 2)
    assert TokenCache(tmp_path / "mapped", IDS).key == key
    with pytest.raises(CacheError, match="nowhere is not a token cache"):
        fit_probe_script(replace(settings, features=tmp_path / "nowhere"))


def test_learning_is_adam_on_cross_entropy_of_the_two_maps_in_turn():
    generator = torch.Generator().manual_seed(1)
    features = 5 + 3 * torch.randn(9, 4, generator=generator)
    rows = torch.tensor([0, 1, 2] * 3)
    got = next(learn(features, rows, torch.ones(9, dtype=torch.bool), weight_decay=0.5, lr=0.02))
    centered = features - features.mean(dim=0)
    scaled = centered / float(centered.pow(2).mean().sqrt())
    inner, outer = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 3)
    for weights in (inner.weight, outer.weight, outer.bias):
        torch.nn.init.zeros_(weights)
    adam = torch.optim.AdamW([*inner.parameters(), *outer.parameters()], lr=0.02, weight_decay=0.5)
    for _ in range(CHECK_STEPS):
        scores = outer(scaled + inner(scaled))
        loss = -scores.log_softmax(dim=-1)[torch.arange(9), rows].mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        torch.testing.assert_close(got.map, torch.eye(4) + inner.weight, atol=1e-4, rtol=1e-4)
        expected = outer(scaled + inner(scaled))
        scores = features @ got.map.T @ got.weight.T + got.bias
        torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_held_out_clips_share_no_source_with_the_others_and_teach_nothing(seed):
    sources = [f"source{number // 4}" for number in range(40)] + ["large"] * 15
    out = held_out(sources, seed)
    kept = {source for source, gone in zip(sources, out.tolist(), strict=True) if not gone}
    gone = {source for source, gone in zip(sources, out.tolist(), strict=True) if gone}
    assert kept and gone and not kept & gone
    assert 11 <= out.sum() <= 11 + 15
    features = torch.randn(55, 4, generator=torch.Generator().manual_seed(2))
    rows = torch.tensor([0, 1, 2, 0, 1] * 11)
    first = next(learn(features, rows, ~out, weight_decay=1.0, lr=0.01))
    features[out] = 77
    again = next(learn(features, rows, ~out, weight_decay=1.0, lr=0.01))
    assert torch.equal(first.map, again.map) and torch.equal(first.bias, again.bias)


def test_the_sources_that_a_seed_holds_out_stay_the_same():
    sources = [f"s{number**3 % 17}" for number in range(120)]
    out = held_out(sources, 0).tolist()
    gone = {source for source, is_out in zip(sources, out, strict=True) if is_out}
    assert gone == {"s7", "s9", "s10", "s11"}


@pytest.mark.parametrize(("noise", "easy"), [(0.0, True), (3.0, False)])
def test_settings_are_the_first_of_the_best_on_clips_held_out(noise, easy):
    generator = torch.Generator().manual_seed(3)
    rows = torch.tensor([0, 1, 2] * 20)
    features = 4 * torch.eye(3)[rows] + noise * torch.randn(60, 3, generator=generator)
    out = held_out([f"source{number // 3}" for number in range(60)], seed=0)
    choice = choose_settings(features, rows, out, max_steps=75, lr=0.01)
    best = 0.0
    for decay in WEIGHT_DECAYS:
        walk = learn(features, rows, ~out, weight_decay=decay, lr=0.01)
        for solution in islice(walk, 3):
            scores = features[out] @ (solution.weight @ solution.map).T + solution.bias
            best = max(best, (scores.argmax(dim=1) == rows[out]).float().mean().item())
    assert choice.accuracy == pytest.approx(best)
    if easy:  # all are right: the strongest decay and the fewest steps
        assert choice == (max(WEIGHT_DECAYS), CHECK_STEPS, 1.0)
