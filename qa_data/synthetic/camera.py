"""The camera: world -> picture, and the path by which it follows the figure.

World axes: the figure stands at yaw 0 with x to the right of the picture, y away from the viewer
and z up. The projection is parallel; lengths stay in body heights until `to_pixels`.
"""

import numpy as np

from qa_data.synthetic.figure import Array

FRAME_MARGIN = 0.03
"""Share of the frame kept free around the figure on every side."""

FIGURE_HEIGHT = (0.56, 0.74)
"""Height of the stretched figure as a share of the frame, before zoom: smallest, largest."""


def random_view(rng: np.random.Generator, *, faces_left: bool) -> tuple[float, float]:
    """Yaw and elevation in degrees: from the side, within 25 degrees, a little from above."""
    return 180.0 * faces_left + rng.uniform(-25, 25), rng.uniform(0, 12)


def project(points: Array, *, yaw: float, elevation: float) -> Array:
    """World points (..., 3) -> (right, up, toward the viewer), in body heights.

    Args:
        points: x forward, y left, z up, as the figure has them.
        yaw: degrees; 0 shows the figure facing right, 180 facing left.
        elevation: degrees by which the camera looks down.
    """
    c, s = np.cos(np.deg2rad(yaw)), np.sin(np.deg2rad(yaw))
    ce, se = np.cos(np.deg2rad(elevation)), np.sin(np.deg2rad(elevation))
    view = np.array([[c, -s, 0.0], [s * se, c * se, ce], [-s * ce, -c * ce, se]])
    return points @ view.T


def to_pixels(flat: Array, center: Array, scale: Array, size: int) -> Array:
    """Projected points (frame, point, 2 or more) -> pixels (frame, point, 2), rows downward.

    Args:
        flat: right and up in body heights.
        center: what stands in the middle of the picture, (frame, 2).
        scale: pixels in one body height, (frame,).
        size: side of the square frame in pixels.
    """
    offset = (flat[..., :2] - center[:, None]) * scale[:, None, None]
    return size / 2 + offset * [1.0, -1.0]


def smooth(path: Array, width: float) -> Array:
    """Gaussian mean over time without lag (the same forward and in reverse), (frame, 2)."""
    frames = np.arange(len(path))
    weights = np.exp(-0.5 * ((frames[:, None] - frames) / width) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)) @ path


def follow(flat: Array, scale: Array, *, size: int, slackness: float, wander: Array) -> Array:
    """Center of the picture in each frame, (frame, 2), in body heights.

    The camera follows the middle of the figure smoothly, wanders, and never loses a joint.

    Args:
        flat: projected joints (frame, joint, 2 or more).
        scale: pixels in one body height, (frame,).
        size: side of the frame in pixels.
        slackness: width of the smoothing in frames; large = the camera stands nearly still.
        wander: offset from the smooth path, (frame, 2), in body heights.
    """
    low, high = flat[..., :2].min(axis=1), flat[..., :2].max(axis=1)
    middle = (low + high) / 2
    room = (0.5 - FRAME_MARGIN) * size / scale[:, None] - (high - low) / 2
    room = np.maximum(room, 0)
    return middle + np.clip(smooth(middle, slackness) + wander - middle, -room, room)
