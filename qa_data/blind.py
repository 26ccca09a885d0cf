"""What a question set gives away to someone who never looks at a video.

Every row answers by the texts alone, the oracles with one coarse fact about the clip besides. A
rule that cannot tell its best options apart gets the mean of what they would earn, so that
nothing is drawn. A result of a model means something only next to these rows. docs/gym_qa.md says
what each row is and what it is on the real lists.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from qa_data.blind_rules import blind_scores, code_scores, oracle_scores
from qa_data.option_table import OptionTable, option_tables
from qa_data.question import LETTERS, Question, QuestionError, count_repeats
from qa_data.taxonomy import ElementClass

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
    """What can be answered without looking, and what else a reader of results must know."""

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
    """Answer the questions blind by every rule.

    Args:
        questions: the set to audit.
        train: where the rules learn how often each text is asked about and how often it is right.
        classes: which apparatus and set each class belongs to. The oracles are asked where every
            right option reads as the class of its clip (see `schema.attach_classes`).
        bound: what the builder guarantees, for the record.
        codes: place of each class in FineGym's attribute tree (see `code_scores`). The rows by
            code are there where every option has its class, and the class a code.

    Raises:
        QuestionError: no questions, or no training questions.
    """
    if not questions or not train:
        raise QuestionError(
            f"the audit needs questions and training questions, got {len(questions)} and "
            f"{len(train)}; is a split empty?"
        )
    learned, asked = option_tables(train, questions)
    scores = blind_scores(learned, asked)
    if codes is not None and _all_options_in(questions, codes.keys() & classes.keys()):
        scores |= code_scores(questions, classes, codes)
    labels = [one.label for one in questions if one.label is not None and _is_class(one, classes)]
    if len(labels) == len(questions):
        scores |= oracle_scores(learned, asked, labels, classes)
    weights = class_weights([_class_key(question) for question in questions])
    known = {one.source for one in train} - {""}
    sources = known & {one.source for one in questions}
    letters = Counter(question.letter for question in questions)
    return Audit(
        num_questions=len(questions),
        rows={name: accuracy(credits_of(asked, one), weights) for name, one in scores.items()},
        bound=bound,
        repeats=count_repeats(questions),
        letters={letter: letters[letter] for letter in LETTERS[: asked.printed.shape[1]]},
        shared_sources=len(sources),
        questions_of_shared_sources=sum(one.source in sources for one in questions),
        questions_without_source=sum(not one.source for one in questions)
        if known
        else len(questions),
    )


def credits_of(asked: OptionTable, scores: np.ndarray) -> np.ndarray:
    """What each answer earns: 1 or 0; where options share the highest score, the mean of theirs."""
    scores = np.where(asked.present, np.round(scores, ROUNDING), -np.inf)
    best = scores == scores.max(axis=1, keepdims=True)
    return best[np.arange(len(best)), asked.answer] / best.sum(axis=1)


def class_weights(keys: Sequence[object]) -> np.ndarray:
    """Weight of each question, all together 1, such that every class weighs alike.

    Args:
        keys: the class of each question.
    """
    sizes = Counter(keys)
    return np.array([1 / (len(sizes) * sizes[key]) for key in keys])


def accuracy(earned: np.ndarray, weights: np.ndarray) -> Accuracy:
    """Means over questions and over classes.

    Args:
        earned: what each answer earns, in [0, 1].
        weights: from `class_weights`.
    """
    deviation = earned.std()  # one for all questions
    return Accuracy(
        micro=float(earned.mean()),
        micro_se=float(deviation / len(earned) ** 0.5),
        macro=float(weights @ earned),
        macro_se=float(deviation * (weights @ weights) ** 0.5),
    )


def shared_words(audit: Mapping[str, Any]) -> str:
    """How many source videos have training questions too, and how many questions these are.

    Args:
        audit: as plain values; those of older files do not count unknown sources.
    """
    unknown = audit.get("questions_without_source", 0)
    if unknown and unknown == audit.get("num_questions"):
        return "unknown"
    told = f"{audit['shared_sources']}, with {audit['questions_of_shared_sources']} questions"
    return f"{told}, and {unknown} of unknown source" if unknown else told


def audit_table(found: Audit, title: str) -> Table:
    """The audit for the terminal, accuracies in percent with one standard error."""
    repeats = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in found.repeats.items())
    letters = " ".join(f"{letter} {count}" for letter, count in found.letters.items())
    bound = "not known" if found.bound is None else f"{found.bound:.2%}"
    table = Table(
        "answers by",
        "all questions",
        "mean of classes",
        title=f"{title}: {found.num_questions} questions answered without looking",
        caption=f"best possible blind rule: {bound}; right letters: {letters}; {repeats}; "
        f"source videos shared with training: {shared_words(asdict(found))}",
    )
    for name, row in found.rows.items():
        micro = f"{row.micro:.1%} ± {100 * row.micro_se:.1f}"
        table.add_row(name, micro, f"{row.macro:.1%} ± {100 * row.macro_se:.1f}")
    return table


def _all_options_in(questions: Sequence[Question], labels: set[int]) -> bool:
    return all(
        one.option_labels is not None and labels.issuperset(one.option_labels) for one in questions
    )


def _is_class(question: Question, classes: Mapping[int, ElementClass]) -> bool:
    """Whether the right option reads as the class of the clip."""
    if question.label is None or question.label not in classes:
        return False
    return classes[question.label].text == question.options[question.answer]


def _class_key(question: Question) -> object:
    return question.options[question.answer] if question.label is None else question.label
