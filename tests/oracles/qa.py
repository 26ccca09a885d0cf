"""Slow, plain counterparts of qa_data's arithmetic: every subset is visited."""

from itertools import combinations
from math import prod

import numpy as np


def set_probabilities(weights, size):
    """Probability of each set of `size` positions, proportional to the product of its weights."""
    mass = {
        members: prod(weights[one] for one in members)
        for members in combinations(range(len(weights)), size)
    }
    total = sum(mass.values())
    return {members: one / total for members, one in mass.items()}


def inclusions(weights, size):
    """Probability of each position to be in a set."""
    probabilities = set_probabilities(weights, size)
    return [
        sum(one for members, one in probabilities.items() if position in members)
        for position in range(len(weights))
    ]


def sets_beside(weights, size, member):
    """Probability of each set, given that it holds `member`."""
    probabilities = set_probabilities(weights, size)
    holding = {members: one for members, one in probabilities.items() if member in members}
    total = sum(holding.values())
    return {members: one / total for members, one in holding.items()}


def answer_given_set(shares, weights, size):
    """P(answer | set) for every set and member, when answers follow `shares`."""
    joint = {}
    for answer, share in enumerate(shares):
        for members, one in sets_beside(weights, size, answer).items():
            joint.setdefault(members, {})[answer] = share * one
    return {
        members: {answer: one / sum(by_answer.values()) for answer, one in by_answer.items()}
        for members, by_answer in joint.items()
    }


def two_by_two(attributes):
    """Every four positions whose attributes (tuples) differ as the corners of a grid do.

    Each of the four has one other that differs from it in one place, one in another place, and one
    in both places and no more; the two places are the same for all.
    """
    found = []
    for four in combinations(range(len(attributes)), 4):
        seen = []
        for one in four:
            differences = sorted(
                tuple(
                    place
                    for place, (mine, its) in enumerate(
                        zip(attributes[one], attributes[other], strict=True)
                    )
                    if mine != its
                )
                for other in four
                if other != one
            )
            seen.append(differences)
        places = sorted({place for differences in seen for one in differences for place in one})
        if len(places) == 2:
            first, second = places
            corner = sorted([(first,), (second,), (first, second)])
            if all(differences == corner for differences in seen):
                found.append(four)
    return found


def largest_packing(num_clips, blocks):
    """Largest sum of block weights under the limits: the best corner of all corners.

    A corner is where as many limits as there are blocks hold with equality, a limit being a
    member's clips or a weight of zero.
    """
    holds = [[float(unit in block) for block in blocks] for unit in range(len(num_clips))]
    limits = np.vstack([holds, -np.eye(len(blocks))])
    most = np.array([*num_clips, *[0] * len(blocks)], dtype=float)
    best = 0.0
    for tight in map(list, combinations(range(len(most)), len(blocks))):
        if abs(np.linalg.det(limits[tight])) > 1e-9:
            corner = np.linalg.solve(limits[tight], most[tight])
            if (limits @ corner <= most + 1e-6).all():
                best = max(best, float(corner.sum()))
    return best
