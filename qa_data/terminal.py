"""The terminal that tables are printed on: names are printed as they are."""

from typing import IO

from rich.console import Console


def console(file: IO[str] | None = None, *, width: int | None = None) -> Console:
    """A console that takes no text for markup: class and file names may hold `[`, `]` and `:`.

    Args:
        file: where to print; the standard output by default.
        width: of a line, in characters; that of the terminal by default.
    """
    return Console(file=file, width=width, markup=False, emoji=False)
