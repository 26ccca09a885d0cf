"""A clip that is a folder of numbered pictures, as FineDiving is distributed.

The pictures count as frames of a video of `NOMINAL_FPS`, in the order of their numbers, the first
of which may be any. A number that is left out would shift all later frames in time, so it is
refused. Every EXIF orientation is applied, turned or mirrored.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import torch
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from jaxtyping import UInt8
from torch import Tensor

from sefar_core.data.decode import (
    VideoReadError,
    converter,
    orientation_of,
    refuse_elongated,
    upright_size,
)
from sefar_core.data.frame_index import ROUNDING_S, VideoInfo
from sefar_core.data.pictures import NOMINAL_FPS, PICTURE_SUFFIXES, is_picture

NUMBERED = re.compile(r"(.*?)([0-9]+)\.[^.]+", re.DOTALL)
FORMATS = {b"\xff\xd8": "jpeg", b"\x89P": "png"}
"""Of a picture, by the first bytes of its file."""
DECODERS = {"jpeg": "mjpeg", "png": "png"}
FIX = "Unpack the folder's pictures again."


@dataclass(frozen=True, kw_only=True)
class FrameFolder:
    """The pictures of a folder, or of a stretch of it."""

    path: Path
    names: Sequence[str]
    """Files in the order of time."""
    first: int = 0
    """How many pictures of the folder come before them."""

    @property
    def times_s(self) -> np.ndarray:
        """When each picture appears, seconds from the folder's first."""
        return (self.first + np.arange(len(self.names))) / NOMINAL_FPS

    @property
    def end_s(self) -> float:
        """When the last of them disappears."""
        return (self.first + len(self.names)) / NOMINAL_FPS

    def numbers_at(self, timestamps_s: np.ndarray) -> np.ndarray:
        """Number of the picture (0-based, within the stretch) shown at each time; those after
        the end show the last.
        """
        numbers = np.floor((timestamps_s + ROUNDING_S) * NOMINAL_FPS).astype(np.int64) - self.first
        return np.clip(numbers, 0, len(self.names) - 1)

    def stretch(self, start_s: float, end_s: float | None) -> "FrameFolder":
        """The pictures from the one shown at `start_s` to `end_s` (None: the folder's end)."""
        first = int(self.numbers_at(np.array([start_s]))[0])
        times_s = self.times_s
        stop = len(times_s) if end_s is None else int((times_s + ROUNDING_S < end_s).sum())
        return replace(self, names=self.names[first : max(stop, first + 1)], first=first)

    def decode(self, numbers: Iterable[int] | None = None) -> Iterator[VideoFrame]:
        """The pictures with these numbers within the stretch, all of them by default.
        VideoReadError if a picture cannot be read, is too elongated, or has another size than those
        before it.
        """
        decoders: dict[str, VideoCodecContext] = {}
        sizes: dict[tuple[int, int], str] = {}
        for number in range(len(self.names)) if numbers is None else numbers:
            name = self.names[number]
            frame = _decoded(self.path / name, decoders)
            refuse_elongated(self.path / name, *upright_size(frame))
            sizes.setdefault(upright_size(frame), name)
            if len(sizes) > 1:
                (size, one), (other, another) = sizes.items()
                raise VideoReadError(
                    f"{self.path} holds pictures of different sizes: {one} has {size[0]}x{size[1]} "
                    f"pixels, {another} {other[0]}x{other[1]}. {FIX}"
                )
            yield frame

    def pictures(
        self, numbers: np.ndarray, short_side: int | None
    ) -> UInt8[Tensor, "frame height width 3"]:
        """The pictures with these numbers, in any order, repeats allowed; upright, RGB. Only the
        requested ones are opened, with the refusals of `decode`.
        """
        wanted, places = np.unique(numbers, return_inverse=True)
        convert = converter(short_side)
        kept = [convert(frame) for frame in self.decode(wanted.tolist())]
        return torch.from_numpy(np.stack([kept[place] for place in places]))


def open_folder(path: Path) -> FrameFolder:
    """The pictures of a folder by their numbers; none is opened. Hidden files and files that are no
    pictures do not count.

    Raises:
        VideoReadError: no picture, one whose name does not end in a number, names that differ in
            more than the number, two pictures of one number, or a number left out.
    """
    try:
        names = [entry.name for entry in os.scandir(path) if is_picture(entry.name)]
    except OSError as cause:
        raise VideoReadError(f"cannot list {path}: {cause}. Check the video folder.") from cause
    if not names:
        raise VideoReadError(
            f"{path} is not a file but a folder, and holds no pictures "
            f"({', '.join(PICTURE_SUFFIXES)}). A clip's path names a video file, or the folder "
            f"that holds its pictures themselves."
        )
    name_of = _by_number(path, sorted(names))
    numbers = sorted(name_of)
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if missing:
        before = next(number for number in numbers if number + 1 not in name_of)
        raise VideoReadError(
            f"{path} lacks {missing} of its pictures: after {name_of[before]} number {before + 1} "
            f"should follow. A lost picture shifts all that come after it. {FIX}"
        )
    return FrameFolder(path=path, names=[name_of[number] for number in numbers])


def probe_folder(folder: FrameFolder) -> VideoInfo:
    """Length and times of a folder, and what its first picture shows of all. VideoReadError if that
    picture cannot be read.
    """
    first = next(folder.decode())
    turns, mirrored = orientation_of(first)
    width, height = upright_size(first)
    first_path = folder.path / folder.names[0]
    return VideoInfo(
        num_frames=len(folder.names),
        times_s=tuple(folder.times_s.tolist()),
        duration_s=folder.end_s,
        fps=float(NOMINAL_FPS),
        width=width,
        height=height,
        rotation=turns * 90,
        codec=_format(first_path, _content(first_path)),
        container="folder",
        flags=("rotated",) * bool(turns) + ("mirrored",) * mirrored,
    )


def _by_number(path: Path, names: Sequence[str]) -> dict[int, str]:
    name_of: dict[int, str] = {}
    prefix: str | None = None
    for name in names:
        match = NUMBERED.fullmatch(name)
        if match is None:
            raise VideoReadError(
                f"{path / name} is not a numbered picture, such as 00001.jpg or img_00001.jpg; "
                f"move it out of the clip's folder."
            )
        if prefix not in (None, match[1]):
            raise VideoReadError(
                f"{path} holds two series of pictures, such as {names[0]} and {name}; give each "
                f"series a folder of its own."
            )
        prefix, number = match[1], int(match[2])
        if number in name_of:
            raise VideoReadError(
                f"{path} holds two pictures numbered {number}, {name_of[number]} and {name}; "
                f"delete one of the two."
            )
        name_of[number] = name
    return name_of


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise VideoReadError(f"cannot read {path}: {cause}. {FIX}") from cause


def _format(path: Path, content: bytes) -> str:
    if content[:2] not in FORMATS:
        found = f"its first bytes are {content[:2]!r}" if content else "it is empty"
        raise VideoReadError(f"{path} is neither a JPEG nor a PNG picture: {found}. {FIX}")
    return FORMATS[content[:2]]


def _decoded(path: Path, decoders: dict[str, VideoCodecContext]) -> VideoFrame:
    """One picture, by the decoder for it, which is made when it is first needed."""
    content = _content(path)
    name = _format(path, content)
    packet = av.Packet(content)
    # Otherwise a PNG is taken for the difference to the one before.
    packet.is_keyframe = True
    try:
        if name not in decoders:
            decoders[name] = _decoder(name)
        frames = decoders[name].decode(packet)
    except av.FFmpegError as cause:
        raise VideoReadError(f"cannot decode the picture {path}: {cause}. {FIX}") from cause
    if len(frames) != 1:
        raise VideoReadError(f"no picture comes out of {path}. {FIX}")
    return frames[0]


def _decoder(name: str) -> VideoCodecContext:
    decoder = VideoCodecContext.create(DECODERS[name], "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    # Without it half a JPEG is filled up with gray in silence.
    decoder.options = {"err_detect": "explode"}
    return decoder
