"""A source video: one athlete in one arena, with apparatus in colors of their own."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qa_data.synthetic.drawing import Appearance, Picture, random_appearance
from qa_data.synthetic.scene import EVENTS, Event, Face, apparatus_faces, draw_arena

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
