"""What benchmarks/stall.py writes and sums up, at toy size on the CPU."""

import json
from dataclasses import replace

import pytest

from benchmarks import stall
from benchmarks.stall import Stall, over, timed_run, write_set
from qa_data.manifest import read_manifest
from sefar_core.config import DataConfig
from sefar_core.presets import preset
from tests.oracles import tiny


@pytest.mark.slow
def test_a_run_on_the_written_set_is_summed_up_over_the_second_half_of_its_steps(
    tmp_path, monkeypatch
):
    clips = read_manifest(write_set(tmp_path, 12))
    labels = {clip.id: clip.label for clip in clips if clip.split == "labeled"}
    assert labels == {"clip-0000": 0, "clip-0010": 1}  # a tenth, one class after another

    def shrunk(word):
        data = DataConfig(short_side=(32, 36), store_short_side=36)
        config = replace(preset(word), model=tiny.CONFIG, data=data, warmup_epochs=4)
        return replace(config, batch_size=2, micro_batch_size=2)

    monkeypatch.setattr(stall, "preset", shrunk)
    for count in (4, 5):  # the second run is made anew
        found = timed_run("demo", "jpeg", Stall(steps=count, workers=0), tmp_path)
        lines = (tmp_path / "demo-jpeg/timing.jsonl").read_text().splitlines()
        steps = [json.loads(line) for line in lines]
        assert [step["step"] for step in steps] == [*range(1, count + 1)]
        assert found == over(steps[count // 2 :]) and 0 < found["stall"] < 1
    assert any((tmp_path / "frames").rglob("*"))
