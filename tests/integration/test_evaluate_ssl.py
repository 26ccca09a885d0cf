"""Recognizers through the scripts: trained, made of public checkpoints, and scored."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import pytest
import torch

import sefar_core
from qa_data.manifest import Clip, read_manifest, write_manifest
from sefar_core.checkpoint import build_model, save_encoder
from sefar_core.config import LossConfig, TeacherConfig, TrainConfig
from sefar_core.run_dir import append_metrics, open_run
from tests.oracles.public_model import save_toy
from tests.script_process import call_script, run_script, script_module
from tests.world import MODEL

ROLES = ("student", "teacher")
CONTROLS = ("", ", one middle frame", ", frames shuffled")
SCORES = {
    *("num_clips", "top1", "top1_interval", "top5", "mean_class", "majority"),
    *("direction", "direction_interval"),
}
PLAIN = {"scores.json", *(f"{r}_{part}" for r in ROLES for part in ("probs.npy", "confusion.png"))}
CATEGORIES = (
    "Clabel:   0; set:  21; Glabel:   8; (FX) Kür jump\n"
    "Clabel:   1; set:  41; Glabel:   9; (UB) giant circle\n"
)


script = script_module("evaluate_ssl")


@pytest.fixture(scope="module")
def manifest(world, tmp_path_factory) -> Path:
    """The world's clips, two of them for the test: clips of the first and of the last class."""
    clips = read_manifest(world.gym / "manifest.csv")
    tested = sorted((c for c in clips if c.split == "test"), key=lambda clip: clip.label)
    path = tmp_path_factory.mktemp("evaluate") / "manifest.csv"
    write_manifest([*(c for c in clips if c.split == "labeled"), tested[0], tested[-1]], path)
    return path


def evaluate(world, manifest: Path, run_dir: Path):
    return call_script(
        "evaluate_ssl.py", "--run-dir", run_dir, "--manifest", manifest,
        "--video-root", world.gym / "videos", "--categories", world.gym / "categories.txt",
        "--views", 1, "--crops", 1,
    )  # fmt: skip


def rows_of(run_dir: Path) -> dict[str, dict]:
    return json.loads((run_dir / "evaluation/test/scores.json").read_text())["rows"]


def files_of(run_dir: Path) -> set[str]:
    return {path.name for path in (run_dir / "evaluation/test").iterdir()}


def write_run(run_dir: Path, roles=ROLES) -> None:
    """A run of preset passes_1, whose pseudo-labels have no spread."""
    config = TrainConfig(
        model=replace(MODEL, depth=1),
        teacher=TeacherConfig(dropout_passes=1),
        loss=LossConfig(regulation="confidence_only"),
    )
    open_run(run_dir, config, seed=0)
    append_metrics(run_dir, {"step": 1, "supervised": 0.7, "trust": 0.4})
    torch.manual_seed(0)
    for role in roles:
        network = build_model(config.model, num_classes=12)
        torch.nn.init.normal_(network.classifier.weight)
        save_encoder(network, config.model, run_dir / role)


def test_a_recognizer_is_trained_and_scored_by_its_scripts(world, tmp_path):
    tiny = ["--model.image-size", 32, "--model.dim", 16, "--model.depth", 1, "--model.num-heads", 2]
    done = call_script(
        "train_ssl.py", "demo+supervised", "--manifest", world.gym / "train.csv",
        "--video-root", world.gym / "videos", "--run-dir", tmp_path / "run", *tiny,
        *("--model.pretrained", "None", "--epochs", 1, "--warmup-epochs", 1),
        *("--data.short-side", 32, 36, "--data.store", "none"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scored = evaluate(world, world.gym / "manifest.csv", tmp_path / "run")
    assert scored.returncode == 0, scored.stderr
    rows = rows_of(tmp_path / "run")
    assert set(rows) == {f"student{control}" for control in CONTROLS}
    assert all(set(row) == SCORES and row["num_clips"] == 17 for row in rows.values())
    assert files_of(tmp_path / "run") == {
        *("scores.json", "student_probs.npy", "student_confusion.png", "curves.png"),
    }


def test_a_checkpoint_of_the_public_code_becomes_an_encoder_that_is_scored(
    world, manifest, tmp_path
):
    public = save_toy(tmp_path / "public.pyth", classes=12)
    run_dir = tmp_path / "released"
    made = call_script(
        "convert_checkpoint.py", "from_public", tmp_path / "public.pyth", run_dir / "student"
    )
    assert made.returncode == 0, made.stderr
    assert "12 classes, elements of 2-2-4 frames" in made.stdout
    encoder = sefar_core.load_encoder(run_dir)
    clips = [torch.randn(1, 3, t, 32, 32) for t in (2, 2, 4)]
    torch.testing.assert_close(encoder(clips), public(clips), atol=1e-4, rtol=0)
    assert encoder.mean == (0.4, 0.5, 0.6)
    shutil.copytree(run_dir / "student", run_dir / "teacher")
    scored = evaluate(world, manifest, run_dir)
    assert scored.returncode == 0, scored.stderr
    (said,) = [line for line in scored.stdout.splitlines() if "no record of training" in line]
    assert said.startswith(str(run_dir)) and said.endswith("trust and curves are left out")
    rows = rows_of(run_dir)
    assert set(rows) == {role + control for role in ROLES for control in CONTROLS}
    assert all(set(row) == SCORES and row["num_clips"] == 2 for row in rows.values())
    assert files_of(run_dir) == PLAIN


def test_a_run_of_one_prediction_is_scored_to_the_end_though_a_picture_cannot_be_drawn(
    world, manifest, tmp_path
):
    write_run(tmp_path)
    scored = evaluate(world, manifest, tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert "left out" not in scored.stdout
    rows = rows_of(tmp_path)
    assert all(0 <= row["direction"] <= 1 for row in rows.values())
    assert [name for name, row in rows.items() if "trust" in row] == ["teacher"]
    trust = rows["teacher"]["trust"]
    assert set(trust) == {"pseudo_labels_right", "trust_of_right", "trust_of_wrong"}
    assert trust["trust_of_right"] or trust["trust_of_wrong"]
    assert files_of(tmp_path) == PLAIN | {"trust.png", "curves.png"}
    shutil.rmtree(tmp_path / "evaluation")
    (tmp_path / "evaluation/test/student_confusion.png").mkdir(parents=True)
    scored = evaluate(world, manifest, tmp_path)
    assert scored.returncode == 1 and "student_confusion.png" in scored.stderr
    assert rows_of(tmp_path)["teacher"]["trust"] and "top-1" in scored.stdout


def test_a_share_is_shown_with_its_interval_or_that_it_has_none(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    settings = script.EvaluateSsl(
        run_dir=tmp_path / "run [b]", manifest=tmp_path / "m.csv", video_root=tmp_path
    )
    row = {"top1": 0.5, "top1_interval": None, "direction": 0.25, "direction_interval": (0.1, 0.75)}
    row |= {"top5": 0.875, "mean_class": None, "majority": 0.375}
    script.show({"student": row}, settings)
    printed = capsys.readouterr().out
    assert "run [b] on test" in printed  # names are printed as they are
    for cell in ("50.0% (no interval)", "25.0% [10.0%, 75.0%]", "87.5%", " - ", "37.5%"):
        assert cell in printed


@pytest.mark.parametrize(
    ("texts", "refused"),
    [
        (("Kür jump", "giant circle"), False),
        ((normalize("NFD", "Kür jump"), "giant circle"), False),  # spelled otherwise
        ((None, "class 1"), False),
        (("giant circle", "Kür jump"), True),
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_class_list_of_another_order_is_refused(tmp_path, texts, refused, form):
    categories = tmp_path / "categories.txt"
    categories.write_text(normalize(form, CATEGORIES), encoding="utf-8")
    clips = [
        Clip(id=str(label), path="x.mp4", label=label, text=text, event="FX", split="test")
        for label, text in enumerate(texts)
    ]
    settings = script.EvaluateSsl(
        run_dir=tmp_path, manifest=tmp_path / "m.csv", video_root=tmp_path, categories=categories
    )
    if refused:
        with pytest.raises(ValueError, match=r"class 0 is 'K.*r jump' in .*categories.txt, but"):
            script.classes_of(settings, clips)
    else:
        names, pairs = script.classes_of(settings, clips)
        assert names == [f"FX {normalize(form, 'Kür jump')}", "UB giant circle"] and pairs == []


@pytest.mark.slow
def test_converting_refuses_to_overwrite_and_what_is_no_checkpoint(tmp_path):
    """In a process of its own: its exit codes are those of the program."""
    path, made = tmp_path / "public.pyth", tmp_path / "made"
    path.write_text("no checkpoint")
    done = run_script("convert_checkpoint.py", "from-public", path, made)
    assert done.returncode == 1 and not made.exists()
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    made.mkdir()
    done = call_script("convert_checkpoint.py", "from-public", path, made)
    assert done.returncode == 1 and "made exists already" in done.stderr


def test_half_a_record_is_refused_before_anything_is_scored(world, manifest, tmp_path):
    write_run(tmp_path, roles=())
    (tmp_path / "metrics.jsonl").unlink()
    scored = evaluate(world, manifest, tmp_path)
    assert scored.returncode == 1 and len(scored.stderr.splitlines()) == 1
    assert f"{tmp_path}/metrics.jsonl is missing" in scored.stderr
    assert not (tmp_path / "evaluation").exists()
