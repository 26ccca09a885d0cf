"""Single pictures of a figure in a random pose: no class, for pretraining an image backbone.

Pictures and clips have one painter, so a backbone pretrained on the pictures knows the appearance
of the clips.
"""

from dataclasses import dataclass

import numpy as np

from qa_data.synthetic import drawing, figure, scene
from qa_data.synthetic.drawing import Picture, figure_strokes, paint_figure, random_appearance
from qa_data.synthetic.figure import (
    Array,
    local_joints,
    place,
    random_angles,
    rotation,
)
from qa_data.synthetic.scene import FIGURE_HEIGHT, follow, project, random_view, to_pixels

NUM_JOINTS = len(figure.JOINT_NAMES)


@dataclass(frozen=True, kw_only=True)
class PoseImage:
    """A picture and what is true of the figure in it.

    Directions are in the camera's axes: right, up, toward the viewer.
    """

    frame: Picture
    """RGB, (height, width, 3)."""
    joints: Array
    """(joint, 2) in pixels, column and row, in the order of `JOINT_NAMES`."""
    depths: Array
    """(joint,) toward the viewer from the middle of the figure, in pixels."""
    facing: Array
    """(sin, cos) of the yaw: cos > 0 shows the body's right side, which upright faces right."""
    torso_angle: Array
    """(sin, cos) of the angle of pelvis to neck in the picture, 0 = upright, + = clockwise."""
    front: Array
    """Unit vector in which the pelvis faces, (3,)."""
    up: Array
    """Unit vector of the body's long axis at the pelvis, (3,)."""
    angles: Array
    """Joint angles in degrees, (NUM_ANGLES,), as `figure.body_pose` orders them."""
    apparatus: str | None
    """The apparatus in the picture, by its event (FX is the floor's lines), or none."""


def _unit(vector: Array) -> Array:
    return vector / max(float(np.hypot(*vector)), 1e-9)


def random_pose_image(rng: np.random.Generator, size: int = 64) -> PoseImage:
    """A figure in a random pose, turned and seen at random, in a random arena.

    Whole-body rotation is uniform over 0..360 degrees; the camera is within 25 degrees of
    the side view on either side; half of the bodies are twisted as well. With or without
    apparatus; hands on the bar, feet on beam or floor, or in flight. Same painter as the clips.

    Args:
        rng: every draw comes from it.
        size: side of the square picture in pixels, at least 32.
    """
    if size < 32:
        raise ValueError(f"size must be at least 32 pixels for limbs to be seen, got {size}")
    look = random_appearance(rng)
    angles = random_angles(rng)[None]
    twist = rng.uniform(0, 360) if rng.uniform() < 0.5 else 0.0
    turned = rotation(
        turn=rng.uniform(-20, 20, size=1),
        pitch=rng.uniform(0, 360, size=1),
        twist=np.array([twist]),
    )
    joints, event = _stand(rng, local_joints(look.body, angles), turned)
    yaw, elevation = random_view(rng, faces_left=rng.uniform() < 0.5)
    strokes = figure_strokes(look, joints, turned, angles)
    flat = project(strokes.points, yaw=yaw, elevation=elevation)
    center, scale = _frame_figure(rng, flat[:, :NUM_JOINTS], size)

    side, fine = drawing.SUPERSAMPLING * size, drawing.SUPERSAMPLING * scale
    canvas = drawing.enlarge(scene.draw_arena(rng, size))
    if event is not None:
        faces = scene.apparatus_faces(event, rng)
        corners = scene.project_faces(faces, yaw=yaw, elevation=elevation)[None]
        scene.paint_apparatus(canvas, faces, to_pixels(corners, center, fine, side)[0], fine[0])
    at = to_pixels(flat, center, fine, side)[0]
    paint_figure(canvas, strokes.parts, at, flat[0, :, 2], fine[0])

    axes = project(np.moveaxis(turned[0], -1, 0), yaw=yaw, elevation=elevation)
    joint_pixels = at[:NUM_JOINTS] / drawing.SUPERSAMPLING
    across, down = joint_pixels[figure.NECK] - joint_pixels[figure.PELVIS]
    depths = flat[0, :NUM_JOINTS, 2]
    return PoseImage(
        frame=drawing.expose(drawing.reduce(canvas), drawing.random_exposure(rng, 1, size), 0),
        joints=joint_pixels,
        depths=(depths - depths.mean()) * scale[0],
        facing=_unit(np.array([-axes[1, 0], -axes[1, 2]])),
        torso_angle=_unit(np.array([across, -down])),
        front=axes[0],
        up=axes[2],
        angles=angles[0],
        apparatus=None if event is None else str(event),
    )


def _stand(
    rng: np.random.Generator, local: Array, turned: Array
) -> tuple[Array, scene.Event | None]:
    """Joints in the world and the apparatus: at a bar, on or above a support, or nowhere."""
    event = rng.choice(np.array([*scene.EVENTS, "none"]))
    if event == "none":
        return place(local, turned, np.zeros((1, 3)), "mass"), None
    if event == "UB" and rng.uniform() < 0.75:
        return place(local, turned, np.zeros((1, 3)), "hands"), event
    joints = place(local, turned, np.zeros((1, 3)), "mass")
    aloft = rng.uniform(-0.3, 0.6) if event == "UB" else max(0.0, rng.uniform(-0.4, 0.6))
    shift = np.array([rng.uniform(-1, 1), 0.0, aloft - joints[..., 2].min()])
    return joints + shift, event


def _frame_figure(rng: np.random.Generator, flat: Array, size: int) -> tuple[Array, Array]:
    """Center of the picture (1, 2) and scale (1,): every joint inside, anywhere in the frame."""
    scale = size * rng.uniform(*FIGURE_HEIGHT, size=1)
    wander = rng.normal(0, 0.06, size=(1, 2))
    return follow(flat, scale, size=size, slackness=1.0, wander=wander), scale
