"""Frames by torchcodec, which is no dependency: it needs shared libraries of FFmpeg on the machine.

Only its exact mode is used, which reads a file's packets first; the approximate one gives wrong
frames on open groups of pictures.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from sefar_core.data.numbering import MEND, frame_numbers, known, shrunk
from sefar_core.data.video import VideoReadError


def read_fractions(
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
                f"{MEND}"
            )
        frames = video.get_frames_at(numbers).data
    except (RuntimeError, ValueError, IndexError) as cause:
        reason = str(cause).strip().splitlines()[0]
        raise VideoReadError(f"torchcodec cannot read {where}: {reason}. {MEND}") from cause
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
