"""Frames by decord, which is fast and hangs for ever on one real kind of file.

It is asked only for files whose packets show no oddity and whose first picture is the one that
PyAV gives, and in a process of its own, which is killed when it takes too long (dmlc/decord#269,
#363, #373).
"""

import atexit
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from sefar_core.data.numbering import MEND, frame_numbers, known, shrunk
from sefar_core.data.video import VideoInfo, VideoReadError
from sefar_core.data.video import read_fractions as read_in_order

CONTAINERS = ("mov", "matroska")
"""Whose timestamps decord understands: of others it gives wrong frames without a word."""
MOST_APART = 8.0
"""Mean difference, of 255, between the first picture by decord and by PyAV; colors are rounded
differently."""
TIMEOUT_S = 20.0
# As a file, and without its folder on the path: it needs nothing of this package.
COMMAND = [sys.executable, "-P", str(Path(__file__).with_name("decord_worker.py"))]


def read_fractions(
    path: Path,
    fractions: Sequence[float],
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    short_side: int | None = None,
    timeout_s: float = TIMEOUT_S,
) -> UInt8[Tensor, "frame height width channel"]:
    """As `video.read_fractions`, by decord; it applies the file's rotation itself.

    Args:
        path: the video.
        fractions: in [0, 1].
        start_s: where the clip begins.
        end_s: where it ends.
        short_side: larger frames are scaled down to it.
        timeout_s: after which decord counts as hung.

    Raises:
        VideoReadError: decord cannot be trusted with the file, refuses it, or hangs.
        ValueError: a fraction outside [0, 1], or a clip that ends before it starts.
    """
    info = known(path)
    if why := doubts(info):
        raise VideoReadError(f"decord cannot be trusted with {path}: {why}. {MEND}")
    numbers = frame_numbers(path, info, fractions, start_s=start_s, end_s=end_s)
    found = path.stat()
    apart = _first_pictures_apart(path, found.st_size, found.st_mtime_ns, timeout_s)
    if apart > MOST_APART:
        raise VideoReadError(
            f"decord cannot be trusted with {path}: its first picture differs from PyAV's by "
            f"{apart:.0f} of 255. {MEND}"
        )
    frames = _worker_of(os.getpid()).read(path, numbers, info.num_frames, timeout_s)
    return torch.from_numpy(shrunk(frames, short_side))


def doubts(info: VideoInfo) -> str:
    """Why decord does not read a file; empty if it does."""
    if info.flags:
        return f"it is marked {', '.join(info.flags)}"
    if "av1" in info.codec or "dav1d" in info.codec:
        return "it is AV1"
    if not any(name in info.container for name in CONTAINERS):
        return f"its container is {info.container}"
    return ""


@lru_cache(maxsize=1024)
def _first_pictures_apart(path: Path, size: int, changed_ns: int, timeout_s: float) -> float:
    own = read_in_order(path, [0.0]).numpy().astype(np.int16)
    other = _worker_of(os.getpid()).read(path, [0], known(path).num_frames, timeout_s)
    return float(np.abs(own - other).mean()) if own.shape == other.shape else 255.0


class Worker:
    """A long-lived reading process, started when it is first needed and again after a kill."""

    def __init__(self, command: Sequence[str]):
        self.command = command
        self.process: subprocess.Popen | None = None

    def read(
        self, path: Path, numbers: Sequence[int], num_frames: int, timeout_s: float
    ) -> np.ndarray:
        """The frames with these numbers.

        Raises:
            VideoReadError: the process refuses, dies, or does not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        where = f"frames {min(numbers)} to {max(numbers)} of {path}"
        question = {"path": str(path), "numbers": list(numbers), "num_frames": num_frames}
        try:
            self._send(question)
            answer = json.loads(self._line(deadline))
            if "fault" in answer:
                raise VideoReadError(f"decord cannot read {where}: {answer['fault']}. {MEND}")
            shape = tuple(answer["shape"])
            pixels = self._receive(int(np.prod(shape)), deadline)
        except TimeoutError as cause:
            self.stop()
            raise VideoReadError(
                f"decord hangs on {where}: no answer within {timeout_s:g} s. {MEND}"
            ) from cause
        except (BrokenPipeError, EOFError) as cause:
            self.stop()
            raise VideoReadError(f"decord died reading {where}. {MEND}") from cause
        return np.frombuffer(pixels, np.uint8).reshape(shape)

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _send(self, question: dict) -> None:
        if self.process is None:
            # A plain child: loader processes may not have children of multiprocessing.
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question).encode() + b"\n")

    def _line(self, deadline: float) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):
            line += self._receive(1, deadline)
        return bytes(line)

    def _receive(self, size: int, deadline: float) -> bytearray:
        assert self.process is not None and self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        received = bytearray(size)
        view, place = memoryview(received), 0
        while place < size:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            got = os.readv(pipe, [view[place:]])
            if got == 0:
                raise EOFError
            place += got
        return received


@cache
def _worker_of(pid: int) -> Worker:
    """The reading process of a loader process; one that is forked gets another."""
    worker = Worker(COMMAND)
    atexit.register(worker.stop)
    return worker
