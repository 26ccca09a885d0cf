"""Sets of options, shown such that each member is equally often the answer.

A block is a set of options that may be shown together. Let block B be shown in w_B questions for
each of its k members: then whoever sees the block and nothing else is right once in k. A member
gives no more questions than it has clips, so that the w of the blocks that hold it sum to its clips
at most. The largest share of the clips that can have a question at chance is thus the largest
k * sum(w) under these limits, a linear program. Clips beyond it are left over: with questions in
these blocks too, those who see the block would be right more often than once in k.

The program has many solutions. The one taken is the middle of them all (the analytic center of
the optimal face, where an interior-point method ends), so that a member meets as many others as
can be.

The rule `attribute` takes blocks that form a full grid of two attributes. In a grid of 2 by 2 each
option has one neighbor that differs in the one attribute, one that differs in the other, and one
that differs in both: no place is the middle, and each of the four could be the answer. (Options
that all differ from the answer in one thing would put the answer in their middle.) Grids are within
a set of FineGym's, its front and back saltos being one. They leave over clips of classes that are
in no grid, and of those that are commoner than their neighbors.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import combinations, product

import numpy as np

from qa_data.attributes import Attributes, attributes_of, family_of
from qa_data.taxonomy import ElementClass

CENTERING = 0.4  # share of the mean complementarity that a step aims at
STEP = 0.9  # share of the way to the boundary that a step may go
PRECISION = 1e-9  # duality gap, relative to the clips
MAX_ITERATIONS = 200
NEGLIGIBLE = 1e-6  # blocks with a smaller share of the questions are not shown
FULL = 1 - 1e-6  # a unit of which this share is asked about has no clips left over


@dataclass(frozen=True, kw_only=True)
class BlockDesign:
    """How often each block is shown, and to the clips of which member."""

    blocks: Sequence[tuple[int, ...]]
    """Members of each block, as positions of units."""
    weights: Sequence[float]
    """Questions in which a block is shown with one given member as the answer."""
    num_clips: Sequence[float]
    """Clips of each unit."""

    @property
    def asked(self) -> list[float]:
        """Clips of each unit that are asked about, as expected."""
        asked = [0.0] * len(self.num_clips)
        for block, weight in zip(self.blocks, self.weights, strict=True):
            for unit in block:
                asked[unit] += weight
        pairs = zip(asked, self.num_clips, strict=True)
        return [clips if one > FULL * clips else one for one, clips in pairs]

    def draw(self, unit: int, rng: random.Random) -> tuple[int, ...] | None:
        """A block for a clip of the unit, or none if the clip is left over."""
        holding = [place for place, block in enumerate(self.blocks) if unit in block]
        weights = [self.weights[place] for place in holding]
        left = self.num_clips[unit] - sum(weights)
        if left > (1 - FULL) * self.num_clips[unit]:
            holding, weights = [*holding, -1], [*weights, left]
        place = rng.choices(holding, weights)[0]
        return None if place < 0 else self.blocks[place]


def block_design(num_clips: Sequence[float], blocks: Sequence[tuple[int, ...]]) -> BlockDesign:
    """The design that asks about as many clips as can be.

    Blocks are positions of units, all of one size; one that holds a unit without clips is never
    shown.
    """
    possible = [block for block in blocks if all(num_clips[unit] > 0 for unit in block)]
    weights = _largest_packing(num_clips, possible) if possible else np.zeros(0)
    shown = weights > NEGLIGIBLE * weights.sum()
    return BlockDesign(
        blocks=[block for block, one in zip(possible, shown, strict=True) if one],
        weights=weights[shown].tolist(),
        num_clips=num_clips,
    )


def _largest_packing(num_clips: Sequence[float], blocks: Sequence[tuple[int, ...]]) -> np.ndarray:
    """The w >= 0 with the largest sum whose blocks take at most num_clips of each unit.

    A primal-dual interior-point method (Wright, Primal-Dual Interior-Point Methods, 1997,
    chapter 1). Its iterates stay strictly inside the limits, so that whatever it returns can be
    shown.
    """
    units = sorted({unit for block in blocks for unit in block})
    row_of = {unit: row for row, unit in enumerate(units)}
    holds = np.zeros((len(units), len(blocks)))
    for column, block in enumerate(blocks):
        holds[[row_of[unit] for unit in block], column] = 1
    limits = np.array([num_clips[unit] for unit in units], dtype=float)
    system = np.hstack([holds, np.eye(len(units))])  # blocks, then what is left of each unit
    cost = np.concatenate([-np.ones(len(blocks)), np.zeros(len(units))])
    start = np.full(len(blocks), 0.5 * (limits / holds.sum(1)).min())
    point = np.concatenate([start, limits - holds @ start])
    price = np.full(len(units), -2.0)
    reduced = cost - system.T @ price
    for _ in range(MAX_ITERATIONS):
        gap = point @ reduced
        if gap < PRECISION * limits.sum():
            return point[: len(blocks)]
        aim = (CENTERING * gap / len(point) - point * reduced) / reduced
        ratio = point / reduced
        price_step = _solve((system * ratio) @ system.T, -system @ aim)
        reduced_step = -system.T @ price_step
        point_step = aim - ratio * reduced_step
        point = point + _step_length(point, point_step) * point_step
        length = _step_length(reduced, reduced_step)
        price, reduced = price + length * price_step, reduced + length * reduced_step
    raise RuntimeError(f"no packing found for {len(blocks)} blocks in {MAX_ITERATIONS} iterations")


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solution of a symmetric system whose rows may differ by many orders of magnitude."""
    scale = 1 / np.sqrt(np.diag(matrix))
    scaled = matrix * scale * scale[:, None]
    return scale * np.linalg.lstsq(scaled, scale * right, rcond=None)[0]


def _step_length(at: np.ndarray, step: np.ndarray) -> float:
    down = step < 0
    return min(1.0, STEP * float((-at[down] / step[down]).min())) if down.any() else 1.0


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
        design = self.design
        return {
            label: share * (clips - asked)
            for labels, shares, asked, clips in zip(
                self.labels, self.shares, design.asked, design.num_clips, strict=True
            )
            for label, share in zip(labels, shares, strict=True)
        }


def family_designs(
    classes: Mapping[int, ElementClass], num_clips: Mapping[int, float], size: int
) -> dict[int, FamilyDesign]:
    """The grids of every family that has clips, by `family_of`.

    Classes without clips asked about (`num_clips`) are never an option; `size` counts the answer.
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
    """Blocks of `size` options, 2 or more, that form a full grid of two attributes, the others
    being equal.

    In a grid of r by c each option has c - 1 others that differ from it in one attribute, r - 1
    in the other, and the rest in both: no place is the middle. A prime number of options is in
    one row, all of them different in one attribute.

    Units with the same attributes are never in one block.

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
