"""The formulas of SeFAR in slow plain Python. Imports nothing of the package."""

import math
import statistics


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def adaptive_weight(confidence: float, spread: float) -> float:
    certain = 2 * sigmoid(math.exp(confidence) - math.e)
    steady = math.tanh(1 / (2 * (20 * spread + 1e-9)))
    return certain * steady


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(x - max(logits)) for x in logits]
    return [power / sum(powers) for power in powers]


def cross_entropy(logits: list[float], label: int) -> float:
    return -math.log(softmax(logits)[label])


def pseudo_label(passes: list[list[float]]) -> tuple[list[float], int, float, float]:
    """Mean probabilities, winner, its mean and its unbiased deviation over the passes."""
    mean = [statistics.fmean(column) for column in zip(*passes, strict=True)]
    label = max(range(len(mean)), key=mean.__getitem__)
    return mean, label, mean[label], statistics.stdev(row[label] for row in passes)


def mix_loss_on_logits(logits, probs, trust) -> float:
    per_clip = [
        t * statistics.fmean((z - p) ** 2 for z, p in zip(row, target, strict=True))
        for row, target, t in zip(logits, probs, trust, strict=True)
    ]
    return statistics.fmean(per_clip)


def mix_loss_on_probs(logits, probs, trust) -> float:
    per_clip = [
        t * sum((q - p) ** 2 for q, p in zip(softmax(row), target, strict=True))
        for row, target, t in zip(logits, probs, trust, strict=True)
    ]
    return statistics.fmean(per_clip)


def tube_mix(own, partner, keep, patch):
    """Frames as nested lists [frame][y][x]; the mask says by patch whose pixel it is."""
    return [
        [
            [
                own[t][y][x] if keep[y // patch][x // patch] else partner[t][y][x]
                for x in range(len(row))
            ]
            for y, row in enumerate(frame)
        ]
        for t, frame in enumerate(own)
    ]
