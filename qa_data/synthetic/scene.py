"""Where the gymnast performs: a distant cluttered arena, the apparatus, and the camera.

The arena is drawn alike for every event and moves only with the camera's own pan, so it gives away
nothing about the class. The apparatus is in the figure's world and shows the event alone.
World height 0 is the floor, the top of the beam, or the bar; the vault's table is on it.

World axes: the figure is at yaw 0 with x to the right of the picture, y away from the viewer
and z up. The projection is parallel; lengths are in body heights until `to_pixels`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from qa_data.synthetic.drawing import SUBPIXEL_BITS, Color, Picture, hsv_color, mix
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

    Angles in degrees: at yaw 0 the figure faces right, at 180 left; `elevation` tilts the camera
    down.
    """
    c, s = np.cos(np.deg2rad(yaw)), np.sin(np.deg2rad(yaw))
    ce, se = np.cos(np.deg2rad(elevation)), np.sin(np.deg2rad(elevation))
    view = np.array([[c, -s, 0.0], [s * se, c * se, ce], [-s * ce, -c * ce, se]])
    return points @ view.T


def to_pixels(flat: Array, center: Array, scale: Array, size: int) -> Array:
    """Projected points (frame, point, 2 or more) -> pixels (frame, point, 2), rows downward.

    `center` (frame, 2) is what is in the middle of the picture, `scale` (frame,) pixels in one body
    height, `size` the side of the square frame in pixels.
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

    The camera follows the middle of the projected joints `flat` (frame, joint, 2 or more) smoothly,
    is off that path by `wander` (frame, 2), and never loses a joint. `scale` (frame,) is pixels in
    one body height; `slackness` is the width of the smoothing in frames: if it is large, the camera
    is nearly still.
    """
    low, high = flat[..., :2].min(axis=1), flat[..., :2].max(axis=1)
    middle = (low + high) / 2
    room = (0.5 - FRAME_MARGIN) * size / scale[:, None] - (high - low) / 2
    room = np.maximum(room, 0)
    return middle + np.clip(smooth(middle, slackness) + wander - middle, -room, room)


Event = Literal["VT", "FX", "BB", "UB"]
EVENTS: tuple[Event, ...] = get_args(Event)

TABLE_HEIGHT = 0.7
"""Top of the vault's table, in body heights."""


def _muted_color(rng: np.random.Generator) -> Color:
    hue, saturation, value = rng.random(3).tolist()
    return hsv_color(hue, 0.35 * saturation, 0.25 + 0.6 * value)


def draw_arena(rng: np.random.Generator, size: int) -> Picture:
    """A square picture of wall, floor and clutter, `size` pixels wide."""
    fine = 2 * size
    picture = np.empty((fine, fine, 3), np.uint8)
    horizon = int(fine * rng.uniform(0.5, 0.8))
    picture[:horizon] = _muted_color(rng)
    picture[horizon:] = _muted_color(rng)
    num_things = int(rng.integers(5, 18))
    corners = rng.integers(-fine // 8, fine, size=(num_things, 2)).tolist()
    extents = rng.integers(fine // 50, fine // 4, size=(num_things, 2)).tolist()
    kinds = rng.integers(4, size=num_things).tolist()
    for (left, top), (width, height), kind in zip(corners, extents, kinds, strict=True):
        color = _muted_color(rng)
        if kind == 0:
            cv2.rectangle(picture, (left, top), (left + width, top + height), color, -1)
        elif kind == 1:
            cv2.circle(picture, (left, top), width // 3, color, -1)
        elif kind == 2:
            cv2.line(picture, (left, top), (left + width, top + height), color, 3)
        else:
            cv2.line(picture, (left, top), (left, top + 2 * height), color, max(3, width // 6))
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def view_arena(arena: Picture, *, left: float, top: float, zoom: float, size: int) -> Picture:
    """The window of the arena that the camera sees: upper left corner and zoom (1 = as drawn)."""
    window = np.array([[1 / zoom, 0.0, left], [0.0, 1 / zoom, top]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(arena, window, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(seen, np.uint8)


@dataclass(frozen=True)
class Face:
    """A filled polygon of the apparatus in world coordinates."""

    corners: Array
    """(corner, 3), in body heights."""
    color: Color


def _box(x: float, y: float, low: float, high: float, color: Color) -> list[Face]:
    """The sides and the top of an upright box around the vertical axis, half widths x and y."""
    dark = mix(color, (0, 0, 0), 0.3)
    left, right = [(-x, -y), (x, -y)], [(-x, y), (x, y)]

    def wall(a: tuple[float, float], b: tuple[float, float]) -> Array:
        return np.array([(*a, low), (*b, low), (*b, high), (*a, high)])

    walls = [wall(*right), wall(left[0], right[0]), wall(left[1], right[1]), wall(*left)]
    top = np.array([(*corner, high) for corner in (left[0], left[1], right[1], right[0])])
    return [*(Face(corners, dark) for corners in walls), Face(top, color)]


def _post(x: float, y: float, low: float, high: float, color: Color) -> Face:
    return Face(np.array([(x, y, low), (x, y, high)]), color)


def _mat(color: Color, line: Color, half_width: float, low: float) -> list[Face]:
    """A floor with cross lines every half body height, so that its motion shows."""
    faces = _box(4.0, half_width, low - 0.12, low, color)
    for x in np.arange(-4, 4.1, 0.5):
        ends = [(x, -half_width, low), (x, half_width, low)]
        faces.append(Face(np.array(ends), line))
    return faces


def apparatus_faces(event: Event, rng: np.random.Generator) -> list[Face]:
    """The apparatus of an event in colors of its own, in the order of painting."""
    color, other = _muted_color(rng), _muted_color(rng)
    steel = mix(color, (60, 60, 60), 0.7)
    if event == "FX":
        return _mat(color, mix(color, (255, 255, 255), 0.5), 1.2, 0.0)
    if event == "BB":
        legs = [_post(x, 0.0, -0.8, -0.1, steel) for x in (-1.1, 1.1)]
        return legs + _box(1.6, 0.05, -0.1, 0.0, color)
    if event == "UB":
        posts = [_post(0.0, y, -1.6, 0.0, steel) for y in (1.0, -1.0)]
        return [*posts, Face(np.array([(0.0, -1.0, 0.0), (0.0, 1.0, 0.0)]), other)]
    runway = _mat(color, mix(color, (255, 255, 255), 0.5), 0.35, 0.0)
    return runway + _box(0.2, 0.3, 0.1, TABLE_HEIGHT, other)


def project_faces(faces: list[Face], *, yaw: float, elevation: float) -> Array:
    """Corners of all faces one after the other, projected: (corner, 3)."""
    corners = np.concatenate([face.corners for face in faces])
    return project(corners, yaw=yaw, elevation=elevation)


def paint_apparatus(canvas: Picture, faces: list[Face], pixels: Array, scale: float) -> None:
    """Paint the faces on the canvas, in place, in their order; two corners make a rod.

    `pixels` (corner, 2) are the corners of all faces one after the other, on the canvas; `scale`
    is the number of its pixels in one body height.
    """
    rod = max(2, round(0.03 * scale))
    at = np.rint(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)
    first = 0
    for face in faces:
        corners = at[first : first + len(face.corners)]
        first += len(corners)
        if len(corners) == 2:
            start, end = corners.tolist()
            cv2.line(canvas, start, end, face.color, rod, cv2.LINE_8, SUBPIXEL_BITS)
        else:
            cv2.fillConvexPoly(canvas, corners, face.color, cv2.LINE_8, SUBPIXEL_BITS)
