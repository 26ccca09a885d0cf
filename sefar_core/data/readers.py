"""The readers of video files by name.

`auto` is PyAV: of the readers that were measured it alone never gave a wrong frame. The others are
for those who need them, on files that they read right.
"""

from collections.abc import Callable
from importlib.util import find_spec

from torch import Tensor

from sefar_core.data import decord_reader, torchcodec_reader, video

READERS: dict[str, Callable[..., Tensor]] = {
    "auto": video.read_fractions,
    "decord": decord_reader.read_fractions,
    "torchcodec": torchcodec_reader.read_fractions,
}


def choose_file_reader(name: str) -> Callable[..., Tensor]:
    """What reads the frames of a file: a function like `video.read_fractions`.

    Raises:
        ValueError: what it needs is not installed.
    """
    if name == "torchcodec":
        torchcodec_reader.check()
    elif name == "decord" and find_spec("decord") is None:
        raise ValueError("data.reader is decord, which is not installed: pip install decord")
    return READERS[name]
