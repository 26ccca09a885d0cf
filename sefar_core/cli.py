"""How a script starts and ends: one line for what its user can fix, a traceback for a bug.

Importing this module takes no time and makes Ctrl-C one line from then on. Scripts import it before
everything else, so that Ctrl-C during slow imports is one line, too.
"""

import inspect
import os
import re
import select
import shutil
import signal
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import parent_process
from pathlib import Path
from textwrap import fill
from types import FrameType, NoneType, TracebackType
from typing import Any, NoReturn, TypeVar, Union, get_args

from sefar_core.signals import Interrupted, StoppedByAnother

Settings = TypeVar("Settings")

REFUSED = 2
"""Exit code for settings out of range and for outputs that cannot be written; tyro's, too."""
INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 128 + signal.SIGPIPE
KNOWN = (FloatingPointError, OSError, ValueError)
"""Errors of the language that the project, besides its own, raises with a message for the user."""


def start(
    work: Callable[[Settings], object], parse: Callable[[], Settings], *, failure: int = 1
) -> None:
    """Run a script.

    `parse` reads the command line; `failure` is the exit code where the work ends in a known error.

    Raises:
        SystemExit: with the exit code, where it is not 0. The message is on stderr.
    """
    try:
        with plain_optional_settings(), paragraphs_of_help():
            with one_line(REFUSED):
                settings = parse()
            with one_line(failure):
                work(settings)
    finally:
        flush_output()


@contextmanager
def plain_optional_settings() -> Iterator[None]:
    """Show `PATH` in --help for a setting of type `Path | None`, where tyro shows `{None}|PATH`.

    `--setting None` is read as before.
    """
    from tyro.constructors import (
        ConstructorRegistry,
        PrimitiveConstructorSpec,
        PrimitiveTypeInfo,
    )

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        kinds = tuple(kind for kind in get_args(info.type) if kind is not NoneType)
        if not kinds or len(kinds) == len(get_args(info.type)):
            return None
        rest: Any = Union[kinds]  # noqa: UP007 - made of types that only tyro knows
        inner = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(rest, info.markers))
        if not isinstance(inner, PrimitiveConstructorSpec) or inner.nargs != 1:
            return None
        return replace(
            inner,
            instance_from_str=lambda words: (
                None if words == ["None"] else inner.instance_from_str(words)
            ),
            is_instance=lambda value: value is None or inner.is_instance(value),
            str_from_instance=lambda value: (
                ["None"] if value is None else inner.str_from_instance(value)
            ),
            choices=None if inner.choices is None else (*inner.choices, "None"),
        )

    with registry:
        yield


@contextmanager
def paragraphs_of_help() -> Iterator[None]:
    """Have --help wrap texts by the terminal's width; tyro keeps the line breaks of the source."""
    from tyro import _strings  # it has no public way

    name = "remove_single_line_breaks"
    of_tyro = getattr(_strings, name, None)
    if of_tyro is None:  # another version of tyro: lines break where the source does
        yield
        return
    setattr(_strings, name, wrapped)
    try:
        yield
    finally:
        setattr(_strings, name, of_tyro)


def wrapped(helptext: str) -> str:
    """Each paragraph of a text on lines of the terminal's width; one that is indented stays.

    A text of one paragraph becomes one line, for whoever wraps it in a narrower place.
    """
    parts = re.split(r"\n\s*\n", inspect.cleandoc(helptext))
    width = shutil.get_terminal_size().columns if len(parts) > 1 else sys.maxsize
    filled = (part if part[:1] == " " else fill(" ".join(part.split()), width) for part in parts)
    return "\n\n".join(filled)


@contextmanager
def one_line(code: int) -> Iterator[None]:
    """Turn a known error (exit code `code`), Ctrl-C and a closed pipe into a line on stderr and
    SystemExit.

    Any other error is a bug and passes, so that its traceback is shown.
    """
    try:
        yield
    except KeyboardInterrupt:
        end_interrupted()
    except Interrupted as stop:  # the work saved its state
        say(str(stop))
        raise SystemExit(stop.exit_code) from stop
    except StoppedByAnother as cause:  # another process of the run has reported why
        raise SystemExit(code) from cause
    except Exception as error:
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            silence_output()
            raise SystemExit(PIPE_CLOSED) from error
        from qa_data.files import SefarError  # importing this module takes no time

        if not isinstance(error, (SefarError, *KNOWN)):
            raise
        say(f"error: {message(error)}")
        raise SystemExit(code) from error


def message(error: Exception) -> str:
    """The message of an error; without the traceback that a loader process sends before it."""
    text = str(error).strip() or repr(error)
    return text.splitlines()[-1] if "Traceback (most recent call last)" in text else text


def say(text: str) -> None:
    """Print on stderr, without control characters: a file name could rewrite the terminal."""
    kept = (c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    print("".join(kept), file=sys.stderr, flush=True)


def refuse(reason: str) -> NoReturn:
    """End before any work is done, because of a setting."""
    say(f"error: {reason}")
    raise SystemExit(REFUSED)


def refuse_unwritable(
    *, files: Sequence[Path | None] = (), folders: Sequence[Path | None] = ()
) -> None:
    """End before the work where an output could not be written after it; None is skipped.
    SystemExit with `REFUSED`, after a line that names the output.
    """
    for path in filter(None, files):
        if path.exists() and not path.is_file():
            refuse(f"cannot write {path}: it is not a file; give the name of a file")
        refuse_full(path, path.absolute().parent)
    for path in filter(None, folders):
        if path.exists() and not path.is_dir():
            refuse(f"cannot write into {path}: it is not a folder; give another one")
        refuse_full(path, path.absolute())


def refuse_full(output: Path, folder: Path) -> None:
    """End where a folder, or the nearest above it that exists, takes no file for an output.

    A file of one byte is tried, since nothing else detects both a read-only and a full disk.
    """
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        refuse(
            f"cannot write {output}: {folder} takes no files ({error.strerror}); make room, or "
            f"give a folder that may be written"
        )


def reader_is_gone() -> bool:
    """Whether the program that reads our stdout or stderr has ended, as `head` does."""
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def flush_output() -> None:
    """Flush stdout, whose errors Python would report only while it exits. SystemExit if it is
    closed, or cannot be written.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        silence_output()
        if isinstance(error, BrokenPipeError):
            raise SystemExit(PIPE_CLOSED) from error
        say(f"error: the standard output: {error.strerror}")
        raise SystemExit(1) from error


def silence_output() -> None:
    """Discard what is still buffered for a stdout that cannot be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    if reader_is_gone():
        os.dup2(nowhere, 2)


def end_interrupted() -> NoReturn:
    """End after Ctrl-C; a second one ends the process at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    say("interrupted")
    raise SystemExit(INTERRUPTED)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle SIGINT: raise KeyboardInterrupt, or end at once while a module is imported.

    An exception does not survive there: numpy and torch drop it, or turn it into an ImportError.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            end_at_once()
        frame = frame.f_back
    raise KeyboardInterrupt


def end_at_once() -> NoReturn:
    """End where no exception would reach the script; a child leaves the message to its parent."""
    if "--multiprocessing-fork" not in sys.argv and parent_process() is None:
        os.write(2, b"interrupted\n")
    with suppress(Exception):
        sys.stdout.flush()
    os._exit(INTERRUPTED)


def quiet_interrupts() -> None:
    """Make a Ctrl-C that nothing catches one line.

    A program that ignores SIGINT, as under `nohup` or in the background, still ignores it.
    """
    show, show_ignored = sys.excepthook, sys.unraisablehook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            end_interrupted()
        show(kind, error, trace)

    def ignored_hook(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):  # Python ignores it
            end_at_once()
        show_ignored(unraisable)

    sys.excepthook, sys.unraisablehook = hook, ignored_hook
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


quiet_interrupts()
