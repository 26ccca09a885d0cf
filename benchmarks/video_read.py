"""Time readers of video files against one another: 8 moments of a clip, a square of 224 pixels.

    python -m benchmarks.video_read --out benchmarks/results

Files of 320x256 pixels are written first: 2 s and 60 s, with a keyframe every 12 and every 250
frames. The ways: this package's readers auto and decord (where it imports), a plain loop of PyAV
that decodes in order to the last wanted frame, torchcodec in its exact mode (where it imports), and
OpenCV seeking each frame. All give the same frames but for the rounding of colors.
The ways take turns; figures are medians.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import av
import cv2
import numpy as np
import torch
import tyro
from av.video.reformatter import VideoReformatter

from benchmarks.moving_clips import write_clip
from benchmarks.timing import alternate, report
from sefar_core.data.transforms import Placement, squares
from sefar_core.data.video_backends import choose_file_reader

FRACTIONS = [(k + 0.5) / 8 for k in range(8)]


@dataclass(frozen=True, kw_only=True)
class VideoRead:
    turns: int = 9
    """Turns of each way on each file."""
    out: Path | None = None
    """Folder for a dated result."""


def pyav_loop(path: Path, fractions: Sequence[float]):
    """The plain loop: every frame decoded in order, the wanted ones converted."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        wanted = [int(fraction * stream.frames) for fraction in fractions]
        reformatter, kept = VideoReformatter(), []
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                kept.append(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
            if number == max(wanted):
                break
    return np.stack(kept)


def opencv_seeking(path: Path, fractions: Sequence[float]):
    """Each frame sought by its number, as the public code does."""
    video = cv2.VideoCapture(str(path))
    num_frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    kept = []
    for fraction in fractions:
        video.set(cv2.CAP_PROP_POS_FRAMES, int(fraction * num_frames))
        kept.append(cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2RGB))
    video.release()
    return np.stack(kept)


def torchcodec_alone(path: Path, fractions: Sequence[float]):
    from torchcodec.decoders import VideoDecoder

    video = VideoDecoder(str(path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
    numbers = [int(fraction * video.metadata.num_frames) for fraction in fractions]
    return video.get_frames_at(numbers).data.numpy()


def ways() -> dict[str, Callable]:
    """Every way that this machine has, by name."""
    found: dict[str, Callable] = {"auto": choose_file_reader("auto"), "PyAV loop": pyav_loop}
    try:
        found["decord (reader)"] = choose_file_reader("decord")
    except ValueError as cause:
        print(f"without decord: {cause}")
    if find_spec("torchcodec"):
        found["torchcodec alone"] = torchcodec_alone
    return found | {"OpenCV seeking": opencv_seeking}


def main(settings: VideoRead) -> None:
    torch.set_num_threads(1)
    center = Placement(256, 0.5, 0.5, flip=False)
    lines = ["| file | way | clips per CPU second | wall ms a clip | CPU of auto / of this |"]
    lines.append("|---|---|---|---|---|")
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for seconds, gop in [(2, 12), (2, 250), (60, 12), (60, 250)]:
            path = write_clip(
                Path(folder) / f"{seconds}_{gop}.mp4", num_frames=25 * seconds, gop=gop
            )

            def clip(read: Callable, path: Path = path):
                frames = torch.as_tensor(read(path, FRACTIONS))
                return squares(frames, center, 224)

            found = {name: partial(clip, read) for name, read in ways().items()}
            expected = found["PyAV loop"]().int()
            for name, way in found.items():
                error = (way().int() - expected).abs().float().mean().item()
                if error > 3 or (name == "auto" and error > 0):
                    raise SystemExit(f"error: {name} gives other frames ({error:.1f} of 255)")
            calls = 4 if seconds < 10 else 1
            timings = alternate(found, turns=settings.turns, calls=calls)
            for name, timing in timings.items():
                ratio = np.median(np.divide(timings["auto"].cpu_s, timing.cpu_s))
                lines.append(
                    f"| {seconds} s, GOP {gop} | {name} | {1 / timing.cpu:.1f} | "
                    f"{1000 * timing.wall:.1f} | {ratio:.2f} |"
                )
            figures[f"{seconds}_{gop}"] = {n: t._asdict() for n, t in timings.items()}
    report("video-read", lines, figures, settings.out)


if __name__ == "__main__":
    main(tyro.cli(VideoRead, description=__doc__))
