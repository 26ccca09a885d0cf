"""A process that reads frames with decord for another one, which kills it if it hangs.

A line of JSON comes in, {"path": ..., "numbers": [...], "num_frames": ...}; a line of JSON goes
out, {"shape": [...]} with as many bytes of RGB pixels behind it, or {"fault": ...}. It ends when
its input does.
"""

import json
import os
import sys
from typing import BinaryIO

import numpy as np


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    import decord

    refusals = (decord.DECORDError, RuntimeError, IndexError, OSError, ValueError)
    for line in asked:
        try:
            frames = read(**json.loads(line))
        except refusals as cause:  # the asking process words the error
            answers.write(line_of({"fault": (str(cause).strip() or repr(cause)).splitlines()[0]}))
        else:
            answers.write(line_of({"shape": frames.shape}) + frames.tobytes())
        answers.flush()


def line_of(answer: dict) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def read(path: str, numbers: list[int], num_frames: int) -> np.ndarray:
    """The frames with these numbers of a file that is known to show `num_frames` frames."""
    import decord

    video = decord.VideoReader(path, num_threads=1)
    if len(video) != num_frames:
        raise ValueError(f"decord counts {len(video)} frames, its packets {num_frames}")
    return video.get_batch(numbers).asnumpy()


if __name__ == "__main__":
    # The libraries' messages go to stderr; what stdout was carries answers alone.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, answers)
