"""Rules that answer without looking: a score for every option, the highest is the answer.

Blind rules read the texts alone. Oracles are told one coarse fact about the clip besides.
"""

from collections.abc import Callable, Mapping, Sequence
from os.path import commonprefix

import numpy as np

from qa_data.option_table import OptionTable, nearness_to_others
from qa_data.option_words import classifier_scores, counts, word_nearness
from qa_data.question import LETTERS, Question
from qa_data.taxonomy import ElementClass


def blind_scores(train: OptionTable, asked: OptionTable) -> dict[str, np.ndarray]:
    """Scores of the asked questions' options by the name of the rule.

    A rule that learns, learns from `train`. Its inversion takes the option that it likes least.
    """
    characters = np.array([len(text) for text in asked.texts])[asked.printed]
    right, wrong = counts(train)
    ratio = np.log((right + 1) / (wrong + 1))[asked.printed]
    near = word_nearness(asked)
    learned = classifier_scores(train, asked, near)
    scores = {"chance": np.zeros(asked.printed.shape)}
    for column, letter in enumerate(LETTERS[: asked.printed.shape[1]]):
        scores[f"always {letter}"] = np.zeros(asked.printed.shape)
        scores[f"always {letter}"][:, column] = 1
    scores |= {
        "longest option": characters,
        "shortest option": -characters,
        "commonest answer": right[asked.printed],
        "rarest answer": -right[asked.printed],
        "naive Bayes": ratio,
        "naive Bayes inverted": -ratio,
        "bag of words": learned,
        "bag of words inverted": -learned,
        "words nearest the others": near,
        "words farthest from the others": -near,
    }
    if len(np.unique(train.stems)) > 1:
        scores |= _stem_scores(train, asked)
    return scores


def code_scores(
    questions: Sequence[Question],
    classes: Mapping[int, ElementClass],
    codes: Mapping[int, str],
) -> dict[str, np.ndarray]:
    """Scores by the place of the options in FineGym's attribute tree.

    Two classes are the nearer, the more questions of their set's tree they answer alike before
    they part; classes of two sets have nothing in common.

    Args:
        questions: all with the classes of their options.
        classes: of all options.
        codes: answers to the questions of the tree by class, one character each (BTcode).
    """
    widest = max(len(question.options) for question in questions)
    shown = np.array(
        [[*(one.option_labels or ()), *[-1] * (widest - len(one.options))] for one in questions]
    )

    def nearness(one: int, other: int) -> float:
        if classes[one].set_id != classes[other].set_id:
            return 0
        return 1 + len(commonprefix([codes[one], codes[other]]))

    near = nearness_to_others(shown, nearness)
    return {"code nearest the others": near, "code farthest from the others": -near}


def oracle_scores(
    train: OptionTable,
    asked: OptionTable,
    labels: Sequence[int],
    classes: Mapping[int, ElementClass],
) -> dict[str, np.ndarray]:
    """Scores of someone who knows the clip's apparatus, or its set, and not the element.

    A class list that names one apparatus or one set alone, or none, tells nothing by it: there
    are no rows of that name.

    Args:
        train: where the commonest answers are counted.
        asked: the questions.
        labels: the class of each question's clip.
        classes: the class list.
    """
    right, _ = counts(train)
    scores = {}
    for name, key in (("apparatus", _event), ("set", _set)):
        if len({key(element) for element in classes.values()}) == 1:
            continue
        fits = _fits(asked, labels, classes, key)
        scores[f"{name} known"] = fits
        scores[f"{name} known, commonest answer"] = fits * (right.max() + 1) + right[asked.printed]
    return scores


def _event(element: ElementClass) -> object:
    return element.event


def _set(element: ElementClass) -> object:
    return element.set_id


def _fits(
    asked: OptionTable,
    labels: Sequence[int],
    classes: Mapping[int, ElementClass],
    key: Callable[[ElementClass], object],
) -> np.ndarray:
    """Whether some class of the clip's group reads as the option."""
    number = {
        group: i for i, group in enumerate(sorted({key(o) for o in classes.values()}, key=str))
    }
    position = {text: i for i, text in enumerate(asked.texts)}
    reads = np.zeros((len(number), len(position)), dtype=int)
    for element in classes.values():
        if element.text in position:
            reads[number[key(element)], position[element.text]] = 1
    group = np.array([number[key(classes[label])] for label in labels])
    return reads[group[:, None], asked.printed]


def _stem_scores(train: OptionTable, asked: OptionTable) -> dict[str, np.ndarray]:
    """Counts apart for each stem, where there are several."""
    right = np.zeros((max(train.stems.max(), asked.stems.max()) + 1, len(train.texts)))
    np.add.at(right, (train.stems, train.right), 1)
    likely = right[asked.stems[:, None], asked.printed]
    return {"commonest answer to the stem": likely, "rarest answer to the stem": -likely}
