"""Run the whole pipeline on a synthetic dataset: render, split, train, evaluate, chat, report.

    python scripts/demo.py                 # about a quarter of an hour on two CPU cores
    python scripts/demo.py --out runs/demo # a second time: finished steps are reused

Every step is a script; its command is printed before it runs, so that it can be run alone. A step
runs again, after its output is removed, when its command changed or an earlier step ran again; an
interrupted step resumes. The result is report.html in the output folder.
"""

import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sefar_core.cli import refuse_unwritable, start

import tyro

from qa_data.manifest import by_split, read_manifest
from qa_data.synthetic.plan import SyntheticSettings
from qa_data.taxonomy import read_categories
from sefar_core.config import check_seed

ENCODERS = ("sefar", "supervised", "random", "constant")
SCRIPTS = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Demo:
    out: Path = Path("runs/demo")
    """Folder of all outputs of the demo."""
    num_train: int = 3000
    """Number of rendered training clips; a tenth is labeled."""
    num_test: int = 360
    """Number of rendered test clips, with other athletes and arenas."""
    epochs: int = 24
    """Epochs over the labeled clips, for SeFAR and for the supervised baseline."""
    mllm_epochs: int = 16
    """Epochs over the training questions, for each encoder."""
    seed: int = 0
    """Random seed of all steps."""

    def __post_init__(self):
        for name in ("epochs", "mllm_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        check_seed(self.seed, least=0)
        SyntheticSettings(num_train=self.num_train, num_test=self.num_test)  # refuses too few


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command and the title that is printed for it."""

    name: str
    title: str
    command: tuple[str, ...]
    makes: Path | None = None
    """The folder that it writes."""
    transcript: Path | None = None
    """File for a copy of its output."""


def main(settings: Demo) -> None:
    refuse_unwritable(folders=[settings.out])
    settings.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    again = False
    steps = [*data_steps(settings), *recognizer_steps(settings), *mllm_steps(settings)]
    for number, step in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps) + 2}] {step.title}", flush=True)
        again = run(step, settings.out / "steps", again=again)
    for number, step in enumerate((chat_step(settings), report_step(settings)), len(steps) + 1):
        print(f"\n[{number}/{len(steps) + 2}] {step.title}", flush=True)
        again = run(step, settings.out / "steps", again=again)
    total = time.perf_counter() - began
    print(f"\nThe demo took {total / 60:.1f} minutes. Open {settings.out / 'report.html'}.")


def chat_step(settings: Demo) -> Step:
    """Questions about one test video, which SeFAR's model has not seen."""
    out = settings.out
    clip = by_split(read_manifest(out / "splits/manifest.csv"), "test")[0]
    others = [c.text for c in read_categories(out / "gym/categories.txt").values()
              if c.event == clip.event and c.text != clip.text][:3]  # fmt: skip
    options = "|".join(sorted([str(clip.text), *others]))
    questions = ("What gymnastics move is this athlete performing?", f"/options {options}")
    return script(
        "chat",
        f"Talk about a test video (it shows: {clip.text})",
        *("chat.py", out / "gym/videos" / clip.path, "--model", out / "mllm/sefar/model"),
        *("--question", *questions),
        transcript=out / "chat.txt",
    )


def report_step(settings: Demo) -> Step:
    return script("report", "Write the report", "report.py", "--out", settings.out)


def script(
    name: str, title: str, *command: str | Path | int, transcript: Path | None = None
) -> Step:
    """A step that runs one of the scripts beside this file."""
    first, *rest = command
    whole = (sys.executable, str(SCRIPTS / str(first)), *map(str, rest))
    made = [Path(whole[i + 1]) for i, word in enumerate(whole) if word in ("--out", "--run-dir")]
    makes = made[0] if made and first not in ("report.py", "evaluate_ssl.py") else None
    return Step(name=name, title=title, command=whole, makes=makes, transcript=transcript)


def data_steps(settings: Demo) -> list[Step]:
    """Videos, splits, questions."""
    out, gym = settings.out, settings.out / "gym"
    size = ("--num-train", settings.num_train, "--num-test", settings.num_test)
    common = (*size, "--seed", settings.seed, "--workers", os.cpu_count() or 1)
    splits = ("--manifest", out / "splits/manifest.csv")
    lists = ("--train-list", gym / "train_element.txt", "--test-list", gym / "val_element.txt")
    return [
        script("gym", "Render gymnasts", "make_synthetic_gym.py", "--out", gym, *common),
        script(
            "background",
            "Render the test arenas without gymnast and apparatus, as a control",
            "make_synthetic_gym.py",
            *("--out", out / "background", "--without", "figure_and_apparatus", "--only-test"),
            *common,
        ),
        script(
            "splits",
            "Split into labeled, unlabeled, validation and test clips",
            "make_splits.py",
            "finegym",
            *("--categories", gym / "categories.txt", *lists, "--video-root", gym / "videos"),
            *("--rate", "0.1", "--val-from", "pool", "--val-rate", "0.12", "--out", out / "splits"),
            *("--seed", settings.seed),
        ),
        script(
            "check",
            "Check every video file",
            "check_videos.py",
            *splits,
            "--video-root",
            gym / "videos",
            "--quick",
        ),
        *(
            script(
                f"qa_{rule}",
                f"Build Gym-QA with the {rule} rule, and answer it without video",
                "build_gym_qa.py",
                *splits,
                *("--categories", gym / "categories.txt", "--distractors", rule),
                *("--out", out / f"qa-{rule}", "--seed", settings.seed),
            )
            for rule in ("public", "hard")
        ),
    ]


def recognizer_steps(settings: Demo) -> list[Step]:
    """Train and evaluate SeFAR and its supervised-only baseline."""
    out = settings.out
    videos = ("--manifest", out / "splits/manifest.csv", "--video-root", out / "gym/videos")
    presets = {"sefar": "demo", "supervised": "demo+supervised"}
    warmup = {"sefar": settings.epochs // 2, "supervised": settings.epochs}
    titles = {"sefar": "SeFAR", "supervised": "the supervised baseline"}
    train = [
        script(
            f"train_{name}",
            f"Train {titles[name]}",
            "train_ssl.py",
            *(preset, *videos, "--run-dir", out / name, "--seed", settings.seed),
            *("--epochs", settings.epochs, "--warmup-epochs", warmup[name]),
        )
        for name, preset in presets.items()
    ]
    evaluate = [
        script(
            f"evaluate_{name}",
            f"Evaluate {titles[name]} on unseen athletes",
            "evaluate_ssl.py",
            *("--run-dir", out / name, *videos, "--categories", out / "gym/categories.txt"),
            *("--background-root", out / "background/videos", "--views", 3, "--crops", 1),
        )
        for name in presets
    ]
    return [*train, *evaluate]


def mllm_steps(settings: Demo) -> list[Step]:
    """Train and score the language model on each encoder, under one protocol."""
    out = settings.out
    videos = ("--manifest", out / "splits/manifest.csv", "--video-root", out / "gym/videos")
    steps = []
    for name in ENCODERS:
        run_dir = out / ("supervised" if name == "supervised" else "sefar")
        tokens, model = out / "tokens" / name, out / "mllm" / name
        score = ("--model", model / "model", "--encoder-features", tokens)
        files = ("--questions", out / "qa-public/test.jsonl", out / "qa-hard/test.jsonl")
        steps += [
            script(f"tokens_{name}", f"Encode the clips: {name}", "extract_features.py", *videos,
                   "--encoder", name, "--encoder-dir", run_dir, "--out", tokens),
            finetune_step(settings, name, tokens, model),
            script(f"score_{name}", f"Answer the test questions: {name}", "evaluate_mllm.py",
                   *score, *files, "--out", model / "test"),
        ]  # fmt: skip
    shuffled = script("score_shuffled", "Answer the test questions with wrong videos: sefar",
                      "evaluate_mllm.py", "--model", out / "mllm/sefar/model",
                      "--encoder-features", out / "tokens/sefar", *files, "--shuffle-videos",
                      "--out", out / "mllm/sefar/test-shuffled")  # fmt: skip
    return [*steps, shuffled]


def finetune_step(settings: Demo, name: str, tokens: Path, model: Path) -> Step:
    """`accelerate launch scripts/finetune_mllm.py` on one device."""
    launch = ("-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no")  # fmt: skip
    command = (
        sys.executable,
        *launch,
        str(SCRIPTS / "finetune_mllm.py"),
        "demo",
        *("--encoder-features", str(tokens), "--run-dir", str(model)),
        *("--questions", str(settings.out / "qa-hard/train.jsonl")),
        *("--epochs", str(settings.mllm_epochs), "--seed", str(settings.seed)),
    )
    title = f"Fine-tune the model on {name}"
    return Step(name=f"finetune_{name}", title=title, command=command, makes=model)


def run(step: Step, records: Path, *, again: bool) -> bool:
    """Run a step unless its record has the same command; True if it ran."""
    record = records / f"{step.name}.json"
    command = [relative(part) for part in step.command]
    if not again and record.exists() and read_record(record)["command"] == command:
        print(f"reused, made before by: {shlex.join(command)}")
        return False
    print(shlex.join(command), flush=True)
    for other in records.glob("*.json"):
        invalidate(other, after=record)
    if record.exists() and step.makes is not None:
        shutil.rmtree(step.makes, ignore_errors=True)
    record.unlink(missing_ok=True)
    began = time.perf_counter()
    code = execute(step)
    if code != 0:
        raise SystemExit(
            f"the step «{step.title}» failed with exit code {code}; its message is above"
        )
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    records.mkdir(exist_ok=True)
    record.write_text(
        json.dumps(
            {
                "title": step.title,
                "command": command,
                "began": time.time() - took,
                "seconds": took,
                "peak_gib": peak,
            }
        )
    )
    print(f"took {took:.0f} s", flush=True)
    return True


def read_record(path: Path) -> dict[str, Any]:
    """The record of a finished step.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as cause:
        raise ValueError(
            f"{path} is damaged ({cause}); delete it, and its step runs again"
        ) from cause


def invalidate(record: Path, *, after: Path) -> None:
    """Invalidate the record of a step that ran after another, which is about to run again."""
    if record == after or not after.exists():
        return
    content = read_record(record)
    if content["began"] > read_record(after)["began"]:
        record.write_text(json.dumps(content | {"command": None}))


def execute(step: Step) -> int:
    """Run the command and return its exit code; its output is also saved if a file is named."""
    kept = None if step.transcript is None else subprocess.PIPE
    process = subprocess.Popen(step.command, stdout=kept, text=True)
    try:
        output, _ = process.communicate()
    except KeyboardInterrupt:
        process.wait()  # the step received Ctrl-C as well and may be saving its state
        raise
    if step.transcript is not None:
        print(output)
        command = shlex.join(relative(part) for part in step.command)
        step.transcript.write_text(f"$ {command}\n\n{output}", encoding="utf-8")
    return process.returncode


def relative(part: str) -> str:
    """A part of a command, relative to the working folder."""
    if part == sys.executable:
        return "python"
    return str(Path(part).relative_to(Path.cwd())) if part.startswith(str(Path.cwd())) else part


if __name__ == "__main__":
    start(main, partial(tyro.cli, Demo, description=__doc__))
