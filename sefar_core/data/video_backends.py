"""The readers of video files by name: `auto` and `decord`.

`auto` is PyAV (video.py): of the readers that were measured it alone never gave a wrong frame.
`decord` is fast, gives wrong frames on some files and hangs forever on others (dmlc/decord#269,
#363, #373). So it reads only files whose packets show no oddity and whose first picture is the one
that PyAV gives, and in a process of its own, which is killed when it takes too long. It takes frame
numbers; they come from the file's packets, so that both readers show the same frames at the same
times.
"""

import os
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
from sefar_core.data.decode import FileVersion, fitted_size, version_of
from sefar_core.data.frame_index import numbers_at
from sefar_core.data.video import VideoInfo, VideoReadError, probe
from sefar_core.data.video import read_fractions as read_in_order
from sefar_core.data.worker_pool import DecordRequest, Worker, WorkerFailure, read_by_decord

FIX = "Set data.reader to auto, which reads every file that plays and folders of pictures."
CONTAINERS = ("mov", "matroska")
"""Whose timestamps decord understands; of others it silently gives wrong frames."""
MOST_APART = 8.0
"""Mean difference, of 255, between the first picture by decord and by PyAV; colors are rounded
differently."""
TIMEOUT_S = 20.0


def read_decord(
    path: Path,
    fractions: Sequence[float],
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    short_side: int | None = None,
    timeout_s: float = TIMEOUT_S,
) -> UInt8[Tensor, "frame height width channel"]:
    """As `video.read_fractions`, by decord, which counts as hung after `timeout_s`.

    Raises:
        VideoReadError: decord cannot be trusted with the file, refuses it, or hangs.
        ValueError: a fraction outside [0, 1], or a clip that ends before it starts.
    """
    info = known(path)
    if why := doubts(info):
        raise VideoReadError(f"decord cannot be trusted with {path}: {why}. {FIX}")
    numbers = frame_numbers(path, info, fractions, start_s=start_s, end_s=end_s)
    apart = _first_pictures_apart(version_of(path), timeout_s)
    if apart > MOST_APART:
        raise VideoReadError(
            f"decord cannot be trusted with {path}: its first picture differs from PyAV's by "
            f"{apart:.0f} of 255. {FIX}"
        )
    frames = ask_decord(DecordRequest(str(path), numbers, info.num_frames), timeout_s)
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


def known(path: Path) -> VideoInfo:
    """What `probe` finds out about a file, remembered for the files that were read last.
    VideoReadError as there, or for a folder of pictures.
    """
    if path.is_dir():
        raise VideoReadError(f"{path} is a folder of pictures, not a video file. {FIX}")
    if not path.is_file():
        return probe(path)
    return _probed(version_of(path))


@lru_cache(maxsize=1024)
def _probed(file: FileVersion) -> VideoInfo:
    return probe(file.path)


def frame_numbers(
    path: Path,
    info: VideoInfo,
    fractions: Sequence[float],
    *,
    start_s: float | None,
    end_s: float | None,
) -> list[int]:
    """Numbers of the frames that `video.read_fractions` gives, with its refusals."""
    places = video.places_of(fractions)
    whole = start_s is None and end_s is None
    start = info.times_s[0] if whole else start_s or 0.0
    video.refuse_empty(path, start, end_s)
    timestamps = start + places * (video.clip_end(path, info, start, end_s) - start)
    video.refuse_beyond(path, info.times_s[-1], info.end_s, float(timestamps.max()))
    return numbers_at(info.times_s, timestamps).tolist()


@lru_cache(maxsize=1024)
def _first_pictures_apart(file: FileVersion, timeout_s: float) -> float:
    own = read_in_order(file.path, [0.0]).numpy().astype(np.int16)
    other = ask_decord(DecordRequest(str(file.path), [0], _probed(file).num_frames), timeout_s)
    return float(np.abs(own - other).mean()) if own.shape == other.shape else 255.0


def ask_decord(request: DecordRequest, timeout_s: float) -> np.ndarray:
    """The frames of a request, from a process that is killed if it takes longer; VideoReadError if
    decord refuses them, dies, or does not answer in time.
    """
    where = f"frames {min(request.numbers)} to {max(request.numbers)} of {request.path}"
    worker = _worker_of(os.getpid())
    answer = None
    try:
        answer = worker.ask(request, timeout_s)
    finally:
        # After an interrupt, too: its answer would be taken for that to the next request.
        if answer is None or isinstance(answer, WorkerFailure):
            worker.stop()
            _worker_of.cache_clear()
    if isinstance(answer, WorkerFailure):
        if answer.kind == "hung":
            raise VideoReadError(
                f"decord hangs on {where}: no answer within {timeout_s:g} s. {FIX}"
            )
        raise VideoReadError(f"decord died reading {where}. {FIX}")
    if isinstance(answer, str):
        raise VideoReadError(f"decord cannot read {where}: {answer}. {FIX}")
    return answer


@cache
def _worker_of(pid: int) -> Worker[DecordRequest]:
    """The reading process of this process; one that is forked gets another."""
    return Worker(read_by_decord)


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


READERS: dict[str, Callable[..., Tensor]] = {"auto": video.read_fractions, "decord": read_decord}


def choose_file_reader(name: str) -> Callable[..., Tensor]:
    """A function like `video.read_fractions`; ValueError if what it needs is not installed."""
    if name == "decord" and find_spec("decord") is None:
        raise ValueError("data.reader is decord, which is not installed: pip install decord")
    return READERS[name]
