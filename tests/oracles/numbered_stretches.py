"""Random stretches of numbered videos, and whether a reader gives the pictures that are shown."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sefar_core.data.video import VideoReadError, read_clip
from tests.oracles.numbered_cases import Case
from tests.oracles.numbered_videos import RATE, UnreadableNumber, read_numbers

SHORTEST_S = 1e-3
FRACTIONS = 4
"""Moments that are read of a stretch, beside its first."""


class Stretch(NamedTuple):
    """Where a clip starts and ends, seconds, and the fractions of its length that are read."""

    start_s: float
    end_s: float
    fractions: list[float]


class Outcome(NamedTuple):
    """What reading a stretch gives, and in words what is not right about it."""

    verdict: Literal["right", "wrong", "refused"]
    words: str = ""


def stretches(case: Case, count: int, *, seed: int = 0) -> list[Stretch]:
    """The first `count` of a file's random stretches.

    Half of the bounds are the very moment of a picture, as in lists that were made from frame
    numbers, unless the container rounds times. What is shown at a bound or at a fraction is never
    in doubt.
    """
    generator = np.random.default_rng([seed, *case.name.encode()])

    def drawn():
        while True:
            start_s, end_s = _bound(case, generator), _bound(case, generator)
            if end_s >= start_s + SHORTEST_S and case.is_sure(start_s) and case.is_sure(end_s):
                places = [0.0, *generator.random(FRACTIONS).tolist()]
                moments = [start_s + place * (end_s - start_s) for place in places]
                sure = [p for p, m in zip(places, moments, strict=True) if case.is_sure(m)]
                yield Stretch(start_s, end_s, sure)

    return list(islice(drawn(), count))


def _bound(case: Case, generator: np.random.Generator) -> float:
    # The last picture is shown for a while, however long.
    end_s = (case.end_s or case.times_s[-1] + 1 / RATE / 8) - case.slack_s
    if not case.slack_s and generator.random() < 0.5:
        return float(generator.choice([*case.times_s, end_s]))
    return float(generator.uniform(case.times_s[0], end_s))


def clip_outcome(case: Case, path: Path, stretch: Stretch) -> Outcome:
    """Whether all pictures of a stretch are those that are shown in it, in order."""
    start_s, end_s, _ = stretch
    begun = np.searchsorted(case.times_s, start_s + 1e-6, side="right") - 1
    ended = np.searchsorted(case.times_s, end_s - 1e-6, side="left")
    expected = list(case.numbers[max(begun, 0) : ended])

    def read():
        return read_clip(path, start_s=start_s, end_s=end_s)[0]

    return outcome(expected, read, f"{start_s} s to {end_s} s")


def fractions_outcome(case: Case, path: Path, stretch: Stretch, read: Callable) -> Outcome:
    """Whether the pictures at fractions of a stretch are those that are shown, by a reader such as
    `video.read_fractions`.
    """
    start_s, end_s, fractions = stretch
    expected = [case.expected_at(start_s + place * (end_s - start_s)) for place in fractions]

    def pictures():
        return read(path, fractions, start_s=start_s, end_s=end_s)

    return outcome(expected, pictures, f"{fractions} of {start_s} s to {end_s} s")


def outcome(expected: list[int], read: Callable, what: str) -> Outcome:
    """Whether the pictures that are read bear the expected numbers."""
    try:
        found = read_numbers(read())
    except VideoReadError as refused:
        return Outcome("refused", f"{what}: {refused}")
    except UnreadableNumber as cause:
        return Outcome("wrong", f"{what}: {cause}")
    if found == expected:
        return Outcome("right")
    return Outcome("wrong", f"{what}: {found} in place of {expected}")
