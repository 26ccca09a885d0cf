import json
import sys
import time

import pytest

from sefar_core.run_dir import Progress, StepTiming, TimedBatches


def test_waiting_for_batches_is_separated_from_working():
    def slow():
        for number in range(2):
            time.sleep(0.05)
            yield number

    batches = TimedBatches(slow())
    assert [next(batches), next(batches)] == [0, 1]
    time.sleep(0.05)
    timing = batches.end_step(num_clips=8)
    assert 0.1 <= timing.waited_s <= timing.seconds - 0.05
    assert batches.end_step(num_clips=8).waited_s == 0
    with pytest.raises(StopIteration):
        next(batches)


def test_metrics_hold_no_clock_and_timing_does(tmp_path, capsys):
    progress = Progress(tmp_path, total=2, initial=0, log="none")
    progress.log_step(
        1, {"loss": 0.5, "trust": 0.25}, StepTiming(seconds=2.0, waited_s=0.5, num_clips=16)
    )
    progress.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 1,
        "loss": 0.5,
        "trust": 0.25,
    }
    timing = json.loads((tmp_path / "timing.jsonl").read_text())
    assert timing == {"step": 1, "seconds": 2.0, "clips_per_s": 8.0, "stall": 0.25}
    shown = capsys.readouterr().err
    assert "loss=0.500" in shown and "trust=0.250" in shown and "stall=25%" in shown


def test_tensorboard_that_is_missing_is_reported_with_its_fix(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'sefar\[log\]'"):
        Progress(tmp_path, total=2, initial=0, log="tensorboard")
