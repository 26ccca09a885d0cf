"""Video files of every kind and with every damage, and what a bare decoder makes of them.

Nothing here uses the package's reader.
"""

from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from tests.oracles import videos as oracle


class Decoded(NamedTuple):
    """Frames as the bare decoder gives them, upright, and whether it stopped at an error."""

    frames: list[np.ndarray]
    failed: bool


def bare_decode(path: Path, *, stream: int = 0, mirrored: bool = False) -> Decoded:
    """All frames in order, by one thread: with several, damage is patched in other ways.

    Args:
        path: of the file.
        stream: which of its video streams is the film.
        mirrored: its columns are stored in reverse.
    """
    frames: list[np.ndarray] = []
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            film = container.streams.video[stream]
            film.codec_context.thread_count = 1
            for frame in container.decode(film):
                stored = frame.to_ndarray(format="rgb24")
                turned = np.rot90(stored, round(frame.rotation / 90))
                frames.append(stored[:, ::-1] if mirrored else turned)
    except (av.FFmpegError, IndexError, AttributeError):  # no stream, or no decoder for it
        return Decoded(frames, failed=True)
    return Decoded(frames, failed=False)


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Whether two lists of frames are equal in every pixel."""
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def flipped(path: Path, target: Path, *, seed: int) -> Path:
    """A copy in which one bit, anywhere in the file, is the other way round."""
    rng = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    target.write_bytes(content)
    return target


def encoded(folder: Path, *, suffix: str = "mp4", codec: str = "libx264", **options: str) -> Path:
    """30 frames of a moving column, a keyframe every 10."""
    path = folder / f"clip.{suffix}"
    keys = {"g": "10", "sc_threshold": "0", **options}
    return oracle.write_video(path, oracle.numbered_frames(30), codec=codec, options=keys)


def rotated(folder: Path, *, angle: int) -> Path:
    lying = np.rot90(oracle.numbered_frames(6), -angle // 90, axes=(1, 2))
    path = folder / f"rotated_{angle}.mp4"
    return oracle.write_video(path, lying, options={"crf": "10"}, rotation=angle)


def gif(folder: Path) -> Path:
    frames = oracle.numbered_frames(12)
    return oracle.write_video(folder / "clip.gif", frames, fps=10, codec="gif", pix_fmt="rgb8")


def odd_size(folder: Path) -> Path:
    frames = oracle.numbered_frames(5, height=97, width=131)
    return oracle.write_video(folder / "odd.mp4", frames, pix_fmt="yuv444p")


def uneven(folder: Path) -> Path:
    times_ms = [0, 40, 240, 280, 400]
    return oracle.write_video(folder / "vfr.mp4", oracle.numbered_frames(5), times_ms=times_ms)


def cut_copy(folder: Path) -> Path:
    return oracle.cut_without_encoding(encoded(folder, bf="3"), folder / "cut.mp4", first_shown=8)


def one_frame(folder: Path) -> Path:
    return oracle.write_video(folder / "one.mp4", oracle.numbered_frames(1))


def copied(source: Path, path: Path, *, without: tuple[int, ...] = (), title: str = "") -> Path:
    """The packets of a file in another one, but for some by their numbers."""
    with av.open(str(source)) as whole, av.open(str(path), "w") as output:
        output.metadata.update({"title": title} if title else {})
        copy = output.add_stream_from_template(whole.streams.video[0])
        for number, packet in enumerate(whole.demux(video=0)):
            if packet.dts is not None and number not in without:
                packet.stream = copy
                output.mux(packet)
    return path


def dropped(folder: Path) -> Path:
    """A copy that lacks three packets, frames that others refer to."""
    source = encoded(folder, suffix="mkv", bf="0")
    return copied(source, folder / "dropped.mkv", without=(13, 14, 15))


def cut_off(folder: Path) -> Path:
    path = oracle.write_noise(folder / "cut_off.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def unknown_codec(folder: Path) -> Path:
    path = encoded(folder)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))
    return path


def audio_only(folder: Path) -> Path:
    path = folder / "sound.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=8000)
        silence = np.zeros((1, 1024), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def latin_title(folder: Path) -> Path:
    """A title that is not UTF-8, as old encoders write it."""
    source = encoded(folder, suffix="avi", codec="mpeg4")
    titled = copied(source, folder / "titled.avi", title="Barren-Kuer")
    titled.write_bytes(titled.read_bytes().replace(b"Kuer", b"K\xfcr "))
    return titled


def holding(folder: Path, *, name: str, content: bytes | None) -> Path:
    path = folder / name
    if content is not None:
        path.write_bytes(content)
    return path
