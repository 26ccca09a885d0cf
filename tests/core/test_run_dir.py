import errno
import json
import resource
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from qa_data.files import SefarError, WriteError, writing
from sefar_core import run_dir
from sefar_core.config import TrainConfig
from sefar_core.run_dir import (
    add_to_run,
    append_metrics,
    forget_metrics_after,
    locked,
    open_run,
    run_of,
    sessions,
)
from tests.oracles.holder import held


@dataclass(frozen=True)
class Inner:
    workers: int = 4
    lr: float = 0.1


@dataclass(frozen=True)
class Settings:
    optim: Inner = field(default_factory=Inner)
    epochs: int = 3


def test_a_run_folder_says_what_runs_and_how_it_ended(tmp_path):
    open_run(tmp_path / "run", Settings(), seed=7, data={"manifest_sha256": "abc"})
    add_to_run(tmp_path / "run", {"steps": 12})
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config == {
        "optim": {"workers": 4, "lr": 0.1},
        "epochs": 3,
        "manifest_sha256": "abc",
    }
    content = json.loads((tmp_path / "run/run.json").read_text())
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
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["steps"] == 3 and len(content["earlier_sessions"]) == 3


@pytest.mark.parametrize(
    "text", ["", "[]", "7", '{"seed": 0}', '{"commit": 1, "earlier_sessions": 5}']
)
def test_a_damaged_record_of_sessions_is_named_with_its_fix(tmp_path, text):
    open_run(tmp_path, Settings(), seed=7)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json is damaged .*delete it: the run resumes"):
        open_run(tmp_path, Settings(), seed=7)
    (tmp_path / "run.json").unlink()
    open_run(tmp_path, Settings(), seed=7)


def test_encoders_of_a_run_lead_to_it_and_a_run_to_itself():
    run = Path("runs/gym99")
    assert {run_of(run / name) for name in ("student", "teacher", "best")} == {run}
    assert run_of(run) == run and run_of(run / "states") == run / "states"


def test_other_settings_are_refused_by_the_name_that_the_command_line_has(tmp_path):
    open_run(tmp_path, Settings(), seed=0)
    with pytest.raises(ValueError, match=r"optim\.lr = 0\.1, but 0\.2 is requested"):
        open_run(tmp_path, Settings(optim=Inner(lr=0.2)), seed=0)


@pytest.mark.parametrize("text", ["", '{"a":', "[1]", "7", "null"])
def test_damaged_settings_of_a_run_are_named_with_the_fix(tmp_path, text):
    open_run(tmp_path, Settings(), seed=7)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is damaged .*or delete it and resume"):
        open_run(tmp_path, Settings(), seed=7)
    (tmp_path / "config.json").unlink()
    open_run(tmp_path, Settings(), seed=7)


def test_a_run_from_before_a_setting_resumes_with_its_default_alone(tmp_path):
    open_run(tmp_path, Settings(), seed=0)
    content = json.loads((tmp_path / "config.json").read_text())
    del content["optim"]["lr"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"optim\.lr = 0\.1, but 0\.2 is requested"):
        open_run(tmp_path, Settings(optim=Inner(lr=0.2)), seed=0)
    open_run(tmp_path, Settings(), seed=0)


def test_a_run_of_the_reader_torchcodec_resumes_with_auto_and_says_so_once(tmp_path, capsys):
    open_run(tmp_path, TrainConfig(), seed=0)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"reader": "auto"', '"reader": "torchcodec"'))
    for notes in (1, 0):
        open_run(tmp_path, TrainConfig(), seed=0)
        assert capsys.readouterr().out.count("reader torchcodec; it resumes with auto") == notes


def test_settings_that_change_no_result_may_differ(tmp_path):
    open_run(tmp_path, Settings(), seed=0)
    open_run(tmp_path, Settings(optim=Inner(workers=0)), seed=0, free=("optim.workers",))
    assert json.loads((tmp_path / "config.json").read_text())["optim"]["workers"] == 0


def test_drafts_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    (tmp_path / ".config.json.4711").write_text("{")
    (tmp_path / ".student.4711").mkdir()
    (tmp_path / ".notes").write_text("mine")
    open_run(tmp_path, Settings(), seed=0)
    assert {path.name for path in tmp_path.iterdir()} == {".notes", "config.json", "run.json"}


def test_lines_beyond_a_step_and_half_a_line_are_forgotten(tmp_path):
    for step in (1, 2, 3):
        append_metrics(tmp_path, {"step": step, "loss": step / 10})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    forget_metrics_after(tmp_path, 2)
    append_metrics(tmp_path, {"step": 3, "loss": 0.3})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]


@pytest.mark.parametrize(
    "line", ['{"step": 2, "lo', "", "[]", '{"loss": 1}', '{"step": "3"}', '{"step": 1e999}', "\xff"]
)
def test_a_damaged_line_is_named_and_nothing_is_dropped(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n'.encode("latin-1"))
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"metrics\.jsonl, line 2 is not a step report .*delete the line"
    ):
        forget_metrics_after(tmp_path, 2)
    assert path.read_bytes() == before


def test_half_a_line_that_reads_like_a_whole_one_is_forgotten(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}')
    forget_metrics_after(tmp_path, 2)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_what_cannot_be_written_is_named_with_the_space_it_needs(tmp_path):
    draft = tmp_path / ".draft"
    draft.write_text("half")
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(WriteError, match=r"result.*No space.*needs 12,345 bytes"),
        writing(tmp_path / "result", 12345, draft),
    ):
        raise full
    assert not draft.exists()


def test_a_run_folder_that_cannot_be_made_or_locked_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"cannot write .*run/lock.*Not a directory"):
        with locked(tmp_path / "file/run"):
            pass
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(WriteError, match=r"cannot write .*run/lock.*File too large"):
            with locked(tmp_path / "run"):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_folder_in_use_is_refused_until_its_process_is_dead(tmp_path):
    with held(tmp_path / "run") as pid:
        with pytest.raises(SefarError, match=f"in use by process {pid} on"):
            with locked(tmp_path / "run"):
                pass
    with locked(tmp_path / "run"):
        assert (tmp_path / "run/lock").read_text().startswith("process")
