"""A direction pair differs in direction alone, and the scene says nothing about the class."""

import dataclasses
import math

import cv2
import numpy as np
import pytest

from qa_data.synthetic.clip import film, joint_pixels, make_source, render_clip, shoot
from qa_data.synthetic.elements import (
    ALL_CLASSES,
    DEMO_CLASSES,
    SETS,
    Element,
    Style,
    motion_of,
)
from qa_data.synthetic.figure import ANKLES, HEAD, NECK, NUM_ANGLES, PELVIS, WRISTS

cv2.setNumThreads(1)
SIZE = 64


def opposite_of(element: Element) -> Element | None:
    """The element that differs in direction alone, or None."""
    for other in ALL_CLASSES:
        same = other.event == element.event and other.perform is element.perform
        if same and other.backward != element.backward:
            return other
    return None


FORWARD = [element for element in ALL_CLASSES if opposite_of(element) and not element.backward]


def filming_of(seed: int, *, frames: int = 16, faces_left: bool = False):
    return film(np.random.default_rng(seed), num_frames=frames, size=SIZE, faces_left=faces_left)


def backward_in_time(filming):
    """The same filming with its clock reversed."""
    exposure = dataclasses.replace(filming.exposure, corners=filming.exposure.corners[::-1])
    return dataclasses.replace(
        filming,
        phase=1 - filming.phase[::-1],
        zoom=filming.zoom[::-1],
        wander=filming.wander[::-1],
        pan=filming.pan[::-1],
        exposure=exposure,
    )


def screen_rotation(element, filming, source) -> float:
    """Degrees by which pelvis -> head turns clockwise on the screen over the clip."""
    joints = joint_pixels(shoot(element, filming, source), SIZE)
    spine = joints[:, HEAD] - joints[:, PELVIS]
    angles = np.unwrap([math.atan2(across, -down) for across, down in spine.tolist()])
    return math.degrees(angles[-1] - angles[0])


def test_the_classes_compose_factors_and_pairs_differ_in_the_word_for_the_direction_alone():
    events = [element.event for element in ALL_CLASSES]
    assert len(ALL_CLASSES) >= 28 and all(events.count(e) >= 5 for e in ("VT", "FX", "BB", "UB"))
    assert len({element.name for element in ALL_CLASSES}) == len(ALL_CLASSES)
    assert {element.set_id for element in ALL_CLASSES} == set(SETS)
    assert len(DEMO_CLASSES) == 12 and all(opposite_of(e) in DEMO_CLASSES for e in DEMO_CLASSES)
    assert len(FORWARD) >= 12
    for element in FORWARD:
        partner = opposite_of(element)
        assert partner.text == element.text.replace("forward", "backward") != element.text
        assert (partner.event, partner.set_id) == (element.event, element.set_id)
        assert opposite_of(partner) is element


@pytest.mark.parametrize("element", FORWARD, ids=lambda element: element.name)
def test_a_backward_clip_is_its_forward_partner_played_in_reverse(element):
    filming, source = filming_of(11), make_source(0, 1, SIZE)
    forward = render_clip(element, filming, source)
    backward = render_clip(opposite_of(element), backward_in_time(filming), source)
    apart = (forward[::-1] != backward).mean()
    assert apart < 0.002  # rounding of 1 - phase may move a subpixel
    assert (forward != backward).mean() > 0.05
    # Forward rotation is clockwise exactly when the figure faces right.
    for sign, faces_left in ((1, False), (-1, True)):
        filming = filming_of(5, frames=32, faces_left=faces_left)
        assert 230 < sign * screen_rotation(element, filming, source) < 400
        assert 230 < -sign * screen_rotation(opposite_of(element), filming, source) < 400


def test_phases_run_in_order_and_the_body_turns_less_than_half_between_samples():
    for seed in range(20):
        phase = filming_of(seed, frames=32).phase
        assert (np.diff(phase) > 0).all() and phase[0] > 0 and phase[-1] < 1
        for element in DEMO_CLASSES:
            pitch = motion_of(element, phase[2::4], Style()).pitch
            assert np.abs(pitch[2:] - pitch[:-2]).max() < 150, element.name


def test_every_joint_of_every_class_stays_in_the_frame():
    for element in ALL_CLASSES:
        for seed in range(2):
            filming = filming_of(seed, faces_left=seed % 2 == 1)
            at = joint_pixels(shoot(element, filming, make_source(0, seed, SIZE)), SIZE)
            assert (at >= 0).all() and (at <= SIZE).all(), element.name


def test_the_stretched_figure_measures_at_least_its_share_of_the_frame():
    element = next(e for e in DEMO_CLASSES if e.text == "salto forward stretched")
    for seed in range(10):
        at = joint_pixels(shoot(element, filming_of(seed), make_source(0, seed, SIZE)), SIZE)
        head_to_ankle = np.linalg.norm(at[:, HEAD] - at[:, ANKLES].mean(axis=1), axis=-1)
        assert head_to_ankle.max() > 0.42 * SIZE * 0.9  # the crown lies a head's radius above


def test_a_mirrored_performance_shows_the_other_side_from_the_same_place():
    element = next(e for e in ALL_CLASSES if e.text == "salto forward stretched with 1 twist")
    flat = {"habit": np.zeros(NUM_ANGLES), "yaw": 0.0, "elevation": 0.0}
    plain, mirrored = (
        joint_pixels(shoot(element, one, make_source(0, 0, SIZE)), SIZE)
        for side in (False, True)
        for one in [dataclasses.replace(filming_of(3), mirrored=side, **flat)]
    )
    other_side = [*range(4), *(joint + 1 - 2 * (joint % 2) for joint in range(4, 18))]
    np.testing.assert_allclose(mirrored[:, other_side], plain, atol=1e-6)
    assert np.abs(mirrored - plain).max() > 1


def test_shapes_can_be_told_apart_by_their_joints():
    phase = np.array([0.5])
    source = make_source(0, 0, SIZE)

    def reach(text):
        element = next(e for e in DEMO_CLASSES if e.text == text)
        filming = dataclasses.replace(filming_of(0, frames=1), phase=phase)
        at = joint_pixels(shoot(element, filming, source), SIZE)[0]
        return np.linalg.norm(at[NECK] - at[ANKLES].mean(axis=0)), at

    tucked, piked, stretched = (
        reach(f"salto forward {shape}")[0] for shape in ("tucked", "piked", "stretched")
    )
    assert stretched > 2 * max(tucked, piked)

    def hips_from_bar(text):
        at = reach(text)[1]
        return np.linalg.norm(at[PELVIS] - at[WRISTS].mean(axis=0))

    assert hips_from_bar("giant circle forward") > 3 * hips_from_bar(
        "clear hip circle forward to handstand"
    )


def test_the_apparatus_tells_the_event_and_nothing_beside_the_figure_the_class():
    filming, source = filming_of(4), make_source(0, 3, SIZE)
    bare, *others = (
        render_clip(element, filming, source, without="figure_and_apparatus")
        for element in ALL_CLASSES
    )
    assert all((frames == bare).all() for frames in others)
    for event in ("VT", "FX", "BB", "UB"):
        element = next(e for e in ALL_CLASSES if e.event == event)
        assert (render_clip(element, filming, source, without="figure") != bare).any()


def test_without_the_figure_only_its_surroundings_stay():
    element = DEMO_CLASSES[0]
    filming, source = filming_of(9), make_source(0, 5, SIZE)
    whole = render_clip(element, filming, source)
    empty = render_clip(element, filming, source, without="figure")
    at = joint_pixels(shoot(element, filming, source), SIZE)
    row, column = np.mgrid[:SIZE, :SIZE] + 0.5
    for frame in range(len(whole)):
        to_joints = [np.hypot(column - x, row - y) for x, y in at[frame].tolist()]
        nearest = np.min(to_joints, axis=0)
        changed = (whole[frame] != empty[frame]).any(axis=-1)
        assert changed.sum() > 40
        assert nearest[changed].max() < 0.2 * SIZE
