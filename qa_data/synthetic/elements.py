"""The classes: elements composed of FineGym's factors, and how they are performed.

Factors are apparatus, direction, body shape, twists and turns, circles, turns on one leg, jumps. An
element and its opposite share one motion: the backward one is the forward one played in reverse, so
that the rotation and the travel relative to where the figure faces change sign, and nothing else.

A motion gives joint angles, rotation and path of the body over the phase 0..1. Every motion is
written forward and is the same seen from its middle toward both ends, apart from its turns. Lengths
are in body heights, angles in degrees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from qa_data.synthetic import figure
from qa_data.synthetic.figure import HANDSTAND, LOOSE, PASSE, STANDING, Anchor, Array
from qa_data.synthetic.scene import TABLE_HEIGHT, Event

STANDING_HEIGHT = 0.56
"""Height of the center of mass over the soles, arms up."""
HANDSTAND_HEIGHT = 0.74
"""Height of the center of mass over the hands in a handstand."""

PhaseSpan = tuple[float, float]
"""First and last phase of a part of a motion."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """The body at each phase: angles (frame, NUM_ANGLES), the others (frame,) or (frame, 3)."""

    angles: Array
    pitch: Array
    """Rotation about the lateral axis; grows when the body rotates forward."""
    twist: Array | float = 0.0
    """Rotation about the long axis of the body."""
    turn: Array | float = 0.0
    """Rotation about the vertical."""
    position: Array
    """Where the anchor is: x forward, y left, z up."""
    anchor: Anchor = "mass"


@dataclass(frozen=True, kw_only=True)
class Style:
    """How large this athlete performs this time; 1 is the ordinary size."""

    height: float = 1.0
    travel: float = 1.0


def ramp(phase: Array, span: PhaseSpan) -> Array:
    """0 before the span, 1 after it, straight between."""
    start, end = span
    return np.clip((phase - start) / (end - start), 0, 1)


def through(phase: Array, *keys: tuple[float, Array]) -> Array:
    """Joint angles that pass through poses at given phases, at rest in each of them."""
    at, poses = [key[0] for key in keys], np.stack([key[1] for key in keys])
    index = np.clip(np.searchsorted(at, phase, side="right") - 1, 0, len(at) - 2)
    start, end = np.array(at)[index], np.array(at)[index + 1]
    share = np.clip((phase - start) / (end - start), 0, 1)[:, None]
    share = share * share * (3 - 2 * share)
    return (1 - share) * poses[index] + share * poses[index + 1]


def _path(phase: Array, x: Array | float, z: Array | float) -> Array:
    path = np.zeros((len(phase), 3))
    path[:, 0], path[:, 2] = x, z
    return path


def _flight(phase: Array, span: PhaseSpan) -> Array:
    """Height of a thrown body between take-off and landing, 1 at the top."""
    share = ramp(phase, span)
    return 4 * share * (1 - share)


def salto(phase: Array, style: Style, *, shape: Array, twists: float = 0) -> Motion:
    """Stand, one rotation forward in the air in the given shape, stand."""
    return Motion(
        angles=through(phase, (0, STANDING), (0.22, shape), (0.78, shape), (1, STANDING)),
        pitch=360 * ramp(phase, (0.06, 0.94)),
        twist=360 * twists * ramp(phase, (0.15, 0.85)),
        position=_path(
            phase,
            1.5 * style.travel * (ramp(phase, (0.03, 0.97)) - 0.5),
            STANDING_HEIGHT + 0.5 * style.height * _flight(phase, (0.03, 0.97)),
        ),
    )


def walkover(phase: Array, style: Style, *, shape: Array) -> Motion:
    """Low rotation forward with the legs apart, one foot after the other."""
    return Motion(
        angles=through(phase, (0, STANDING), (0.25, shape), (0.75, shape), (1, STANDING)),
        pitch=360 * ramp(phase, (0.04, 0.96)),
        position=_path(
            phase,
            1.2 * style.travel * (phase - 0.5),
            STANDING_HEIGHT + 0.12 * style.height * _flight(phase, (0.03, 0.97)),
        ),
    )


def handspring_over(
    phase: Array, style: Style, *, shape: Array, twist_span: PhaseSpan | None = None
) -> Motion:
    """Flight on, handstand on the table, flight off, in the given shape; one rotation in all."""
    flights = [(0.2, shape), (0.36, shape), (0.46, HANDSTAND), (0.54, HANDSTAND)]
    flights += [(0.64, shape), (0.8, shape)]
    top = TABLE_HEIGHT + HANDSTAND_HEIGHT - STANDING_HEIGHT
    return Motion(
        angles=through(phase, (0, STANDING), *flights, (1, STANDING)),
        pitch=360 * ramp(phase, (0.05, 0.95)),
        twist=0 if twist_span is None else 360 * ramp(phase, twist_span),
        position=_path(
            phase,
            2.2 * style.travel * (phase - 0.5),
            STANDING_HEIGHT + top * np.sin(np.pi * ramp(phase, (0.03, 0.97))),
        ),
    )


def circle(
    phase: Array, style: Style, *, shape: Array, turns: float = 0, turn_span: PhaseSpan = (0, 0.4)
) -> Motion:
    """From handstand on the bar once around it in the given shape, to handstand.

    The hands hold the bar, at height 0. `style` has no part in it: the bar sets the size.
    """
    del style
    return Motion(
        angles=through(phase, (0, HANDSTAND), (0.2, shape), (0.8, shape), (1, HANDSTAND)),
        pitch=200 + 320 * ramp(phase, (0.02, 0.98)),
        twist=360 * turns * ramp(phase, turn_span),
        position=_path(phase, 0, 0),
        anchor="hands",
    )


def jump(phase: Array, style: Style, *, shape: Array) -> Motion:
    """Up, the shape shown at the top, and down."""
    return Motion(
        angles=through(phase, (0.1, LOOSE), (0.38, shape), (0.62, shape), (0.9, LOOSE)),
        pitch=np.zeros_like(phase),
        position=_path(
            phase,
            0.5 * style.travel * (phase - 0.5),
            STANDING_HEIGHT + 0.4 * style.height * _flight(phase, (0.1, 0.9)),
        ),
    )


def turn_on_leg(phase: Array, style: Style, *, turns: float, shape: Array = PASSE) -> Motion:
    """Turns about the vertical on one leg, the free leg held in a shape."""
    return Motion(
        angles=through(phase, (0, LOOSE), (0.15, shape), (0.85, shape), (1, LOOSE)),
        pitch=np.zeros_like(phase),
        turn=360 * turns * ramp(phase, (0.06, 0.94)),
        position=_path(phase, 0.1 * style.travel * (phase - 0.5), STANDING_HEIGHT),
    )


SETS = {
    1: "vault",
    21: "FX_leap_jump_hop",
    22: "FX_turns",
    24: "FX_salto",
    31: "BB_leap_jump_hop",
    32: "BB_turns",
    33: "BB_flight_salto",
    34: "BB_flight_handspring",
    41: "UB_circles",
}
"""Set ids and names as FineGym writes them; its two sets of saltos on the floor are one here, so
that an element and its opposite are always in one set."""


@dataclass(frozen=True)
class Element:
    """One class."""

    event: Event
    set_id: int
    text: str
    """Class text in FineGym's words, without the apparatus."""
    perform: Callable[[Array, Style], Motion]
    backward: bool = False
    """Played in reverse."""

    @property
    def name(self) -> str:
        """Apparatus and text, unique among the elements."""
        return f"({self.event}) {self.text}"


def motion_of(element: Element, phase: Array, style: Style) -> Motion:
    """The element at phases in [0, 1], (frame,)."""
    return element.perform(1 - phase if element.backward else phase, style)


def _pair(event: Event, set_id: int, text: str, perform: Callable) -> list[Element]:
    """The forward and the backward element of one motion; `text` has {} for the direction."""
    return [
        Element(event, set_id, text.format(direction), perform, direction == "backward")
        for direction in ("forward", "backward")
    ]


_TUCKED, _PIKED, _STRETCHED = (
    partial(salto, shape=shape) for shape in (figure.TUCKED, figure.PIKED, figure.STRETCHED)
)
_OVER_STRETCHED = partial(handspring_over, shape=figure.STRETCHED)
_TWIST_OFF, _TWIST_ON = (
    partial(_OVER_STRETCHED, twist_span=span) for span in ((0.56, 0.93), (0.07, 0.44))
)
_ONE_TURN = "1 turn on one leg, free leg optional below horizontal"

_VAULT = [
    *_pair("VT", 1, "handspring {} on, tucked off", partial(handspring_over, shape=figure.TUCKED)),
    *_pair("VT", 1, "handspring {} on, piked off", partial(handspring_over, shape=figure.PIKED)),
    *_pair("VT", 1, "handspring {} on, stretched off", _OVER_STRETCHED),
    Element("VT", 1, "handspring forward on, stretched with 1 turn off", _TWIST_OFF),
    Element("VT", 1, "round-off, flic-flac on, stretched with 1 turn off", _TWIST_ON, True),
]

_FLOOR_SALTOS = [
    *_pair("FX", 24, "salto {} tucked", _TUCKED),
    *_pair("FX", 24, "salto {} piked", _PIKED),
    *_pair("FX", 24, "salto {} stretched", _STRETCHED),
]

_FLOOR = [
    *_FLOOR_SALTOS,
    *_pair("FX", 24, "salto {} stretched with 1 twist", partial(_STRETCHED, twists=1)),
    Element("FX", 21, "split jump", partial(jump, shape=figure.SPLIT)),
    Element("FX", 21, "straddle pike jump", partial(jump, shape=figure.STRADDLE)),
    Element("FX", 22, _ONE_TURN, partial(turn_on_leg, turns=1)),
]

_BEAM = [
    *_pair("BB", 33, "salto {} tucked", _TUCKED),
    *_pair("BB", 33, "salto {} piked", _PIKED),
    *_pair("BB", 34, "walkover {} with step-out", partial(walkover, shape=figure.STRIDE)),
    Element("BB", 31, "split jump", partial(jump, shape=figure.SPLIT)),
    Element("BB", 31, "wolf jump", partial(jump, shape=figure.WOLF)),
    Element("BB", 32, _ONE_TURN, partial(turn_on_leg, turns=1)),
]

_CIRCLES = [
    *_pair("UB", 41, "giant circle {}", partial(circle, shape=figure.HANDSTAND)),
    *_pair("UB", 41, "clear hip circle {} to handstand", partial(circle, shape=figure.CLEAR_HIP)),
    *_pair("UB", 41, "stalder {} to handstand", partial(circle, shape=figure.STALDER)),
]

_TURNED_GIANT = partial(circle, shape=figure.HANDSTAND, turns=1)
_BARS = [
    *_CIRCLES,
    *_pair("UB", 41, "pike sole circle {} to handstand", partial(circle, shape=figure.SOLE)),
    Element("UB", 41, "giant circle backward with 1 turn to handstand", _TURNED_GIANT, True),
]

ALL_CLASSES: tuple[Element, ...] = (*_VAULT, *_FLOOR, *_BEAM, *_BARS)
"""Every class, in the order of FineGym's events."""

DEMO_CLASSES: tuple[Element, ...] = (*_FLOOR_SALTOS, *_CIRCLES)
"""Twelve classes in six pairs that differ in direction alone."""


def random_style(rng: np.random.Generator) -> Style:
    """Height and travel of one performance."""
    return Style(height=rng.uniform(0.75, 1.25), travel=rng.uniform(0.6, 1.3))
