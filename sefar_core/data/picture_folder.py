"""What counts as a clip's folder of pictures, for lists and readers alike (no torch)."""

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""In any case."""
NOMINAL_FPS = 25
"""Frames a second that numbered pictures are taken to have, since they tell no times.

Fractions of a clip, which is all that training draws, are the same at any rate. Lists that cut a
folder into steps and the reader of its pictures must only agree on one."""


def is_picture(name: str) -> bool:
    """Whether a file of this name is a picture that counts: hidden ones do not."""
    return not name.startswith(".") and name.lower().endswith(PICTURE_SUFFIXES)
