"""A Ctrl-C reaches the process that started others, and not these."""

import signal
import subprocess
import sys

import pytest

from qa_data.terminal import without_interrupts
from sefar_core.signals import Interrupted
from sefar_mllm.comparison.experiment import _terminate_together

CHILD = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('went on')"


def test_a_process_that_is_started_inside_never_sees_a_ctrl_c():
    with without_interrupts():
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    output, _ = child.communicate(timeout=600)
    assert (child.returncode, output) == (0, "went on\n")


def test_a_ctrl_c_that_comes_inside_arrives_when_the_block_ends():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(len(heard)))
    try:
        with without_interrupts():
            signal.raise_signal(signal.SIGINT)
            assert heard == []
        assert heard == [0]
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_comparison_that_is_stopped_says_how_to_resume(number, code):
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(
            Interrupted, match="interrupted; rerun the same command to resume"
        ) as stop:
            with _terminate_together():
                signal.raise_signal(number)
        assert stop.value.exit_code == code
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
