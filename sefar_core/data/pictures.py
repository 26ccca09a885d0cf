"""Which files count as a clip's pictures, and how elongated a picture may be (no torch).

Lists of data sets and readers alike go by this file.
"""

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""In any case."""
NOMINAL_FPS = 25
"""Frames a second that numbered pictures are taken to have, since they have no times.

Fractions of a clip, which is all that training draws, are the same at any rate. Lists that cut a
folder into steps and the reader of its pictures must only agree on one."""


def is_picture(name: str) -> bool:
    """Whether a file of this name is a picture that counts: hidden ones do not."""
    return not name.startswith(".") and name.lower().endswith(PICTURE_SUFFIXES)


MAX_SIDE_RATIO = 16
"""Longer side over shorter side. Scaling fits the shorter side to the network's input, so memory
grows with this ratio: a file of 600 kB with pictures of 30000 x 1 pixels takes 12 GB."""


def side_ratio_problem(width: int, height: int) -> str | None:
    """Why a picture is too elongated to be scaled, to follow the file's name; None if it is not."""
    short, long = sorted((width, height))
    if long <= MAX_SIDE_RATIO * short:
        return None
    return (
        f"has pictures of {width} x {height} pixels; one side may be at most {MAX_SIDE_RATIO} "
        f"times as long as the other: crop the video first"
    )
