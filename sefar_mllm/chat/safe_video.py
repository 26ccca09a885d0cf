"""Untrusted videos: unsuitable ones are refused by their header, the rest is decoded in isolation.

A short file can cause hours of work or use all memory, and a damaged one can crash its process. So
the header is read first, and the decoder runs in a process of its own with limits of memory and
time.
"""

import math
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGXCPU

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from sefar_core.data.decode import FIX, VideoReadError, opened
from sefar_core.data.pictures import side_ratio_problem
from sefar_core.data.video import clip_length, probe, read_fractions
from sefar_core.data.worker_pool import Heartbeat, WorkerFailure, run_isolated

MAX_DURATION_S = 120.0
MAX_FRAMES = 7200
MAX_PIXELS = 2 * 1920 * 1088
MAX_BYTES = 2**30
CODECS = ("av1", "h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "vp8", "vp9")
"""Codecs of cameras and the web. FFmpeg's vulnerabilities are mostly in decoders of rare ones."""
MAX_DECODER_BYTES = 2 * 2**30
MAX_CPU_S = 20
"""CPU time of all threads of a decoder together."""
PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class VideoClip:
    """A video, or a part of one. ValueError if the part has no length."""

    path: Path
    start_s: float | None = None
    """Seconds from the file's first shown frame; None: its beginning."""
    end_s: float | None = None
    """None: the file's end."""

    def __post_init__(self):
        start = self.start_s or 0.0
        if start < 0 or (self.end_s is not None and self.end_s <= start):
            raise ValueError(f"{self.path}: a clip from {start} s to {self.end_s} s has no length")


def read_frames(clip: VideoClip, moments: Sequence[float]) -> UInt8[Tensor, "frame height width 3"]:
    """Frames at fractions of the clip, after a check of its header. VideoReadError for a file that
    is missing, broken or unsuitable.
    """
    try:
        refuse_unsuitable(clip)
        frames = read_fractions(clip.path, moments, start_s=clip.start_s, end_s=clip.end_s)
    except OSError as cause:  # a name that is too long, or a folder without permission
        raise VideoReadError(f"cannot read {clip.path}: {cause}; name another file") from cause
    refuse_large(clip.path, frames.shape[2], frames.shape[1])  # the header may be false
    return frames


def read_frames_apart(
    clips: Sequence[VideoClip],
    moments: Sequence[float],
    *,
    workers: int = 1,
    patience_s: float = PATIENCE_S,
) -> Iterator[tuple[VideoClip, UInt8[Tensor, "frame height width 3"] | VideoReadError]]:
    """`read_frames` in other processes, which may crash or hang: each clip with its frames or its
    error, in the order in which they finish.

    `moments` are fractions of each video, in [0, 1), ascending. A video that takes longer than
    `patience_s` is abandoned.
    """
    work = partial(_confined, moments=tuple(moments))
    report = run_isolated(work, clips, workers=workers, patience_s=patience_s, preload=__name__)
    for clip, found in report:
        if isinstance(found, WorkerFailure) and found.ended_by is SIGXCPU:
            yield (
                clip,
                VideoReadError(
                    f"{clip.path} takes more than {MAX_CPU_S} s of work to decode; scale it "
                    f"down, or cut out the element"
                ),
            )
        elif isinstance(found, WorkerFailure):
            yield clip, VideoReadError(f"cannot decode {clip.path}: {found.words}. {FIX}")
        elif isinstance(found, str):
            yield clip, VideoReadError(found)
        else:
            yield clip, torch.from_numpy(found)


def refuse_unsuitable(clip: VideoClip) -> None:
    """Raise VideoReadError for a video that is broken or larger than a chat accepts; at most its
    first picture is decoded.
    """
    path = clip.path
    if path.is_dir():
        info = probe(path)
        refuse_large(path, info.width, info.height)
        refuse_long(path, info.duration_s, info.num_frames)
        return
    with opened(path) as (_, stream):
        refuse_coding(path, stream.codec_context.name)
        refuse_large(path, stream.codec_context.width, stream.codec_context.height)
        rate = float(stream.average_rate or 0)
    if clip.start_s is not None or clip.end_s is not None:
        length = clip_length(path, start_s=clip.start_s, end_s=clip.end_s)
        refuse_long(path, length, round(length * rate))
        return
    if path.stat().st_size > MAX_BYTES:
        raise VideoReadError(
            f"{path} has {path.stat().st_size:,} bytes; a chat accepts up to {MAX_BYTES:,}: cut "
            f"out the element first"
        )
    info = probe(path)
    refuse_long(path, info.duration_s, info.num_frames)


def refuse_coding(path: Path, decoder: str) -> None:
    """Raise VideoReadError for a codec that is not in `CODECS`."""
    codec = "av1" if "av1" in decoder else decoder  # libdav1d, libaom-av1
    if codec not in CODECS:
        raise VideoReadError(
            f"{path} is encoded as {codec}; a chat accepts {', '.join(CODECS)}: convert it first, "
            f"ffmpeg -i IN -c:v libx264 OUT.mp4"
        )


def refuse_large(path: Path, width: int, height: int) -> None:
    """Raise VideoReadError for pictures of too many pixels, or with one side far longer."""
    if problem := side_ratio_problem(width, height):
        raise VideoReadError(f"{path} {problem}")
    if width * height > MAX_PIXELS:
        raise VideoReadError(
            f"{path} has {width} x {height} pixels; a chat accepts up to {MAX_PIXELS:,} in all: "
            f"scale it down first"
        )


def refuse_long(path: Path, duration_s: float, num_frames: int) -> None:
    """Raise VideoReadError for too many seconds or frames."""
    if duration_s > MAX_DURATION_S or num_frames > MAX_FRAMES:
        raise VideoReadError(
            f"{path} lasts {duration_s:.0f} s and has {num_frames:,} frames; a chat accepts up to "
            f"{MAX_DURATION_S:.0f} s and {MAX_FRAMES:,} frames: cut out the element first"
        )


def _confined(
    clip: VideoClip, heartbeat: Heartbeat, *, moments: Sequence[float]
) -> np.ndarray | str:
    """The frames or an error message, within the memory and the CPU time of a decoder."""
    limit_memory()
    limit_work()
    try:
        return read_frames(clip, moments).numpy()
    except VideoReadError as error:
        return str(error)
    except MemoryError:
        return (
            f"{clip.path} needs more than {MAX_DECODER_BYTES:,} bytes of memory to decode: "
            f"scale it down first"
        )


def limit_memory() -> None:
    """Limit this process to `MAX_DECODER_BYTES` more address space than it has; a lower limit that
    is set already stays.

    Only Linux reports how much it has; elsewhere only time is limited.
    """
    statm = Path("/proc/self/statm")
    if statm.exists():
        taken = int(statm.read_text().split()[0]) * resource.getpagesize()
        wanted = taken + MAX_DECODER_BYTES
        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft == resource.RLIM_INFINITY or wanted < soft:
            resource.setrlimit(resource.RLIMIT_AS, (wanted, wanted))


def limit_work() -> None:
    """Limit this process to `MAX_CPU_S` more seconds of CPU time; SIGXCPU then ends it.

    Every video gets as much, so only the soft limit is set.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    wanted = math.ceil(used.ru_utime + used.ru_stime) + MAX_CPU_S
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (wanted, hard))
