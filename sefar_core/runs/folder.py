"""What every run leaves behind: its settings, its surroundings, its numbers.

config.json holds the settings, run.json versions, commit and command of the last session and of
those before it, metrics.jsonl one line a report. All are text.
"""

import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

PACKAGES = ("torch", "transformers", "peft", "accelerate", "timm", "av", "numpy", "safetensors")
ENCODERS = ("student", "teacher", "best")
"""Folders of networks in the folder of a run."""


class WriteError(OSError):
    """A file of the run cannot be written. The message names it, and the space it needs."""


def run_of(folder: Path) -> Path:
    """The folder of the run that `folder`, a run or an encoder in it, belongs to."""
    return folder.parent if folder.name in ENCODERS else folder


@contextmanager
def writing(path: Path, needed: int, draft: Path | None = None) -> Iterator[None]:
    """Around what writes: a full disk becomes an error in one line, and no draft stays.

    Args:
        path: what is written.
        needed: its size, bytes.
        draft: file or folder that is renamed to `path` in the end.

    Raises:
        WriteError: the disk is full, or refuses otherwise.
    """
    try:
        yield
    except (OSError, SafetensorError) as cause:  # safetensors has an error of its own
        if draft is not None and draft.is_dir():
            shutil.rmtree(draft)
        elif draft is not None:
            draft.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent if path.parent.exists() else "/").free
        size = (
            f"it needs {needed:,} bytes, {free:,} are free"
            if needed
            else f"{free:,} bytes are free"
        )
        raise WriteError(
            f"cannot write {path}: {cause}; {size}. Make room, or give a folder that may be "
            f"written, and run the same command again: it goes on from the last whole state"
        ) from cause


def sync(path: Path) -> None:
    """Have the disk take a file, or the names in a folder, before anything goes on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a file all or nothing."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path, len(text), draft):
        draft.write_text(text, encoding="utf-8")
        sync(draft)  # else a cut of the power may leave the name without the text
        os.replace(draft, path)


def as_json(value: Any) -> str:
    """Indented JSON; paths become text."""
    return json.dumps(value, indent=2, default=str) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, all or nothing."""
    write_text(path, as_json(value))


def dotted(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under the names that the command line has for them."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= (
            dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return flat


def refuse_other_settings(
    run_dir: Path, found: dict, asked: dict, *, free: Collection[str] = ()
) -> None:
    """Raise ValueError naming the first setting in which a folder differs from what is asked."""
    found, asked = dotted(found), dotted(asked)
    for name in sorted((found.keys() | asked.keys()) - set(free)):
        if found.get(name) != asked.get(name):
            raise ValueError(
                f"{run_dir} holds a run with {name} = {found.get(name)}, but {asked.get(name)} is "
                f"asked for; give another run folder, or delete this one"
            )


def open_run(
    run_dir: Path,
    settings: Any,
    *,
    seed: int,
    data: dict[str, str] | None = None,
    free: Collection[str] = (),
) -> None:
    """Make the folder of a run and say in it what runs, beside what ran in it before.

    A run that is gone on with by other code is told so, for its end may then differ. Settings that
    did not exist when it began had no effect on it: they count as their defaults.

    Args:
        run_dir: made if missing; may hold the same run, to go on with.
        settings: a dataclass, stored as config.json.
        seed: of all draws.
        data: what the run learns from, stored with the settings.
        free: dotted names of settings that may differ when a run is gone on with.

    Raises:
        ValueError: the folder holds a run of other settings, or its config.json or run.json is
            damaged.
    """
    asked = json.loads(as_json(dataclasses.asdict(settings) | (data or {})))
    if (run_dir / "config.json").exists():
        defaults = json.loads(as_json(dataclasses.asdict(type(settings)())))
        found = dotted(defaults) | dotted(read_config(run_dir / "config.json"))
        refuse_other_settings(run_dir, found, asked, free=free)
    run_dir.mkdir(parents=True, exist_ok=True)
    remove_drafts(run_dir)
    write_json(run_dir / "config.json", asked)
    now, earlier = surroundings(), sessions(run_dir)
    if earlier and earlier[-1]["commit"] != now["commit"]:
        print(
            f"note: the last session of {run_dir} was of the code {earlier[-1]['commit']}, this "
            f"one is of {now['commit']}"
        )
    write_json(run_dir / "run.json", now | {"seed": seed, "earlier_sessions": earlier})


def read_config(path: Path) -> dict[str, Any]:
    """The settings that a run was started with.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        found = json.loads(path.read_bytes())
        return dict(found)
    except (ValueError, TypeError) as cause:
        raise ValueError(
            f"{path} is damaged ({cause}); copy it again from where the run was trained, or delete "
            f"it and resume with the settings that the run was started with"
        ) from cause


def sessions(run_dir: Path) -> list[dict[str, Any]]:
    """What run.json says of each session so far, the oldest first; none if nothing ran.

    Raises:
        ValueError: it is damaged.
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
            f"{path} is damaged ({cause!r}); delete it: the run goes on, only the record of its "
            f"earlier sessions is lost"
        ) from cause


def remove_drafts(run_dir: Path) -> None:
    """Remove what killed processes left half-written: `.name.process`."""
    for path in run_dir.glob(".*"):
        if re.fullmatch(r"\..+\.\d+", path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


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
    """Add to what run.json says of this session."""
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
    """Drop the lines beyond a step that is gone back to, and one that a kill cut short.

    Raises:
        ValueError: another line is damaged.
    """
    path = run_dir / name
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        reports = [parse_report(line, path, number) for number, line in enumerate(whole, start=1)]
        kept = [
            line.decode()
            for line, report in zip(whole, reports, strict=True)
            if report["step"] <= step
        ]
        write_text(path, "".join(kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The reports in metrics.jsonl, one a step.

    Raises:
        ValueError: there is none, or a line is damaged.
    """
    lines = path.read_bytes().splitlines()
    reports = [parse_report(line, path, number) for number, line in enumerate(lines, start=1)]
    if not reports:
        raise ValueError(f"{path} is empty: the run has taken no step; train before scoring")
    return reports


def parse_report(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """One line of metrics.jsonl.

    Raises:
        ValueError: it is damaged.
    """
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
