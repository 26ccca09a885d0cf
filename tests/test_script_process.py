"""Programs that tests start: Ctrl-C reaches them wherever the tests run, and none stays behind."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.script_process import LIMIT_S, call_script, read_until, started

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
SLEEP = "import time; print('ready', flush=True); time.sleep(600)"
TWO = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]], start_new_session=bool(sys.argv[2:]))
"""


def test_a_script_that_is_called_says_and_ends_what_a_process_would(tmp_path):
    """Its arguments, folder, input and two outputs are its own; what ends it is its exit code."""
    program = tmp_path / "program.py"
    code = "print(input(), os.getcwd(), *sys.argv[1:]); print('why', file=sys.stderr)"
    for end, expected, why in [("", 0, ""), ("sys.exit(3)", 3, ""), ("sys.exit('no')", 1, "no\n")]:
        program.write_text(f"import os, sys\n{code}\n{end}\n")
        done = call_script(program, "--a", 1, cwd=tmp_path, stdin="typed\n")
        assert (done.returncode, done.stderr) == (expected, "why\n" + why)
        assert done.stdout == f"typed {tmp_path} --a 1\n"
    program.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        call_script(program)


@pytest.fixture
def in_background():
    """SIGINT is ignored here, as in a background job of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def runs(pid: int) -> bool:
    """Whether the process does something; nobody may have asked yet how an orphan ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ctrl_c_reaches_a_program_though_a_shell_had_it_ignored(in_background):
    with started([sys.executable, "-c", SLEEP], **PIPES) as process:
        read_until(process.stdout, "ready")
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == -signal.SIGINT and b"KeyboardInterrupt" in stderr


@pytest.mark.parametrize("own_session", [[], ["yes"]])
def test_a_program_and_its_children_end_with_the_test_that_fails(own_session):
    command = [sys.executable, "-c", TWO, SLEEP, *own_session]
    with pytest.raises(ZeroDivisionError), started(command, **PIPES) as process:
        read_until(process.stdout, "ready")
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children())]
        raise ZeroDivisionError
    assert len(family) == 2
    until = time.monotonic() + 60
    while any(map(runs, family)):
        assert time.monotonic() < until
        time.sleep(0.01)
