"""A script run as a user runs it, its words kept: in this process, or in one of its own."""

import importlib.util
import io
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import ModuleType
from typing import IO
from unittest.mock import patch

import psutil

ROOT = Path(__file__).parents[1]
COLUMNS = 120

# Only a hang takes so long: a machine under load is slower by a factor of ten.
LIMIT_S = 600.0

# A shell starts background jobs with SIGINT ignored, and every child inherits that through exec. A
# program must keep ignoring it then, so tests of Ctrl-C reset it in front of the program.
# preexec_fn would do so too, but it is unsafe in a process with threads, as torch starts them.
RESET_SIGINT = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def call_script(
    name: str | Path, *arguments: object, cwd: Path = ROOT, stdin: str = "", columns: int = COLUMNS
) -> subprocess.CompletedProcess:
    """What `python scripts/NAME ARGUMENTS` says and its exit code, run in this process.

    An error that would show a traceback is raised. What child processes print is not kept.

    Args:
        name: of the script, relative to the folder of scripts.
        arguments: of the script.
        cwd: where the script runs.
        stdin: what is typed.
        columns: width of the terminal.
    """
    path = str(ROOT / "scripts" / name)
    argv = [path, *map(str, arguments)]
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in "oe")
    typed = io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")
    with (
        patch.object(sys, "argv", argv),
        patch.object(sys, "stdin", typed),
        patch.dict(os.environ, environment(columns)),
        chdir(cwd),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        code = exit_code(path)
    # They stay open, for loggers may hold on to them.
    printed = [stream.buffer.getvalue().decode() for stream in (stdout, stderr)]
    return subprocess.CompletedProcess(argv, code, *printed)


def script_module(name: str) -> ModuleType:
    """A script as a module, for tests of its functions."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def exit_code(path: str) -> int:
    """Run a file as a program; its exit code, with a text in its place printed."""
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    return 0


def run_script(
    name: str, *arguments: object, stdout: int | IO = subprocess.PIPE
) -> subprocess.CompletedProcess:
    """What `python scripts/NAME ARGUMENTS` says and its exit code, without colors."""
    return subprocess.run(
        script(name, arguments),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=LIMIT_S,
        check=False,
    )


def script(name: str, arguments: Sequence[object]) -> list[str]:
    """The command `python scripts/NAME ARGUMENTS`."""
    return [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]


def environment(columns: int = COLUMNS) -> dict[str, str]:
    """Variables of a script whose output is compared: no colors, lines of a known width."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(columns), "NO_COLOR": "1"}


@contextmanager
def started(command: Sequence[str], **settings) -> Iterator[subprocess.Popen]:
    """A running process that SIGINT reaches as from a terminal; none of its children stays behind.

    It leads a session of its own, so `os.killpg(process.pid, signal.SIGINT)` is Ctrl-C.

    Args:
        command: program and arguments; the program is a path, as `sys.executable` is.
        settings: of `subprocess.Popen`.
    """
    reset = [sys.executable, "-I", "-S", "-c", RESET_SIGINT]
    with subprocess.Popen([*reset, *command], start_new_session=True, **settings) as process:
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen) -> None:
    """Kill a process, its group, and its descendants in sessions of their own, as ranks are."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def interrupted_script(name: str, *arguments: object, at: str) -> subprocess.CompletedProcess:
    """`python scripts/NAME ARGUMENTS`, interrupted by Ctrl-C once stderr holds a pattern.

    Returns:
        All that the script printed to stdout and to stderr, and its exit code.

    Raises:
        AssertionError: The script ended before it printed the pattern.
    """
    unbuffered = environment() | {"PYTHONUNBUFFERED": "1"}  # a line arrives when it is printed
    with (
        tempfile.TemporaryFile("w+") as stdout,
        started(
            script(name, arguments), cwd=ROOT, env=unbuffered, stdout=stdout, stderr=subprocess.PIPE
        ) as process,
    ):
        before = read_until(process.stderr, at)
        os.killpg(process.pid, signal.SIGINT)
        _, after = process.communicate(timeout=LIMIT_S)
        stdout.seek(0)
        printed = stdout.read(), (before + after).decode()
        return subprocess.CompletedProcess(process.args, process.returncode, *printed)


def read_until(stream: IO[bytes], pattern: str) -> bytes:
    """What a process prints into a pipe, up to where it holds the pattern."""
    seen = b""
    while not re.search(pattern.encode(), seen):
        piece = os.read(stream.fileno(), 4096)
        assert piece, f"ended before it printed {pattern!r}: {seen!r}"
        seen += piece
    return seen
