"""The skeleton bends, turns and shows itself as a body does."""

import math

import numpy as np
import pytest

from demo.pose_image import random_pose_image
from qa_data.synthetic import figure
from qa_data.synthetic.figure import JOINT_NAMES
from qa_data.synthetic.scene import FIGURE_HEIGHT, follow, project

BODY = figure.Body(trunk=0.31, head=0.07, arm=0.36, shoulders=0.1, hips=0.06, girth=1.0)


def joints_of(**angles):
    """Joints by name of one pose in the frame of the pelvis."""
    local = figure.local_joints(BODY, figure.body_pose(**angles)[None])[0]
    return dict(zip(JOINT_NAMES, local, strict=True))


def matrix(axis: int, degrees: float) -> np.ndarray:
    """Plain rotation about one axis, written out."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return {
        1: np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        2: np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def test_a_stretched_body_measures_one_from_ankle_to_crown():
    at = joints_of()
    crown = at["head"][2] + BODY.head
    assert crown - at["left_ankle"][2] == pytest.approx(1)
    assert FIGURE_HEIGHT[0] * 0.96 * math.cos(math.radians(12)) > 0.42  # of the frame


@pytest.mark.parametrize(
    ("part", "joint", "root"), [("shoulder", "wrist", "shoulder"), ("hip", "ankle", "hip")]
)
def test_a_lifted_limb_points_forward_and_keeps_its_length(part, joint, root):
    rest, lifted = joints_of(), joints_of(**{part: (90, 0)})
    limb = lifted[f"left_{joint}"] - lifted[f"left_{root}"]
    length = np.linalg.norm(rest[f"left_{joint}"] - rest[f"left_{root}"])
    np.testing.assert_allclose(limb, [length, 0, 0], atol=1e-9)
    np.testing.assert_allclose(lifted[f"right_{joint}"], rest[f"right_{joint}"])


def test_limbs_spread_each_to_its_own_side():
    at = joints_of(shoulder_out=90, hip_out=30)
    assert at["left_wrist"][1] > 0.4 and at["right_wrist"][1] < -0.4
    assert at["left_ankle"][1] == pytest.approx(-at["right_ankle"][1]) and at["left_ankle"][1] > 0.2


def test_a_bent_knee_brings_the_heel_backward_and_a_bent_elbow_the_hand_forward():
    at = joints_of(knee=90, elbow=90)
    assert at["left_ankle"][0] == pytest.approx(-BODY.leg / 2)
    assert at["right_wrist"][0] == pytest.approx(0.55 * BODY.arm)


def test_the_whole_body_rotation_is_twist_then_pitch_then_turn():
    got = figure.rotation(turn=np.array([31.0]), pitch=np.array([77.0]), twist=np.array([-140.0]))
    np.testing.assert_allclose(got[0], matrix(2, 31) @ matrix(1, 77) @ matrix(2, -140), atol=1e-12)


def test_swapping_sides_is_the_mirror_image():
    rng = np.random.default_rng(3)
    angles = rng.uniform(-40, 120, size=(1, figure.NUM_ANGLES))
    straight = figure.local_joints(BODY, angles)[0]
    swapped = figure.local_joints(BODY, figure.swap_sides(angles))[0]
    for index, name in enumerate(JOINT_NAMES):
        other = name.replace("left", "x").replace("right", "left").replace("x", "right")
        np.testing.assert_allclose(swapped[JOINT_NAMES.index(other)], straight[index] * [1, -1, 1])


def test_hands_that_hold_the_bar_stay_there_while_the_body_turns():
    frames = 5
    local = figure.local_joints(BODY, np.repeat(figure.body_pose(shoulder=178)[None], frames, 0))
    turned = figure.rotation(
        turn=np.zeros(frames), pitch=np.linspace(0, 300, frames), twist=np.zeros(frames)
    )
    bar = np.tile([1.0, 2.0, 3.0], (frames, 1))
    world = figure.place(local, turned, bar, "hands")
    np.testing.assert_allclose(world[:, figure.WRISTS].mean(axis=1), bar, atol=1e-12)


def test_a_camera_on_the_other_side_turns_left_into_right_and_far_into_near():
    point = np.array([[1.0, 0.4, 0.3]])
    right, left = (project(point, yaw=yaw, elevation=0)[0] for yaw in (0, 180))
    np.testing.assert_allclose(right, [1.0, 0.3, -0.4])
    np.testing.assert_allclose(left, [-1.0, 0.3, 0.4], atol=1e-12)


def test_the_camera_never_loses_a_joint():
    rng = np.random.default_rng(0)
    flat = rng.normal(0, 0.2, size=(20, 5, 2)) + np.linspace(0, 8, 20)[:, None, None]
    scale = np.full(20, 20.0)
    center = follow(flat, scale, size=64, slackness=30, wander=rng.normal(0, 2, size=(20, 2)))
    assert (np.abs(flat - center[:, None]) * 20 <= 32).all()


def test_pose_images_show_every_joint_and_describe_the_figure():
    one, same, other = (random_pose_image(np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert (one.frame == same.frame).all() and (one.joints == same.joints).all()
    assert (one.frame != other.frame).any()
    with pytest.raises(ValueError, match="at least 32"):
        random_pose_image(np.random.default_rng(0), size=16)
    rng = np.random.default_rng(1)
    for _ in range(40):
        image = random_pose_image(rng, size=48)
        assert image.frame.shape == (48, 48, 3) and image.frame.dtype == np.uint8
        assert (image.joints >= 0).all() and (image.joints <= 48).all()
        assert image.joints.shape == (len(JOINT_NAMES), 2) and len(image.depths) == len(JOINT_NAMES)
        for pair in (image.facing, image.torso_angle, image.front, image.up):
            assert np.linalg.norm(pair) == pytest.approx(1)
        left_to_right = image.joints[10] - image.joints[11]
        away = image.depths[10] - image.depths[11]
        assert math.copysign(1, image.facing[1]) == -math.copysign(1, away)
        assert math.copysign(1, image.facing[0]) == -math.copysign(1, left_to_right[0])


def test_random_poses_face_both_ways_and_stand_at_every_angle():
    rng = np.random.default_rng(2)
    images = [random_pose_image(rng, size=32) for _ in range(200)]
    facing = np.array([image.facing[1] > 0 for image in images])
    assert 0.4 < facing.mean() < 0.6
    angles = np.array([math.atan2(*image.torso_angle) for image in images])
    assert (np.histogram(angles, bins=8, range=(-math.pi, math.pi))[0] > 200 / 8 / 3).all()
