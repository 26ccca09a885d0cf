"""The readers of video files by name.

`auto` is PyAV: of the readers that were measured it alone never gave a wrong frame. The others are
for those who need them, on files that they read right.

What the readers that ask by frame number share: which frames, and how large.

The numbers come from a file's packets, so that every reader shows the same frames at the same
moments.

Frames by decord, which is fast and hangs for ever on one real kind of file.

It is asked only for files whose packets show no oddity and whose first picture is the one that
PyAV gives, and in a process of its own, which is killed when it takes too long (dmlc/decord#269,
#363, #373).

Frames by torchcodec, which is no dependency: it needs shared libraries of FFmpeg on the machine.

Only its exact mode is used, which reads a file's packets first; the approximate one gives wrong
frames on open groups of pictures.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from av.video.frame import VideoFrame
from jaxtyping import UInt8
from torch import Tensor

from sefar_core.data import video
from sefar_core.data.decode import fitted_size
from sefar_core.data.frame_index import numbers_at
from sefar_core.data.video import VideoInfo, VideoReadError, places_of, probe, refuse_beyond
from sefar_core.data.video import read_fractions as read_in_order

FIX = "Set data.reader to auto, which reads every file that plays and folders of pictures."


def known(path: Path) -> VideoInfo:
    """What `probe` tells of a file, remembered for the files that were asked for last.

    Raises:
        VideoReadError: the file is unreadable, or a folder of pictures.
    """
    if path.is_dir():
        raise VideoReadError(f"{path} is a folder of pictures, not a video file. {FIX}")
    if not path.is_file():
        return probe(path)
    found = path.stat()
    return _probed(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _probed(path: Path, size: int, changed_ns: int) -> VideoInfo:
    return probe(path)


def frame_numbers(
    path: Path,
    info: VideoInfo,
    fractions: Sequence[float],
    *,
    start_s: float | None,
    end_s: float | None,
) -> list[int]:
    """Numbers of the frames that `video.read_fractions` gives.

    Raises:
        VideoReadError: the file ends before the clip does.
        ValueError: a fraction outside [0, 1], or a clip that ends before it starts.
    """
    places = places_of(fractions)
    whole = start_s is None and end_s is None
    start = info.times_s[0] if whole else start_s or 0.0
    end = info.end_s if end_s is None else end_s
    if end <= start:
        raise ValueError(f"{path}: a clip from {start} s to {end} s has no length")
    timestamps = start + places * (end - start)
    refuse_beyond(path, info.times_s[-1], info.end_s, float(timestamps.max()))
    return numbers_at(info.times_s, timestamps).tolist()


def shrunk(
    frames: UInt8[np.ndarray, "frame height width 3"], short_side: int | None
) -> UInt8[np.ndarray, "frame smaller_height smaller_width 3"]:
    """Larger frames scaled down so that their shorter side has `short_side` pixels."""
    height, width = frames.shape[1:3]
    size = fitted_size(width, height, short_side)
    if size == (width, height):
        return frames
    pictures = (VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames)
    small = (frame.reformat(width=size[0], height=size[1]).to_ndarray() for frame in pictures)
    return np.stack(list(small))


CONTAINERS = ("mov", "matroska")
"""Whose timestamps decord understands: of others it gives wrong frames without a word."""
MOST_APART = 8.0
"""Mean difference, of 255, between the first picture by decord and by PyAV; colors are rounded
differently."""
TIMEOUT_S = 20.0
# As a file, and without its folder on the path: it needs nothing of this package.
COMMAND = [sys.executable, "-P", str(Path(__file__).with_name("decord_worker.py"))]


def read_decord(
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
        raise VideoReadError(f"decord cannot be trusted with {path}: {why}. {FIX}")
    numbers = frame_numbers(path, info, fractions, start_s=start_s, end_s=end_s)
    found = path.stat()
    apart = _first_pictures_apart(path, found.st_size, found.st_mtime_ns, timeout_s)
    if apart > MOST_APART:
        raise VideoReadError(
            f"decord cannot be trusted with {path}: its first picture differs from PyAV's by "
            f"{apart:.0f} of 255. {FIX}"
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
                raise VideoReadError(f"decord cannot read {where}: {answer['fault']}. {FIX}")
            shape = tuple(answer["shape"])
            pixels = self._receive(int(np.prod(shape)), deadline)
        except TimeoutError as cause:
            self.stop()
            raise VideoReadError(
                f"decord hangs on {where}: no answer within {timeout_s:g} s. {FIX}"
            ) from cause
        except (BrokenPipeError, EOFError) as cause:
            self.stop()
            raise VideoReadError(f"decord died reading {where}. {FIX}") from cause
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


def read_torchcodec(
    path: Path,
    fractions: Sequence[float],
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    short_side: int | None = None,
) -> UInt8[Tensor, "frame height width channel"]:
    """As `video.read_fractions`, by torchcodec; it applies the file's rotation itself.

    Raises:
        VideoReadError: torchcodec refuses the file or counts other frames than its packets do.
        ValueError: a fraction outside [0, 1], or a clip that ends before it starts.
        ImportError: torchcodec is not installed; `check` says so before.
    """
    from torchcodec.decoders import VideoDecoder

    info = known(path)
    numbers = frame_numbers(path, info, fractions, start_s=start_s, end_s=end_s)
    where = f"frames {min(numbers)} to {max(numbers)} of {path}"
    try:
        video = VideoDecoder(
            str(path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC"
        )
        counted = video.metadata.num_frames
        if counted != info.num_frames:
            raise VideoReadError(
                f"torchcodec counts {counted} frames in {path}, its packets {info.num_frames}. "
                f"{FIX}"
            )
        frames = video.get_frames_at(numbers).data
    except (RuntimeError, ValueError, IndexError) as cause:
        reason = str(cause).strip().splitlines()[0]
        raise VideoReadError(f"torchcodec cannot read {where}: {reason}. {FIX}") from cause
    return torch.from_numpy(shrunk(frames.numpy(), short_side))


def check() -> None:
    """Refuse at once what would fail at the first clip.

    Raises:
        ValueError: torchcodec is not installed, or finds no FFmpeg.
    """
    mend = "install torchcodec and FFmpeg 4 to 8, or set data.reader to auto"
    try:
        from torchcodec.decoders import VideoDecoder

        VideoDecoder(b"no video")
    except ImportError as cause:
        raise ValueError(f"data.reader is torchcodec, which does not import: {mend}") from cause
    except (RuntimeError, ValueError) as cause:
        # Its library is loaded on first use; that it refuses these bytes means that it is there.
        if "libtorchcodec" in str(cause):
            raise ValueError(f"data.reader is torchcodec, which finds no FFmpeg: {mend}") from cause


READERS: dict[str, Callable[..., Tensor]] = {
    "auto": video.read_fractions,
    "decord": read_decord,
    "torchcodec": read_torchcodec,
}


def choose_file_reader(name: str) -> Callable[..., Tensor]:
    """What reads the frames of a file: a function like `video.read_fractions`.

    Raises:
        ValueError: what it needs is not installed.
    """
    if name == "torchcodec":
        check()
    elif name == "decord" and find_spec("decord") is None:
        raise ValueError("data.reader is decord, which is not installed: pip install decord")
    return READERS[name]
