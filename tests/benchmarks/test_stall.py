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
from sefar_core.config import DataConfig
from sefar_core.presets import preset
from tests.oracles import tiny

SETTINGS = Stall(presets=("demo",), stores=("none",), steps=5, workers=0)


@pytest.mark.slow
def test_runs_on_the_written_set_are_summed_up_over_the_second_half_of_their_steps(
    tmp_path, monkeypatch
):
    write_set(tmp_path, 12)
    clips = read_manifest(tmp_path / "manifest.csv")
    labels = {clip.id: clip.label for clip in clips if clip.split == "labeled"}
    assert labels == {"clip-0000": 0, "clip-0010": 1}  # a tenth, one class after another
    first_frames = []
    for number, clip in enumerate(clips):
        with av.open(str(tmp_path / clip.path)) as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert [frame.shape for frame in frames] == [(256, 320, 3)] * (25 + number)
        first_frames.append(frames[0].astype(float))
    assert all(np.abs(one - two).mean() > 10 for one, two in combinations(first_frames, 2))

    def shrunk(word):
        data = DataConfig(short_side=(32, 36), store_short_side=36)
        config = replace(preset(word), model=tiny.CONFIG, data=data, warmup_epochs=4)
        return replace(config, batch_size=2, micro_batch_size=2)

    monkeypatch.setattr(stall, "preset", shrunk)
    for store, count in (("none", 5), ("jpeg", 4), ("jpeg", 5)):  # the last is made anew
        found = timed_run("demo", store, replace(SETTINGS, steps=count), tmp_path)
        run = tmp_path / f"demo-{store}"
        steps = [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]
        assert [step["step"] for step in steps] == [*range(1, count + 1)]
        # Three steps, 3 to 5, or two; each of two labeled clips with three unlabeled for each.
        second = steps[count // 2 :]
        whole = sum(step["seconds"] for step in second)
        waited = sum(step["seconds"] * step["stall"] for step in second)
        means = {"seconds": whole / len(second), "clips_per_s": len(second) * 8 / whole}
        assert found == pytest.approx(means | {"stall": waited / whole})
        assert 0 < found["stall"] < 1
        saved = json.loads((run / "config.json").read_text())["data"]
        assert (saved["store"], saved["workers"]) == (store, 0)
    assert any((tmp_path / "frames").rglob("*"))


def test_the_result_is_written_after_every_run(tmp_path, monkeypatch):
    """And its name has the settings that are not the default, so that parts are files apart."""
    figures = {"seconds": 0.5, "clips_per_s": 64.0, "stall": 0.25}

    def stopped_at_the_second(word, store, settings, root):
        if store == "jpeg":
            raise KeyboardInterrupt
        return figures

    monkeypatch.setattr(stall, "write_set", lambda root, num_clips: None)
    monkeypatch.setattr(stall, "timed_run", stopped_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        stall.main(replace(SETTINGS, stores=("none", "jpeg"), out=tmp_path))
    (written,) = tmp_path.glob("*-stall-demo-steps-5-workers-0.json")
    assert json.loads(written.read_text())["figures"] == {"demo, none": figures}
    assert "| demo | videos | 0.500 | 64 | 25.0% |" in written.with_suffix(".md").read_text()
