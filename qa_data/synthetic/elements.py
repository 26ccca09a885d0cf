"""The classes: elements composed of FineGym's factors.

Apparatus, direction, body shape, twists and turns, circles, turns on one leg, jumps. An element
and its opposite share one motion: the backward one is the forward one played in reverse, so that
the rotation and the travel relative to where the figure faces change sign, and nothing else does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from qa_data.synthetic import shapes
from qa_data.synthetic.figure import Array
from qa_data.synthetic.motions import (
    Motion,
    Style,
    circle,
    handspring_over,
    jump,
    salto,
    turn_on_leg,
    walkover,
)
from qa_data.synthetic.scene import Event

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


@dataclass(frozen=True, kw_only=True)
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
        Element(
            event=event,
            set_id=set_id,
            text=text.format(direction),
            perform=perform,
            backward=direction == "backward",
        )
        for direction in ("forward", "backward")
    ]


_TUCKED, _PIKED, _STRETCHED = (
    partial(salto, shape=shape) for shape in (shapes.TUCKED, shapes.PIKED, shapes.STRETCHED)
)

_VAULT = [
    *_pair("VT", 1, "handspring {} on, tucked off", partial(handspring_over, shape=shapes.TUCKED)),
    *_pair("VT", 1, "handspring {} on, piked off", partial(handspring_over, shape=shapes.PIKED)),
    *_pair(
        "VT", 1, "handspring {} on, stretched off", partial(handspring_over, shape=shapes.STRETCHED)
    ),
    Element(
        event="VT",
        set_id=1,
        text="handspring forward on, stretched with 1 turn off",
        perform=partial(handspring_over, shape=shapes.STRETCHED, twist_span=(0.56, 0.93)),
    ),
    Element(
        event="VT",
        set_id=1,
        text="round-off, flic-flac on, stretched with 1 turn off",
        perform=partial(handspring_over, shape=shapes.STRETCHED, twist_span=(0.07, 0.44)),
        backward=True,
    ),
]

_FLOOR_SALTOS = [
    *_pair("FX", 24, "salto {} tucked", _TUCKED),
    *_pair("FX", 24, "salto {} piked", _PIKED),
    *_pair("FX", 24, "salto {} stretched", _STRETCHED),
]

_FLOOR = [
    *_FLOOR_SALTOS,
    *_pair(
        "FX",
        24,
        "salto {} stretched with 1 twist",
        partial(salto, shape=shapes.STRETCHED, twists=1),
    ),
    Element(
        event="FX",
        set_id=21,
        text="split jump",
        perform=partial(jump, shape=shapes.SPLIT),
    ),
    Element(
        event="FX",
        set_id=21,
        text="straddle pike jump",
        perform=partial(jump, shape=shapes.STRADDLE),
    ),
    Element(
        event="FX",
        set_id=22,
        text="1 turn on one leg, free leg optional below horizontal",
        perform=partial(turn_on_leg, turns=1),
    ),
]

_BEAM = [
    *_pair("BB", 33, "salto {} tucked", _TUCKED),
    *_pair("BB", 33, "salto {} piked", _PIKED),
    *_pair("BB", 34, "walkover {} with step-out", partial(walkover, shape=shapes.STRIDE)),
    Element(
        event="BB",
        set_id=31,
        text="split jump",
        perform=partial(jump, shape=shapes.SPLIT),
    ),
    Element(
        event="BB",
        set_id=31,
        text="wolf jump",
        perform=partial(jump, shape=shapes.WOLF),
    ),
    Element(
        event="BB",
        set_id=32,
        text="1 turn on one leg, free leg optional below horizontal",
        perform=partial(turn_on_leg, turns=1),
    ),
]

_CIRCLES = [
    *_pair("UB", 41, "giant circle {}", partial(circle, shape=shapes.HANDSTAND)),
    *_pair("UB", 41, "clear hip circle {} to handstand", partial(circle, shape=shapes.CLEAR_HIP)),
    *_pair("UB", 41, "stalder {} to handstand", partial(circle, shape=shapes.STALDER)),
]

_BARS = [
    *_CIRCLES,
    *_pair("UB", 41, "pike sole circle {} to handstand", partial(circle, shape=shapes.SOLE)),
    Element(
        event="UB",
        set_id=41,
        text="giant circle backward with 1 turn to handstand",
        perform=partial(circle, shape=shapes.HANDSTAND, turns=1),
        backward=True,
    ),
]

ALL_CLASSES: tuple[Element, ...] = (*_VAULT, *_FLOOR, *_BEAM, *_BARS)
"""Every class, in the order of FineGym's events."""

DEMO_CLASSES: tuple[Element, ...] = (*_FLOOR_SALTOS, *_CIRCLES)
"""Twelve classes in six pairs that differ in direction alone."""


def opposite_of(element: Element) -> Element | None:
    """The element that differs in direction alone, or None."""
    for other in ALL_CLASSES:
        same = other.event == element.event and other.perform is element.perform
        if same and other.backward != element.backward:
            return other
    return None


def random_style(rng: np.random.Generator) -> Style:
    """Height and travel of one performance."""
    return Style(height=rng.uniform(0.75, 1.25), travel=rng.uniform(0.6, 1.3))
