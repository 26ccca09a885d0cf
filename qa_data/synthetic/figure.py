"""The gymnast's skeleton: joint angles -> joints in three dimensions; body shapes and random poses.

Axes of the body: x forward (the way the chest faces), y to the body's own left, z up (to the head).
Lengths are in body heights: a stretched figure measures 1 from ankle to crown. Angles are degrees.
Every joint bends about the lateral axis (forward) or about the forward axis (out), so the limbs
have a closed form in the frame of the pelvis and a whole clip is computed at once.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Sides = float | tuple[float, float]

JOINT_NAMES = (
    "pelvis",
    "waist",
    "neck",
    "head",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "left_toe",
    "right_toe",
)
PELVIS, WAIST, NECK, HEAD = range(4)
SHOULDERS, ELBOWS, WRISTS, HIPS, KNEES, ANKLES, TOES = (slice(i, i + 2) for i in range(4, 18, 2))

NUM_ANGLES = 14
SPINE, NECK_BEND = 0, 1
SHOULDER, SHOULDER_OUT, ELBOW, HIP, HIP_OUT, KNEE = (slice(i, i + 2) for i in range(2, 14, 2))

FOOT_ANGLE = 50.0
"""Degrees by which the foot points forward of the shin: half pointed, so that toes show."""

# Share of the body's mass at each joint, for the center of mass about which saltos turn.
_MASS = np.zeros(len(JOINT_NAMES))
_MASS[[PELVIS, WAIST, NECK, HEAD]] = 0.24, 0.16, 0.18, 0.08
_MASS[ELBOWS], _MASS[WRISTS], _MASS[KNEES], _MASS[ANKLES] = 0.03, 0.01, 0.09, 0.04

_LEFT_RIGHT = np.array([1.0, -1.0])

Anchor = Literal["mass", "hands"]


@dataclass(frozen=True, kw_only=True)
class Body:
    """Proportions of one athlete, in body heights."""

    trunk: float
    head: float
    """Radius of the head."""
    arm: float
    """Shoulder to fingertips."""
    shoulders: float
    """Half the width of the shoulders."""
    hips: float
    """Half the width of the hips."""
    girth: float
    """Factor on the thickness of trunk and limbs."""

    @property
    def leg(self) -> float:
        """Hip to ankle: what trunk, neck and head leave of one body height."""
        return 1 - self.trunk - 2.7 * self.head


def random_body(rng: np.random.Generator) -> Body:
    """An athlete of plausible proportions."""
    return Body(
        trunk=rng.uniform(0.29, 0.335),
        head=rng.uniform(0.062, 0.075),
        arm=rng.uniform(0.34, 0.385),
        shoulders=rng.uniform(0.085, 0.11),
        hips=rng.uniform(0.05, 0.065),
        girth=rng.uniform(0.85, 1.2),
    )


def body_pose(  # noqa: PLR0913 (one keyword a joint)
    *,
    spine: float = 0,
    neck: float = 0,
    shoulder: Sides = 0,
    shoulder_out: Sides = 0,
    elbow: Sides = 0,
    hip: Sides = 0,
    hip_out: Sides = 0,
    knee: Sides = 0,
) -> Array:
    """Joint angles in degrees, 0 = standing with the arms down. A pair is (left, right).

    `shoulder` and `hip` lift the limb forward (180 = overhead), `..._out` to its own side; `spine`
    and `neck` bend forward; `elbow` brings the hand forward, `knee` the heel backward.
    """
    angles = np.empty(NUM_ANGLES)
    angles[SPINE], angles[NECK_BEND] = spine, neck
    angles[SHOULDER], angles[SHOULDER_OUT], angles[ELBOW] = shoulder, shoulder_out, elbow
    angles[HIP], angles[HIP_OUT], angles[KNEE] = hip, hip_out, knee
    return angles


def swap_sides(angles: Array) -> Array:
    """The angles of the mirror image: left and right exchanged."""
    order = [SPINE, NECK_BEND] + [i + 1 - 2 * (i % 2) for i in range(2, NUM_ANGLES)]
    return angles[..., order]


def _limb(forward: Array, out: Array, bend: Array | float) -> Array:
    """Direction of a limb hanging from the pelvis frame, lifted `forward` and `out`.

    `bend` (radians) turns it further about its own lateral axis; positive bends forward.
    Shapes (frame, 2) -> (frame, 2, 3), sides in the order left, right.
    """
    x, down = np.sin(bend), np.cos(bend)
    z = -down * np.cos(out)
    cos, sin = np.cos(forward), np.sin(forward)
    direction = np.empty((*forward.shape, 3))
    direction[..., 0] = x * cos - z * sin
    direction[..., 1] = _LEFT_RIGHT * down * np.sin(out)
    direction[..., 2] = x * sin + z * cos
    return direction


def _along(angle: Array) -> Array:
    """Upward direction tilted forward by `angle` radians: (frame,) -> (frame, 3)."""
    direction = np.zeros((len(angle), 3))
    direction[:, 0], direction[:, 2] = np.sin(angle), np.cos(angle)
    return direction


def local_joints(body: Body, angles: Array) -> Array:
    """Joints in the frame of the pelvis: angles (frame, NUM_ANGLES) -> (frame, joint, 3)."""
    radians = np.deg2rad(angles)
    spine = radians[:, SPINE]
    joints = np.zeros((len(angles), len(JOINT_NAMES), 3))
    joints[:, WAIST, 2] = 0.35 * body.trunk
    joints[:, NECK] = joints[:, WAIST] + 0.65 * body.trunk * _along(spine)
    joints[:, HEAD] = joints[:, NECK] + 1.7 * body.head * _along(spine + radians[:, NECK_BEND])

    joints[:, SHOULDERS] = (joints[:, NECK] - 0.02 * _along(spine))[:, None]
    joints[:, SHOULDERS, 1] += [body.shoulders, -body.shoulders]
    forward, out = radians[:, SHOULDER] - spine[:, None], radians[:, SHOULDER_OUT]
    joints[:, ELBOWS] = joints[:, SHOULDERS] + 0.45 * body.arm * _limb(forward, out, 0.0)
    forearm = _limb(forward, out, radians[:, ELBOW])
    joints[:, WRISTS] = joints[:, ELBOWS] + 0.55 * body.arm * forearm

    joints[:, HIPS, 1] = [body.hips, -body.hips]
    forward, out, knee = radians[:, HIP], radians[:, HIP_OUT], radians[:, KNEE]
    joints[:, KNEES] = joints[:, HIPS] + 0.5 * body.leg * _limb(forward, out, 0.0)
    joints[:, ANKLES] = joints[:, KNEES] + 0.5 * body.leg * _limb(forward, out, -knee)
    foot = _limb(forward, out, np.deg2rad(FOOT_ANGLE) - knee)
    joints[:, TOES] = joints[:, ANKLES] + 0.1 * foot
    return joints


def rotation(*, pitch: Array, turn: Array | float, twist: Array | float) -> Array:
    """Rotation matrices (frame, 3, 3) of the whole body, from degrees (frame,).

    `twist` about the long axis of the body, then `pitch` about the lateral axis (positive is
    forward: the head goes where the chest faces), then `turn` about the vertical.
    """
    (c1, s1), (c2, s2), (c3, s3) = (
        (np.cos(a), np.sin(a)) for a in np.deg2rad(np.broadcast_arrays(turn, pitch, twist))
    )
    rows = [
        [c1 * c2 * c3 - s1 * s3, -c1 * c2 * s3 - s1 * c3, c1 * s2],
        [s1 * c2 * c3 + c1 * s3, -s1 * c2 * s3 + c1 * c3, s1 * s2],
        [-s2 * c3, s2 * s3, c2],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def place(joints: Array, turned: Array, position: Array, anchor: Anchor) -> Array:
    """Turn local joints and put the anchor (center of mass, or middle of the hands) at `position`.

    Shapes (frame, joint, 3), (frame, 3, 3), (frame, 3) -> (frame, joint, 3).
    """
    if anchor == "hands":
        held = joints[:, WRISTS].mean(axis=1)
    else:
        held = _MASS / _MASS.sum() @ joints
    return (joints - held[:, None]) @ np.swapaxes(turned, 1, 2) + position[:, None]


STANDING = body_pose(shoulder=168, shoulder_out=12)
LOOSE = body_pose(shoulder=25, shoulder_out=25)
TUCKED = body_pose(spine=38, neck=18, shoulder=75, elbow=45, hip=128, knee=140)
PIKED = body_pose(spine=25, neck=8, shoulder=85, hip=112)
STRETCHED = body_pose(shoulder=18, shoulder_out=8)
HANDSTAND = body_pose(shoulder=178, shoulder_out=4)
CLEAR_HIP = body_pose(spine=15, neck=10, shoulder=38, hip=52)
STALDER = body_pose(spine=35, neck=10, shoulder=82, hip=128, hip_out=60)
SOLE = body_pose(spine=35, neck=15, shoulder=118, hip=140)
SPLIT = body_pose(shoulder=(80, 80), shoulder_out=60, hip=(88, -78))
STRADDLE = body_pose(spine=15, shoulder=75, shoulder_out=15, hip=95, hip_out=50)
WOLF = body_pose(spine=10, shoulder=80, shoulder_out=30, hip=(92, 100), knee=(0, 145))
STRIDE = body_pose(shoulder=60, shoulder_out=70, hip=(75, -55))
PASSE = body_pose(shoulder=95, shoulder_out=35, elbow=50, hip=(80, 0), knee=(115, 0))

SHAPES = (
    STANDING,
    LOOSE,
    TUCKED,
    PIKED,
    STRETCHED,
    HANDSTAND,
    CLEAR_HIP,
    STALDER,
    SOLE,
    SPLIT,
    STRADDLE,
    WOLF,
    STRIDE,
    PASSE,
)

_LOWEST = body_pose(spine=-25, neck=-25, shoulder=-30, hip=-80)
_HIGHEST = body_pose(
    spine=60, neck=35, shoulder=190, shoulder_out=90, elbow=120, hip=150, hip_out=70, knee=150
)


def random_angles(rng: np.random.Generator) -> Array:
    """Joint angles (NUM_ANGLES,) on the way between two shapes, disturbed; at times any at all."""
    one, other = rng.integers(len(SHAPES), size=2)
    share = rng.uniform()
    angles = (1 - share) * SHAPES[one] + share * SHAPES[other]
    if rng.uniform() < 0.15:
        angles = rng.uniform(_LOWEST, _HIGHEST)
    noise = rng.normal(0, 9, size=NUM_ANGLES)
    return np.clip(angles + noise, _LOWEST, _HIGHEST)
