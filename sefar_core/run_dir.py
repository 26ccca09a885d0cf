"""The folder of a run: its settings, its history, its progress, and the lock on it.

config.json holds the settings, run.json versions, commit and command of the last session and of
those before it, metrics.jsonl one line per step. metrics.jsonl is equal, bit for bit, whenever a
run is repeated; timing.jsonl has what depends on the clock. All are text. A folder of encoders need
not come from a run: scripts/convert_checkpoint.py writes one as well.
"""

import dataclasses
import fcntl
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from tqdm import tqdm

from qa_data.files import (
    SefarError,
    as_json,
    file_hash,
    remove_drafts,
    write_json,
    write_text,
    writing,
)
from sefar_core.config import RegulationName, dotted, present_name

PACKAGES = ("torch", "transformers", "peft", "accelerate", "timm", "av", "numpy", "safetensors")
ROLES = ("student", "teacher", "best")
"""Folders of networks in the folder of a run."""


def run_of(folder: Path) -> Path:
    """The folder of the run that `folder`, a run or an encoder in it, belongs to."""
    return folder.parent if folder.name in ROLES else folder


def open_run(
    run_dir: Path,
    settings: Any,
    *,
    seed: int,
    data: dict[str, str] | None = None,
    free: Collection[str] = (),
) -> None:
    """Make the folder of a run, and write its settings and this session into it.

    Prints a note if other code began the run, whose result may then differ. Settings that did not
    exist when the run began had no effect on it: they count as their defaults. `data` is what the
    run trains on, stored with the settings; `free` are dotted names of settings that may differ
    when a run is resumed. ValueError if the folder holds a run of other settings, or its
    config.json or run.json is damaged.
    """
    wanted = json.loads(as_json(dataclasses.asdict(settings) | (data or {})))
    if (run_dir / "config.json").exists():
        defaults = json.loads(as_json(dataclasses.asdict(type(settings)())))
        found = dotted(defaults) | dotted(read_run_config(run_dir / "config.json"))
        if found.get("data.reader") == "torchcodec":
            print(f"note: {run_dir} was trained with data.reader torchcodec; it resumes with auto")
            found["data.reader"] = "auto"
        for weights in found.keys() & {"model.pretrained", "language_model"}:
            found[weights] = found[weights] and present_name(found[weights])
        refuse_other_settings(run_dir, found, wanted, free=free)
    run_dir.mkdir(parents=True, exist_ok=True)
    remove_drafts(run_dir)
    write_json(run_dir / "config.json", wanted)
    now, earlier = surroundings(), sessions(run_dir)
    if earlier and earlier[-1]["commit"] != now["commit"]:
        print(
            f"note: the last session of {run_dir} ran commit {earlier[-1]['commit']}, this one "
            f"runs {now['commit']}"
        )
    write_json(run_dir / "run.json", now | {"seed": seed, "earlier_sessions": earlier})


def refuse_other_settings(
    run_dir: Path, found: dict, wanted: dict, *, free: Collection[str] = ()
) -> None:
    """Raise ValueError naming the first setting in which a folder differs from those wanted."""
    found, wanted = dotted(found), dotted(wanted)
    for name in sorted((found.keys() | wanted.keys()) - set(free)):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{run_dir} holds a run with {name} = {found.get(name)}, but {wanted.get(name)} is "
                f"requested; give another run folder, or delete this one"
            )


def read_run_config(path: Path) -> dict[str, Any]:
    """The settings that a run was started with. ValueError if the file is damaged."""
    try:
        found = json.loads(path.read_bytes())
        return dict(found)
    except (ValueError, TypeError) as cause:
        raise ValueError(
            f"{path} is damaged ({cause}); copy it again from where the run was trained, or delete "
            f"it and resume with the settings that the run was started with"
        ) from cause


def sessions(run_dir: Path) -> list[dict[str, Any]]:
    """The sessions that run.json reports, oldest first; none if nothing ran. ValueError if it is
    damaged.
    """
    path = run_dir / "run.json"
    if not path.exists():
        return []
    try:
        last = json.loads(path.read_text())
        found = [*last.pop("earlier_sessions", []), last]
        for session in found:
            session["commit"]  # every session has one
        return found
    except (ValueError, AttributeError, TypeError, KeyError) as cause:
        raise ValueError(
            f"{path} is damaged ({cause!r}); delete it: the run resumes, only the record of its "
            f"earlier sessions is lost"
        ) from cause


def surroundings() -> dict[str, Any]:
    """Versions, commit, command line and machine of this process."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "packages": {name: package_version(name) for name in PACKAGES},
        "commit": commit(),
    }


def add_to_run(run_dir: Path, facts: dict[str, Any]) -> None:
    """Add facts about this session to run.json."""
    path = run_dir / "run.json"
    write_json(path, json.loads(path.read_text()) | facts)


def package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The git commit of this code, with a mark if files differ from it."""
    here = Path(__file__).parent
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "not a git checkout"


def forget_metrics_after(run_dir: Path, step: int, *, name: str = "metrics.jsonl") -> None:
    """Drop the lines after a step that the run returns to, and a line that a kill cut short.
    ValueError if another line is damaged.
    """
    path = run_dir / name
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        steps = [parse_report(line, path, number)["step"] for number, line in enumerate(whole, 1)]
        kept = b"".join(line for line, at in zip(whole, steps, strict=True) if at <= step)
        write_text(path, kept.decode())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The reports in metrics.jsonl, one a step. ValueError for none, or a damaged line."""
    lines = path.read_bytes().splitlines()
    reports = [parse_report(line, path, number) for number, line in enumerate(lines, start=1)]
    if not reports:
        raise ValueError(f"{path} is empty: the run has taken no step; train before scoring")
    return reports


def parse_report(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """One line of metrics.jsonl. ValueError if it is damaged."""
    try:
        report = json.loads(line)
        if type(report["step"]) is not int:
            raise ValueError(f"step is {report['step']!r}")
    except (ValueError, KeyError, TypeError) as cause:
        raise ValueError(
            f"{path}, line {number} is not a step report ({cause!r}); copy the file again "
            f"from where it was trained, or delete the line"
        ) from cause
    return report


def append_metrics(run_dir: Path, metrics: dict[str, Any], *, name: str = "metrics.jsonl") -> None:
    """Add one line to metrics.jsonl, or to another file of lines."""
    line = json.dumps(metrics) + "\n"
    with writing(run_dir / name, len(line)), (run_dir / name).open("a", encoding="utf-8") as file:
        file.write(line)


class RunHistory(NamedTuple):
    """What a training run wrote about itself."""

    regulation: RegulationName
    """How it weighed pseudo-labels."""
    threshold: float
    """Confidence that the fixed regulation requires."""
    dropout_passes: int
    """Stochastic predictions that its teacher averaged into a pseudo-label."""
    metrics: list[dict[str, Any]]
    """Its reports in order, at least one; each has its `step`."""


def read_history(run_dir: Path) -> RunHistory | None:
    """The history in a folder; None where no run was: neither config.json nor metrics.jsonl.
    ValueError if one of the two files is missing, or damaged.
    """
    config, metrics = run_dir / "config.json", run_dir / "metrics.jsonl"
    missing = [path for path in (config, metrics) if not path.exists()]
    if len(missing) == 2:
        return None
    if missing:
        raise ValueError(
            f"{missing[0]} is missing: the run took no step, or its folder was copied in part; "
            f"give the whole folder, or one that holds the encoders alone"
        )
    try:
        settings = json.loads(config.read_bytes())
        loss, dropout_passes = settings["loss"], settings["teacher"]["dropout_passes"]
        regulation, threshold = loss["regulation"], loss["threshold"]
        if regulation not in (names := get_args(RegulationName)):
            raise ValueError(
                f"loss.regulation must be one of {', '.join(names)}, got {regulation!r}"
            )
    except (ValueError, KeyError, TypeError) as cause:
        raise ValueError(
            f"{config} holds no settings of a run ({cause!r}); copy it again from where it was "
            f"trained"
        ) from cause
    return RunHistory(regulation, threshold, dropout_passes, read_metrics(metrics))


def same_manifest(run_dir: Path, manifest: Path) -> bool | None:
    """Whether a run was trained with this manifest; None if its config.json does not say."""
    config = run_dir / "config.json"
    if not config.is_file():
        return None
    sha256 = json.loads(config.read_bytes()).get("manifest_sha256")
    return None if sha256 is None else sha256 == file_hash(manifest)


def curves(
    metrics: Sequence[dict[str, Any]], names: Sequence[str]
) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of each number that was reported; the losses of a part of training begin
    where it does."""
    reported = {name: [report for report in metrics if name in report] for name in names}
    return {
        name: ([int(report["step"]) for report in reports], [report[name] for report in reports])
        for name, reports in reported.items()
        if reports
    }


ON_THE_BAR = ("loss", "accuracy", "trust", "utilization")


class StepTiming(NamedTuple):
    """How long one step took."""

    seconds: float
    """Since the end of the step before."""
    waited_s: float
    """Of these, seconds spent waiting for batches."""
    num_clips: int
    """Labeled and unlabeled clips of the step, over all processes."""

    @property
    def stall(self) -> float:
        return self.waited_s / self.seconds


class TimedBatches(Iterator):
    """Batches, and how many seconds (`waited_s`) the loop waited for them since the last step."""

    def __init__(self, batches: Iterator):
        self._batches = batches
        self.waited_s = 0.0
        self._began_s = time.perf_counter()

    def __next__(self) -> Any:
        before_s = time.perf_counter()
        batch = next(self._batches)
        self.waited_s += time.perf_counter() - before_s
        return batch

    def end_step(self, num_clips: int) -> StepTiming:
        """The time since the step before ended."""
        ended_s = time.perf_counter()
        timing = StepTiming(ended_s - self._began_s, self.waited_s, num_clips)
        self._began_s, self.waited_s = ended_s, 0.0
        return timing


class Progress:
    """Reports each step, on the main process: a progress bar, metrics.jsonl and timing.jsonl.

    The bar goes from `initial` to `total` steps; `log` is where curves are written as well, without
    what an interrupted run wrote after the step `initial`. ValueError if it is not installed.
    """

    def __init__(
        self, run_dir: Path, *, total: int, initial: int, log: Literal["none", "tensorboard"]
    ):
        self.run_dir = run_dir
        self.curves: Any = None
        if log == "tensorboard":
            refuse_missing_tensorboard()
            from torch.utils.tensorboard import SummaryWriter

            self.curves = SummaryWriter(str(run_dir / "tensorboard"), purge_step=initial + 1)
        self.bar = tqdm(total=total, initial=initial, desc="train", unit="step")

    def log_step(self, step: int, metrics: dict[str, float], timing: StepTiming) -> None:
        """Report the `step`-th step."""
        append_metrics(self.run_dir, {"step": step, **metrics})
        rate = {"clips_per_s": timing.num_clips / timing.seconds, "stall": timing.stall}
        line = {"step": step, "seconds": timing.seconds, **rate}
        append_metrics(self.run_dir, line, name="timing.jsonl")
        if self.curves is not None:
            for name, value in {**metrics, **rate}.items():
                self.curves.add_scalar(name, value, step)
        shown = {name: f"{metrics[name]:.3f}" for name in ON_THE_BAR if name in metrics}
        shown |= {"clips/s": f"{rate['clips_per_s']:.1f}", "stall": f"{timing.stall:.0%}"}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def close(self) -> None:
        self.bar.close()
        if self.curves is not None:
            self.curves.close()


def refuse_missing_tensorboard() -> None:
    """Raise ValueError if the optional package tensorboard is not installed."""
    if find_spec("tensorboard") is None:
        raise ValueError(
            "log = tensorboard needs the package tensorboard; pip install 'sefar[log]', or set "
            "log = none"
        )


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keep other processes from training in a run folder, which is made if it is missing.

    The lock is the kernel's, not the file's existence: it ends with the process that holds it, so
    that a dead process's lock never has to be recognized. Loader workers do not inherit it.
    SefarError if another process trains in the folder; WriteError if it cannot be made or written
    to.
    """
    path = run_dir / "lock"
    holder_line = f"process {os.getpid()} on {socket.gethostname()}\n".encode()
    with writing(path, len(holder_line)):
        run_dir.mkdir(parents=True, exist_ok=True)
        path.touch()
    # Unbuffered: closing it must not write again what a full disk has refused.
    with path.open("a+b", buffering=0) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            file.seek(0)
            holder = file.read().decode().strip()
            raise SefarError(
                f"{run_dir} is in use by {holder}; wait for it, stop it, or give another run folder"
            ) from cause
        with writing(path, len(holder_line)):
            file.truncate(0)
            file.write(holder_line)
        yield
