"""Videos to scores at miniature size: real files, real scripts' functions, random weights."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from qa_data.files import SefarError
from qa_data.manifest import Clip, write_manifest
from qa_data.questions import write_questions
from sefar_core.checkpoint import CheckpointError, build_model, save_encoder
from sefar_core.config import ModelConfig
from sefar_mllm.checkpoint import load_trained
from sefar_mllm.config import EvaluateConfig, FinetuneConfig, LoraSettings
from sefar_mllm.dataset import load_questions
from sefar_mllm.encoders import ENCODERS
from sefar_mllm.evaluation.evaluate import score_file
from sefar_mllm.evaluation.significance import compare
from sefar_mllm.features import extract
from sefar_mllm.scoring import read_predictions
from sefar_mllm.train import finetune
from tests.oracles import toy_llm
from tests.oracles.videos import write_video

NUM_CLIPS = 8


def moving_bar(shade: int) -> np.ndarray:
    """Ten frames in which a bright bar moves over a background of its own shade."""
    frames = np.full((10, 32, 48, 3), shade, np.uint8)
    for number, picture in enumerate(frames):
        picture[:, 4 * number : 4 * number + 6] = 255
    return frames


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Videos, manifest, encoder, questions, language model, tokens, and a fine-tuned model."""
    root = tmp_path_factory.mktemp("road")
    asked = toy_llm.questions(NUM_CLIPS)
    clips = [
        Clip(id=q.video, path=f"{q.video}.mp4", label=q.label, text=q.options[q.answer],
             event=q.event, source=q.source, split="test")
        for q in asked
    ]  # fmt: skip
    for number, clip in enumerate(clips):
        write_video(root / clip.path, moving_bar(20 * number), fps=25)
    write_manifest(clips, root / "manifest.csv")
    write_questions(asked, root / "questions.jsonl")
    settings = ModelConfig(image_size=32, patch_size=8, dim=16, depth=1, num_heads=2, fusion_dim=8)
    torch.manual_seed(0)
    save_encoder(build_model(settings, 4), settings, root / "encoder")
    toy_llm.language_model(root / "llm")
    extract(clips, root, ENCODERS["sefar"](root / "encoder"), root / "tokens")
    finetune(tiny(root), load_questions(root / "questions.jsonl"), root / "tokens", root / "run")
    return root, clips


def tiny(root, **changes):
    settings = {"epochs": 2, "batch_size": 4, "micro_batch_size": 2, "projector_lr": 1e-2}
    lora = LoraSettings(rank=2, alpha=4.0, dropout=0.1, lr=1e-2)
    return FinetuneConfig(language_model=str(root / "llm"), lora=lora, **settings | changes)


def test_a_run_folder_says_what_ran_and_how_it_went(world):
    root, _ = world
    assert json.loads((root / "run/config.json").read_text())["lora"]["rank"] == 2
    assert "packages" in json.loads((root / "run/run.json").read_text())
    lines = [json.loads(line) for line in (root / "run/metrics.jsonl").read_text().splitlines()]
    assert lines and all(np.isfinite(line["loss"]) for line in lines)


def test_the_model_folder_holds_adapter_config_and_tokenizer_and_no_base(world):
    root, _ = world
    names = {path.name for path in (root / "run/model").iterdir()}
    assert {
        "adapter_model.safetensors",
        "config.json",
        "tokenizer.json",
        "fingerprint.json",
    } <= names
    assert not any(name.startswith("model") or name.endswith((".bin", ".pt")) for name in names)


def test_a_loaded_model_answers_like_a_loaded_model(world):
    root, _ = world
    config = EvaluateConfig(
        model=root / "run/model",
        encoder_features=root / "tokens",
        questions=(root / "questions.jsonl",),
        out=root / "scores",
        resamples=100,
    )
    asked = load_questions(root / "questions.jsonl")
    seen = [
        score_file(config, *load_trained(root / "run/model"), asked, name=name)
        for name in ("one", "two")
    ]
    assert seen[0] == seen[1]
    assert seen[0].num_questions == NUM_CLIPS
    first, second = (
        read_predictions(root / f"scores/predictions-{n}.jsonl") for n in ("one", "two")
    )
    same = compare(first, second, resamples=100, rng=np.random.default_rng(0))
    assert (same.micro.low, same.micro.value, same.micro.high) == (0, 0, 0)


def test_another_language_model_is_noticed_when_loading(world, tmp_path):
    root, _ = world
    other = toy_llm.language_model(tmp_path / "llm", seed=5)
    with pytest.raises(CheckpointError, match="computes other logits"):
        load_trained(root / "run/model", language_model=str(other))


def test_a_stopped_run_goes_on_to_the_same_weights(world, tmp_path):
    root, _ = world
    asked = load_questions(root / "questions.jsonl")
    config = tiny(root, projector_epochs=1, save_every_steps=1)
    whole = finetune(config, asked, root / "tokens", tmp_path / "whole")
    # As if killed in the middle of the second stage's first epoch, while writing a checkpoint.
    finetune(config, asked, root / "tokens", tmp_path / "again")
    stage = tmp_path / "again/checkpoints/joint"
    kept = sorted(path.name for path in stage.iterdir())
    (stage / kept[-1] / "complete").unlink()
    resumed = finetune(config, asked, root / "tokens", tmp_path / "again")
    name = "adapter_model.safetensors"
    assert (whole / name).read_bytes() == (resumed / name).read_bytes()


def test_a_run_goes_on_with_its_own_settings_or_not_at_all(world, tmp_path):
    root, _ = world
    asked = load_questions(root / "questions.jsonl")
    finetune(tiny(root, save_every_steps=2), asked, root / "tokens", tmp_path)
    with pytest.raises(ValueError, match="a run with epochs = 2, but 3 is requested"):
        finetune(tiny(root, save_every_steps=2, epochs=3), asked, root / "tokens", tmp_path)


def test_processes_that_do_not_know_of_one_another_are_refused(world, tmp_path, monkeypatch):
    root, _ = world
    monkeypatch.setenv("WORLD_SIZE", "2")
    asked = load_questions(root / "questions.jsonl")
    with pytest.raises(SefarError, match="2 processes were started, but accelerate knows of 1"):
        finetune(tiny(root), asked, root / "tokens", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("script", ["extract_features", "finetune_mllm", "evaluate_mllm"])
def test_scripts_explain_themselves(script):
    done = subprocess.run(
        [sys.executable, f"scripts/{script}.py", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
