"""What a run reported of itself, written as training writes it and read back."""

import json

import pytest

from sefar_core.config import LossConfig, TeacherConfig, TrainConfig
from sefar_core.run_dir import append_metrics, curves, open_run, read_history

CONFIG = TrainConfig(
    loss=LossConfig(regulation="fixed", threshold=0.7), teacher=TeacherConfig(dropout_passes=3)
)
WARMUP = {"step": 1, "supervised": 2.5, "accuracy": 0.25}
SSL = [
    {"step": step, "supervised": 3.0 / step, "trust": step / 10, "mix": 5.0 + step}
    for step in (2, 3)
]


@pytest.fixture
def run_dir(tmp_path):
    open_run(tmp_path, CONFIG, seed=0)
    for report in (WARMUP, *SSL):
        append_metrics(tmp_path, report)
    return tmp_path


def test_a_run_is_read_back_as_it_was_written(run_dir):
    history = read_history(run_dir)
    assert history == ("fixed", 0.7, 3, [WARMUP, *SSL])


def test_a_folder_of_encoders_alone_has_no_history(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student/config.json").write_text("{}")
    assert read_history(tmp_path) is None


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_half_a_history_is_refused_by_the_file_that_is_missing(run_dir, name):
    (run_dir / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} is missing: .*give the whole folder"):
        read_history(run_dir)


def test_a_run_that_has_not_taken_a_step_is_refused(run_dir):
    (run_dir / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is empty: the run has taken no step"):
        read_history(run_dir)


@pytest.mark.parametrize("damage", [b'{"step": 2, "tr', b"[1]", b'{"trust": 0.5}', b"\xff\xfe\x00"])
def test_a_damaged_report_is_refused_by_file_and_line(run_dir, damage):
    lines = (run_dir / "metrics.jsonl").read_bytes().splitlines()
    (run_dir / "metrics.jsonl").write_bytes(b"\n".join([lines[0], damage, lines[2]]))
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is not a step report"):
        read_history(run_dir)


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"loss": {}}', '{"loss": {"regulation": "fixed", "threshold": 0.3}}']
)
def test_damaged_settings_are_refused_by_their_file(run_dir, damage):
    (run_dir / "config.json").write_text(damage)
    with pytest.raises(ValueError, match=r"config\.json holds no settings of a run"):
        read_history(run_dir)


def test_a_regulation_of_other_code_is_refused_by_the_file_that_names_it(run_dir):
    settings = json.loads((run_dir / "config.json").read_text())
    settings["loss"]["regulation"] = "strict"
    (run_dir / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"config\.json .*must be one of .*strict"):
        read_history(run_dir)


def test_a_curve_has_the_steps_that_reported_its_number_and_no_others():
    found = curves([WARMUP, *SSL], ("trust", "supervised", "unsupervised"))
    assert found == {"trust": ([2, 3], [0.2, 0.3]), "supervised": ([1, 2, 3], [2.5, 1.5, 1.0])}
