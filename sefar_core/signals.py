"""SIGTERM and SIGINT as a stop request: a run finishes and saves its step before it ends."""

import os
import signal
import time
from types import FrameType

# A launcher passes on to its processes what the terminal has sent them already.
SAME_SIGNAL_S = 2.0


class Interrupted(Exception):
    """A signal stopped the run, which saved a state to resume from."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + number


class StoppedByAnother(Exception):
    """Another process of this run failed and reports why; this one only stops with it."""


class StopRequest:
    """While entered, remembers a SIGTERM or SIGINT; a second one ends the process at once.

    A signal that the process ignores, as SIGINT behind `nohup` or in the background, stays ignored.

    Attributes:
        number: of the signal that came, 0 if none did.
    """

    def __init__(self) -> None:
        self.number = 0
        self._first_s = 0.0
        self._before: dict[int, signal.Handlers] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:
                before = signal.signal(number, self._remember)
                self._before[number] = before  # type: ignore[assignment]
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.number == 0:
            self.number, self._first_s = number, time.monotonic()
            os.write(2, b"\nstopping after this step; once more stops at once, unsaved\n")
        elif time.monotonic() - self._first_s > SAME_SIGNAL_S:
            os._exit(128 + number)
