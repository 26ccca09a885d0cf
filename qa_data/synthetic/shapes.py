"""Body shapes of gymnastics as joint angles, and random poses made from them."""

import numpy as np

from qa_data.synthetic.figure import NUM_ANGLES, Array, body_pose

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
    *(STANDING, LOOSE, TUCKED, PIKED, STRETCHED, HANDSTAND, CLEAR_HIP),
    *(STALDER, SOLE, SPLIT, STRADDLE, WOLF, STRIDE, PASSE),
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
