"""Faults of a run: it stops with one clear line, and resumes from its last state exactly."""

import hashlib
import json
import math
import os
import random
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import sefar_core
from qa_data.files import SefarError, WriteError
from sefar_core import checkpoint, train
from sefar_core.checkpoint import complete_states, first_fault
from sefar_core.config import OptimConfig
from sefar_core.data.video import VideoReadError
from sefar_core.signals import Interrupted
from sefar_core.train import fit
from tests.integration.tiny_run import CLIP_NORM, CONFIG, make_world, order, run, start
from tests.oracles.holder import held

LAST = "states/step-00000008"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("faults"))


def places(world: Path, name: str, manifest: str = "manifest.csv") -> dict[str, Path]:
    return {
        "manifest": world / manifest,
        "video_root": world / "gym/videos",
        "run_dir": world / name,
    }


@pytest.fixture(scope="module")
def straight(world) -> Path:
    fit(CONFIG, **places(world, "straight"))
    return world / "straight"


def fingerprints(run_dir: Path) -> dict[str, str]:
    files = [f"{LAST}/{role}.safetensors" for role in ("student", "teacher", "optimizer")]
    return {
        name: hashlib.sha256((run_dir / name).read_bytes()).hexdigest()
        for name in (*files, "metrics.jsonl")
    }


def lines(run_dir: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (run_dir / name).read_text().splitlines()]


def before_step(monkeypatch, step: int, action) -> None:
    """Do something as the step after `step` others begins, once."""
    whole_step = train.optimizer_step

    def disturbed(loop, batches):
        if loop.step == step:
            action(loop)
        return whole_step(loop, batches)

    monkeypatch.setattr(train, "optimizer_step", disturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_end_saves_and_resumes_bit_for_bit(
    world, straight, number, monkeypatch
):
    here = places(world, number.name)
    handler = signal.getsignal(number)
    before_step(monkeypatch, 4, lambda loop: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match="stopped after step 5; saved in") as stop:
        fit(CONFIG, **here)
    assert stop.value.exit_code == {"SIGTERM": 143, "SIGINT": 130}[number.name]
    assert signal.getsignal(number) == handler
    assert complete_states(here["run_dir"] / "states")[-1].name == "step-00000005"
    monkeypatch.undo()
    fit(CONFIG, **here)
    assert fingerprints(here["run_dir"]) == fingerprints(straight)


def test_the_rate_rises_and_most_gradients_are_clipped_in_these_runs(straight):
    """Or resuming would not show that both go on exactly."""
    reports = lines(straight)
    rates = [1e-3 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    rates[:2] = [rates[0] / 3, rates[1] * 2 / 3]
    assert [line["lr"] for line in reports] == pytest.approx(rates, rel=1e-6)
    assert sum(line["grad_norm"] > CLIP_NORM for line in reports) > 4


def test_a_run_that_began_before_these_settings_resumes_without_them(world, tmp_path):
    here = places(world, "old")
    plain = replace(CONFIG, optim=replace(CONFIG.optim, clip_norm=None, rate_warmup_steps=0))
    fit(plain, **here)
    settings = json.loads((world / "old/config.json").read_text())
    del settings["optim"]["clip_norm"], settings["optim"]["rate_warmup_steps"]
    (world / "old/config.json").write_text(json.dumps(settings))
    fit(plain, **here)
    with pytest.raises(ValueError, match=r"optim\.clip_norm = None, but 2\.0 is requested"):
        fit(CONFIG, **here)


def test_classes_without_a_label_are_named_and_stay_on_record(world, straight, capsys):
    rows = [line.split(",") for line in (world / "manifest.csv").read_text().splitlines()]
    head, split, label = rows[0], rows[0].index("split"), rows[0].index("label")
    labeled = {int(row[label]) for row in rows[1:] if row[split] == "labeled"}
    bare = json.loads((straight / "run.json").read_text())["classes_without_labels"]
    assert "split" in head and bare
    assert bare == [f"class {n}" for n in range(max(labeled) + 1) if n not in labeled]
    shutil.rmtree(world / "named", ignore_errors=True)
    fit(replace(CONFIG, steps=4), **places(world, "named"))
    assert f"warning: {len(bare)} of {max(labeled) + 1} classes have no" in capsys.readouterr().out


@pytest.mark.parametrize(("split", "manifest"), [("unlabeled", ""), ("val", "with_val.csv")])
def test_a_missing_clip_is_named_before_the_first_step(world, split, manifest):
    here = places(world, f"no-{split}", manifest or "manifest.csv")
    rows = [line.split(",") for line in here["manifest"].read_text().splitlines()]
    path, at = rows[0].index("path"), rows[0].index("split")
    gone = next(row[path] for row in rows[1:] if row[at] == split)
    (world / "gym/videos" / gone).rename(world / gone)
    try:
        with pytest.raises(VideoReadError, match=rf"1 of \d+ clips have no file: .*{gone}; check"):
            fit(CONFIG, **here)
    finally:
        (world / gone).rename(world / "gym/videos" / gone)
    assert not (here["run_dir"] / "metrics.jsonl").exists()


def test_unlabeled_clips_may_be_missing_where_only_labels_are_learned(world):
    here = places(world, "labels-alone")
    rows = [line.split(",") for line in here["manifest"].read_text().splitlines()]
    path, at = rows[0].index("path"), rows[0].index("split")
    gone = next(row[path] for row in rows[1:] if row[at] == "unlabeled")
    (world / "gym/videos" / gone).rename(world / gone)
    try:
        fit(replace(CONFIG, warmup_epochs=CONFIG.epochs, steps=4), **here)
    finally:
        (world / gone).rename(world / "gym/videos" / gone)


def test_a_signal_in_the_last_step_only_ends_the_run(world, straight, monkeypatch):
    before_step(monkeypatch, 7, lambda loop: os.kill(os.getpid(), signal.SIGTERM))
    fit(CONFIG, **places(world, "late"))
    assert fingerprints(world / "late") == fingerprints(straight)


def test_a_loss_that_is_not_a_number_changes_nothing_and_names_the_clips(
    world, straight, monkeypatch
):
    here, kept, whole_micro, seen = places(world, "infinite"), {}, train.micro_step, []

    def tensors(loop) -> dict:
        optimizer = checkpoint.optimizer_tensors(loop.optimizer)
        parts = {**loop.network.state_dict(), **optimizer}
        teacher = {f"t.{k}": v for k, v in loop.teacher.network.state_dict().items()}
        return {name: tensor.clone() for name, tensor in (parts | teacher).items()}

    def remember(loop):
        kept["loop"], kept["before"] = loop, tensors(loop)

    def broken(student, teacher, batch, config, draws):
        losses, report = whole_micro(student, teacher, batch, config, draws)
        if "loop" in kept:
            seen.append(batch)
        if len(seen) == 2:  # the second micro-batch of the step
            losses = losses._replace(unsupervised=losses.unsupervised * torch.inf)
        return losses, report

    before_step(monkeypatch, 5, remember)
    monkeypatch.setattr(train, "micro_step", broken)
    message = (
        "loss became inf.*step 6; nothing was updated by it, and the last good state is in .*/st"
    )
    with pytest.raises(FloatingPointError, match=message) as failure:
        fit(CONFIG, **here)
    after = tensors(kept["loop"])
    assert all(torch.equal(after[name], tensor) for name, tensor in kept["before"].items())
    named = str(failure.value).partition("check the clips: ")[2].split(", ")
    # Step 6 takes labeled clips 20 to 23 of the stream of passes of 8: its second micro-batch are
    # the last two; and unlabeled clips 36 to 47 in passes of 16: the last six.
    assert named == stream_of("LabeledClips", world, "labeled", 22, 24) + stream_of(
        "UnlabeledClips", world, "unlabeled", 42, 48
    )
    monkeypatch.undo()
    fit(CONFIG, **here)
    assert fingerprints(here["run_dir"]) == fingerprints(straight)


@pytest.mark.parametrize("regulation", ["adaptive", "confidence_only", "fixed"])
def test_a_teacher_that_diverged_ends_the_run_like_a_loss_that_did(world, regulation, monkeypatch):
    def diverge(loop):
        loop.teacher.network.classifier.bias.data.fill_(torch.nan)

    before_step(monkeypatch, 5, diverge)
    here = places(world, f"diverged-{regulation}")
    config = replace(CONFIG, loss=replace(CONFIG.loss, regulation=regulation))
    with pytest.raises(FloatingPointError, match="loss became nan.*step 6.*check the clips"):
        fit(config, **here)


def stream_of(name: str, world: Path, split: str, first: int, last: int) -> list[str]:
    """Clips of a stream, from the manifest's text and the passes' shuffling alone."""
    rows = [line.split(",") for line in (world / "manifest.csv").read_text().splitlines()]
    column = rows[0].index("split")
    clips = [row[0] for row in rows[1:] if row[column] == split]
    stream: list[str] = []
    for number in range(1 + last // len(clips)):
        digest = hashlib.blake2b(repr((0, name, number)).encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        stream += [clips[place] for place in torch.randperm(len(clips), generator=generator)]
    return stream[first:last]


@pytest.mark.parametrize("full", [SafetensorError("No space left"), OSError(28, "No space left")])
def test_a_full_disk_leaves_the_state_before(world, straight, full, monkeypatch):
    here = places(world, type(full).__name__)
    save_file = checkpoint.save_file

    def refused(tensors, path):
        if "step-00000006" in str(path):
            path.write_bytes(b"half")
            raise full
        save_file(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", refused)
    with pytest.raises(WriteError, match="cannot write .*step-00000006.*needs .* are free"):
        fit(CONFIG, **here)
    left = sorted(path.name for path in (here["run_dir"] / "states").iterdir())
    assert left == ["step-00000002", "step-00000004"]
    monkeypatch.undo()
    fit(CONFIG, **here)
    assert fingerprints(here["run_dir"]) == fingerprints(straight)


def test_a_killed_loader_process_is_reported_with_its_fix(world, straight):
    code, output = run(order(world, world / "loader", workers=1, kill_loader_at=5))
    # Python itself may complain of the connection to the dead process while it drops it.
    ours = re.sub(r"Exception ignored in: <function \w+\.__del__(.|\n)*?Error: .*\n", "", output)
    assert code == 1 and "Traceback" not in ours
    assert "error: a data-loader worker died" in output and "Lower data.workers" in output
    fit(CONFIG, **places(world, "loader"))  # fewer loader processes, the same run
    assert fingerprints(world / "loader") == fingerprints(straight)


def test_a_second_process_in_the_same_run_folder_is_refused(world):
    with held(world / "shared") as pid, pytest.raises(SefarError, match=f"process {pid}"):
        fit(CONFIG, **places(world, "shared"))
    assert [path.name for path in (world / "shared").iterdir()] == ["lock"]


def test_the_best_network_on_validation_clips_is_kept_also_over_a_stop(world, monkeypatch):
    scores = iter([0.2, 0.3, 0.9, 0.4, 0.9, 0.5, 0.1])

    def scored(loop, held_out, network):
        assert len(held_out.clips) == 24 and {c.split for c in held_out.clips} == {"val"}
        return next(scores)

    monkeypatch.setattr("sefar_core.train.top1", scored)
    here = places(world, "best", "with_val.csv")
    before_step(monkeypatch, 6, lambda loop: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        fit(CONFIG, **here)
    fit(CONFIG, **here)
    run_dir = here["run_dir"]
    content = json.loads((run_dir / "best.json").read_text())
    assert content == {"state": "step-00000004", "step": 4, "network": "teacher", "top1": 0.9}
    best = load_file(run_dir / "states/step-00000004/teacher.safetensors")
    exported = load_file(run_dir / "best/model.safetensors")
    assert all(torch.equal(exported[name], tensor) for name, tensor in best.items())
    with_scores = [line["step"] for line in lines(run_dir) if "val_student" in line]
    assert with_scores == [2, 4, 6, 8]  # not 7, where the signal came


def test_networks_are_scored_on_validation_clips(world):
    fit(replace(CONFIG, steps=4), **places(world, "scored", "with_val.csv"))
    last = lines(world / "scored")[-1]
    scored = [value for name, value in last.items() if name.startswith("val_")]
    assert scored and all(0 <= value <= 1 for value in scored)
    assert scored == pytest.approx([round(24 * value) / 24 for value in scored], abs=1e-6)
    assert sefar_core.load_encoder(world / "scored/best").classifier.out_features == 12


@pytest.mark.parametrize("every", ["step", "micro_batch"])
def test_the_teacher_follows_the_student_that_the_step_has_made(world, every):
    """By plain arithmetic on the states of the last two steps, of two micro-batches each."""
    teacher = replace(CONFIG.teacher, ema_every=every, ema_decay=0.75)
    optim = OptimConfig(kind="adamw", lr=1e-2)
    config = replace(CONFIG, teacher=teacher, optim=optim, epochs=8, warmup_epochs=2)
    fit(config, **places(world, every))

    def saved(step: int, role: str) -> dict:
        return load_file(world / every / f"states/step-0000000{step}/{role}.safetensors")

    student, before, moved = saved(8, "student"), saved(7, "teacher"), saved(8, "teacher")
    assert any((student[name] - before[name]).abs().max() > 1e-3 for name in student)
    for name, tensor in saved(7, "student").items():
        start = before[name]
        if every == "micro_batch":  # the first of the two, before the optimizer moves
            start = 0.75 * start + 0.25 * tensor
        expected = 0.75 * start + 0.25 * student[name]
        torch.testing.assert_close(moved[name], expected, rtol=0, atol=1e-6)


def test_curves_are_drawn_by_tensorboard_and_clocks_stand_apart(world, straight):
    fit(replace(CONFIG, log="tensorboard"), **places(world, "curves"))
    assert list((world / "curves/tensorboard").iterdir())
    assert fingerprints(world / "curves") == fingerprints(straight)
    timing = lines(straight, "timing.jsonl")
    assert [line["step"] for line in timing] == list(range(1, 9))
    assert all(0 <= line["stall"] <= 1 and line["clips_per_s"] > 0 for line in timing)


@pytest.mark.slow
def test_a_compiled_run_learns_what_a_plain_one_does(world):
    """Warm-up and semi-supervised steps, of different batches; teacher and states are plain."""
    for name, extra in {"plain": {}, "compiled": {"changes": {"compile": True}}}.items():
        argument = order(world, world / name, config="nothing random, sgd", **extra)
        argument = json.dumps(json.loads(argument) | {"backend": "aot_eager"})
        code, output = run(argument)
        assert code == 0, output[-2000:]
        assert ("compiles with {'dynamic': False}" in output) == (name == "compiled")
    for role in ("student", "teacher"):
        plain, compiled = (
            load_file(world / f"{name}/{LAST}/{role}.safetensors") for name in ("plain", "compiled")
        )
        torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_like_an_undisturbed_one(world):
    assert survived(world, kills=3, seed=0) == 3


def survived(world: Path, *, kills: int, seed: int) -> int:
    """Kills after which a whole state was found, in one run that saves every step.

    The moments are drawn, and come after a first state: most lie between the files of a later one.
    """
    every_step = {"epochs": 24, "warmup_epochs": 3, "steps": 24}
    shutil.rmtree(world / "killed", ignore_errors=True)
    argument = order(world, world / "killed", changes=every_step, pause_s=0.01)
    moments, good = random.Random(seed), 0
    states = world / "killed/states"
    for _ in range(kills):
        before = len(lines_or_none(world / "killed"))
        with start(argument) as process:
            while process.poll() is None and not (
                len(lines_or_none(world / "killed")) > before and complete_states(states)
            ):
                time.sleep(0.01)
            time.sleep(moments.random() * 0.3)
        good += bool(complete_states(states)) and first_fault(complete_states(states)[-1]) is None
    code, output = run(argument)
    assert code == 0, output
    assert not list(states.glob(".*")) and "damaged" not in output
    fit(replace(CONFIG, **every_step), **places(world, "unkilled"))
    assert lines(world / "killed") == lines(world / "unkilled")
    for role in ("student", "teacher"):
        killed, unkilled = (
            (world / name / role / "model.safetensors").read_bytes()
            for name in ("killed", "unkilled")
        )
        assert killed == unkilled
    return good


def lines_or_none(run_dir: Path) -> list[str]:
    path = run_dir / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def test_the_script_gives_one_line_and_an_exit_code_of_its_own(world):
    code, output = run(order(world, world / "script", signal_at=[1, 0, "SIGTERM"]))
    assert code == 143
    assert "stopped after step 2; saved in" in output and "Traceback" not in output
