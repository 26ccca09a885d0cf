"""Training runs: what they leave, what stops them, and that they resume exactly."""

import hashlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import sefar_core
from qa_data.files import SefarError, WriteError
from qa_data.manifest import by_split, read_manifest, write_manifest
from sefar_core import checkpoint, train
from sefar_core.checkpoint import complete_states, first_fault, read_class_names
from sefar_core.config import OptimConfig
from sefar_core.data.video import VideoReadError
from sefar_core.presets import preset
from sefar_core.signals import Interrupted
from sefar_core.train import fit, start_accelerator
from tests.integration.faulty_script import LIMIT_S, options
from tests.integration.run_folders import fingerprints, lines
from tests.oracles.holder import held
from tests.script_process import ROOT, started
from tests.world import TRAINING

CLIP_NORM = TRAINING.optim.clip_norm
ROLES = ("student", "teacher")
NETWORKS = tuple(f"{role}/model.safetensors" for role in ROLES)
LAST = tuple(f"states/step-00000008/{name}.safetensors" for name in (*ROLES, "optimizer"))
PLAIN = replace(
    TRAINING,
    model=replace(TRAINING.model, dropout=0.0, drop_path_rate=0.0),
    loss=replace(TRAINING.loss, gamma_mix=0.0),
    optim=OptimConfig(kind="sgd", lr=0.05, clip_norm=CLIP_NORM, rate_warmup_steps=3),
)
"""Nothing in it is random but the order of the clips."""


def places(world, run_dir: Path, manifest: str | Path = "train.csv") -> dict[str, Path]:
    return {
        "manifest": world.gym / manifest,
        "video_root": world.gym / "videos",
        "run_dir": run_dir,
    }


def command(world, run_dir: Path, config=TRAINING) -> list[str]:
    """The command line of a run with these settings."""
    where = places(world, run_dir).items()
    words = [word for name, path in where for word in (f"--{name.replace('_', '-')}", str(path))]
    return ["train_ssl.py", "demo", *words, *options(config, preset("demo"))]


def before_step(monkeypatch, step: int, action) -> None:
    """Do something as the step after `step` others begins."""
    whole_step = train.optimizer_step

    def disturbed(loop, batches):
        if loop.step == step:
            action(loop)
        return whole_step(loop, batches)

    monkeypatch.setattr(train, "optimizer_step", disturbed)


def send(number: int):
    return lambda loop: os.kill(os.getpid(), number)


def states(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "states").iterdir())


def test_a_run_leaves_its_settings_numbers_and_encoders(world):
    run_dir = world.recognizer
    assert {path.name for path in run_dir.iterdir()} == {
        *("config.json", "run.json", "metrics.jsonl", "timing.jsonl", "lock"),
        *("states", "student", "teacher"),
    }
    reports, timing = lines(run_dir), lines(run_dir, "timing.jsonl")
    assert [line["step"] for line in reports] == list(range(1, 9))
    assert [line["step"] for line in timing] == list(range(1, 9))
    assert all(0 <= line["stall"] <= 1 and line["clips_per_s"] > 0 for line in timing)
    assert "trust" not in reports[0] and 0 < reports[-1]["trust"] <= 1
    assert reports[-1]["ramp"] == pytest.approx(1.0)
    # The rate rises, and most gradients are clipped, or resuming would not show that both go on.
    rates = [1e-3 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    rates[:2] = [rates[0] / 3, rates[1] * 2 / 3]
    assert [line["lr"] for line in reports] == pytest.approx(rates, rel=1e-6)
    assert sum(line["grad_norm"] > CLIP_NORM for line in reports) > 4
    assert sefar_core.load_encoder(run_dir / "teacher").classifier.out_features == 12
    record = json.loads((run_dir / "run.json").read_text())
    labeled = by_split(read_manifest(world.gym / "train.csv"), "labeled")
    shown = {clip.label: f"{clip.event} {clip.text}" for clip in labeled}
    bare = [f"class {label}" for label in range(12) if label not in shown]
    assert bare and record["classes_without_labels"] == bare
    assert read_class_names(run_dir / "teacher") == tuple(record["class_names"])
    assert {label: record["class_names"][label] for label in shown} == shown


def test_a_run_that_meets_fault_after_fault_ends_like_an_undisturbed_one(
    world, tmp_path, monkeypatch, capsys
):
    """A signal, a loss that is not a number, a full disk, a signal in the last step."""
    here = places(world, tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        before_step(patch, 2, send(signal.SIGTERM))
        with pytest.raises(Interrupted, match="stopped after step 3; saved in") as stop:
            fit(TRAINING, **here)
    assert stop.value.exit_code == 143 and signal.getsignal(signal.SIGTERM) == handler
    assert states(tmp_path)[-1] == "step-00000003"
    assert re.search(r"warning: \d of 12 classes have no", capsys.readouterr().out)
    with monkeypatch.context() as patch:
        check_an_infinite_loss(world, here, patch)
    with monkeypatch.context() as patch:
        full_at(patch, "step-00000006", SafetensorError("No space left"))
        with pytest.raises(WriteError, match="cannot write .*step-00000006.*needs .* are free"):
            fit(TRAINING, **here)
    assert states(tmp_path)[-1] == "step-00000004"
    with monkeypatch.context() as patch:
        before_step(patch, 7, send(signal.SIGTERM))
        fit(replace(TRAINING, log="tensorboard"), **here)
    assert list((tmp_path / "tensorboard").iterdir())
    assert fingerprints(tmp_path, *LAST) == fingerprints(world.recognizer, *LAST)


def full_at(patch, state: str, full: Exception) -> None:
    save_file = checkpoint.save_file

    def refused(tensors, path):
        if state in str(path):
            path.write_bytes(b"half")
            raise full
        save_file(tensors, path)

    patch.setattr(checkpoint, "save_file", refused)


def check_an_infinite_loss(world, here: dict[str, Path], patch) -> None:
    """In step 6: nothing is updated by it, and the message names the clips."""
    kept, whole_micro, seen = {}, train.micro_step, []

    def tensors(loop) -> dict:
        parts = {**loop.network.state_dict(), **checkpoint.optimizer_tensors(loop.optimizer)}
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

    before_step(patch, 5, remember)
    patch.setattr(train, "micro_step", broken)
    message = "loss became inf.*step 6; nothing was updated by it, and the last good state is in .*"
    with pytest.raises(FloatingPointError, match=message) as failure:
        fit(TRAINING, **here)
    after = tensors(kept["loop"])
    assert all(torch.equal(after[name], tensor) for name, tensor in kept["before"].items())
    named = str(failure.value).partition("check the clips: ")[2].split(", ")
    # Step 6 takes labeled clips 20 to 23 of the stream of passes of 8: its second micro-batch are
    # the last two; and unlabeled clips 36 to 47 in passes of 16: the last six.
    assert named == stream_of("LabeledClips", world, "labeled", 22, 24) + stream_of(
        "UnlabeledClips", world, "unlabeled", 42, 48
    )


def stream_of(name: str, world, split: str, first: int, last: int) -> list[str]:
    """Clips of a stream, from the manifest's text and the passes' shuffling alone."""
    rows = [line.split(",") for line in (world.gym / "train.csv").read_text().splitlines()]
    column = rows[0].index("split")
    clips = [row[0] for row in rows[1:] if row[column] == split]
    stream: list[str] = []
    for number in range(1 + last // len(clips)):
        digest = hashlib.blake2b(repr((0, name, number)).encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        stream += [clips[place] for place in torch.randperm(len(clips), generator=generator)]
    return stream[first:last]


def test_other_settings_are_refused_and_those_that_an_old_run_did_not_have_are_not(world, tmp_path):
    run_dir = shutil.copytree(world.recognizer, tmp_path / "run")
    with pytest.raises(ValueError, match="seed.*another run folder"):
        fit(replace(TRAINING, seed=1), **places(world, run_dir))
    settings = json.loads((run_dir / "config.json").read_text())
    del settings["optim"]["clip_norm"], settings["optim"]["rate_warmup_steps"]
    (run_dir / "config.json").write_text(json.dumps(settings))
    plain = replace(TRAINING, optim=replace(TRAINING.optim, clip_norm=None, rate_warmup_steps=0))
    fit(plain, **places(world, run_dir))
    with pytest.raises(ValueError, match=r"optim\.clip_norm = None, but 2\.0 is requested"):
        fit(TRAINING, **places(world, run_dir))


@pytest.mark.parametrize(
    ("split", "supervised", "message"),
    [
        ("unlabeled", False, r"1 of \d+ clips have no file: .*absent\.mp4; check"),
        ("val", False, r"1 of \d+ clips have no file: .*absent\.mp4; check"),
        ("unlabeled", True, None),
        ("labeled", True, r"1 of \d+ clips have no file: .*absent\.mp4; check"),
    ],
)
def test_a_missing_clip_is_named_before_the_first_step_unless_it_is_not_needed(
    world, tmp_path, split, supervised, message
):
    manifest = "manifest.csv" if split == "val" else "train.csv"
    clips = read_manifest(world.gym / manifest)
    gone = next(clip for clip in clips if clip.split == split)
    clips[clips.index(gone)] = replace(gone, path="absent.mp4")
    write_manifest(clips, tmp_path / "manifest.csv")
    here = places(world, tmp_path / "run", tmp_path / "manifest.csv")
    epochs = TRAINING.epochs if supervised else TRAINING.warmup_epochs
    config = replace(TRAINING, warmup_epochs=epochs, steps=4)
    if message is None:
        fit(config, **here)
    else:
        with pytest.raises(VideoReadError, match=message):
            fit(config, **here)
    assert (tmp_path / "run/metrics.jsonl").exists() == (message is None)


def test_a_manifest_without_labels_is_refused(world, tmp_path):
    clips = read_manifest(world.gym / "train.csv")
    write_manifest(by_split(clips, "unlabeled"), tmp_path / "unlabeled.csv")
    with pytest.raises(ValueError, match="no clip of split labeled"):
        fit(TRAINING, **places(world, tmp_path / "run", tmp_path / "unlabeled.csv"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("regulation", ["adaptive", "confidence_only", "fixed"])
def test_a_teacher_that_diverged_ends_the_run_like_a_loss_that_did(
    world, tmp_path, regulation, monkeypatch
):
    def diverge(loop):
        loop.teacher.network.classifier.bias.data.fill_(torch.nan)

    before_step(monkeypatch, 0, diverge)
    loss = replace(TRAINING.loss, regulation=regulation)
    with pytest.raises(FloatingPointError, match="loss became nan.*step 1.*check the clips"):
        fit(replace(TRAINING, warmup_epochs=0, loss=loss), **places(world, tmp_path))


def test_networks_are_scored_on_validation_clips(world, tmp_path):
    fit(replace(TRAINING, steps=4), **places(world, tmp_path, "manifest.csv"))
    last = lines(tmp_path)[-1]
    scored = [value for name, value in last.items() if name.startswith("val_")]
    assert scored and all(0 <= value <= 1 for value in scored)
    assert scored == pytest.approx([round(7 * value) / 7 for value in scored], abs=1e-6)
    assert sefar_core.load_encoder(tmp_path / "best").classifier.out_features == 12


@pytest.mark.slow
def test_the_best_network_on_validation_clips_is_kept_also_over_a_stop(
    world, tmp_path, monkeypatch
):
    scores = iter([0.2, 0.3, 0.9, 0.4, 0.9, 0.5, 0.1])

    def scored(loop, held_out, network):
        assert len(held_out.clips) == 7 and {c.split for c in held_out.clips} == {"val"}
        return next(scores)

    monkeypatch.setattr("sefar_core.train.top1", scored)
    here = places(world, tmp_path, "manifest.csv")
    before_step(monkeypatch, 6, send(signal.SIGTERM))
    with pytest.raises(Interrupted):
        fit(TRAINING, **here)
    fit(TRAINING, **here)
    content = json.loads((tmp_path / "best.json").read_text())
    assert content == {"state": "step-00000004", "step": 4, "network": "teacher", "top1": 0.9}
    best = load_file(tmp_path / "states/step-00000004/teacher.safetensors")
    exported = load_file(tmp_path / "best/model.safetensors")
    assert all(torch.equal(exported[name], tensor) for name, tensor in best.items())
    with_scores = [line["step"] for line in lines(tmp_path) if "val_student" in line]
    assert with_scores == [2, 4, 6, 8]  # not 7, where the signal came


@pytest.mark.slow
@pytest.mark.parametrize("every", ["step", "micro_batch"])
def test_the_teacher_follows_the_student_that_the_step_has_made(world, tmp_path, every):
    """By plain arithmetic on the states of the last two steps, of two micro-batches each."""
    teacher = replace(TRAINING.teacher, ema_every=every, ema_decay=0.75)
    optim = OptimConfig(kind="adamw", lr=1e-2)
    schedule = {"epochs": 4, "warmup_epochs": 2, "steps": 4}  # a state each step
    fit(replace(TRAINING, teacher=teacher, optim=optim, **schedule), **places(world, tmp_path))

    def saved(step: int, role: str) -> dict:
        return load_file(tmp_path / f"states/step-0000000{step}/{role}.safetensors")

    student, before, moved = saved(4, "student"), saved(3, "teacher"), saved(4, "teacher")
    assert any((student[name] - before[name]).abs().max() > 1e-3 for name in student)
    for name, tensor in saved(3, "student").items():
        start = before[name]
        if every == "micro_batch":  # the first of the two, before the optimizer moves
            start = 0.75 * start + 0.25 * tensor
        expected = 0.75 * start + 0.25 * student[name]
        torch.testing.assert_close(moved[name], expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_an_undecodable_video_stops_the_run_by_name_and_leaves_no_cache(world, tmp_path):
    videos = shutil.copytree(world.gym / "videos", tmp_path / "videos")
    victim = videos / by_split(read_manifest(world.gym / "train.csv"), "unlabeled")[0].path
    victim.write_bytes(b"not a video")
    config = replace(TRAINING, data=replace(TRAINING.data, store="raw"))
    with pytest.raises(VideoReadError, match=victim.stem):
        fit(config, **(places(world, tmp_path / "here/run") | {"video_root": videos}))
    assert all(path.name.startswith(".") for path in (tmp_path / "here/frames").iterdir())


@pytest.mark.slow
def test_a_second_process_in_the_same_run_folder_is_refused(world, tmp_path):
    with held(tmp_path) as pid, pytest.raises(SefarError, match=f"process {pid}"):
        fit(TRAINING, **places(world, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.slow
def test_a_killed_loader_process_is_reported_with_its_fix(world, tmp_path, scripts):
    loading = replace(TRAINING, data=replace(TRAINING.data, workers=1))
    codes, output = scripts.run(*command(world, tmp_path, loading), kill_loader_at=5)
    # Python itself may complain of the connection to the dead process: where it drops it, and in
    # the thread that shares its tensors.
    ours = re.sub(r"Exception ignored in: <function \w+\.__del__(.|\n)*?Error: .*\n", "", output)
    sharing = r' +File "[^"]*/multiprocessing/\w+\.py".*\n(?: {4}.*\n)+'
    ours = re.sub(rf"Traceback .*\n(?:{sharing})+\w+Error: .*\n", "", ours)
    assert codes == [1] and "Traceback" not in ours, output
    assert "error: a data-loader worker died" in output and "Lower data.workers" in output
    fit(TRAINING, **places(world, tmp_path))  # fewer loader processes, the same run
    assert fingerprints(tmp_path, *LAST) == fingerprints(world.recognizer, *LAST)


@pytest.mark.slow
def test_a_run_that_is_stopped_and_killed_at_random_moments_ends_like_an_undisturbed_one(
    world, tmp_path, scripts
):
    """The moments of the kills are drawn: most lie between the files of a state."""
    every_step = replace(TRAINING, epochs=16, warmup_epochs=3, steps=16)
    words, run_dir = command(world, tmp_path / "killed", every_step), tmp_path / "killed"
    codes, output = scripts.run(*words, signal_at=[1, 0, "SIGTERM"])
    assert codes == [143]
    assert "stopped after step 2; saved in" in output and "Traceback" not in output
    moments = random.Random(0)
    for _ in range(2):
        before = len(lines(run_dir))
        killed = scripts.start(*words, pause_s=0.1)
        until = time.monotonic() + LIMIT_S
        while len(lines(run_dir)) <= before:
            assert time.monotonic() < until, killed.printed.read_text()
            time.sleep(0.01)
        time.sleep(moments.random() * 0.3)
        killed.send(signal.SIGKILL)
        assert killed.wait()[0] == [-signal.SIGKILL]
        assert first_fault(complete_states(run_dir / "states")[-1]) is None
    codes, output = scripts.run(*words)
    assert codes == [0] and "damaged" not in output, output
    assert not list((run_dir / "states").glob(".*"))
    fit(every_step, **places(world, tmp_path / "unkilled"))
    assert fingerprints(run_dir, *NETWORKS) == fingerprints(tmp_path / "unkilled", *NETWORKS)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_a_compiled_run_learns_what_a_plain_one_does(world, tmp_path, scripts, recompute):
    """Warm-up and semi-supervised steps, of different batches; teacher and states are plain.

    The student is one graph: a break in it is an error.
    """
    model = replace(PLAIN.model, depth=1)
    plain_config = replace(PLAIN, model=model, steps=4)  # two of each kind
    config = replace(plain_config, compile=True, recompute=recompute)
    words = command(world, tmp_path / "compiled", config)
    codes, output = scripts.run(*words, backend="aot_eager")
    assert codes == [0] and "compiles with {'dynamic': False}" in output, output[-2000:]
    fit(plain_config, **places(world, tmp_path / "plain"))
    for role in ROLES:
        plain, compiled = (
            load_file(tmp_path / name / f"{role}/model.safetensors")
            for name in ("plain", "compiled")
        )
        torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_two_processes_equal_one_at_the_same_global_batch(world, tmp_path):
    """Two micro-batches on each of two processes, launched by accelerate, or four on one."""
    config = replace(PLAIN, batch_size=8, unlabeled_per_labeled=2)
    script, *words = command(world, tmp_path / "two", config)
    launch = [
        *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"),
        *("--num_processes", "2", "--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--main_process_port", "0", str(ROOT / "scripts" / script)),
    ]
    surroundings = os.environ | {"ACCELERATE_USE_CPU": "true"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with started([sys.executable, *launch, *words], env=surroundings, cwd=ROOT, **pipes) as process:
        output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, output
    fit(config, **places(world, tmp_path / "one"))
    for role in ROLES:
        one = load_file(tmp_path / "one" / role / "model.safetensors")
        two = load_file(tmp_path / "two" / role / "model.safetensors")
        before = load_file(tmp_path / "two/states/step-00000006" / f"{role}.safetensors")
        moved = max((one[name] - before[name]).abs().max().item() for name in one)
        assert moved > 1e-3  # so that equality says something
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5, msg=name)
    assert sum(line["grad_norm"] > CLIP_NORM for line in lines(tmp_path / "one")) > 2
    for first, second in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        first.pop("utilization", 0), second.pop("utilization", 0)  # of a micro-batch: not a mean
        assert second == pytest.approx(first, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_run_that_one_process_stopped_twice_equals_an_undisturbed_one(world, tmp_path, scripts):
    """First by a loss that is not a number, then by a signal; each on the second process alone."""
    straight, run_dir = tmp_path / "straight", tmp_path / "disturbed"
    codes, output = scripts.run(*command(world, straight), ranks=2)
    assert codes == [0, 0], output
    codes, output = scripts.run(*command(world, run_dir), ranks=2, nan_at=[3, 1])
    assert codes == [1, 1]
    assert output.count("error: loss became nan and grad_norm became nan in step 4") == 1
    named = output.partition("check the clips: ")[2].splitlines()[0].split(", ")
    assert len(named) == 2 + 2 * 3  # the micro-batch of the second process
    assert states(run_dir)[-1] == "step-00000002" and len(lines(run_dir)) == 3

    stopped = scripts.run(*command(world, run_dir), ranks=2, signal_at=[4, 1, "SIGTERM"])
    assert stopped[0] == [143, 143] and "stopped after step 5; saved in" in stopped[1]
    assert states(run_dir)[-1] == "step-00000005" and len(lines(run_dir)) == 5

    codes, output = scripts.run(*command(world, run_dir), ranks=2)
    assert codes == [0, 0], output
    files = (*NETWORKS, LAST[-1])
    assert fingerprints(run_dir, *files) == fingerprints(straight, *files)
    with pytest.raises(ValueError, match="num_processes = 2, but this run has 1"):
        fit(TRAINING, **places(world, straight))


def test_processes_that_do_not_know_of_one_another_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="started 2 processes.*ACCELERATE_USE_CPU=true"):
        start_accelerator(TRAINING)
