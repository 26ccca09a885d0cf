"""A script run as a user runs it: in a process of its own, its words kept."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_script(name: str, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """What `python scripts/NAME ARGUMENTS` says and its exit code, without colors."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "NO_COLOR": "1"},
        timeout=120,
        check=False,
    )
