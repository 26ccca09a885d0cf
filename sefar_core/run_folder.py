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


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, all or nothing; paths become text."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def open_run(run_dir: Path, settings: Any, *, seed: int) -> None:
    """Make the folder of a run and say in it what runs.

    Args:
        run_dir: made if missing.
        settings: a dataclass, stored as config.json.
        seed: of all draws.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / "config.json", dataclasses.asdict(settings))
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


def append_metrics(run_dir: Path, metrics: dict[str, Any]) -> None:
    """Add one line to metrics.jsonl."""
    with (run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(metrics) + "\n")
