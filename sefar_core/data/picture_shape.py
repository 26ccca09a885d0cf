"""How elongated a picture may be before it is scaled."""

MAX_SIDE_RATIO = 16
"""Longer side over shorter side. Scaling fits the shorter side to the network's input, so memory
grows with this ratio: a file of 600 kB with pictures of 30000 x 1 pixels takes 12 GB."""


def side_ratio_problem(width: int, height: int) -> str | None:
    """What to say of a picture too elongated to be scaled, behind the file's name; None if it is
    not.

    Args:
        width: of the picture, pixels.
        height: likewise.
    """
    short, long = sorted((width, height))
    if long <= MAX_SIDE_RATIO * short:
        return None
    return (
        f"has pictures of {width} x {height} pixels; one side may be at most {MAX_SIDE_RATIO} "
        f"times as long as the other: crop the video first"
    )
