"""What benchmarks/stall.py writes and sums up, at toy size on the CPU."""

import json
from dataclasses import replace
from itertools import combinations

import av
import numpy as np
import pytest

from benchmarks import stall
from benchmarks.stall import Stall, timed_run, write_set
from qa_data.manifest import read_manifest
from sefar_core.config import DataConfig, ModelConfig
from sefar_core.presets import preset

STEPS = 5
SETTINGS = Stall(presets=("demo",), stores=("none",), steps=STEPS, workers=0)
MODEL = ModelConfig(image_size=32, dim=16, depth=1, num_heads=2, fusion_dim=8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stall")
    write_set(folder, 12)
    return folder


@pytest.fixture
def tiny(monkeypatch):
    """Presets with a network and batches that take no time."""

    def shrunk(word):
        data = DataConfig(short_side=(32, 36), store_short_side=36)
        config = replace(preset(word), model=MODEL, data=data, warmup_epochs=4)
        return replace(config, batch_size=2, micro_batch_size=2)

    monkeypatch.setattr(stall, "preset", shrunk)


def test_a_tenth_of_the_clips_is_labeled_with_one_class_after_another(root):
    clips = read_manifest(root / "manifest.csv")
    assert [clip.id for clip in clips] == [f"clip-{number:04d}" for number in range(12)]
    labels = {clip.id: clip.label for clip in clips if clip.split == "labeled"}
    assert labels == {"clip-0000": 0, "clip-0010": 1}
    assert {clip.split for clip in clips if clip.id not in labels} == {"unlabeled"}


def test_the_videos_differ_and_last_one_second_and_more(root):
    first_frames = []
    for number, clip in enumerate(read_manifest(root / "manifest.csv")):
        with av.open(str(root / clip.path)) as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert [frame.shape for frame in frames] == [(256, 320, 3)] * (25 + number)
        first_frames.append(frames[0].astype(float))
    assert all(np.abs(one - two).mean() > 10 for one, two in combinations(first_frames, 2))


def test_a_run_is_summed_up_over_the_second_half_of_its_steps(root, tiny):
    found = timed_run("demo", "none", SETTINGS, root)
    lines = (root / "demo-none" / "timing.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert [step["step"] for step in steps] == list(range(1, STEPS + 1))
    # Steps 3 to 5; each of two labeled clips with three unlabeled ones for each.
    seconds = [step["seconds"] for step in steps[2:]]
    waited = [step["seconds"] * step["stall"] for step in steps[2:]]
    assert found["seconds"] == pytest.approx(sum(seconds) / 3)
    assert found["clips_per_s"] == pytest.approx(3 * 8 / sum(seconds))
    assert found["stall"] == pytest.approx(sum(waited) / sum(seconds))
    assert 0 < found["stall"] < 1


def test_a_run_is_made_anew_from_the_frames_asked_for(root, tiny):
    for steps in (1, 2):
        timed_run("demo", "jpeg", replace(SETTINGS, steps=steps), root)
        lines = (root / "demo-jpeg" / "timing.jsonl").read_text().splitlines()
        assert len(lines) == steps
    saved = json.loads((root / "demo-jpeg" / "config.json").read_text())
    assert saved["data"]["store"] == "jpeg" and saved["data"]["workers"] == 0
    assert any((root / "frames").rglob("*"))


def test_the_result_is_written_after_every_run(tmp_path, monkeypatch, capsys):
    def stopped_at_the_second(word, store, settings, root):
        if store == "jpeg":
            raise KeyboardInterrupt
        return {"seconds": 0.5, "clips_per_s": 64.0, "stall": 0.25}

    monkeypatch.setattr(stall, "write_set", lambda root, num_clips: None)
    monkeypatch.setattr(stall, "timed_run", stopped_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        stall.main(replace(SETTINGS, stores=("none", "jpeg"), out=tmp_path))
    (written,) = tmp_path.glob("*-stall-demo-steps-5-workers-0.json")
    assert json.loads(written.read_text())["figures"] == {
        "demo, none": {"seconds": 0.5, "clips_per_s": 64.0, "stall": 0.25}
    }
    assert "| demo | videos | 0.500 | 64 | 25.0% |" in written.with_suffix(".md").read_text()
