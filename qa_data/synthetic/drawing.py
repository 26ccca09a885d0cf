"""The gymnast's appearance, and the camera's exposure and grain.

Limbs are capsules painted from far to near. Front and back differ (face and hair, light chest and
dark back, toes), and so do left and right, so that turns about every axis can be seen.
"""

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from qa_data.synthetic import figure
from qa_data.synthetic.figure import Array, Body

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]

SUBPIXEL_BITS = 4
LEFT_SHADE = 0.66
"""Brightness of the left limbs; the right ones have 1."""

_J = {name: index for index, name in enumerate(figure.JOINT_NAMES)}
# (from, to, radius in body heights, color)
_LIMBS = [
    (f"{side}_{start}", f"{side}_{end}", radius, color)
    for side in ("left", "right")
    for start, end, radius, color in (
        ("hip", "knee", 0.046, "skin"),
        ("knee", "ankle", 0.034, "skin"),
        ("ankle", "toe", 0.026, "shoe"),
        ("shoulder", "elbow", 0.031, "sleeve"),
        ("elbow", "wrist", 0.026, "skin"),
    )
]
# Points beside the skeleton: at which joint, how far forward and upward, in body heights, in the
# frame of the chest; the last two in the frame of the head, in radii of the head.
_BESIDE = [_J[name] for name in ("waist", "neck", "waist", "neck", "neck", "head", "head")]
_FORWARD = np.array([0.028, 0.034, -0.03, -0.03, 0.0, 0.45, -0.95])
_UPWARD = np.array([-0.03, -0.05, -0.03, -0.05, -0.04, -0.15, 0.45])
_CHEST, _BACK, _TOP, _FACE, _BUN = (len(figure.JOINT_NAMES) + i for i in (0, 2, 4, 5, 6))
SUPERSAMPLING = 2
"""Figure and apparatus are painted this many times larger, then averaged."""
GRAIN_DEVIATION = 16
_GRAIN_SIDE = 512
_GRAIN = np.random.default_rng(20250101).normal(
    0, GRAIN_DEVIATION, size=(_GRAIN_SIDE, 3 * _GRAIN_SIDE)
)
GRAIN_TILE = np.clip(np.rint(_GRAIN), -100, 100).astype(np.int8)
"""One fixed tile of noise; frames take windows of it at random."""


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """One athlete: proportions and RGB colors."""

    body: Body
    skin: Color
    hair: Color
    leotard: Color
    front: Color
    back: Color
    sleeve: Color
    shoe: Color


def hsv_color(hue: float, saturation: float, value: float) -> Color:
    """RGB, 0..255, from hue, saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return int(255 * red), int(255 * green), int(255 * blue)


def mix(color: Color, other: Color, share: float) -> Color:
    """`share` of `other` in `color`."""
    red, green, blue = (int(a + share * (b - a)) for a, b in zip(color, other, strict=True))
    return red, green, blue


def random_appearance(rng: np.random.Generator) -> Appearance:
    """An athlete with body, skin, hair and leotard of their own."""
    body = figure.random_body(rng)
    tone, hue, value = rng.uniform(size=3)
    skin = mix((250, 214, 185), (115, 74, 48), tone)
    leotard = hsv_color(hue, rng.uniform(0.55, 1.0), 0.45 + 0.45 * value)
    return Appearance(
        body=body,
        skin=skin,
        hair=mix((25, 18, 15), (150, 100, 45), rng.uniform() ** 2),
        leotard=leotard,
        front=mix(leotard, (255, 255, 255), 0.75),
        back=mix(leotard, (0, 0, 0), 0.65),
        sleeve=leotard if rng.uniform() < 0.5 else skin,
        shoe=mix(skin, (255, 255, 255), 0.6),
    )


@dataclass(frozen=True)
class _Part:
    start: int
    end: int
    radius: float
    color: Color


def _parts(look: Appearance) -> list[_Part]:
    """Capsules between rows of `_points`; a head part starts and ends at one point."""
    body, girth = look.body, look.body.girth
    parts = []
    for start, end, radius, name in _LIMBS:
        color = getattr(look, name)
        shade = mix(color, (0, 0, 0), 1 - LEFT_SHADE) if start.startswith("left") else color
        parts.append(_Part(_J[start], _J[end], radius * girth, shade))
    parts += [
        _Part(_J["left_hip"], _J["right_hip"], 0.042 * girth, look.leotard),
        _Part(_J["pelvis"], _J["waist"], 0.058 * girth, look.leotard),
        _Part(_J["waist"], _TOP, 0.058 * girth, look.leotard),
        _Part(_J["left_shoulder"], _J["right_shoulder"], 0.034 * girth, look.leotard),
        _Part(_CHEST, _CHEST + 1, 0.032 * girth, look.front),
        _Part(_BACK, _BACK + 1, 0.036 * girth, look.back),
        _Part(_J["neck"], _J["head"], 0.03 * girth, look.skin),
        _Part(_J["head"], _J["head"], body.head, look.hair),
        _Part(_FACE, _FACE, 0.78 * body.head, look.skin),
        _Part(_BUN, _BUN, 0.5 * body.head, look.hair),
    ]
    return parts


def _points(joints: Array, turned: Array, angles: Array, head: float) -> Array:
    """Joints and the points beside them, (frame, point, 3), in the world."""
    lean = np.deg2rad(angles[:, figure.SPINE, None])
    nod = lean + np.deg2rad(angles[:, figure.NECK_BEND, None])
    tilt = np.concatenate([np.repeat(lean, 5, axis=1), np.repeat(nod, 2, axis=1)], axis=1)
    length = np.array([1.0] * 5 + [head] * 2)
    forward, upward = _FORWARD * length, _UPWARD * length
    cos, sin = np.cos(tilt), np.sin(tilt)
    local = np.zeros((*tilt.shape, 3))
    local[..., 0] = forward * cos + upward * sin
    local[..., 2] = upward * cos - forward * sin
    beside = joints[:, _BESIDE] + local @ np.swapaxes(turned, 1, 2)
    return np.concatenate([joints, beside], axis=1)


@dataclass(frozen=True)
class Strokes:
    """A figure over time, ready to paint: projected points and the capsules between them."""

    points: Array
    """World points (frame, point, 3); the first ones are the joints of `JOINT_NAMES`."""
    parts: list[_Part]


def figure_strokes(look: Appearance, joints: Array, turned: Array, angles: Array) -> Strokes:
    """What to paint of a figure whose joints are at `joints`.

    Shapes: joints (frame, joint, 3), turned (frame, 3, 3), angles (frame, NUM_ANGLES).
    """
    return Strokes(_points(joints, turned, angles, look.body.head), _parts(look))


def paint_figure(
    canvas: Picture, parts: list[_Part], pixels: Array, depth: Array, scale: float
) -> None:
    """Paint the capsules on the canvas, in place, the farthest first.

    `pixels` (point, 2) are their ends on the canvas, `depth` (point,) counts toward the viewer, and
    `scale` is the number of canvas pixels in one body height.
    """
    one = 1 << SUBPIXEL_BITS
    at = np.rint(pixels * one).astype(int).tolist()
    near = depth.tolist()
    for part in sorted(parts, key=lambda part: near[part.start] + near[part.end]):
        if part.start == part.end:
            radius = round(part.radius * scale * one)
            cv2.circle(canvas, at[part.start], radius, part.color, -1, cv2.LINE_8, SUBPIXEL_BITS)
        else:
            width = max(2, int(2 * part.radius * scale + 0.5))
            start, end = at[part.start], at[part.end]
            cv2.line(canvas, start, end, part.color, width, cv2.LINE_8, SUBPIXEL_BITS)


def enlarge(picture: Picture) -> Picture:
    """The canvas to paint on: each pixel becomes a block, so averaging gives it back exactly."""
    side = SUPERSAMPLING * picture.shape[0]
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_NEAREST), np.uint8)


def reduce(canvas: Picture) -> Picture:
    """The picture of a painted canvas: the mean of each block."""
    side = canvas.shape[0] // SUPERSAMPLING
    return np.asarray(cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """How the camera records the light."""

    gain: float
    """Contrast factor."""
    lift: float
    """Added brightness, in gray levels."""
    grain: float
    """Standard deviation of the noise, in gray levels."""
    corners: NDArray[np.int64]
    """Upper left corner of each frame's window in the noise tile, (frame, 2)."""


def random_exposure(rng: np.random.Generator, num_frames: int, size: int) -> Exposure:
    """Exposure of a clip (or of one picture) of `size` pixels."""
    free = (_GRAIN_SIDE - size, 3 * (_GRAIN_SIDE - size))
    return Exposure(
        gain=rng.uniform(0.8, 1.15),
        lift=rng.uniform(-15, 20),
        grain=rng.uniform(0, 5),
        corners=rng.integers(free, size=(num_frames, 2)),
    )


def expose(picture: Picture, exposure: Exposure, frame: int) -> Picture:
    """The picture (height, width, 3) as the camera records it at that frame of the clip."""
    height, width, _ = picture.shape
    top, left = exposure.corners[frame]
    noise = GRAIN_TILE[top : top + height, left : left + 3 * width]
    lit = cv2.addWeighted(
        picture.reshape(height, -1),
        exposure.gain,
        noise,
        exposure.grain / GRAIN_DEVIATION,
        exposure.lift,
        dtype=cv2.CV_8U,
    )
    return np.asarray(lit, np.uint8).reshape(picture.shape)
