"""Gymnastic moves in words, for the text-only pretraining of the toy language model.

Moves are composed uniformly from factors (family, direction, shape, number of turns, ...), so
no class frequency of any data set is in them. The classes of the demo share every word with
them but are held out as whole texts: `HELD_OUT` never is an option or an answer here, and the
accuracy on `HELD_OUT` therefore tests the matching, not the memory.
"""

import random
from collections.abc import Sequence
from itertools import product

from sefar_mllm.prompt import STEM

STEMS = (
    STEM,
    "Which move does the athlete show?",
    "What is this element called?",
    "Which element is performed in the video?",
)

_DIRECTIONS = ("forward", "backward", "sideward")
_SHAPES = ("tucked", "piked", "stretched")
_NUMBERS = ("0.5", "1", "1.5", "2", "2.5", "3")
_TWISTS = ("", *(f"with {number} twist" for number in _NUMBERS))
_TURNS = ("", *(f"with {number} turn" for number in _NUMBERS))

# Each family is a list of factors; a move takes one value of each, "" for none.
FAMILIES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("salto", "double salto", "arabian salto", "gainer salto"), _DIRECTIONS, _SHAPES, _TWISTS),
    (
        ("giant circle", "clear hip circle", "stalder", "pike sole circle", "clear pike circle"),
        _DIRECTIONS[:2],
        _TURNS,
        ("", "to handstand"),
    ),
    (
        (
            *("switch leap", "split leap", "split jump", "stag jump", "wolf jump", "cat leap"),
            *("straddle pike jump", "ring jump", "sheep jump", "sissone", "johnson"),
        ),
        ("", "forward", "backward", "to ring position", "in side position"),
        _TURNS,
    ),
    (
        tuple(f"{number} turn" for number in _NUMBERS),
        ("on one leg", "in tuck stand", "with free leg held upward", "with heel forward"),
        ("", "to handstand", "in cross position"),
    ),
    (
        ("walkover", "aerial walkover", "aerial cartwheel", "handspring", "flic-flac", "kip"),
        _DIRECTIONS,
        ("", "with step-out", "to land on both feet", "to side stand", "to hang"),
    ),
    (
        ("round-off, flic-flac on,", "handspring on,", "tsukahara,", "yurchenko,"),
        tuple(f"{shape} salto" for shape in _SHAPES),
        _DIRECTIONS[:2],
        (*_TURNS, *_TWISTS[1:]),
        ("off", "off to stand"),
    ),
    (
        ("swing forward,", "swing backward,", "under-swing,", "counter swing,"),
        ("salto", "double salto", "straddle flight", "hecht"),
        _DIRECTIONS[:2],
        _SHAPES,
        ("to hang on high bar", "to hang on low bar", "over low bar"),
    ),
)

HELD_OUT = frozenset(
    [f"salto {way} {shape}" for way, shape in product(_DIRECTIONS[:2], _SHAPES)]
    + [f"double salto {way} {shape}" for way, shape in product(_DIRECTIONS[:2], _SHAPES)]
    + [
        f"{circle} {way}{end}"
        for circle, way, end in product(
            ("giant circle", "clear hip circle", "stalder"),
            _DIRECTIONS[:2],
            ("", " to handstand"),
        )
    ]
)


def draw_options(count: int, hard: float, rng: random.Random) -> list[str]:
    """`count` different moves, none held out.

    Args:
        count: number of options.
        hard: probability that the moves are near relatives that share most words; otherwise
            they come from any families.
        rng: source of every draw. The caller draws the answer among the options, so all of
            them are exchangeable and no option can be told without the description.
    """
    family = rng.choice(FAMILIES)
    seed = [rng.choice(values) for values in family]
    related = rng.random() < hard
    options: list[str] = []
    while len(options) < count:
        if related:
            words = _changed(seed, family, rng)
            seed = words if rng.random() < 0.3 else seed
        else:
            words = [rng.choice(values) for values in rng.choice(FAMILIES)]
        text = _text(words)
        if text not in options and text not in HELD_OUT:
            options.append(text)
    return options


def draw_words(count: int, length: int, vocabulary: Sequence[str], rng: random.Random) -> list[str]:
    """`count` different nonsense texts of `length` words: matching without any grammar."""
    texts: list[str] = []
    while len(texts) < count:
        text = " ".join(rng.choice(vocabulary) for _ in range(length))
        if text not in texts:
            texts.append(text)
    return texts


def held_out_options(count: int, rng: random.Random) -> list[str]:
    """`count` held-out texts that share at least a word: what the demo's hard set asks."""
    first = rng.choice(sorted(HELD_OUT))
    family = [text for text in sorted(HELD_OUT) if set(text.split()) & set(first.split())]
    return rng.sample(family, count)


def vocabulary() -> list[str]:
    """Every word of the grammar, sorted."""
    parts = [part for family in FAMILIES for values in family for part in values]
    return sorted({word for part in parts for word in part.split()})


def _changed(
    words: Sequence[str], family: Sequence[Sequence[str]], rng: random.Random
) -> list[str]:
    """The same move with one factor drawn anew."""
    place = rng.randrange(len(family))
    return [rng.choice(family[i]) if i == place else word for i, word in enumerate(words)]


def _text(words: Sequence[str]) -> str:
    return " ".join(word for word in words if word)
