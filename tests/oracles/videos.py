"""Video files of known content, and the slow sure way to read one: decode it all, in order."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def numbered_frames(num_frames: int, *, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames that show their number by a bright column, and up from down and left from right."""
    frames = np.zeros((num_frames, height, width, 3), dtype=np.uint8)
    frames[:, : height // 4, :, 0] = 200
    frames[:, :, : width // 8, 1] = 200
    for number in range(num_frames):
        column = number * width // num_frames
        frames[number, height // 2 :, column : column + 4, 2] = 255
    return frames


def moving_bar(shade: int) -> np.ndarray:
    """Ten frames in which a bright bar moves over a background of its own shade."""
    frames = np.full((10, 32, 48, 3), shade, np.uint8)
    for number, picture in enumerate(frames):
        picture[:, 4 * number : 4 * number + 6] = 255
    return frames


def write_video(  # noqa: PLR0913 - what an encoder is told
    path: Path,
    frames: np.ndarray,
    *,
    fps: Fraction | int = 30,
    times_ms: list[int] | None = None,
    options: dict[str, str] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
) -> Path:
    """Encode frames, which a player turns by `rotation` degrees; `times_ms` spaces them unevenly,
    the last one held like the first.
    """
    # The index in front, so that a file cut off in its middle still opens.
    container = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=container) as output:
        stream = output.add_stream(codec, rate=fps, options={"crf": "20", **(options or {})})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def write_noise(path: Path, num_frames: int = 30, **how: dict[str, str]) -> Path:
    """Noise, of which no packet is small, without frames that refer to later ones."""
    noise = np.random.default_rng(0).integers(0, 256, (num_frames, 48, 64, 3), dtype=np.uint8)
    return write_video(path, noise, options={"bf": "0", **how.get("options", {})})


def overwrite_packet(path: Path, number: int) -> None:
    """Damage the packet with this number."""
    with av.open(str(path)) as container:
        place, size = [(p.pos, p.size) for p in container.demux(video=0) if p.size][number]
    content = bytearray(path.read_bytes())
    content[place : place + size] = b"\xff" * size
    path.write_bytes(content)


def write_referring_clip(path: Path) -> Path:
    """30 frames, a keyframe every 10, with frames that refer to later ones."""
    options = {"g": "10", "bf": "3", "sc_threshold": "0"}
    return write_video(path, numbered_frames(30), options=options)


def cut_without_encoding(source: Path, path: Path, *, first_shown: int) -> Path:
    """Copy an MP4 whole, marked so that frames before `first_shown` are not shown."""
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(source)) as whole, av.open(str(path), "w", options=options) as output:
        stream = whole.streams.video[0]
        copy = output.add_stream_from_template(stream)
        shift = round(first_shown / stream.average_rate / stream.time_base)
        for packet in whole.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                output.mux(packet)
    return path


def decode_in_order(path: Path) -> np.ndarray:
    """Every frame that comes out, upright."""
    with av.open(str(path)) as container:
        return np.stack(
            [
                np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                for frame in container.decode(video=0)
            ]
        )


def column_of(frame: np.ndarray) -> float:
    """Where the bright column of a numbered frame is, as a fraction of the width."""
    brightness = frame[frame.shape[0] // 2 :, :, 2].astype(float).mean(axis=0)
    return float((brightness * np.arange(len(brightness))).sum() / brightness.sum()) / len(
        brightness
    )
