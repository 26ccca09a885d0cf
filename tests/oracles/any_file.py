"""Files that anybody may give: noise, good files with something changed, other values in them."""

import json
import pickle
import re
from collections.abc import Iterator

from hypothesis import strategies as st

ODD = [
    *("", "0", "-1", "1.5", "nan", "1e999", "1_0", "..", "../x", '"', "٣", "\0", "a\rb"),
    "9" * 5000,
]
WORDS = st.sampled_from(ODD) | st.text(max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.just(10**400),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(WORDS, parts, max_size=3),
    max_leaves=6,
)


def encoded(name: str, value: object) -> bytes:
    """The bytes of a file: texts as they are, other values as JSON, or pickled by the name."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return pickle.dumps(value) if name.endswith(".pkl") else json.dumps(value).encode()


@st.composite
def contents(draw, name: str, good: object) -> bytes:
    """What a file of this name may hold in place of its good content, a text or a tree of values.

    Noise; the good bytes with some changed; lines of the text mixed with others, or some of its
    words replaced; one part of the tree, or the whole of it, replaced.
    """
    kind = draw(st.sampled_from(["noise", "bytes", "parts", "parts"]))
    if kind == "noise":
        return draw(st.binary(max_size=60))
    if kind == "bytes":
        raw = bytearray(encoded(name, good))
        changes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1)
        for place, byte in draw(changes):
            raw[place % len(raw)] = byte
        return bytes(raw)
    if not isinstance(good, str):
        place = draw(st.sampled_from(list(_places(good))))
        return encoded(name, _changed(good, place, draw(VALUES)))
    if draw(st.booleans()):
        lines = st.sampled_from(good.splitlines()) | WORDS
        return "\n".join(draw(st.lists(lines, max_size=5))).encode()
    parts = re.split(r"([\s,;]+)", good)
    for place, word in draw(st.dictionaries(st.integers(0, len(parts) - 1), WORDS)).items():
        parts[place] = word
    return "".join(parts).encode()


def _places(tree: object) -> Iterator[tuple]:
    """The way to every part of a tree of lists and dictionaries, the whole first."""
    yield ()
    parts: dict = tree if isinstance(tree, dict) else {}
    for key, part in enumerate(tree) if isinstance(tree, list) else parts.items():
        yield from ((key, *rest) for rest in _places(part))


def _changed(tree, place: tuple, value: object):
    """A copy of the tree with another value at a place."""
    if not place:
        return value
    key, *rest = place
    copied = tree.copy()
    copied[key] = _changed(tree[key], tuple(rest), value)
    return copied
