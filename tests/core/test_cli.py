"""How a script ends: which errors are a line, which a traceback, and with which exit code."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sefar_core.cli import refuse_unwritable, start

import pytest
import tyro

from sefar_core.checkpoint import CheckpointError
from sefar_core.data.video import VideoReadError
from sefar_core.signals import Interrupted, StoppedByAnother
from tests.oracles.full_disk import files_of_at_most
from tests.script_process import LIMIT_S, ROOT, environment, started


def ended(error: BaseException, capsys, *, failure: int = 1) -> tuple[object, str]:
    """Exit code and stderr of a script whose work raises an error."""

    def work(settings):
        raise error

    with pytest.raises(SystemExit) as end:
        start(work, lambda: None, failure=failure)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("kind", [CheckpointError, OSError, FloatingPointError])
def test_known_errors_are_a_line_with_the_script_s_exit_code(kind, capsys):
    for failure in (1, 2):
        printed = ended(kind("a.csv, line 3: no label"), capsys, failure=failure)
        assert printed == (failure, "error: a.csv, line 3: no label\n")


@pytest.mark.parametrize("bug", [KeyError("a"), RuntimeError("c")])
def test_bugs_keep_their_traceback(bug):
    def work(settings):
        raise bug

    with pytest.raises(type(bug)):
        start(work, lambda: None)


def test_settings_that_contradict_one_another_end_before_the_work(capsys):
    def parse():
        raise ValueError("warmup_epochs must be in [0, epochs]")

    with pytest.raises(SystemExit) as end:
        start(lambda settings: pytest.fail("worked"), parse)
    printed = capsys.readouterr().err
    assert (end.value.code, printed) == (2, "error: warmup_epochs must be in [0, epochs]\n")


IN_A_LOADER = (
    "Caught VideoReadError in DataLoader worker process 0.\nOriginal Traceback (most recent call "
    "last):\n  File x\nsefar_core.data.decoding.VideoReadError: a.mp4 is cut off\n"
)
SAVED = "stopped after step 5; saved in runs/a/states"


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (Interrupted(signal.SIGTERM, SAVED), 143, f"{SAVED}\n"),
        (StoppedByAnother("the main process failed"), 1, ""),  # one process speaks for all
        (
            VideoReadError(IN_A_LOADER),
            1,
            "error: sefar_core.data.decoding.VideoReadError: a.mp4 is cut off\n",
        ),
        # A name cannot rewrite the terminal.
        (ValueError("no \x1b[2J\x9b31m\u202e\udc80file"), 1, "error: no [2J31mfile\n"),
    ],
)
def test_what_ends_a_script_is_told_in_one_line(error, code, printed, capsys):
    assert ended(error, capsys) == (code, printed)


def test_ctrl_c_is_a_line_and_a_second_one_ends_at_once(capsys):
    before = signal.getsignal(signal.SIGINT)
    try:
        assert ended(KeyboardInterrupt(), capsys) == (130, "interrupted\n")
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_folder_that_may_be_made_is_not_refused_and_not_made(tmp_path):
    refuse_unwritable(folders=[tmp_path / "a/b", tmp_path, None], files=[tmp_path / "c/d", None])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "output"),
    [("files", "{}"), ("files", "{}/file/x"), ("folders", "{}/file"), ("files", "/dev/full")],
)
def test_an_output_in_an_impossible_place_is_refused_by_name(tmp_path, kind, output, capsys):
    (tmp_path / "file").write_text("kept")
    path = Path(output.format(tmp_path))
    with pytest.raises(SystemExit) as end:
        refuse_unwritable(**{kind: [path]})
    printed = capsys.readouterr().err
    assert end.value.code == 2 and str(path) in printed and printed.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_a_full_disk_is_found_before_the_work(tmp_path, capsys):
    with pytest.raises(SystemExit), files_of_at_most(0):
        refuse_unwritable(folders=[tmp_path / "out"])
    assert "takes no files (File too large); make room" in capsys.readouterr().err


LOOP = """
import signal, sys
from sefar_core.cli import start
if sys.argv[1] == "ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
from sefar_core.signals import StopRequest
def work(settings):
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        print(stop.number)
    signal.raise_signal(signal.SIGINT)
    print("went on")
start(work, lambda: None)
"""

# The import system has callbacks, whose errors Python only prints.
HIDDEN = """
import signal, weakref
import sefar_core.cli
class Thing: pass
thing = Thing()
kept = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
del thing
print("went on")
"""

SWALLOWED = """
import sys, sefar_core.cli
sys.path.insert(0, sys.argv[1])
print("before")
import greedy
print("went on")
"""

GREEDY = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    pass
"""


@pytest.mark.parametrize(
    ("program", "argument", "ends"),
    [
        ("import sefar_core.cli\nraise KeyboardInterrupt", "", (130, "", "interrupted\n")),
        (LOOP, "heard", (130, "2\n", "interrupted\n")),
        (LOOP, "ignored", (0, "0\nwent on\n", "")),
        (HIDDEN, "", (130, "", "interrupted\n")),
        (SWALLOWED, "folder", (130, "before\n", "interrupted\n")),
    ],
)
def test_ctrl_c_ends_a_program_with_one_line_wherever_it_comes(tmp_path, program, argument, ends):
    """Unless it ignores Ctrl-C. A module that swallows it while it is imported does not hide it."""
    (tmp_path / "greedy.py").write_text(GREEDY)
    command = [sys.executable, "-c", program, argument if argument != "folder" else str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(command, cwd=ROOT, env=environment(), text=True, **pipes) as process:
        output, printed = process.communicate(timeout=LIMIT_S)
    printed = printed.removeprefix("\nstopping after this step; once more stops at once, unsaved\n")
    assert (process.returncode, output, printed) == ends


def test_nothing_slow_is_imported():
    code = "import json, sys; import sefar_core.cli; print(json.dumps(sorted(sys.modules)))"
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment())
    assert not {"torch", "numpy", "tyro", "rich", "av"} & set(json.loads(printed))


@dataclass(frozen=True)
class Optional:
    path: Path | None = None
    count: int | None = 3
    """Help of a setting whose source
    breaks its line."""


def test_an_optional_setting_is_shown_by_its_type_and_takes_none(capsys):
    with pytest.raises(SystemExit):
        start(lambda settings: None, lambda: tyro.cli(Optional, args=["--help"]))
    shown = capsys.readouterr().out
    assert "--path PATH" in shown and "--count INT" in shown
    assert "{None}" not in shown and "(default: None)" in shown
    found = []
    start(found.append, lambda: tyro.cli(Optional, args=["--count", "None", "--path", "a"]))
    assert found == [Optional(path=Path("a"), count=None)]


PROSE = (
    "A first paragraph, longer than the terminals of this test, whose source breaks elsewhere " * 2
)
EXAMPLE = "    run this --count 7   # however long the line may be, " + 50 * "so "


def test_help_is_wrapped_by_the_terminal_and_not_by_the_source(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = f"{PROSE[:40]}\n{PROSE[40:]}\n\n{EXAMPLE.rstrip()}\n    run that\n\nThe end."
    with pytest.raises(SystemExit):
        start(lambda settings: None, lambda: tyro.cli(Optional, args=["--help"], description=text))
    _, prose, example, end, settings = capsys.readouterr().out.split("\n\n", 4)
    assert " ".join(prose.split()) == " ".join(f"{PROSE[:40]} {PROSE[40:]}".split())
    assert 1 < len(prose.splitlines()) and max(map(len, prose.splitlines())) <= 60
    assert (example, end) == (f"{EXAMPLE.rstrip()}\n    run that", "The end.")
    assert "setting whose source breaks its line." in " ".join(settings.replace("│", " ").split())
