"""What the words of an option say beside those of the other options, as a classifier sees it.

The classifier of the blind audit reads (option, other options): the option's words, which of them
the others share, which of theirs it lacks, its length, its likeness to the others, and how often
its text was asked about. It is a conditional logit and learns from the training questions alone.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from qa_data.conditional_logit import fit
from qa_data.option_table import OptionTable, nearness_to_others

WORD = re.compile(r"\w+(?:[.\-]\w+)*")  # 1.5, flic-flac and round-off are one word each
MAX_WORDS = 300  # the commonest in the training questions
MAX_OPTIONS = 16_000  # of the questions to learn from, which are taken evenly
FOLDS = 5  # an option's frequency is counted in the questions of the other folds
CHUNK = 4000  # options whose features are in memory at once


def words(text: str) -> frozenset[str]:
    """The different words of a text, in lower case."""
    return frozenset(WORD.findall(text.lower()))


def word_nearness(table: OptionTable) -> np.ndarray:
    """Mean overlap of each option's words with those of the others: shared over all, in [0, 1]."""
    of_text = [words(text) for text in table.texts]

    def overlap(one: int, other: int) -> float:
        together = of_text[one] | of_text[other]
        return len(of_text[one] & of_text[other]) / max(len(together), 1)

    return nearness_to_others(table.printed, overlap)


def counts(table: OptionTable) -> tuple[np.ndarray, np.ndarray]:
    """How often each text is the right option, and how often it is a wrong one."""
    size = len(table.texts)
    right = np.bincount(table.right, minlength=size)
    printed = np.bincount(table.printed[table.present], minlength=size)
    return right, printed - right


def classifier_scores(train: OptionTable, asked: OptionTable, near: np.ndarray) -> np.ndarray:
    """Score of each option of the asked questions (row a question, column a letter).

    Args:
        train: what it learns from.
        asked: the questions.
        near: their `word_nearness`.
    """
    train = _some_rows(train)
    reader = _reader(train)
    known = reader.features(train.printed, _counts_of_other_folds(train), word_nearness(train))
    weights = fit(known, train.present, train.answer)
    frequency = np.stack(counts(train))[:, asked.printed]
    step = max(CHUNK // asked.printed.shape[1], 1)
    return np.concatenate(
        [
            reader.features(asked.printed[rows], frequency[:, rows], near[rows]) @ weights
            for rows in (slice(at, at + step) for at in range(0, len(near), step))
        ]
    )


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """From options to features."""

    holds: np.ndarray
    """(text, word): 1 where the text has the word; its last row, of position -1, is empty."""
    sizes: np.ndarray
    """(text, 2): characters and words of a text, in deviations of the training options."""

    def features(self, printed: np.ndarray, frequency: np.ndarray, near: np.ndarray) -> np.ndarray:
        """(question, option, feature).

        Args:
            printed: as in OptionTable.
            frequency: (2, question, option), how often each text was right and was wrong.
            near: from `word_nearness`.
        """
        own = self.holds[printed]
        others = np.maximum((printed >= 0).sum(axis=1) - 1, 1)[:, None, None]
        of_others = (own.sum(axis=1, keepdims=True) - own) / others
        return np.concatenate(
            [
                own,
                own * of_others,
                (1 - own) * of_others,
                self.sizes[printed],
                np.moveaxis(np.log1p(frequency), 0, 2),
                near[..., None],
            ],
            axis=2,
        )


def _reader(train: OptionTable) -> _Reader:
    of_text = [words(text) for text in train.texts]
    printed = train.printed[train.present]
    uses = Counter(word for text in printed.tolist() for word in of_text[text])
    column = {
        word: i for i, word in enumerate(sorted(uses, key=lambda w: (-uses[w], w))[:MAX_WORDS])
    }
    holds = np.zeros((len(of_text) + 1, len(column)))
    for row, found in enumerate(of_text):
        holds[row, [column[word] for word in found if word in column]] = 1
    lengths = [(len(text), len(found)) for text, found in zip(train.texts, of_text, strict=True)]
    sizes = np.array([*lengths, (0, 0)], dtype=float)
    deviation = sizes[printed].std(axis=0)
    return _Reader(holds=holds, sizes=sizes / np.where(deviation > 0, deviation, 1))


def _some_rows(table: OptionTable) -> OptionTable:
    most = max(MAX_OPTIONS // table.printed.shape[1], 1)
    if len(table.answer) <= most:
        return table
    rows = np.linspace(0, len(table.answer) - 1, most).round().astype(int)
    return OptionTable(
        texts=table.texts,
        printed=table.printed[rows],
        answer=table.answer[rows],
        stems=table.stems[rows],
    )


def _counts_of_other_folds(table: OptionTable) -> np.ndarray:
    """(2, question, option): a question's own answer must not speak for itself."""
    fold = np.arange(len(table.answer)) % FOLDS
    size = len(table.texts)
    right = np.zeros((FOLDS, size))
    wrong = np.zeros((FOLDS, size))
    rows, columns = np.nonzero(table.present)
    np.add.at(right, (fold, table.right), 1)
    np.add.at(wrong, (fold[rows], table.printed[rows, columns]), 1)
    wrong -= right
    of_others = np.stack([right.sum(axis=0) - right, wrong.sum(axis=0) - wrong])
    return of_others[:, fold[:, None], table.printed]
