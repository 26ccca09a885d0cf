"""Work that kills or hangs the process it is done in."""

import os
import struct
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from sefar_core.data import worker_pool
from sefar_core.data.worker_pool import DecordRequest


def passing_hours(monkeypatch) -> Callable[[], None]:
    """Each call lets a day pass for those who watch processes.

    What hangs is then given up without a wait, and before that nothing is, however slow the
    machine.
    """
    passed_s = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + sum(passed_s))
    monkeypatch.setattr(worker_pool, "time", clock)
    return lambda: passed_s.append(86400.0)


def poisoned_square(task: str, heartbeat: Callable[[], None]) -> int:
    swallow(task)
    heartbeat()
    return int(task) ** 2


def poisoned_check(
    clips: Sequence, heartbeat: Callable[[], None], *, video_root: Path, quick: bool
):
    """`check_file`, fatal for files of certain names."""
    from sefar_core.data.check_videos import check_file  # other work here needs no torch

    swallow(Path(clips[0].path).stem)
    return check_file(clips, heartbeat, video_root=video_root, quick=quick)


def poisoned_numbers(request: DecordRequest, heartbeat: Callable[[], None]) -> np.ndarray:
    """Black frames, except for files of certain names; of some, half of the answer is sent."""
    swallow(request.path)
    if request.path in ("half then hang", "half then exit"):

        def send_half(pipe: Connection, message: memoryview) -> None:
            half = bytes(message)[: len(message) // 2]
            os.write(pipe.fileno(), struct.pack("!i", len(message)) + half)
            swallow(request.path.removeprefix("half then "))

        Connection._send_bytes = send_half  # type: ignore[attr-defined]
    return np.zeros((len(request.numbers), 2, 2, 3), np.uint8)


def poisoned_frames(clip, heartbeat: Callable[[], None], *, moments: Sequence[float]) -> np.ndarray:
    """Black frames for a chat, except for files of certain names."""
    swallow(clip.path.stem)
    return np.zeros((len(moments), 2, 2, 3), np.uint8)


def swallow(name: str) -> None:
    if name == "exit":
        os._exit(3)
    if name == "abort":
        os.abort()
    if name == "hang":
        time.sleep(3600)
    if name == "raise":
        raise MemoryError("too large a picture")
