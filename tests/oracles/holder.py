"""Another process that uses a folder."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.script_process import ROOT, read_until, started

HOLD = """
import sys, time
from pathlib import Path
from sefar_core.run_dir import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(3600)
"""


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """The id of a process that holds the lock of a folder meanwhile; then it is killed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(command, cwd=ROOT, **pipes) as process:
        read_until(process.stdout, "held")
        yield process.pid
