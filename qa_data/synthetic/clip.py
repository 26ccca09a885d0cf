"""One clip: how a performance is filmed, drawn at random, its frames, and its video file.

Nothing that is drawn here depends on the class, so camera, speed and appearance give nothing of it
away. A source video is one athlete in one arena, with apparatus in colors of their own. Frames are
written as a real H.264 file.
"""

import os
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import av
import numpy as np
from numpy.typing import NDArray

from qa_data.synthetic import drawing, figure, scene
from qa_data.synthetic.drawing import (
    Appearance,
    Picture,
    Strokes,
    figure_strokes,
    paint_figure,
    random_appearance,
)
from qa_data.synthetic.elements import Element, Style, motion_of, random_style
from qa_data.synthetic.figure import Array, local_joints, place, rotation, swap_sides
from qa_data.synthetic.scene import (
    EVENTS,
    FIGURE_HEIGHT,
    Event,
    Face,
    apparatus_faces,
    draw_arena,
    follow,
    project,
    random_view,
    to_pixels,
)

ARENA_WIDTH = 2
"""Side of the drawn arena in frames, so that the camera can pan."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What all clips of a source share."""

    look: Appearance
    arena: Picture
    apparatus: dict[Event, list[Face]]


@lru_cache(maxsize=256)
def make_source(seed: int, index: int, size: int) -> Source:
    """The source number `index` of a set, for frames of `size` pixels: a function of both seeds."""
    rng = np.random.default_rng([seed, 0, index])
    return Source(
        look=random_appearance(rng),
        arena=draw_arena(rng, ARENA_WIDTH * size),
        apparatus={event: apparatus_faces(event, rng) for event in EVENTS},
    )


Without = Literal["figure", "figure_and_apparatus"]
"""What a control leaves out of the picture."""

NUM_JOINTS = len(figure.JOINT_NAMES)


@dataclass(frozen=True, kw_only=True)
class Filming:
    """One performance and the camera on it; arrays have one row a frame."""

    size: int
    """Side of the frame in pixels."""
    phase: Array
    """Where in the element each frame is, in [0, 1]."""
    style: Style
    mirrored: bool
    """Left and right of the body exchanged."""
    habit: Array
    """Degrees added to the joint angles throughout, (NUM_ANGLES,)."""
    lean: float
    """Degrees added to the rotation of the body throughout."""
    yaw: float
    elevation: float
    height: float
    """Height of the stretched figure as a share of the frame."""
    zoom: Array
    """Factor on scale and background, (frame,)."""
    slackness: float
    """Width in frames of the smoothing with which the camera follows."""
    wander: Array
    """Offset of the camera from the figure, (frame, 2), in body heights."""
    pan: Array
    """Upper left corner of the window of the arena, (frame, 2), in pixels."""
    exposure: drawing.Exposure


def _drift(rng: np.random.Generator, time: Array, extent: float) -> Array:
    """A smooth path in the plane around 0, (frame, 2): straight, with a swing."""
    slope, swing, start = rng.normal(size=(3, 2))
    straight = slope * (time[:, None] - 0.5)
    return extent * (straight + 0.4 * swing * np.sin(2 * np.pi * (time[:, None] + start)))


def film(rng: np.random.Generator, *, num_frames: int, size: int, faces_left: bool) -> Filming:
    """Camera, timing and manner of one clip, all drawn from `rng`; `size` is in pixels."""
    time = (np.arange(num_frames) + 0.5) / num_frames
    ease, skew = rng.uniform(-0.15, 0.15), rng.uniform(-0.1, 0.1)
    phase = time + ease * np.sin(2 * np.pi * time) / (2 * np.pi) + skew * time * (1 - time)
    yaw, elevation = random_view(rng, faces_left=faces_left)
    jitter = rng.normal(0, 0.004, size=(num_frames, 2))
    return Filming(
        size=size,
        phase=phase,
        style=random_style(rng),
        mirrored=bool(rng.uniform() < 0.5),
        habit=rng.normal(0, 4, size=figure.NUM_ANGLES),
        lean=rng.normal(0, 5),
        yaw=yaw,
        elevation=elevation,
        height=rng.uniform(*FIGURE_HEIGHT),
        zoom=1 + rng.uniform(-0.08, 0.08) * (time - 0.5),
        slackness=float(np.exp(rng.uniform(np.log(2), np.log(40)))),
        wander=_drift(rng, time, 0.05) + jitter,
        pan=size * rng.uniform(0.2, 0.8, size=2) + _drift(rng, time, 0.15 * size) + size * jitter,
        exposure=drawing.random_exposure(rng, num_frames, size),
    )


@dataclass(frozen=True, kw_only=True)
class Shot:
    """The figure as the camera has it in every frame."""

    strokes: Strokes
    flat: Array
    """Projected points of the strokes, (frame, point, 3); the joints come first."""
    center: Array
    scale: Array
    """Pixels in one body height, (frame,)."""


def shoot(element: Element, filming: Filming, source: Source) -> Shot:
    """Pose, place and project the figure of one clip."""
    motion = motion_of(element, filming.phase, filming.style)
    side = -1 if filming.mirrored else 1
    angles = swap_sides(motion.angles) if filming.mirrored else motion.angles
    angles = angles + filming.habit
    turned = rotation(
        turn=side * motion.turn, pitch=motion.pitch + filming.lean, twist=side * motion.twist
    )
    joints = place(local_joints(source.look.body, angles), turned, motion.position, motion.anchor)
    strokes = figure_strokes(source.look, joints, turned, angles)
    flat = project(strokes.points, yaw=filming.yaw, elevation=filming.elevation)
    scale = filming.size * filming.height * filming.zoom
    center = follow(
        flat[:, :NUM_JOINTS],
        scale,
        size=filming.size,
        slackness=filming.slackness,
        wander=filming.wander,
    )
    return Shot(strokes=strokes, flat=flat, center=center, scale=scale)


def joint_pixels(shot: Shot, size: int) -> Array:
    """Joints in the picture, (frame, joint, 2): column and row in pixels."""
    return to_pixels(shot.flat[:, :NUM_JOINTS], shot.center, shot.scale, size)


def render_clip(
    element: Element, filming: Filming, source: Source, *, without: Without | None = None
) -> NDArray[np.uint8]:
    """The frames of a clip, (frame, height, width, 3), RGB; without the figure, all else stays."""
    shot = shoot(element, filming, source)
    faces = source.apparatus[element.event]
    corners = scene.project_faces(faces, yaw=filming.yaw, elevation=filming.elevation)
    side, fine = drawing.SUPERSAMPLING * filming.size, drawing.SUPERSAMPLING * shot.scale
    figure_at = to_pixels(shot.flat, shot.center, fine, side)
    apparatus_at = to_pixels(corners[None], shot.center, fine, side)

    frames = np.empty((len(filming.phase), filming.size, filming.size, 3), np.uint8)
    for i in range(len(frames)):
        left, top = filming.pan[i]
        background = scene.view_arena(
            source.arena, left=left, top=top, zoom=filming.zoom[i], size=filming.size
        )
        canvas = drawing.enlarge(background)
        if without != "figure_and_apparatus":
            scene.paint_apparatus(canvas, faces, apparatus_at[i], fine[i])
        if without is None:
            paint_figure(canvas, shot.strokes.parts, figure_at[i], shot.flat[i, :, 2], fine[i])
        frames[i] = drawing.expose(drawing.reduce(canvas), filming.exposure, i)
    return frames


CODEC: Final = "libx264"
CODEC_OPTIONS = {
    "preset": "veryfast",
    "crf": "20",
    "threads": "1",
    "x264-params": "rc-lookahead=4:mbtree=0",  # a quarter faster; a clip is one group of pictures
}


def write_video(path: Path, frames: NDArray[np.uint8], fps: int) -> None:
    """Write RGB frames (frame, height, width, 3) as mp4; the file appears complete or not at all.

    One encoder thread, so that the same frames give the same bytes on one machine.
    """
    partial = path.with_name(f".{path.name}.partial")
    height, width = frames.shape[1:3]
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream(CODEC, rate=Fraction(fps), options=CODEC_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    os.replace(partial, path)
