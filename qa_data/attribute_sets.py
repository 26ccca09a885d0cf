"""The rule `attribute`: options that form a full grid of two attributes.

In a grid of 2 by 2 each option has one neighbor that differs in the one attribute, one that
differs in the other, and one that differs in both: no place is the middle, and each of the four
could be the answer. (Options that all differ from the answer in one thing would put the answer
in their middle.) Grids lie within a set of FineGym's, its front and back saltos being one.

How often each grid is shown to the clips of each class is a `BlockDesign`: whoever sees the
options alone is right once in k. It leaves clips over, of classes that stand in no grid and of
those that are commoner than their neighbors.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import combinations, product

from qa_data.attributes import Attributes, attributes_of, family_of
from qa_data.block_design import BlockDesign, block_design
from qa_data.taxonomy import ElementClass


@dataclass(frozen=True, kw_only=True)
class FamilyDesign:
    """The grids of one family of sets."""

    labels: Sequence[Sequence[int]]
    """Classes of each text; classes that read alike are one text."""
    shares: Sequence[Sequence[float]]
    """Share of each of these classes in the clips of the text."""
    design: BlockDesign
    """Its units are the texts."""

    def others(self, answer: int, rng: random.Random) -> list[int] | None:
        """Classes of the other options of a grid that holds the class `answer`, or none."""
        right = next(text for text, labels in enumerate(self.labels) if answer in labels)
        block = self.design.draw(right, rng)
        if block is None:
            return None
        return [
            rng.choices(self.labels[text], self.shares[text])[0] for text in block if text != right
        ]

    def left_over(self) -> dict[int, float]:
        """Clips of each class that are in no grid, as expected."""
        left = {}
        for text, (asked, clips) in enumerate(
            zip(self.design.asked, self.design.num_clips, strict=True)
        ):
            for label, share in zip(self.labels[text], self.shares[text], strict=True):
                left[label] = share * (clips - asked)
        return left


def family_designs(
    classes: Mapping[int, ElementClass], num_clips: Mapping[int, float], size: int
) -> dict[int, FamilyDesign]:
    """The grids of every family that has clips, by `family_of`.

    Args:
        classes: the class list.
        num_clips: clips asked about by class; classes without any are never an option.
        size: options of a question, the answer among them.
    """
    members: dict[int, dict[str, list[int]]] = defaultdict(dict)
    for label in sorted(label for label, clips in num_clips.items() if clips):
        texts = members[family_of(classes[label])]
        texts.setdefault(classes[label].text, []).append(label)
    designs = {}
    for family, texts in sorted(members.items()):
        labels = list(texts.values())
        clips = [sum(num_clips[label] for label in one) for one in labels]
        attributes = [attributes_of(classes[one[0]]) for one in labels]
        designs[family] = FamilyDesign(
            labels=labels,
            shares=[
                [num_clips[label] / total for label in one]
                for one, total in zip(labels, clips, strict=True)
            ],
            design=block_design(clips, grids(attributes, size)),
        )
    return designs


def grids(attributes: Sequence[Attributes], size: int) -> list[tuple[int, ...]]:
    """Blocks of `size` options that form a full grid of two attributes, the others being equal.

    In a grid of r by c each option has c - 1 others that differ from it in one attribute, r - 1
    in the other, and the rest in both: no place is the middle. A prime number of options lies in
    one row, all of them different in one attribute.

    Args:
        attributes: of the units. Units with the same attributes never stand in one block.
        size: options of a block, at least 2.

    Returns:
        Positions of units, ascending within a block; each block once.
    """
    shapes = [(r, size // r) for r in range(2, size) if size % r == 0 and r <= size // r]
    found = set()
    for plane in _planes(attributes):
        for rows, columns in shapes or [(1, size)]:
            for turned in (plane, {(b, a): units for (a, b), units in plane.items()}):
                found.update(_grids_of(turned, rows, columns))
    return sorted(found)


def _planes(
    attributes: Sequence[Attributes],
) -> list[Mapping[tuple[object, object], list[int]]]:
    """For each two attributes and each value of the others: units by the values of the two."""
    values = [astuple(one) for one in attributes]
    planes: list[Mapping[tuple[object, object], list[int]]] = []
    for first, second in combinations(range(len(fields(Attributes))), 2):
        by_rest: dict[tuple, dict[tuple[object, object], list[int]]] = defaultdict(dict)
        for unit, value in enumerate(values):
            rest = tuple(one for place, one in enumerate(value) if place not in (first, second))
            by_rest[rest].setdefault((value[first], value[second]), []).append(unit)
        planes += by_rest.values()
    return planes


def _grids_of(
    plane: Mapping[tuple[object, object], list[int]], rows: int, columns: int
) -> set[tuple[int, ...]]:
    by_row: dict[object, set[object]] = defaultdict(set)
    for row, column in plane:
        by_row[row].add(column)
    found: set[tuple[int, ...]] = set()
    for chosen in combinations(by_row, rows):
        shared = sorted(set.intersection(*(by_row[row] for row in chosen)), key=str)
        for across in combinations(shared, columns):
            cells = (plane[row, column] for row in chosen for column in across)
            found.update(tuple(sorted(units)) for units in product(*cells))
    return found
