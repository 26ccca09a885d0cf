"""Scoring as a user runs it: encoders of the public code, and runs of every kind of settings."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from qa_data.manifest import Clip, write_manifest
from qa_data.synthetic.dataset import make_set
from qa_data.synthetic.plan import SyntheticSettings
from sefar_core.checkpoint import build_model, save_encoder
from sefar_core.config import LossConfig, ModelConfig, TeacherConfig, TrainConfig
from sefar_core.run_dir import append_metrics, open_run
from tests.oracles.public_model import save_toy
from tests.script_process import run_script

CLASSES = ("(FX) salto forward tucked", "(FX) salto backward tucked")
ROLES = ("student", "teacher")
CONTROLS = ("", ", one middle frame", ", frames shuffled")
SCORES = {
    *("num_clips", "top1", "top1_interval", "top5", "mean_class", "majority"),
    *("direction", "direction_interval"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Four test clips of two classes."""
    root = tmp_path_factory.mktemp("evaluate")
    make_set(root / "gym", SyntheticSettings(classes=CLASSES, num_train=4, num_test=4, size=48))
    lines = (root / "gym/val_element.txt").read_text().splitlines()
    clips = [
        Clip(id=name, path=f"{name}.mp4", label=int(label), source=name[:11], split="test")
        for name, label in map(str.split, lines)
    ]
    write_manifest(clips, root / "manifest.csv")
    return root


def evaluate(world: Path, run_dir: Path):
    return run_script(
        "evaluate_ssl.py", "--run-dir", run_dir, "--manifest", world / "manifest.csv",
        "--video-root", world / "gym/videos", "--categories", world / "gym/categories.txt",
        "--views", 1, "--crops", 1,
    )  # fmt: skip


def rows_of(run_dir: Path) -> dict[str, dict]:
    return json.loads((run_dir / "evaluation/test/scores.json").read_text())["rows"]


def write_run(run_dir: Path) -> None:
    """A run of preset passes_1, whose pseudo-labels have no spread."""
    config = TrainConfig(
        model=ModelConfig(image_size=32, dim=16, depth=1, num_heads=2, fusion_dim=8),
        teacher=TeacherConfig(dropout_passes=1),
        loss=LossConfig(regulation="confidence_only"),
    )
    open_run(run_dir, config, seed=0)
    append_metrics(run_dir, {"step": 1, "supervised": 0.7, "trust": 0.4})
    torch.manual_seed(0)
    for role in ROLES:
        network = build_model(config.model, num_classes=2)
        torch.nn.init.normal_(network.classifier.weight)
        save_encoder(network, config.model, run_dir / role)


def files_of(run_dir: Path) -> set[str]:
    return {path.name for path in (run_dir / "evaluation/test").iterdir()}


PLAIN = {"scores.json", *(f"{r}_{part}" for r in ROLES for part in ("probs.npy", "confusion.png"))}


def test_encoders_of_the_public_code_are_scored_and_what_is_left_out_is_said(world):
    save_toy(world / "public.pyth", classes=2)
    run_dir = world / "released"
    made = run_script(
        "convert_checkpoint.py", "from-public", world / "public.pyth", run_dir / "student"
    )
    assert made.returncode == 0, made.stderr
    shutil.copytree(run_dir / "student", run_dir / "teacher")
    scored = evaluate(world, run_dir)
    assert scored.returncode == 0, scored.stderr
    (said,) = [line for line in scored.stdout.splitlines() if "no record of training" in line]
    assert said.startswith(str(run_dir)) and said.endswith("trust and curves are left out")
    rows = rows_of(run_dir)
    assert set(rows) == {role + look for role in ROLES for look in CONTROLS}
    assert all(set(row) == SCORES and row["num_clips"] == 4 for row in rows.values())
    assert files_of(run_dir) == PLAIN


def test_a_run_of_one_prediction_is_scored_to_the_end(world):
    write_run(world / "run")
    scored = evaluate(world, world / "run")
    assert scored.returncode == 0, scored.stderr
    assert "left out" not in scored.stdout
    rows = rows_of(world / "run")
    assert all(0 <= row["direction"] <= 1 for row in rows.values())
    assert [name for name, row in rows.items() if "trust" in row] == ["teacher"]
    trust = rows["teacher"]["trust"]
    assert set(trust) == {"pseudo_labels_right", "trust_of_right", "trust_of_wrong"}
    assert trust["trust_of_right"] or trust["trust_of_wrong"]
    assert files_of(world / "run") == PLAIN | {"trust.png", "curves.png"}


def test_the_figures_are_there_though_a_picture_cannot_be_drawn(world):
    write_run(world / "blocked")
    (world / "blocked/evaluation/test/student_confusion.png").mkdir(parents=True)
    scored = evaluate(world, world / "blocked")
    assert scored.returncode == 1 and "student_confusion.png" in scored.stderr
    assert rows_of(world / "blocked")["teacher"]["trust"] and "top-1" in scored.stdout


def test_half_a_record_is_refused_before_anything_is_scored(world):
    write_run(world / "half")
    (world / "half/metrics.jsonl").unlink()
    scored = evaluate(world, world / "half")
    assert scored.returncode == 1 and len(scored.stderr.splitlines()) == 1
    assert "half/metrics.jsonl is missing" in scored.stderr
    assert not (world / "half/evaluation").exists()
