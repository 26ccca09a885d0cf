import os
import signal
import subprocess
import sys
import time

import pytest

from sefar_core.signals import Interrupted, StopRequest
from tests.script_process import LIMIT_S, ROOT, read_until, started

WAIT = """
import importlib.util, sys, time
place = importlib.util.spec_from_file_location("signals", "sefar_core/signals.py")
signals = importlib.util.module_from_spec(place)
place.loader.exec_module(signals)
signals.SAME_SIGNAL_S = 0.2
with signals.StopRequest():
    print("ready", flush=True)
    time.sleep(3600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_remembered_and_the_former_handler_comes_back(number, capfd):
    before = signal.getsignal(number)
    with StopRequest() as request:
        assert request.number == 0
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)  # a launcher may pass the same signal on
        assert request.number == number
    assert signal.getsignal(number) == before
    assert "stopping after this step" in capfd.readouterr().err
    assert Interrupted(number, "stopped").exit_code == 128 + number  # as the shell has it


def test_a_second_signal_ends_the_process_at_once_with_its_code():
    command = [sys.executable, "-c", WAIT]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(command, cwd=ROOT, **pipes) as process:
        read_until(process.stdout, "ready")
        process.send_signal(signal.SIGTERM)
        read_until(process.stderr, "stopping after this step")
        time.sleep(0.4)  # a second signal within 0.2 s is the first, passed on
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=LIMIT_S) == 143
