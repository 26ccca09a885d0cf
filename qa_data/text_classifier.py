"""A classifier of the blind audit: how likely an option is right, by its words and the others'.

It reads (option, other options): the option's words, which of them the others share, which of
theirs it lacks, its length, its similarity to the others, and how often its text was an option.
It learns from the training questions alone.

The model is a conditional logit: an option is chosen with probability proportional to
exp(weights . features), options of one question against each other. The weights have a normal
prior, and the most probable ones are found by Newton's method from zero: no draws, the same weights
every time. Source: McFadden, Conditional logit analysis of qualitative choice behavior (1974).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from qa_data.questions import Question

WORD = re.compile(r"\w+(?:[.\-]\w+)*")  # 1.5, flic-flac and round-off are one word each
MAX_WORDS = 300  # the commonest in the training questions
MAX_OPTIONS = 16_000  # options of training questions, which are taken evenly
FOLDS = 5  # an option's frequency is counted in the questions of the other folds
CHUNK = 4000  # options whose features are in memory at once
PRIOR_DEVIATION = 1.0  # of each weight; chosen beforehand, tuned on nothing
PRECISION = 1e-9  # largest slope in any weight, for each question
MAX_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class OptionTable:
    """One row a question, one column a letter."""

    texts: Sequence[str]
    """The different texts that are printed, in the order of their first appearance."""
    printed: np.ndarray
    """Position in `texts` of the option at each letter; -1 where a question has fewer options."""
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


def mean_similarity(shown: np.ndarray, similarity: Callable[[int, int], float]) -> np.ndarray:
    """Mean similarity of each option to the other options of its question; 0 if there are none.

    `shown` has the option at each letter (row a question, column a letter), -1 for no option. The
    similarity of two options is symmetric, and called once for each pair that meets.
    """
    pairs = list(combinations(range(shown.shape[1]), 2))
    meetings = [np.flatnonzero((shown[:, pair] >= 0).all(axis=1)) for pair in map(list, pairs)]
    row = np.concatenate(meetings)
    one, other = np.repeat(pairs, [len(rows) for rows in meetings], axis=0).T
    width = int(shown.max()) + 1
    low = np.minimum(shown[row, one], shown[row, other])
    high = np.maximum(shown[row, one], shown[row, other])
    met, place = np.unique(low * width + high, return_inverse=True)
    near = np.array([similarity(*divmod(pair, width)) for pair in met.tolist()])[place]
    total = np.zeros(shown.shape)
    np.add.at(total, (row, one), near)
    np.add.at(total, (row, other), near)
    others = (shown >= 0).sum(axis=1, keepdims=True) - 1
    return np.where(shown >= 0, total / np.maximum(others, 1), 0)


def words(text: str) -> frozenset[str]:
    """The different words of a text, in lower case."""
    return frozenset(WORD.findall(text.lower()))


def word_similarity(table: OptionTable) -> np.ndarray:
    """Mean overlap of each option's words with those of the others: shared over all, in [0, 1]."""
    of_text = [words(text) for text in table.texts]

    def overlap(one: int, other: int) -> float:
        together = of_text[one] | of_text[other]
        return len(of_text[one] & of_text[other]) / max(len(together), 1)

    return mean_similarity(table.printed, overlap)


def text_counts(table: OptionTable) -> tuple[np.ndarray, np.ndarray]:
    """How often each text is the right option, and how often it is a wrong one."""
    size = len(table.texts)
    right = np.bincount(table.right, minlength=size)
    printed = np.bincount(table.printed[table.present], minlength=size)
    return right, printed - right


def classifier_scores(
    train: OptionTable, questions: OptionTable, similarity: np.ndarray
) -> np.ndarray:
    """Score of each option (row a question, column a letter), given their `word_similarity`."""
    train = _some_rows(train)
    featurizer = _featurizer(train)
    known = featurizer.features(
        train.printed, _counts_of_other_folds(train), word_similarity(train)
    )
    weights = fit_conditional_logit(known, train.present, train.answer)
    frequency = np.stack(text_counts(train))[:, questions.printed]
    step = max(CHUNK // questions.printed.shape[1], 1)
    return np.concatenate(
        [
            featurizer.features(questions.printed[rows], frequency[:, rows], similarity[rows])
            @ weights
            for rows in (slice(at, at + step) for at in range(0, len(similarity), step))
        ]
    )


@dataclass(frozen=True, kw_only=True)
class _Featurizer:
    """The features of options."""

    holds: np.ndarray
    """(text, word): 1 where the text has the word; its last row, of position -1, is empty."""
    sizes: np.ndarray
    """(text, 2): characters and words of a text, in deviations of the training options."""

    def features(
        self, printed: np.ndarray, frequency: np.ndarray, similarity: np.ndarray
    ) -> np.ndarray:
        """(question, option, feature).

        `frequency` (2, question, option) is how often each text was right and was wrong.
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
                similarity[..., None],
            ],
            axis=2,
        )


def _featurizer(train: OptionTable) -> _Featurizer:
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
    return _Featurizer(holds=holds, sizes=sizes / np.where(deviation > 0, deviation, 1))


def _some_rows(table: OptionTable) -> OptionTable:
    most = max(MAX_OPTIONS // table.printed.shape[1], 1)
    if len(table.answer) <= most:
        return table
    rows = np.linspace(0, len(table.answer) - 1, most).round().astype(int)
    printed, answer, stems = (one[rows] for one in (table.printed, table.answer, table.stems))
    return replace(table, printed=printed, answer=answer, stems=stems)


def _counts_of_other_folds(table: OptionTable) -> np.ndarray:
    """(2, question, option): a question's own answer must not count for itself."""
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


def fit_conditional_logit(
    features: np.ndarray, present: np.ndarray, answer: np.ndarray
) -> np.ndarray:
    """The most probable weights, for the option that was chosen (`answer`) in each question.

    Features (question, option, feature) of options that are not `present` are not read.

    Raises:
        RuntimeError: no maximum found, which a concave objective rules out for finite features.
    """
    features = np.where(present[..., None], features, 0)
    questions = np.arange(len(answer))
    chosen = features[questions, answer].sum(axis=0)
    weights = np.zeros(features.shape[2])
    value = _log_posterior(features, present, answer, weights)
    for _ in range(MAX_STEPS):
        probs = choice_probs(features @ weights, present)
        mean = np.einsum("qo,qof->qf", probs, features)
        slope = chosen - mean.sum(axis=0) - weights / PRIOR_DEVIATION**2
        if np.abs(slope).max() < PRECISION * len(answer):
            return weights
        spread = (np.sqrt(probs)[..., None] * (features - mean[:, None])).reshape(-1, len(weights))
        curvature = spread.T @ spread + np.eye(len(weights)) / PRIOR_DEVIATION**2
        step = np.linalg.solve(curvature, slope)
        while (found := _log_posterior(features, present, answer, weights + step)) < value - 1e-9:
            step = step / 2
        weights, value = weights + step, found
    raise RuntimeError(f"no weights found for {features.shape} features in {MAX_STEPS} steps")


def choice_probs(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Probability of each option (row a question); 0 for those that do not exist."""
    scores = np.where(present, scores, -np.inf)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def _log_posterior(
    features: np.ndarray, present: np.ndarray, answer: np.ndarray, weights: np.ndarray
) -> float:
    probs = choice_probs(features @ weights, present)
    likelihood = np.log(np.maximum(probs[np.arange(len(answer)), answer], 1e-300)).sum()
    return float(likelihood - (weights**2).sum() / (2 * PRIOR_DEVIATION**2))
