"""The options of many questions as arrays, for rules that read the texts alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from qa_data.question import Question


@dataclass(frozen=True, kw_only=True)
class OptionTable:
    """One row a question, one column a letter."""

    texts: Sequence[str]
    """The different texts that are printed, in the order of their first appearance."""
    printed: np.ndarray
    """Position in `texts` of what stands at each letter; -1 where a question has fewer options."""
    answer: np.ndarray
    """Column of the right option."""
    stems: np.ndarray
    """Number of each question's stem; equal stems have equal numbers."""

    @property
    def present(self) -> np.ndarray:
        """Whether the question has the option."""
        return self.printed >= 0

    @property
    def right(self) -> np.ndarray:
        """Position in `texts` of each right option."""
        return self.printed[np.arange(len(self.answer)), self.answer]


def option_tables(*sets: Sequence[Question]) -> list[OptionTable]:
    """A table for each set of questions; texts and stems are numbered through all of them."""
    position: dict[str, int] = {}
    number: dict[str, int] = {}
    arrays = []
    for questions in sets:
        widest = max(len(question.options) for question in questions)
        printed = np.full((len(questions), widest), -1)
        for row, question in enumerate(questions):
            for column, text in enumerate(question.options):
                printed[row, column] = position.setdefault(text, len(position))
        stems = np.array([number.setdefault(one.stem, len(number)) for one in questions])
        arrays.append((printed, np.array([one.answer for one in questions]), stems))
    texts = list(position)
    return [
        OptionTable(texts=texts, printed=printed, answer=answer, stems=stems)
        for printed, answer, stems in arrays
    ]


def nearness_to_others(shown: np.ndarray, nearness: Callable[[int, int], float]) -> np.ndarray:
    """Mean nearness of each option to the other options of its question.

    Args:
        shown: what stands at each letter (row a question, column a letter), -1 for no option.
        nearness: of two such numbers, symmetric; asked once for each pair that meets.

    Returns:
        An array like `shown`; 0 where there is no option, or no other.
    """
    pairs = list(combinations(range(shown.shape[1]), 2))
    meetings = [np.flatnonzero((shown[:, pair] >= 0).all(axis=1)) for pair in map(list, pairs)]
    row = np.concatenate(meetings)
    one, other = np.repeat(pairs, [len(rows) for rows in meetings], axis=0).T
    width = int(shown.max()) + 1
    low = np.minimum(shown[row, one], shown[row, other])
    high = np.maximum(shown[row, one], shown[row, other])
    met, place = np.unique(low * width + high, return_inverse=True)
    near = np.array([nearness(*divmod(pair, width)) for pair in met.tolist()])[place]
    total = np.zeros(shown.shape)
    np.add.at(total, (row, one), near)
    np.add.at(total, (row, other), near)
    others = (shown >= 0).sum(axis=1, keepdims=True) - 1
    return np.where(shown >= 0, total / np.maximum(others, 1), 0)
