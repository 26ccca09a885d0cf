"""How a script ends: which errors are a line, which a traceback, and with which exit code."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sefar_core.cli import paragraphs_of_help, refuse_unwritable, start

import pytest
import tyro
from tyro import _strings

from qa_data.files import SefarError
from qa_data.manifest import ManifestError
from sefar_core import cli
from sefar_core.checkpoint import CheckpointError
from sefar_core.data.video import VideoReadError
from sefar_core.signals import Interrupted, StoppedByAnother
from tests.script_process import LIMIT_S, ROOT, environment, started


def ended(error: BaseException, capsys, *, failure: int = 1) -> tuple[object, str]:
    """Exit code and stderr of a script whose work raises an error."""

    def work(settings):
        raise error

    with pytest.raises(SystemExit) as end:
        start(work, lambda: None, failure=failure)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "kind",
    [
        ManifestError,
        CheckpointError,
        VideoReadError,
        SefarError,
        ValueError,
        OSError,
        FloatingPointError,
    ],
)
@pytest.mark.parametrize("failure", [1, 2])
def test_known_errors_are_a_line_with_the_script_s_exit_code(kind, failure, capsys):
    printed = ended(kind("a.csv, line 3: no label"), capsys, failure=failure)
    assert printed == (failure, "error: a.csv, line 3: no label\n")


@pytest.mark.parametrize("bug", [KeyError("a"), TypeError("b"), RuntimeError("c"), IndexError()])
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


def test_a_run_that_saved_says_so_with_the_code_of_its_signal(capsys):
    stop = Interrupted(signal.SIGTERM, "stopped after step 5; saved in runs/a/states")
    assert ended(stop, capsys) == (143, "stopped after step 5; saved in runs/a/states\n")


def test_one_process_speaks_for_all(capsys):
    assert ended(StoppedByAnother("the main process failed"), capsys) == (1, "")


def test_what_a_loader_process_raised_is_reported_without_its_traceback(capsys):
    text = "Caught VideoReadError in DataLoader worker process 0.\nOriginal Traceback (most recent "
    text += "call last):\n  File x\nsefar_core.data.decoding.VideoReadError: a.mp4 is cut off\n"
    code, printed = ended(VideoReadError(text), capsys)
    assert code == 1 and printed.count("\n") == 1 and printed.endswith("a.mp4 is cut off\n")


def test_names_cannot_rewrite_the_terminal(capsys):
    assert ended(ValueError("no \x1b[2J\x9b31m\u202e\udc80file"), capsys) == (
        1,
        "error: no [2J31mfile\n",
    )


def test_ctrl_c_is_a_line_and_a_second_one_ends_at_once(capsys):
    before = signal.getsignal(signal.SIGINT)
    try:
        assert ended(KeyboardInterrupt(), capsys) == (130, "interrupted\n")
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_outside_the_work_is_a_line_too():
    done = subprocess.run(
        [sys.executable, "-c", "import sefar_core.cli\nraise KeyboardInterrupt"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_lost_pipe_of_another_kind_is_not_silent(capsys):
    assert ended(BrokenPipeError(32, "Broken pipe"), capsys)[0] == 1


def test_a_folder_that_may_be_made_is_not_refused_and_not_made(tmp_path):
    refuse_unwritable(folders=[tmp_path / "a/b", tmp_path, None], files=[tmp_path / "c/d", None])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "outputs",
    [
        {"files": ["{}"]},
        {"files": ["{}/file/x"]},
        {"folders": ["{}/file"]},
        {"folders": ["{}/file/x"]},
        {"files": ["/dev/full"]},
        {"folders": ["/proc/x"]},
    ],
)
def test_an_output_in_an_impossible_place_is_refused_by_name(tmp_path, outputs, capsys):
    (tmp_path / "file").write_text("kept")
    outputs = {
        kind: [cli.Path(name.format(tmp_path)) for name in names] for kind, names in outputs.items()
    }
    with pytest.raises(SystemExit) as end:
        refuse_unwritable(**outputs)
    printed = capsys.readouterr().err
    ((output,),) = outputs.values()
    assert end.value.code == 2 and str(output) in printed and printed.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_a_full_disk_is_found_before_the_work(tmp_path):
    """A limit on the size of files takes the part of the disk."""
    code = (
        "import resource, sys; from pathlib import Path; from sefar_core.cli import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "refuse_unwritable(folders=[Path(sys.argv[1])])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "takes no files (File too large); make room" in done.stderr


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


@pytest.mark.parametrize(
    ("how", "code", "printed"), [("ignored", 0, "0\nwent on\n"), ("heard", 130, "2\n")]
)
def test_what_ignores_ctrl_c_still_ignores_it(how, code, printed):
    with started(
        [sys.executable, "-c", LOOP, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(),
        text=True,
    ) as process:
        output, _ = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, output) == (code, printed)


HIDDEN = """
import signal, weakref
import sefar_core.cli
class Thing: pass
thing = Thing()
kept = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
del thing
print("went on")
"""


def test_a_ctrl_c_that_python_would_drop_ends_the_script_too():
    """The import system has callbacks, whose errors Python only prints."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", HIDDEN]
    with started(command, cwd=ROOT, env=environment(), text=True, **pipes) as process:
        output, printed = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, output, printed) == (130, "", "interrupted\n")


GREEDY = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    pass
"""


def test_a_ctrl_c_that_a_module_would_swallow_while_it_is_imported_ends_the_script(tmp_path):
    (tmp_path / "greedy.py").write_text(GREEDY)
    code = "import sys, sefar_core.cli; sys.path.insert(0, sys.argv[1]); print('before')\n"
    command = [sys.executable, "-c", f"{code}import greedy; print('went on')", str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(command, cwd=ROOT, env=environment(), text=True, **pipes) as process:
        output, printed = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, output, printed) == (130, "before\n", "interrupted\n")


def test_nothing_slow_is_imported():
    code = "import json, sys; import sefar_core.cli; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert not {"torch", "numpy", "tyro", "rich", "av"} & set(json.loads(done.stdout))


@dataclass(frozen=True)
class Optional:
    path: Path | None = None
    count: int | None = 3


def test_help_shows_the_type_of_an_optional_setting(capsys):
    with pytest.raises(SystemExit):
        start(lambda settings: None, lambda: tyro.cli(Optional, args=["--help"]))
    shown = capsys.readouterr().out
    assert "--path PATH" in shown and "--count INT" in shown
    assert "{None}" not in shown and "(default: None)" in shown


def test_an_optional_setting_still_takes_none():
    found = []
    start(found.append, lambda: tyro.cli(Optional, args=["--count", "None", "--path", "a"]))
    assert found == [Optional(path=Path("a"), count=None)]


@dataclass(frozen=True)
class Long:
    count: int = 3
    """Help of a setting whose source
    breaks its line."""


PROSE = (
    "A first paragraph, longer than the terminals of this test, whose source breaks elsewhere " * 2
)
EXAMPLE = "    run this --count 7   # however long the line may be, " + 50 * "so "


@pytest.mark.parametrize("columns", [60, 100])
def test_help_is_wrapped_by_the_terminal_and_not_by_the_source(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = f"{PROSE[:40]}\n{PROSE[40:]}\n\n{EXAMPLE.rstrip()}\n    run that\n\nThe end."
    with pytest.raises(SystemExit):
        start(lambda settings: None, lambda: tyro.cli(Long, args=["--help"], description=text))
    _, prose, example, end, settings = capsys.readouterr().out.split("\n\n", 4)
    assert " ".join(prose.split()) == " ".join(f"{PROSE[:40]} {PROSE[40:]}".split())
    assert 1 < len(prose.splitlines()) and max(map(len, prose.splitlines())) <= columns
    assert (example, end) == (f"{EXAMPLE.rstrip()}\n    run that", "The end.")
    assert "setting whose source breaks its line." in " ".join(settings.replace("│", " ").split())


def test_another_version_of_tyro_still_starts_every_script(monkeypatch):
    monkeypatch.delattr(_strings, "remove_single_line_breaks")
    with paragraphs_of_help():
        assert not hasattr(_strings, "remove_single_line_breaks")
    assert not hasattr(_strings, "remove_single_line_breaks")
