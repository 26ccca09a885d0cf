"""Run the whole pipeline on a synthetic dataset: render, split, train, evaluate, chat, report.

    python scripts/demo.py                 # 11 minutes on two quiet CPU cores
    python scripts/demo.py --quick         # 300 clips in three minutes, too few for conclusions
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from sefar_core.cli import refuse_unwritable, start

import tyro

from qa_data.manifest import by_split, read_manifest
from qa_data.synthetic.plan import SyntheticSettings
from qa_data.taxonomy import read_categories
from sefar_core.config import check_seed

SCRIPTS = Path(__file__).parent
UPDATING = {"report.py", "evaluate_ssl.py"}  # they add to a folder that another step made
NUM_LAST = 2  # steps that are known once the others are done


@dataclass(frozen=True, kw_only=True)
class Demo:
    quick: bool = False
    """Few clips, few epochs and two of the four encoders: shows that everything runs, and no more.
    The options below change single sizes of it."""
    out: Path = Path("runs/demo")
    """Folder of all outputs of the demo; runs/demo-quick by default with --quick."""
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

    @property
    def encoders(self) -> tuple[str, ...]:
        """Encoders in the language model."""
        return (
            ("sefar", "constant") if self.quick else ("sefar", "supervised", "random", "constant")
        )


QUICK = Demo(
    quick=True, out=Path("runs/demo-quick"), num_train=240, num_test=60, epochs=6, mllm_epochs=3
)


def parse(arguments: Sequence[str]) -> Demo:
    """The command line; --quick, anywhere in it, changes the default sizes."""
    default = QUICK if "--quick" in arguments else Demo()
    return tyro.cli(Demo, args=arguments, default=default, description=__doc__)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command and the title that is printed for it."""

    name: str
    title: str
    command: tuple[str, ...]
    transcript: Path | None = None
    """File for a copy of its output."""

    @property
    def makes(self) -> Path | None:
        """The folder that it writes; None if it adds to a folder that another step made."""
        if any(Path(word).name in UPDATING for word in self.command):
            return None
        pairs = zip(self.command, self.command[1:], strict=False)
        return next((Path(path) for name, path in pairs if name in ("--out", "--run-dir")), None)


def main(settings: Demo) -> None:
    refuse_unwritable(folders=[settings.out])
    settings.out.mkdir(parents=True, exist_ok=True)
    began, again = time.perf_counter(), False
    steps = [*data_steps(settings), *recognizer_steps(settings), *mllm_steps(settings)]
    for number, step in enumerate(chain(steps, last_steps(settings)), 1):
        print(f"\n[{number}/{len(steps) + NUM_LAST}] {step.title}", flush=True)
        again = run(step, settings.out / "steps", again=again)
    took, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"\nThe demo took {took / 60:.1f} minutes, and {used.ru_utime + used.ru_stime:.0f} CPU "
        f"seconds. Open {settings.out / 'report.html'}."
    )


def script(
    name: str,
    title: str,
    file: str,
    *arguments: str | Path | int,
    launcher: Sequence[str] = (),
    transcript: Path | None = None,
) -> Step:
    """A step that runs one of the scripts beside this file, by `launcher` if options of Python
    name another program."""
    command = (sys.executable, *launcher, str(SCRIPTS / file), *map(str, arguments))
    return Step(name=name, title=title, command=command, transcript=transcript)


def videos(settings: Demo) -> tuple[str | Path, ...]:
    """The options that name the clips."""
    out = settings.out
    return ("--manifest", out / "splits/manifest.csv", "--video-root", out / "gym/videos")


def data_steps(settings: Demo) -> list[Step]:
    """Videos, splits, questions."""
    out, gym = settings.out, settings.out / "gym"
    size = ("--num-train", settings.num_train, "--num-test", settings.num_test)
    common = (*size, "--seed", settings.seed, "--workers", os.cpu_count() or 1)
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
        script("check", "Check every video file", "check_videos.py", *videos(settings), "--quick"),
        *(
            script(
                f"qa_{rule}",
                f"Build Gym-QA with the {rule} rule, and answer it without video",
                "build_gym_qa.py",
                *("--manifest", out / "splits/manifest.csv"),
                *("--categories", gym / "categories.txt", "--distractors", rule),
                *("--out", out / f"qa-{rule}", "--seed", settings.seed),
            )
            for rule in ("public", "hard")
        ),
    ]


def recognizer_steps(settings: Demo) -> list[Step]:
    """Train and evaluate SeFAR and its supervised-only baseline."""
    out = settings.out
    runs = (
        ("sefar", "SeFAR", "demo", settings.epochs // 2),
        ("supervised", "the supervised baseline", "demo+supervised", settings.epochs),
    )
    train = [
        script(
            f"train_{name}",
            f"Train {title}",
            "train_ssl.py",
            *(preset, *videos(settings), "--run-dir", out / name, "--seed", settings.seed),
            *("--epochs", settings.epochs, "--warmup-epochs", warmup),
        )
        for name, title, preset, warmup in runs
    ]
    evaluate = [
        script(
            f"evaluate_{name}",
            f"Evaluate {title} on unseen athletes",
            "evaluate_ssl.py",
            *("--run-dir", out / name, *videos(settings)),
            *("--categories", out / "gym/categories.txt"),
            *("--background-root", out / "background/videos", "--views", 3, "--crops", 1),
        )
        for name, title, *_ in runs
    ]
    return [*train, *evaluate]


def mllm_steps(settings: Demo) -> list[Step]:
    """Train and score the language model on each encoder, under one protocol."""
    out = settings.out
    files = ("--questions", out / "qa-public/test.jsonl", out / "qa-hard/test.jsonl")
    launcher = (
        *("-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
    )
    steps = []
    for name in settings.encoders:
        run_dir = out / ("supervised" if name == "supervised" else "sefar")
        tokens, model = out / "tokens" / name, out / "mllm" / name
        score = ("--model", model / "model", "--encoder-features", tokens)
        steps += [
            script(
                f"tokens_{name}",
                f"Encode the clips: {name}",
                "extract_features.py",
                *videos(settings),
                *("--encoder", name, "--encoder-dir", run_dir, "--out", tokens),
            ),
            script(
                f"finetune_{name}",
                f"Fine-tune the model on {name}",
                "finetune_mllm.py",
                *("demo", "--encoder-features", tokens, "--run-dir", model),
                *("--questions", out / "qa-hard/train.jsonl"),
                *("--epochs", settings.mllm_epochs, "--seed", settings.seed),
                launcher=launcher,
            ),
            script(
                f"score_{name}",
                f"Answer the test questions: {name}",
                "evaluate_mllm.py",
                *(*score, *files, "--out", model / "test"),
            ),
        ]
    shuffled = script(
        "score_shuffled",
        "Answer the test questions with wrong videos: sefar",
        "evaluate_mllm.py",
        *("--model", out / "mllm/sefar/model", "--encoder-features", out / "tokens/sefar"),
        *(*files, "--shuffle-videos", "--out", out / "mllm/sefar/test-shuffled"),
    )
    return [*steps, shuffled]


def last_steps(settings: Demo) -> Iterator[Step]:
    """Questions about one test video, which SeFAR's model has not seen, and the report."""
    out = settings.out
    clip = by_split(read_manifest(out / "splits/manifest.csv"), "test")[0]
    classes = read_categories(out / "gym/categories.txt").values()
    others = [c.text for c in classes if c.event == clip.event and c.text != clip.text]
    options = "|".join(sorted([str(clip.text), *others[:3]]))
    questions = ("What gymnastics move is this athlete performing?", f"/options {options}")
    yield script(
        "chat",
        f"Talk about a test video (it shows: {clip.text})",
        *("chat.py", out / "gym/videos" / clip.path, "--model", out / "mllm/sefar/model"),
        *("--question", *questions),
        transcript=out / "chat.txt",
    )
    yield script("report", "Write the report", "report.py", "--out", out)


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
    records.mkdir(exist_ok=True)
    content = {
        "title": step.title,
        "command": command,
        "began": time.time() - took,
        "seconds": took,
        "peak_gib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20,
    }
    record.write_text(json.dumps(content))
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
    path = Path(part)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else part


if __name__ == "__main__":
    start(main, partial(parse, sys.argv[1:]))
