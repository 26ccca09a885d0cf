"""The token cache of the script: shared by processes, killed, stopped, resumed, run at once."""

import json
import random
import signal
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from qa_data.files import write_json
from qa_data.manifest import Clip, write_manifest
from sefar_core.checkpoint import build_model, save_encoder
from sefar_core.config import ModelConfig
from sefar_core.presets import preset
from sefar_mllm import features
from sefar_mllm.feature_cache import CacheError, TokenCache, read_head
from tests.oracles import image_folders
from tests.oracles.videos import write_video
from tests.script_process import call_script

NUM_CLIPS = 22
KILLS = 5
IDS = [f"clip{number}" for number in range(NUM_CLIPS)]
SETTINGS = ModelConfig(image_size=32, patch_size=8, dim=16, depth=1, num_heads=2, fusion_dim=8)


def extract(*arguments: object):
    """What the script says, in batches and shards of the size that the other processes use."""
    with patch.multiple(features, BATCH_CLIPS=2, SHARD_BATCHES=2):
        return call_script("extract_features.py", *arguments)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Videos of two sizes that are all different, their manifest, and a tiny recognizer."""
    root = tmp_path_factory.mktemp("extract")
    (root / "videos").mkdir()
    draw = np.random.default_rng(0)
    clips = []
    for number, clip_id in enumerate(IDS):
        side = 32 if number % 5 else 40
        coarse = draw.integers(0, 256, (10, side // 8, 6, 3), dtype=np.uint8)
        write_video(root / f"videos/{number}.mp4", coarse.repeat(8, axis=1).repeat(8, axis=2))
        clips.append(Clip(id=clip_id, path=f"{number}.mp4", label=0, split="labeled",
                          source=f"source{number}"))  # fmt: skip
    write_manifest(clips, root / "manifest.csv")
    torch.manual_seed(0)
    save_encoder(build_model(SETTINGS, 4), SETTINGS, root / "encoder")
    return root


def arguments(data: Path, out: Path, *, encoder="sefar", encoder_dir=None, root=None) -> list[str]:
    places = {"manifest": data / "manifest.csv", "video-root": root or data / "videos"}
    places |= {"encoder": encoder, "encoder-dir": encoder_dir or data / "encoder", "out": out}
    return ["--splits", "labeled", *(w for n, p in places.items() for w in (f"--{n}", str(p)))]


@pytest.fixture(scope="module")
def straight(data) -> Path:
    """The cache of one process that nothing disturbed."""
    done = extract(*arguments(data, data / "straight"))
    assert done.returncode == 0, done.stderr
    assert f"straight: encoded {NUM_CLIPS} clips" in done.stdout
    return data / "straight"


def tokens(folder: Path) -> torch.Tensor:
    cache = TokenCache(folder, IDS)
    return torch.stack([cache[clip_id] for clip_id in IDS])


def equal(one: Path, other: Path) -> bool:
    return tokens(one).equal(tokens(other))


def kept(folder: Path) -> int:
    """Clips that a reader finds, each of them whole."""
    found = 0
    for clip_id in IDS:
        try:
            found += bool(len(TokenCache(folder, [clip_id])[clip_id]))
        except CacheError as refusal:
            if "lacks" not in str(refusal) and "is not a token cache" not in str(refusal):
                raise
    return found


def test_a_cache_has_tokens_of_each_clip_and_says_what_ran(straight):
    assert len({tuple(found.flatten()[:4].tolist()) for found in tokens(straight)}) == NUM_CLIPS
    (record,) = map(json.loads, (straight / "runs.jsonl").read_text().splitlines())
    assert "--encoder-dir" in " ".join(record["command"])
    assert {"packages", "commit", "machine"} <= record.keys()
    assert (record["clips_asked_for"], record["clips_there"]) == (NUM_CLIPS, 0)


def test_another_frame_order_is_refused_in_one_line(data, straight):
    done = extract(*arguments(data, straight), "--frame-order", "shuffled")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "has tokens with frame_order = in_order, but encoder sefar needs" in done.stderr


def test_clip_is_shown_the_moments_of_a_run_and_says_whose_weights_it_has(data, tmp_path):
    """A run on labels alone, of local windows."""
    settings = replace(preset("recommended"), epochs=2, warmup_epochs=2)
    network = replace(SETTINGS, sampling="local_window")
    run_dir = tmp_path / "run"
    save_encoder(build_model(network, 4), network, run_dir / "student")
    write_json(run_dir / "config.json", asdict(settings))
    weights = image_folders.timm_folder(tmp_path / "clip", "clip")
    words = arguments(data, tmp_path / "tokens", encoder="clip", encoder_dir=weights)
    with image_folders.published_in_miniature():
        done = extract(*words, "--moments-of", run_dir)
    clip = TokenCache(tmp_path / "tokens", IDS[:1])
    assert f"clip: {clip.origin['weights']}" in done.stdout
    assert clip.origin["weights"].startswith("weights not verified against a published hash: ")
    extract(*arguments(data, tmp_path / "own", encoder="supervised", encoder_dir=run_dir))
    assert TokenCache(tmp_path / "own", IDS[:1]).key["moments"] == clip.key["moments"]
    done = extract(*arguments(data, tmp_path / "none", encoder_dir=run_dir))
    assert done.returncode == 1
    assert "run was trained on labels alone, but sefar is" in done.stderr


@pytest.mark.slow
def test_killed_at_any_moment_a_cache_is_smaller_and_never_wrong(data, straight, tmp_path, scripts):
    draw = random.Random()  # other moments in every run of the tests
    kills = [round(draw.uniform(0.02, 0.5), 3) for _ in range(KILLS)]
    words, counts = arguments(data, tmp_path / "out"), []
    for delay_s in kills:
        killed = scripts.start("extract_features.py", *words, pause_s=0.03)
        time.sleep(delay_s)
        killed.send(signal.SIGKILL)
        killed.wait()
        counts.append(kept(tmp_path / "out"))
    assert counts == sorted(counts), kills
    codes, output = scripts.run("extract_features.py", *words)
    assert codes == [0], (kills, output)
    assert equal(tmp_path / "out", straight)
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.slow
def test_a_broken_video_stops_both_processes_and_one_completes_what_they_began(
    data, straight, tmp_path, scripts
):
    videos = tmp_path / "videos"
    videos.mkdir()
    for video in (data / "videos").iterdir():
        (videos / video.name).hardlink_to(video)
    (videos / "13.mp4").unlink()
    (videos / "13.mp4").write_bytes((data / "videos/13.mp4").read_bytes()[:200])
    words = arguments(data, tmp_path / "out", root=videos)
    codes, output = scripts.run("extract_features.py", *words, ranks=2)
    assert codes == [1, 1]
    assert output.count("error: ") == 1, output
    assert str(videos / "13.mp4") in output.partition("error: ")[2]
    before = kept(tmp_path / "out")
    assert 0 < before < NUM_CLIPS
    done = extract(*arguments(data, tmp_path / "out"))
    assert f"encoded {NUM_CLIPS - before} clips, {before} were there already" in done.stdout
    assert equal(tmp_path / "out", straight)


@pytest.mark.slow
def test_two_complete_what_one_began_until_a_signal_came_and_none_may_join_it(
    data, straight, tmp_path, scripts
):
    words, mark, release = arguments(data, tmp_path / "out"), tmp_path / "mark", tmp_path / "go"
    first = scripts.start("extract_features.py", *words, mark=mark, release=release)
    first.wait_for(mark)
    done = extract(*words)
    assert done.returncode == 1
    assert f"error: {tmp_path / 'out'} is in use by process {first.pids[0]}" in done.stderr
    first.send(signal.SIGTERM)
    release.touch()
    codes, output = first.wait()
    assert codes == [143], output
    assert "stopped; " in output and "the same command resumes" in output
    assert 0 < kept(tmp_path / "out") < NUM_CLIPS
    codes, output = scripts.run("extract_features.py", *words, ranks=2)
    assert codes == [0, 0] and output.count(": encoded ") == 1, output
    assert equal(tmp_path / "out", straight)
    shards = (tmp_path / "out").glob("tokens-*")
    encoded = Counter(clip_id for path in shards for clip_id in read_head(path).clips)
    assert encoded == Counter(IDS)  # none was encoded twice
    assert len((tmp_path / "out/runs.jsonl").read_text().splitlines()) == 2
