"""The folder of a run: settings, sessions, reports of its steps, timing, the lock."""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from qa_data.files import SefarError, WriteError
from sefar_core import run_dir
from sefar_core.config import LossConfig, TeacherConfig, TrainConfig
from sefar_core.run_dir import (
    Progress,
    StepTiming,
    TimedBatches,
    add_to_run,
    append_metrics,
    curves,
    forget_metrics_after,
    locked,
    open_run,
    read_history,
    sessions,
)
from tests.oracles.full_disk import files_of_at_most
from tests.oracles.holder import held


@dataclass(frozen=True)
class Inner:
    workers: int = 4
    lr: float = 0.1


@dataclass(frozen=True)
class Settings:
    optim: Inner = Inner()
    epochs: int = 3


def read(path: Path):
    return json.loads(path.read_text())


def test_a_run_folder_says_what_runs_and_how_it_ended(tmp_path):
    (tmp_path / ".config.json.4711").write_text("{")  # the draft of a killed process
    open_run(tmp_path, Settings(), seed=7, data={"manifest_sha256": "abc"})
    add_to_run(tmp_path, {"steps": 12})
    settings = {"optim": {"workers": 4, "lr": 0.1}, "epochs": 3, "manifest_sha256": "abc"}
    assert read(tmp_path / "config.json") == settings
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "run.json"}
    content = read(tmp_path / "run.json")
    assert content["seed"] == 7 and content["steps"] == 12 and content["packages"]["torch"]


def test_every_session_of_a_run_stays_on_record(tmp_path, monkeypatch, capsys):
    for session, of_code in enumerate(["aaa", "bbb", "bbb", "ccc"]):
        monkeypatch.setattr(run_dir, "commit", lambda of_code=of_code: of_code)
        open_run(tmp_path, Settings(), seed=7)
        printed = capsys.readouterr().out
        assert printed.count("note: ") == (session in (1, 3))
        assert ("commit bbb, this one runs ccc" in printed) == (session == 3)
        add_to_run(tmp_path, {"steps": session})
    assert [(one["commit"], one["steps"]) for one in sessions(tmp_path)] == [
        ("aaa", 0), ("bbb", 1), ("bbb", 2), ("ccc", 3)
    ]  # fmt: skip
    content = read(tmp_path / "run.json")
    assert content["steps"] == 3 and len(content["earlier_sessions"]) == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", "", r"run\.json is damaged .*delete it: the run resumes"),
        ("run.json", '{"seed": 0}', r"run\.json is damaged .*delete it: the run resumes"),
        ("config.json", '{"a":', r"config\.json is damaged .*or delete it and resume"),
    ],
)
def test_a_damaged_file_of_a_run_is_named_with_its_fix(tmp_path, name, text, message):
    open_run(tmp_path, Settings(), seed=7)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        open_run(tmp_path, Settings(), seed=7)
    (tmp_path / name).unlink()
    open_run(tmp_path, Settings(), seed=7)


@pytest.mark.parametrize("recorded", [True, False])
def test_other_settings_are_refused_unless_they_change_no_result(tmp_path, recorded):
    """A setting that did not exist when the run began counts as its default."""
    open_run(tmp_path, Settings(), seed=0)
    content = read(tmp_path / "config.json")
    if not recorded:
        del content["optim"]["lr"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"optim\.lr = 0\.1, but 0\.2 is requested"):
        open_run(tmp_path, Settings(optim=Inner(lr=0.2)), seed=0)
    open_run(tmp_path, Settings(optim=Inner(workers=0)), seed=0, free=("optim.workers",))
    assert read(tmp_path / "config.json")["optim"] == {"workers": 0, "lr": 0.1}


def test_a_run_of_the_reader_torchcodec_resumes_with_auto_and_says_so_once(tmp_path, capsys):
    open_run(tmp_path, TrainConfig(), seed=0)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"reader": "auto"', '"reader": "torchcodec"'))
    for notes in (1, 0):
        open_run(tmp_path, TrainConfig(), seed=0)
        assert capsys.readouterr().out.count("reader torchcodec; it resumes with auto") == notes


@pytest.mark.parametrize("rest", ['{"step": 4, "lo', '{"step": 4}'])
def test_lines_beyond_a_step_and_half_a_line_are_forgotten(tmp_path, rest):
    """Half a line may read like a whole one: what shows is the end of the line that is missing."""
    for step in (1, 2, 3):
        append_metrics(tmp_path, {"step": step, "loss": step / 10})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(rest)
    forget_metrics_after(tmp_path, 2)
    append_metrics(tmp_path, {"step": 3, "loss": 0.3})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]


CONFIG = TrainConfig(
    loss=LossConfig(regulation="fixed", threshold=0.7), teacher=TeacherConfig(dropout_passes=3)
)
WARMUP = {"step": 1, "supervised": 2.5, "accuracy": 0.25}
SSL = [
    {"step": step, "supervised": 3.0 / step, "trust": step / 10, "mix": 5.0 + step}
    for step in (2, 3)
]


@pytest.fixture
def trained(tmp_path):
    open_run(tmp_path, CONFIG, seed=0)
    for report in (WARMUP, *SSL):
        append_metrics(tmp_path, report)
    return tmp_path


def test_a_run_is_read_back_as_it_was_written(trained):
    assert read_history(trained) == ("fixed", 0.7, 3, [WARMUP, *SSL])
    (trained / "student").mkdir()
    assert read_history(trained / "student") is None  # encoders alone have no history


@pytest.mark.parametrize("line", ['{"step": 2, "lo', '{"loss": 1}', "\xff"])
def test_a_damaged_line_is_named_and_nothing_is_dropped(trained, line):
    path = trained / "metrics.jsonl"
    first, _, third = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line.encode("latin-1"), third, b""]))
    before = path.read_bytes()
    for use in (lambda: forget_metrics_after(trained, 2), lambda: read_history(trained)):
        with pytest.raises(
            ValueError, match=r"metrics\.jsonl, line 2 is not a step report .*delete the line"
        ):
            use()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", None, r"config\.json is missing: .*give the whole folder"),
        ("metrics.jsonl", "", r"metrics\.jsonl is empty: the run has taken no step"),
        ("config.json", '{"loss": {"regulation": "fixed", "threshold": 0.3}}', "no settings of a"),
    ],
)
def test_half_a_history_and_settings_of_other_code_are_refused(trained, name, text, message):
    (trained / name).unlink()
    if text is not None:
        (trained / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_history(trained)


def test_a_curve_has_the_steps_that_reported_its_number_and_no_others():
    found = curves([WARMUP, *SSL], ("trust", "supervised", "unsupervised"))
    assert found == {"trust": ([2, 3], [0.2, 0.3]), "supervised": ([1, 2, 3], [2.5, 1.5, 1.0])}


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
    metrics = {"loss": 0.5, "trust": 0.25}
    progress.log_step(1, metrics, StepTiming(seconds=2.0, waited_s=0.5, num_clips=16))
    progress.close()
    assert read(tmp_path / "metrics.jsonl") == {"step": 1} | metrics
    timing = {"step": 1, "seconds": 2.0, "clips_per_s": 8.0, "stall": 0.25}
    assert read(tmp_path / "timing.jsonl") == timing
    shown = capsys.readouterr().err
    assert "loss=0.500" in shown and "trust=0.250" in shown and "stall=25%" in shown


def test_tensorboard_that_is_missing_is_reported_with_its_fix(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'sefar\[log\]'"):
        Progress(tmp_path, total=2, initial=0, log="tensorboard")


def test_a_run_folder_on_a_full_disk_is_named(tmp_path):
    full = pytest.raises(WriteError, match=r"cannot write .*run/lock.*File too large")
    with full, files_of_at_most(0), locked(tmp_path / "run"):
        pass


def test_a_run_folder_in_use_is_refused_until_its_process_is_dead(tmp_path):
    with held(tmp_path / "run") as pid:
        with pytest.raises(SefarError, match=f"in use by process {pid} on"):
            with locked(tmp_path / "run"):
                pass
    with locked(tmp_path / "run"):
        assert (tmp_path / "run/lock").read_text().startswith("process")
