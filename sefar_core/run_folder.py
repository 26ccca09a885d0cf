"""What every run leaves behind: its settings, its surroundings, its numbers.

config.json holds the settings, run.json versions, commit and command, metrics.jsonl one line a
report. All are text.
"""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "accelerate", "timm", "av", "numpy", "safetensors")


def write_text(path: Path, text: str) -> None:
    """Write a file all or nothing."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def as_json(value: Any) -> str:
    """Indented JSON; paths become text."""
    return json.dumps(value, indent=2, default=str) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, all or nothing."""
    write_text(path, as_json(value))


def refuse_other_settings(run_dir: Path, found: dict, asked: dict) -> None:
    """Raise ValueError naming the first setting in which a folder differs from what is asked."""
    for name in sorted(found.keys() | asked.keys()):
        if found.get(name) != asked.get(name):
            raise ValueError(
                f"{run_dir} holds a run with {name} = {found.get(name)}, but {asked.get(name)} is "
                f"asked for; give another run folder, or delete this one"
            )


def open_run(
    run_dir: Path, settings: Any, *, seed: int, data: dict[str, str] | None = None
) -> None:
    """Make the folder of a run and say in it what runs.

    Args:
        run_dir: made if missing; may hold the same run, to go on with.
        settings: a dataclass, stored as config.json.
        seed: of all draws.
        data: what the run learns from, stored with the settings.

    Raises:
        ValueError: the folder holds a run of other settings.
    """
    asked = json.loads(as_json(dataclasses.asdict(settings) | (data or {})))
    if (run_dir / "config.json").exists():
        refuse_other_settings(run_dir, json.loads((run_dir / "config.json").read_text()), asked)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / "config.json", asked)
    write_json(run_dir / "run.json", surroundings() | {"seed": seed})


def surroundings() -> dict[str, Any]:
    """Versions, commit, command line and machine of this process."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "packages": {name: package_version(name) for name in PACKAGES},
        "commit": commit(),
    }


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


def forget_metrics_after(run_dir: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl beyond a step that is gone back to."""
    path = run_dir / "metrics.jsonl"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(line for line in lines if json.loads(line)["step"] <= step))


def append_metrics(run_dir: Path, metrics: dict[str, Any]) -> None:
    """Add one line to metrics.jsonl."""
    with (run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(metrics) + "\n")
