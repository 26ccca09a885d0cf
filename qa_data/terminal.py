"""The terminal that tables are printed on: names are printed as they are.

Processes that a Ctrl-C leaves to the one that started them.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console


def console(file: IO[str] | None = None, *, width: int | None = None) -> Console:
    """A console that takes no text for markup: class and file names may hold `[`, `]` and `:`.

    Args:
        file: where to print; the standard output by default.
        width: of a line, in characters; that of the terminal by default.
    """
    return Console(file=file, width=width, markup=False, emoji=False)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """While entered, start processes that never see a Ctrl-C.

    A terminal sends it to all processes of a command, and each would end with a traceback. What is
    started in here inherits a mask that holds it back. The starting process gets it when it leaves,
    and ends the others.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
