"""Slow, plain counterparts of qa_data's arithmetic: every subset is visited."""

from itertools import combinations
from math import prod


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
