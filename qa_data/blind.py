"""What a question set gives away to someone who never sees a video.

Every row of the audit is a rule that answers without the video: it gives a score to every option,
and the highest is the answer. Blind rules read the texts alone; oracles know one coarse fact about
the clip besides. A rule with equal best options gets the mean of what they would earn, so that
nothing is drawn. A result of a model means something only next to these rows. docs/gym_qa.md has
what each row is and its value on the real lists.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from os.path import commonprefix
from typing import Any

import numpy as np
from rich.table import Table

from qa_data.questions import LETTERS, Question, QuestionError, count_repeats
from qa_data.taxonomy import ElementClass
from qa_data.text_classifier import (
    OptionTable,
    classifier_scores,
    mean_similarity,
    option_tables,
    text_counts,
    word_similarity,
)

ROUNDING = 9  # decimals of a score; what differs beyond is a tie


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Share of right answers, in [0, 1], with standard errors of independent questions."""

    micro: float
    micro_se: float
    macro: float
    """Mean over the classes of the answers."""
    macro_se: float


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What can be answered without the video, and what else a reader of results must know."""

    num_questions: int
    rows: Mapping[str, Accuracy]
    """Accuracy by the name of the rule."""
    bound: float | None
    """What the best possible blind rule gets, where the builder guarantees it."""
    repeats: Mapping[str, int]
    """Questions that print an option twice."""
    letters: Mapping[str, int]
    """How often each letter is right."""
    shared_sources: int
    """Source videos that have training questions too."""
    questions_of_shared_sources: int
    """Questions about clips of these videos."""
    questions_without_source: int = 0
    """Questions of which it is not known whether training shares their source video."""


def audit(
    questions: Sequence[Question],
    train: Sequence[Question],
    classes: Mapping[int, ElementClass],
    *,
    bound: float | None = None,
    codes: Mapping[int, str] | None = None,
) -> Audit:
    """Answer the questions by every blind rule.

    In `train` the rules count how often each text is an option and how often it is right. Oracles
    have rows if every right option reads as the class of its clip (see
    `questions.attach_classes`), and `codes` (see `code_scores`) if the class of every option and
    its code are known. `bound` is what the builder guarantees.

    Raises:
        QuestionError: no questions, or no training questions.
    """
    if not questions or not train:
        raise QuestionError(
            f"the audit needs questions and training questions, got {len(questions)} and "
            f"{len(train)}; is a split empty?"
        )
    learned, table = option_tables(train, questions)
    scores = blind_scores(learned, table)
    coded = codes.keys() & classes.keys() if codes else set()
    if codes and all(one.option_labels and coded >= {*one.option_labels} for one in questions):
        scores |= code_scores(questions, classes, codes)
    labels = [one.label for one in questions if one.label is not None and _is_class(one, classes)]
    if len(labels) == len(questions):
        scores |= oracle_scores(learned, table, labels, classes)
    weights = class_weights(
        [one.options[one.answer] if one.label is None else one.label for one in questions]
    )
    known = {one.source for one in train} - {""}
    sources = known & {one.source for one in questions}
    letters = Counter(question.letter for question in questions)
    return Audit(
        num_questions=len(questions),
        rows={
            name: weighted_accuracy(credits_of(table, one), weights) for name, one in scores.items()
        },
        bound=bound,
        repeats=count_repeats(questions),
        letters={letter: letters[letter] for letter in LETTERS[: table.printed.shape[1]]},
        shared_sources=len(sources),
        questions_of_shared_sources=sum(one.source in sources for one in questions),
        questions_without_source=sum(not one.source for one in questions)
        if known
        else len(questions),
    )


def blind_scores(train: OptionTable, questions: OptionTable) -> dict[str, np.ndarray]:
    """Scores of the options of `questions` by the name of the rule.

    A rule that learns, learns from `train`. Its inversion takes the option that it likes least.
    """
    characters = np.array([len(text) for text in questions.texts])[questions.printed]
    right, wrong = text_counts(train)
    ratio = np.log((right + 1) / (wrong + 1))[questions.printed]
    near = word_similarity(questions)
    learned = classifier_scores(train, questions, near)
    scores = {"chance": np.zeros(questions.printed.shape)}
    for column, letter in enumerate(LETTERS[: questions.printed.shape[1]]):
        scores[f"always {letter}"] = np.zeros(questions.printed.shape)
        scores[f"always {letter}"][:, column] = 1
    scores |= {
        "longest option": characters,
        "shortest option": -characters,
        "commonest answer": right[questions.printed],
        "rarest answer": -right[questions.printed],
        "naive Bayes": ratio,
        "naive Bayes inverted": -ratio,
        "bag of words": learned,
        "bag of words inverted": -learned,
        "words nearest the others": near,
        "words farthest from the others": -near,
    }
    if len(np.unique(train.stems)) > 1:
        scores |= _stem_scores(train, questions)
    return scores


def code_scores(
    questions: Sequence[Question],
    classes: Mapping[int, ElementClass],
    codes: Mapping[int, str],
) -> dict[str, np.ndarray]:
    """Scores by the place of the options in FineGym's attribute tree.

    Two classes are the nearer, the more questions of their set's tree they answer alike before
    they part; classes of two sets have nothing in common. Codes are the answers to the questions
    of the tree by class, one character each (BTcode).
    """
    widest = max(len(question.options) for question in questions)
    shown = np.array(
        [[*(one.option_labels or ()), *[-1] * (widest - len(one.options))] for one in questions]
    )

    def nearness(one: int, other: int) -> float:
        if classes[one].set_id != classes[other].set_id:
            return 0
        return 1 + len(commonprefix([codes[one], codes[other]]))

    near = mean_similarity(shown, nearness)
    return {"code nearest the others": near, "code farthest from the others": -near}


def oracle_scores(
    train: OptionTable,
    questions: OptionTable,
    labels: Sequence[int],
    classes: Mapping[int, ElementClass],
) -> dict[str, np.ndarray]:
    """Scores of someone who knows the clip's apparatus, or its set, and not the element.

    There are no rows for the apparatus or the set if all classes of the list share it. The
    commonest answers are those of `train`; `labels` are the classes of the questions' clips.
    """
    right, _ = text_counts(train)
    scores = {}
    for name, key in (("apparatus", attrgetter("event")), ("set", attrgetter("set_id"))):
        if len({key(element) for element in classes.values()}) == 1:
            continue
        fits = _fits(questions, labels, classes, key)
        scores[f"{name} known"] = fits
        scores[f"{name} known, commonest answer"] = (
            fits * (right.max() + 1) + right[questions.printed]
        )
    return scores


def _fits(
    questions: OptionTable,
    labels: Sequence[int],
    classes: Mapping[int, ElementClass],
    key: Callable[[ElementClass], object],
) -> np.ndarray:
    """Whether some class of the clip's group reads as the option."""
    number = {
        group: i for i, group in enumerate(sorted({key(o) for o in classes.values()}, key=str))
    }
    position = {text: i for i, text in enumerate(questions.texts)}
    reads = np.zeros((len(number), len(position)), dtype=int)
    for element in classes.values():
        if element.text in position:
            reads[number[key(element)], position[element.text]] = 1
    group = np.array([number[key(classes[label])] for label in labels])
    return reads[group[:, None], questions.printed]


def _stem_scores(train: OptionTable, questions: OptionTable) -> dict[str, np.ndarray]:
    """Counts apart for each stem, where there are several."""
    right = np.zeros((max(train.stems.max(), questions.stems.max()) + 1, len(train.texts)))
    np.add.at(right, (train.stems, train.right), 1)
    likely = right[questions.stems[:, None], questions.printed]
    return {"commonest answer to the stem": likely, "rarest answer to the stem": -likely}


def credits_of(questions: OptionTable, scores: np.ndarray) -> np.ndarray:
    """What each answer earns: 1 or 0; where options share the highest score, the mean of theirs."""
    scores = np.where(questions.present, np.round(scores, ROUNDING), -np.inf)
    best = scores == scores.max(axis=1, keepdims=True)
    return best[np.arange(len(best)), questions.answer] / best.sum(axis=1)


def class_weights(keys: Sequence[object]) -> np.ndarray:
    """Weight of each question, all together 1, such that every class (`keys`) weighs alike."""
    sizes = Counter(keys)
    return np.array([1 / (len(sizes) * sizes[key]) for key in keys])


def weighted_accuracy(earned: np.ndarray, weights: np.ndarray) -> Accuracy:
    """Means over questions and, by `class_weights`, over classes; answers earn 0 to 1."""
    deviation = earned.std()  # one for all questions
    return Accuracy(
        micro=float(earned.mean()),
        micro_se=float(deviation / len(earned) ** 0.5),
        macro=float(weights @ earned),
        macro_se=float(deviation * (weights @ weights) ** 0.5),
    )


def shared_words(audit: Mapping[str, Any]) -> str:
    """How many source videos have training questions too, and how many questions these are.

    Audits of older files do not count unknown sources.
    """
    unknown = audit.get("questions_without_source", 0)
    if unknown and unknown == audit.get("num_questions"):
        return "unknown"
    shared = f"{audit['shared_sources']}, with {audit['questions_of_shared_sources']} questions"
    return f"{shared}, and {unknown} of unknown source" if unknown else shared


def audit_table(found: Audit, title: str) -> Table:
    """The audit for the terminal, accuracies in percent with one standard error."""
    repeats = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in found.repeats.items())
    letters = " ".join(f"{letter} {count}" for letter, count in found.letters.items())
    bound = "not known" if found.bound is None else f"{found.bound:.2%}"
    table = Table(
        "answers by",
        "all questions",
        "mean of classes",
        title=f"{title}: {found.num_questions} questions answered without the video",
        caption=f"best possible blind rule: {bound}; right letters: {letters}; {repeats}; "
        f"source videos shared with training: {shared_words(asdict(found))}",
    )
    for name, row in found.rows.items():
        micro = f"{row.micro:.1%} ± {100 * row.micro_se:.1f}"
        table.add_row(name, micro, f"{row.macro:.1%} ± {100 * row.macro_se:.1f}")
    return table


def _is_class(question: Question, classes: Mapping[int, ElementClass]) -> bool:
    """Whether the right option reads as the class of the clip."""
    if question.label is None or question.label not in classes:
        return False
    return classes[question.label].text == question.options[question.answer]
