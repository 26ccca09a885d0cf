"""Decoding that kills or hangs the process it is done in."""

from collections.abc import Callable, Sequence

import numpy as np

from sefar_mllm.chat.safe_video import VideoClip
from tests.oracles.poison import swallow


def poisoned_frames(
    clip: VideoClip, heartbeat: Callable[[], None], *, moments: Sequence[float]
) -> np.ndarray:
    """Black frames, except for files of certain names."""
    swallow(clip.path.stem)
    return np.zeros((len(moments), 2, 2, 3), np.uint8)
