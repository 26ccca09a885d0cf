"""Slow statistics of right and wrong answers, in plain Python: lists, loops, no arrays."""

import itertools
import math
import random
from collections.abc import Sequence


def bootstrap_means(
    rows: Sequence[tuple[float, str, int]], times: Sequence[Sequence[float]]
) -> list[tuple[float, float]]:
    """Micro and macro mean of each resample, built by writing the drawn questions out.

    Args:
        rows: value, source and class of each question.
        times: of each resample, how often it drew each source, sources in alphabetical order.
    """
    sources = sorted({source for _, source, _ in rows})
    found = []
    for resample in times:
        drawn = [
            (value, label)
            for source, count in zip(sources, resample, strict=True)
            for _ in range(int(count))
            for value, own, label in rows
            if own == source
        ]
        found.append((average([value for value, _ in drawn]), class_average(drawn)))
    return found


def average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def class_average(rows: Sequence[tuple[float, int]]) -> float:
    """Mean over the classes that are there of the mean within the class."""
    classes = {label for _, label in rows}
    return average([average([v for v, label in rows if label == one]) for one in classes])


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the order statistics."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def sign_test(first: int, second: int) -> float:
    """Share of all ways to hand out the discordant questions that are as uneven as this one."""
    count = first + second
    uneven = abs(first - second)
    ways = itertools.product((0, 1), repeat=count)
    return sum(abs(count - 2 * sum(way)) >= uneven for way in ways) / 2**count


def calibration_error(confidence: Sequence[float], right: Sequence[bool], bins: int) -> float:
    """Expected calibration error, bins of equal width, closed on the right."""
    total = 0.0
    for number in range(bins):
        inside = [
            (c, r)
            for c, r in zip(confidence, right, strict=True)
            if number / bins < c <= (number + 1) / bins
        ]
        if inside:
            accuracy = sum(r for _, r in inside) / len(inside)
            total += len(inside) * abs(accuracy - average([c for c, _ in inside]))
    return total / len(confidence)


def trained_twice(
    num_seeds: int, num_sources: int, *, rng: random.Random, seed_spread: float, gain: float
) -> tuple[list[list[list[float]]], list[str]]:
    """Answers of two models, several seeds each, on questions of videos that differ in difficulty.

    Returns:
        Of each model and seed, 1.0 or 0.0 a question; and the source of each question. The second
        model's chance to be right is 0.5 and the first one's 0.5 + gain, on the average.
    """
    ease = [rng.uniform(-0.2, 0.2) for _ in range(num_sources)]
    sizes = [rng.randint(5, 25) for _ in range(num_sources)]
    sources = [f"s{i}" for i, size in enumerate(sizes) for _ in range(size)]
    models = []
    for better in (gain, 0.0):
        runs = []
        for _ in range(num_seeds):
            luck = rng.uniform(-seed_spread, seed_spread)
            chance = [0.5 + better + luck + own for own in ease]
            runs.append([float(rng.random() < chance[int(s[1:])]) for s in sources])
        models.append(runs)
    return models, sources
