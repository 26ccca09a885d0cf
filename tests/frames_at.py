"""The package's reader by times of a file, where its callers give fractions of a clip."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from sefar_core.data import video


def frames_at(path: Path, timestamps_s: Sequence[float]) -> Tensor:
    """The frame that the package shows at each time, in seconds from the file's beginning."""
    times_s = np.array(timestamps_s)
    return video.on_frames(
        path, None, None, lambda shown, start, end: video._read(path, shown, times_s, None)
    )
