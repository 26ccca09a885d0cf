"""The comparison from videos to verdict at miniature size: all rows, resumed, refused."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qa_data.manifest import Clip, write_manifest
from qa_data.questions import write_questions
from sefar_core.checkpoint import build_model, save_encoder
from sefar_core.config import ModelConfig
from sefar_mllm.comparison import experiment
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.experiment import StaleError
from sefar_mllm.comparison.rows import ENCODER_ROWS
from sefar_mllm.comparison.run import compare_encoders
from sefar_mllm.config import FinetuneConfig, LoraSettings
from sefar_mllm.scoring import read_predictions
from tests.oracles import image_folders, toy_llm
from tests.oracles.videos import moving_bar, write_video

NUM_CLIPS = 8
SIZES = ModelConfig(image_size=32, patch_size=8, dim=16, depth=1, num_heads=2, fusion_dim=8)


def question_folder(folder: Path, rule: str, train, test) -> Path:
    folder.mkdir()
    write_questions(train, folder / "train.jsonl")
    write_questions(test, folder / "test.jsonl")
    row = {"micro": 0.25, "micro_se": 0.01, "macro": 0.25, "macro_se": 0.01}
    audit = {"settings": {"distractors": rule}, "audits": {"test": {"rows": {"chance": row}}}}
    (folder / "audit.json").write_text(json.dumps(audit))
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> CompareConfig:
    """Videos, splits, questions of two rules, two recognizers, CLIP in miniature, a toy Llama."""
    root = tmp_path_factory.mktemp("compare")
    asked = [
        replace(question, option_labels=(0, 1, 2, 3), source=f"source{number // 2}")
        for number, question in enumerate(toy_llm.questions(2 * NUM_CLIPS))
    ]
    clips = [
        Clip(
            id=question.video,
            path=f"{question.video}.mp4",
            label=question.label,
            text=question.options[question.answer],
            event=question.event,
            source=question.source,
            split="labeled" if number < NUM_CLIPS else "test",
        )
        for number, question in enumerate(asked)
    ]
    for number, clip in enumerate(clips):
        write_video(root / clip.path, moving_bar(12 * number), fps=25)
    write_manifest(clips, root / "manifest.csv")
    folder = question_folder(root / "qa-hard", "hard", asked[:NUM_CLIPS], asked[NUM_CLIPS:])
    for seed, name in enumerate(("sefar", "supervised", "sefar-again")):
        torch.manual_seed(seed)
        save_encoder(build_model(SIZES, 4), SIZES, root / name)
    toy_llm.language_model(root / "llm")
    return CompareConfig(
        manifest=root / "manifest.csv",
        video_root=root,
        questions=(folder,),
        sefar=(root / "sefar",),
        supervised=(root / "supervised",),
        clip=image_folders.timm_folder(root / "clip", "clip"),
        out=root / "out",
        seeds=(0,),
        resamples=100,
        finetune=FinetuneConfig(
            language_model=str(root / "llm"),
            lora=LoraSettings(rank=2, alpha=4.0, dropout=0.0, lr=1e-2),
            epochs=1,
            batch_size=4,
            micro_batch_size=4,
        ),
    )


@pytest.fixture(scope="module")
def found(world):
    with image_folders.published_in_miniature():
        yield compare_encoders(world)


def test_every_row_is_there_or_reads_not_measured(world, found):
    rows = found["sets"]["qa-hard"]["rows"]
    missing = {name for name, row in rows.items() if row is None}
    assert {row.name for row in ENCODER_ROWS} & missing == {"eva", "eva_probe"}
    assert {"clip_probe-wrong_videos", "sefar-middle", "random_classifier", "prior"} <= (
        rows.keys() - missing
    )
    page = (world.out / "comparison.md").read_text()
    assert "| eva | - | EVA-CLIP ViT-g/14 | not measured |" in page
    assert "published, Table 5" in page and "49.0" in page


def test_the_decision_is_one_sentence_for_each_encoder(found):
    words = {one["second"]: one["words"] for one in found["verdicts"]}
    assert words["eva"] == "sefar against eva: not measured."
    assert "sefar above constant on public questions" in words["constant"]


def test_budget_and_versions_are_written(world, found):
    stored = json.loads((world.out / "comparison.json").read_text())
    assert stored["run"]["packages"]["torch"]
    assert stored["budget"]["tokens"] == 8 * world.grid**2
    assert stored["budget"]["steps"] == {"qa-hard": 2}
    assert {path.name for path in (world.out / "plots").iterdir()} >= {
        f"qa-hard-{what}.png" for what in ("rows", "classes", "letters", "learning")
    }


def test_wrong_videos_are_shown_in_the_control_and_own_videos_in_the_own_test(world, found):
    runs = world.out / "runs/qa-hard"
    own = read_predictions(runs / "sefar/seed-0/predictions.jsonl")
    wrong = read_predictions(runs / "sefar-wrong_videos/seed-0/predictions.jsonl")
    assert all(one.shown == one.video for one in own)
    assert all(one.shown != one.video for one in wrong)
    of = {one.video: one for one in own}
    assert all(of[one.shown].label != one.label for one in wrong)
    assert all(of[one.shown].source != one.source for one in wrong)


def test_drops_pairs_and_diagnostics_are_measured(found):
    one = found["sets"]["qa-hard"]
    assert {"sefar-reversed", "supervised-middle", "clip_probe-wrong_videos"} <= one[
        "losses"
    ].keys()
    assert {"supervised-reversed", "clip-wrong_videos"} <= one["more_lost"].keys()
    assert len(one["mcnemar_p"]["sefar_head"]) == 1
    assert one["told"]["sefar"]["text_information"]["mean"]["value"] is not None
    assert set(one["told"]) == {
        "sefar",
        "clip",
        "supervised",
        "clip_probe",
        "random",
        "constant",
        "sefar_elements",
        "sefar_fused",
    }
    assert found["budget"]["recognizers"] == {"sefar": 1, "supervised": 1}


def test_the_page_reports_whether_weights_were_verified(world, found):
    assert "clip: weights not verified" in (world.out / "comparison.md").read_text()


def test_a_second_run_trains_and_scores_nothing(world, found, monkeypatch):
    def never(*_, **__):
        raise AssertionError("done before, but done again")

    monkeypatch.setattr(experiment, "finetune", never)
    monkeypatch.setattr(experiment, "predict_answers", never)
    monkeypatch.setattr(experiment, "score_other_formats", never)
    again = compare_encoders(world)
    assert again["sets"] == found["sets"]
    assert again["verdicts"] == found["verdicts"]


def test_lost_predictions_are_made_again_without_training(world, found, monkeypatch):
    folder = world.out / "runs/qa-hard/sefar-reversed/seed-0"
    before = (folder / "predictions.jsonl").read_bytes()
    for path in folder.iterdir():
        path.unlink()
    monkeypatch.setattr(experiment, "finetune", None)
    compare_encoders(world)
    assert (folder / "predictions.jsonl").read_bytes() == before


def test_another_setting_is_refused_before_anything_is_trained(world, found, monkeypatch):
    monkeypatch.setattr(experiment, "finetune", None)
    longer = replace(world, finetune=replace(world.finetune, epochs=2))
    with pytest.raises(StaleError, match=r"finetune\.epochs = 1, but 2 is requested"):
        compare_encoders(longer)


def test_other_questions_are_refused(world, found, monkeypatch):
    monkeypatch.setattr(experiment, "finetune", None)
    path = world.questions[0] / "test.jsonl"
    kept = path.read_text()
    path.write_text(kept.replace("salto forward tucked", "salto forward piked"))
    try:
        with pytest.raises(StaleError, match="questions = "):
            compare_encoders(world)
    finally:
        path.write_text(kept)


@pytest.mark.slow
def test_several_processes_recognizers_and_a_grid_of_rates(world, tmp_path):
    grid = {"lr_grid": (0.5, 1.0), "dev_rate": 0.25}
    sefar = (*world.sefar, world.video_root / "sefar-again")
    config = replace(
        world, out=tmp_path, clip=None, jobs=2, seeds=(0, 1), sefar=sefar, supervised=(), **grid
    )
    found = compare_encoders(config)
    factors = found["budget"]["factors"]
    assert set(factors.values()) <= {0.5, 1.0}
    assert factors["qa-hard, sefar"] == factors["qa-hard, sefar-trained_on_wrong_answers"]
    sefar = found["sets"]["qa-hard"]["rows"]["sefar"]
    assert sefar["num_seeds"] == 2 and sefar["micro"]["spread"] is not None
    rows = found["sets"]["qa-hard"]["rows"]
    assert rows["sefar_head"]["num_seeds"] == rows["sefar_classifier"]["num_seeds"] == 2
    assert {path.name for path in (tmp_path / "tokens").glob("sefar-*")} >= {
        "sefar-seed-0",
        "sefar-seed-1",
        "sefar-seed-1-frames_middle",
    }
    assert "2 seeds, recognizer and fine-tuning" in (tmp_path / "comparison.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("preset", [["demo"], []])
def test_the_script_explains_itself(preset):
    done = subprocess.run(
        [sys.executable, "scripts/compare_encoders.py", *preset, "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "--finetune.epochs" in done.stdout and "vicuna_7b" in done.stdout


@pytest.mark.slow
def test_a_preset_that_does_not_exist_is_refused_with_the_list():
    command = [sys.executable, "scripts/compare_encoders.py", "vicuna", "--out", "x"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "the first argument is a preset, demo or vicuna_7b, got 'vicuna'" in done.stderr
