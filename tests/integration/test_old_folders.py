"""What users made with the code of commit 2d0ecd3 is read by the present code, with right results.

The files were made by a program that runs with that code alone: to see it,
`git show a49ab32:tests/old_folders/make.py`. Numbers are compared with tolerances, since
processors round differently. The commands that are run again are those that the old files recorded.
"""

import json
import math
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import sefar_core
from qa_data.manifest import by_split, read_manifest
from qa_data.questions import read_questions
from sefar_core.data.frame_cache import FrameCache
from sefar_core.data.video import read_fractions
from sefar_mllm.checkpoint import load_trained, read_fingerprint
from sefar_mllm.encoders.probe import read_probe
from sefar_mllm.feature_cache import TokenCache
from sefar_mllm.scoring import read_predictions
from tests.integration.run_folders import lines
from tests.oracles import image_folders
from tests.script_process import ROOT, call_script

OLD = ROOT / "tests/old_folders"
EXPECTED = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))
SOME_STEPS = 0.01  # steps after one another let rounding grow


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A copy of the old files; the working folder, for what is recorded in them is relative."""
    unpack("folders.tar.xz", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def unpack(archive: str, folder: Path) -> None:
    with tarfile.open(OLD / archive) as packed:
        packed.extractall(folder, filter="data")


def script(name: str, *arguments: object) -> str:
    """What a script prints that runs in this folder, and has to succeed."""
    done = call_script(name, *arguments, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    return done.stdout


def recorded(path: Path, key: str | None = None) -> list[str]:
    """The command of a file's first line or whole: script and arguments."""
    text = path.read_text(encoding="utf-8")
    found = json.loads(text.splitlines()[0] if path.suffix == ".jsonl" else text)
    return (found[key] if key else found)["command"]


def other(command: list[str], option: str, value: str) -> list[str]:
    """A command with another value of an option."""
    place = command.index(option)
    return [*command[: place + 1], value, *command[place + 2 :]]


def assert_goes_on(run_dir: Path, before: bytes, expected: list[dict], exact: set[str]) -> None:
    """The old reports stand as they were, and those that follow are what the old code's were."""
    assert (run_dir / "metrics.jsonl").read_bytes().startswith(before)
    found, first = lines(run_dir), len(before.splitlines())
    assert 0 < first < len(found) == len(expected)
    for one, wanted in zip(found[first:], expected[first:], strict=True):
        assert {name: one.get(name) for name in exact} == {
            name: pytest.approx(wanted[name]) if name in wanted else None for name in exact
        }
        assert one.keys() >= wanted.keys()
        if "loss" in wanted:  # else the line tells of questions or clips that were held out
            assert one["loss"] == pytest.approx(wanted["loss"], rel=SOME_STEPS)


def assert_gone_on_with(run_dir: Path) -> None:
    told = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    assert "2d0ecd3f8dcd" in [session["commit"] for session in told["earlier_sessions"]]


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with what a change of it would change."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def pattern() -> list[torch.Tensor]:
    """The two clips of make.py."""
    shapes = [(2, 3, frames, 16, 16) for frames in (2, 2, 4)]
    places = [torch.arange(math.prod(shape)).view(shape) for shape in shapes]
    return [2 * torch.sin((place**2 % 1009) / 50) for place in places]


def test_a_stopped_training_goes_on_from_state_and_frame_cache(here):
    run_dir, caches = here / "runs/stopped", files_of(here / "runs/frames")
    before = (run_dir / "metrics.jsonl").read_bytes()
    script(*recorded(run_dir / "run.json"))
    exact = {"step", "lr", "ramp"}
    assert_goes_on(run_dir, before, EXPECTED["ssl"]["metrics"], exact)
    assert_gone_on_with(run_dir)
    assert files_of(here / "runs/frames") == caches  # read, not made again
    for role in ("student", "teacher"):
        continued, expected = (
            sefar_core.load_encoder(here / "runs" / name / role)(pattern())
            for name in ("stopped", "sefar")
        )
        torch.testing.assert_close(continued, expected, atol=0.05, rtol=0)


@pytest.mark.slow
def test_an_old_training_by_the_reader_torchcodec_goes_on_by_auto(here):
    run_dir = here / "runs/torchcodec"
    before = (run_dir / "metrics.jsonl").read_bytes()
    command = recorded(run_dir / "run.json")
    told = script(*other(command, "--data.reader", "auto"))
    assert told.count("torchcodec; it resumes with auto") == 1
    assert_goes_on(run_dir, before, EXPECTED["ssl"]["metrics"], {"step", "lr", "ramp"})


@pytest.mark.slow
def test_a_finished_training_learns_nothing_more(here):
    run_dir, caches = here / "runs/supervised", files_of(here / "runs/frames")
    before = (run_dir / "metrics.jsonl").read_bytes()
    weights = load_file(run_dir / "student/model.safetensors")
    script(*recorded(run_dir / "run.json"))
    assert (run_dir / "metrics.jsonl").read_bytes() == before
    torch.testing.assert_close(load_file(run_dir / "student/model.safetensors"), weights)
    assert_gone_on_with(run_dir)
    assert files_of(here / "runs/frames") == caches


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_an_encoder_gives_the_logits_that_it_gave(here, role):
    expected = torch.tensor(EXPECTED["ssl"]["logits"][role])
    found = sefar_core.load_encoder(here / "runs/sefar" / role)(pattern())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_run_is_scored_as_it_was(here):
    out = here / "runs/sefar/evaluation/test"
    old = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    probs = {path.name: np.load(path) for path in out.glob("*_probs.npy")}
    script(*recorded(out / "scores.json"))
    rows = json.loads((out / "scores.json").read_text(encoding="utf-8"))["rows"]
    assert rows.keys() == old["rows"].keys()
    for name, row in rows.items():
        assert row["num_clips"] == old["rows"][name]["num_clips"] == 12
    trust = old["rows"]["teacher"]["trust"]
    assert rows["teacher"]["trust"]["trust_of_wrong"] == pytest.approx(
        trust["trust_of_wrong"], abs=1e-3
    )
    assert probs.keys() == {"student_probs.npy", "teacher_probs.npy"}
    for name, expected in probs.items():
        np.testing.assert_allclose(np.load(out / name), expected, atol=1e-3)


@pytest.mark.parametrize(("kind", "apart"), [("raw", 1), ("jpeg", 5)])
def test_a_frame_cache_holds_the_frames_of_the_videos(here, kind, apart):
    (folder,) = (here / "runs/frames").glob(f"{kind}-*")
    cache = FrameCache(folder)
    clips = by_split(read_manifest(here / "splits/manifest.csv"), "labeled")
    assert len(clips) == 15
    for clip in clips:
        found = cache.read(clip, (0.05, 0.4, 0.95)).float()
        frames = read_fractions(here / "gym/videos" / clip.path, (0.05, 0.4, 0.95)).float()
        assert found.shape == frames.shape == (3, 24, 32, 3)
        assert (found - frames).abs().mean() < apart


def test_a_checkpoint_for_the_public_code_comes_back(tmp_path):
    unpack("public.tar.xz", tmp_path)
    made = tmp_path / "made/student"
    script("convert_checkpoint.py", "from-public", tmp_path / "public.pyth", made)
    found = load_file(made / "model.safetensors")
    numbers = {name: (t.min().item(), t.max().item()) for name, t in found.items()}
    assert numbers == {name: (number, number) for name, number in EXPECTED["public"].items()}
    encoder = sefar_core.load_encoder(tmp_path / "made")
    assert (encoder.mean, encoder.classifier.out_features) == ((0.4, 0.5, 0.6), 6)


def test_cached_tokens_are_those_of_the_encoder(here):
    """The old cache is known as complete, and a new one holds the same."""
    assert_same_tokens(here / "tokens/sefar")


def test_a_probe_and_the_tokens_of_its_base_are_read(here):
    probe = read_probe(here / "runs/clip_probe")
    features = torch.sin(torch.arange(2 * 16) / 3).view(2, 16)
    expected = torch.tensor(EXPECTED["probe"])
    torch.testing.assert_close(probe.logits(features), expected, atol=1e-4, rtol=0)
    with image_folders.published_in_miniature():
        assert_same_tokens(here / "tokens/clip")
        # Those that the probe has mapped were made without the script.
        made = other(recorded(here / "tokens/clip/runs.jsonl"), "--encoder", "clip_probe")
        made = other(made, "--encoder-dir", "runs/clip_probe")
        mapped = other(made, "--out", "tokens/clip_probe")
        assert_same_tokens(here / "tokens/clip_probe", mapped)


def assert_same_tokens(folder: Path, command: list[str] | None = None) -> None:
    command = command or recorded(folder / "runs.jsonl")
    assert "encoded 0 clips, 33 were there already" in script(*command)
    script(*other(command, "--out", "fresh"))
    clips = read_manifest(Path("splits/manifest.csv"))
    names = [clip.id for clip in clips if clip.split != "unlabeled"]
    assert len(names) == 33
    old, new = TokenCache(folder, names), TokenCache(Path("fresh"), names)
    assert old.key == new.key and old.spans == new.spans
    kept, made = (torch.stack([cache[name].float() for name in names]) for cache in (old, new))
    assert (made - kept).norm() < 0.01 * (kept - kept.mean(dim=0)).norm()
    shutil.rmtree("fresh")


def test_a_stopped_fine_tuning_goes_on_from_its_checkpoints(here):
    run_dir = here / "runs/mllm-stopped"
    before = (run_dir / "metrics.jsonl").read_bytes()
    script(*recorded(run_dir / "run.json"))
    exact = {"stage", "step", "epoch", "lora_lr", "projector_lr"}
    assert_goes_on(run_dir, before, EXPECTED["mllm"]["metrics"], exact)
    assert_gone_on_with(run_dir)
    continued, expected = (
        load_file(here / f"runs/{name}/model/adapter_model.safetensors")
        for name in ("mllm-stopped", "mllm")
    )
    assert continued.keys() == expected.keys()
    load_trained(run_dir / "model")  # checks its own logits


def test_a_trained_model_answers_as_it_did(here):
    old = read_predictions(here / "scores/predictions-test.jsonl")
    command = recorded(here / "scores/metrics.json", "run")
    script(*other(command, "--out", "again"))
    new = read_predictions(here / "again/predictions-test.jsonl")
    assert [one.question_id for one in new] == [one.question_id for one in old]
    assert [one.answer for one in new] == [one.answer for one in old]
    probs, expected = (np.array([one.probs for one in some]) for some in (new, old))
    np.testing.assert_allclose(probs, expected, atol=1e-3)
    assert expected.std(axis=0).min() > 3e-3  # or any model would do


@pytest.mark.slow
def test_an_old_adapter_is_merged_and_an_old_merged_model_is_loaded(here):
    load_trained(here / "merged")  # checks the logits that it was written with
    script("merge_mllm.py", "runs/mllm/model", "--out", "again")
    assert (here / "merged/probe.json").exists() and (here / "again/fingerprint.json").exists()
    old, new = (read_fingerprint(here / name)[1] for name in ("merged", "again"))
    torch.testing.assert_close(new, old, atol=1e-3, rtol=0)
    weights = load_file(here / "again/model.safetensors")
    expected = load_file(here / "merged/model.safetensors")
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-5)
    script("merge_mllm.py", "runs/mllm/model", "--out", "merged")  # replaced as ours


def test_questions_are_read_and_built_again_in_their_folder(here):
    names = {"train": 15, "val": 6, "test": 12}
    old = {name: read_questions(here / f"qa/{name}.jsonl") for name in names}
    assert {name: len(questions) for name, questions in old.items()} == names
    clips = {clip.id: clip for clip in read_manifest(here / "splits/manifest.csv")}
    assert all(clips[q.video].label == q.label for questions in old.values() for q in questions)
    script(
        "build_gym_qa.py", "--manifest", "splits/manifest.csv",
        "--categories", "gym/categories.txt", "--distractors", "public", "--out", "qa",
    )  # fmt: skip
    assert {name: read_questions(here / f"qa/{name}.jsonl") for name in names} == old


def test_an_old_export_is_known_and_replaced(here):
    folder = here / "exported/llava"
    old = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    script(
        "export_questions.py", "--questions", "qa", "--format", "llava",
        "--video-root", "videos", "--manifest", "splits/manifest.csv", "--out", folder,
    )  # fmt: skip
    assert {path.name for path in folder.iterdir()} == old.keys()
    for name in ("train.json", "val.json", "test.json"):
        assert json.loads((folder / name).read_text(encoding="utf-8")) == json.loads(old[name])


def test_what_the_ledger_of_cuts_names_is_not_cut_again(here, monkeypatch):
    program = here / "bin/ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    told = script(
        "trim_finegym.py", "--video-root", "full", "--out", "cut", "--lists",
        "full.txt", "--annotations", "full.json", "--workers", "1",
    )  # fmt: skip
    assert "1 clips: 0 cut, 1 kept, 0 failed" in told


def test_other_settings_than_an_old_run_had_are_refused(here):
    command = other(recorded(here / "runs/stopped/run.json"), "--optim.lr", "0.25")
    done = call_script(*command, cwd=here)
    assert done.returncode == 1 and "optim.lr = 0.005, but 0.25 is requested" in done.stderr
