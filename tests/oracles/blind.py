"""The blind audit's classifier and nearness, slowly: loops and gradient ascent."""

import math
import re

FOLDS = 5


def words(text):
    return set(re.findall(r"[\w]+(?:[.\-][\w]+)*", text.lower()))


def overlap(one, other):
    """Words shared over all words."""
    return len(words(one) & words(other)) / len(words(one) | words(other))


def mean_overlap(options, place):
    others = [text for i, text in enumerate(options) if i != place]
    return sum(overlap(options[place], text) for text in others) / len(others)


def deviation(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def features(options, place, train, *, fold=None):
    """Features of an option by name; counts skip the training questions of the fold."""
    printed = [text for others, _ in train for text in others]
    vocabulary = {word for text in printed for word in words(text)}
    mine = words(options[place])
    others = [words(text) for i, text in enumerate(options) if i != place]
    found = {}
    for word in vocabulary:
        share = sum(word in other for other in others) / len(others)
        found["has", word] = float(word in mine)
        found["shares", word] = share if word in mine else 0.0
        found["lacks", word] = 0.0 if word in mine else share
    counted = [one for i, one in enumerate(train) if fold is None or i % FOLDS != fold]
    right = sum(others[answer] == options[place] for others, answer in counted)
    shown = sum(list(others).count(options[place]) for others, _ in counted)
    found["characters"] = len(options[place]) / deviation([len(text) for text in printed])
    found["words"] = len(mine) / deviation([len(words(text)) for text in printed])
    found["right"] = math.log(1 + right)
    found["wrong"] = math.log(1 + shown - right)
    found["overlap"] = mean_overlap(options, place)
    return found


def learned_scores(train, asked, *, steps=1500, rate=0.1):
    """Scores of the asked options after gradient ascent on likelihood and unit normal prior.

    Args:
        train: (options, answer) of each question.
        asked: options of each question.
        steps: of the ascent.
        rate: its step size.
    """
    rows = [
        [features(options, place, train, fold=i % FOLDS) for place in range(len(options))]
        for i, (options, _) in enumerate(train)
    ]
    weights = dict.fromkeys(rows[0][0], 0.0)
    for _ in range(steps):
        slope = {name: -weight for name, weight in weights.items()}
        for found, (_, answer) in zip(rows, train, strict=True):
            odds = [math.exp(score(weights, one)) for one in found]
            for place, one in enumerate(found):
                push = (place == answer) - odds[place] / sum(odds)
                for name, value in one.items():
                    slope[name] += push * value
        weights = {name: weight + rate * slope[name] for name, weight in weights.items()}
    return [
        [score(weights, features(options, place, train)) for place in range(len(options))]
        for options in asked
    ]


def score(weights, found):
    return sum(weights[name] * value for name, value in found.items())
