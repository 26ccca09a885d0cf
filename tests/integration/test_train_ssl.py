"""Videos to scores at miniature size: the scripts as a user runs them, and resuming."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import sefar_core
from qa_data.manifest import by_split, read_manifest, write_manifest
from qa_data.synthetic.dataset import make_set
from qa_data.synthetic.plan import SyntheticSettings
from sefar_core import train
from sefar_core.checkpoint import read_class_names
from sefar_core.data.video import VideoReadError
from sefar_core.train import fit
from tests.integration import tiny_run
from tests.script_process import run_script

CONFIG = replace(
    tiny_run.CONFIG,
    data=replace(tiny_run.CONFIG.data, store="raw"),
    warmup_epochs=2,
    steps=None,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A rendered set and its splits."""
    root = tmp_path_factory.mktemp("ssl")
    settings = SyntheticSettings(num_train=36, num_test=24, size=48, num_train_sources=4)
    make_set(root / "gym", settings)
    made = run_script(
        "make_splits.py",
        "finegym",
        *("--categories", root / "gym/categories.txt", "--out", root / "splits"),
        *("--train-list", root / "gym/train_element.txt"),
        *("--test-list", root / "gym/val_element.txt", "--video-root", root / "gym/videos"),
        *("--rate", "0.34", "--val-rate", "0"),
    )
    assert made.returncode == 0, made.stderr
    return root


def places(world: Path, name: str) -> dict[str, Path]:
    return {
        "manifest": world / "splits/manifest.csv",
        "video_root": world / "gym/videos",
        "run_dir": world / name,
    }


def fingerprints(run_dir: Path) -> dict[str, str]:
    files = [run_dir / role / "model.safetensors" for role in ("student", "teacher")]
    files.append(run_dir / "metrics.jsonl")
    return {str(f.relative_to(run_dir)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def trained(world):
    fit(CONFIG, **places(world, "run"))
    return world / "run"


def test_a_run_leaves_its_settings_numbers_and_encoders(world, trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {
        *("config.json", "run.json", "metrics.jsonl", "timing.jsonl", "lock"),
        *("states", "student", "teacher"),
    }
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert "trust" not in lines[0] and 0 < lines[-1]["trust"] <= 1
    assert lines[-1]["ramp"] == pytest.approx(1.0)
    assert sefar_core.load_encoder(trained / "teacher").classifier.out_features == 12
    names = json.loads((trained / "run.json").read_text())["class_names"]
    clips = read_manifest(world / "splits/manifest.csv")
    shown = {clip.label: f"{clip.event} {clip.text}" for clip in clips if clip.label is not None}
    assert names == [shown[label] for label in range(12)]
    assert read_class_names(trained / "teacher") == tuple(names)


@pytest.mark.parametrize("stop", [3, 9])
def test_a_stopped_run_resumes_bit_for_bit(world, trained, stop, monkeypatch):
    """Stopped in the warm-up, and with a teacher; between two states, so steps are done again."""
    places_here = places(world, f"stopped-{stop}")
    whole_step = train.optimizer_step

    def interrupted(loop, batches):
        if loop.step == stop:
            raise KeyboardInterrupt
        return whole_step(loop, batches)

    monkeypatch.setattr(train, "optimizer_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(CONFIG, **places_here)
    monkeypatch.undo()
    fit(CONFIG, **places_here)
    assert fingerprints(places_here["run_dir"]) == fingerprints(trained)


def test_other_settings_are_refused_in_a_folder_that_has_a_run(world, trained):
    with pytest.raises(ValueError, match="seed.*another run folder"):
        fit(replace(CONFIG, seed=1), **places(world, "run"))


def test_the_scripts_train_and_evaluate(world):
    run_dir = world / "by-script"
    tiny = ["--model.image-size", 32, "--model.dim", 16, "--model.depth", 1, "--model.num-heads", 2]
    where = ("--manifest", world / "splits/manifest.csv", "--video-root", world / "gym/videos")
    ran = run_script(
        "train_ssl.py", "demo+supervised", *where, "--run-dir", run_dir, *tiny,
        *("--model.pretrained", "None", "--epochs", 1, "--warmup-epochs", 1),
        *("--data.short-side", 32, 36),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    scored = run_script(
        "evaluate_ssl.py", "--run-dir", run_dir, *where, "--views", 2, "--crops", 1,
        *("--categories", world / "gym/categories.txt"),
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    rows = json.loads((run_dir / "evaluation/test/scores.json").read_text())["rows"]
    assert set(rows) == {"student", "student, one middle frame", "student, frames shuffled"}
    assert all(row["num_clips"] == 24 for row in rows.values())
    assert (run_dir / "evaluation/test/student_confusion.png").stat().st_size > 1000


def test_an_undecodable_video_stops_the_run_by_name_and_leaves_no_store(world):
    videos = world / "broken"
    shutil.copytree(world / "gym/videos", videos)
    clips = read_manifest(world / "splits/manifest.csv")
    victim = videos / by_split(clips, "unlabeled")[0].path
    victim.write_bytes(b"not a video")
    here = places(world, "elsewhere/run") | {"video_root": videos}
    with pytest.raises(VideoReadError, match=victim.stem):
        fit(CONFIG, **here)
    assert all(path.name.startswith(".") for path in (world / "elsewhere/frames").iterdir())


def test_a_manifest_without_labels_is_refused(world):
    clips = read_manifest(world / "splits/manifest.csv")
    write_manifest([clip for clip in clips if clip.split != "labeled"], world / "unlabeled.csv")
    here = places(world, "nowhere") | {"manifest": world / "unlabeled.csv"}
    with pytest.raises(ValueError, match="no clip of split labeled"):
        fit(CONFIG, **here)
    assert not (world / "nowhere").exists()
