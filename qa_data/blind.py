"""What a question set gives away to someone who never looks at a video.

Every row answers by the texts alone, the oracles with one coarse fact about the clip besides. A
rule that cannot tell its best options apart gets the mean of what they would earn, so that
nothing is drawn. A result of a model means something only next to these rows.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from qa_data.question import LETTERS, Question, QuestionError, count_repeats
from qa_data.taxonomy import ElementClass

Scores = Sequence[float] | Sequence[tuple[float, float]]
Rule = Callable[[Question], Scores]


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


def audit(
    questions: Sequence[Question],
    train: Sequence[Question],
    classes: Mapping[int, ElementClass],
    *,
    bound: float | None = None,
) -> Audit:
    """Answer the questions blind by every rule.

    Args:
        questions: the set to audit.
        train: where the rules learn how often each text is asked about and how often it is right.
        classes: which apparatus and set each text belongs to.
        bound: what the builder guarantees, for the record.

    Raises:
        QuestionError: no questions, or no training questions. Questions without class (see
            `schema.attach_classes`) are audited without oracles.
    """
    if not questions or not train:
        raise QuestionError(
            f"the audit needs questions and training questions, got {len(questions)} and "
            f"{len(train)}; is a split empty?"
        )
    rules = _text_rules(train)
    if all(question.label in classes for question in questions):
        rules |= _oracles(train, classes)
    train_sources = {question.source for question in train if question.source}
    letters = Counter(question.letter for question in questions)
    longest = max(len(question.options) for question in questions)
    return Audit(
        num_questions=len(questions),
        rows={name: score(questions, rule) for name, rule in rules.items()},
        bound=bound,
        repeats=count_repeats(questions),
        letters={letter: letters[letter] for letter in LETTERS[:longest]},
        shared_sources=len(train_sources & {question.source for question in questions}),
    )


def score(questions: Sequence[Question], rule: Rule) -> Accuracy:
    """Accuracy of a rule that gives every option a score and takes the highest."""
    credits = [_credit(question, rule(question)) for question in questions]
    keys = [_class_key(question) for question in questions]
    sizes = Counter(keys)
    micro, micro_se = _weighted(credits, [1 / len(keys)] * len(keys))
    macro, macro_se = _weighted(credits, [1 / (len(sizes) * sizes[key]) for key in keys])
    return Accuracy(micro=micro, micro_se=micro_se, macro=macro, macro_se=macro_se)


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
        f"source videos shared with training: {found.shared_sources}",
    )
    for name, row in found.rows.items():
        micro = f"{row.micro:.1%} ± {100 * row.micro_se:.1f}"
        table.add_row(name, micro, f"{row.macro:.1%} ± {100 * row.macro_se:.1f}")
    return table


def _text_rules(train: Sequence[Question]) -> dict[str, Rule]:
    right = Counter(question.options[question.answer] for question in train)
    printed = Counter(text for question in train for text in question.options)

    def likelihood_ratio(text: str) -> float:
        return math.log((right[text] + 1) / (printed[text] - right[text] + 1))

    return {
        "chance": _by_text(lambda text: 0),
        "first letter": lambda question: [-place for place in range(len(question.options))],
        "longest option": _by_text(len),
        "shortest option": _by_text(lambda text: -len(text)),
        "commonest answer": _by_text(lambda text: right[text]),
        "rarest answer": _by_text(lambda text: -right[text]),
        "naive Bayes": _by_text(likelihood_ratio),
        "naive Bayes inverted": _by_text(lambda text: -likelihood_ratio(text)),
    }


def _oracles(train: Sequence[Question], classes: Mapping[int, ElementClass]) -> dict[str, Rule]:
    right = Counter(question.options[question.answer] for question in train)
    rules: dict[str, Rule] = {}
    for name, key in (("apparatus", _event_key), ("set", _set_key)):
        texts = defaultdict(set)
        for element in classes.values():
            texts[key(element)].add(element.text)
        fits = _fits(texts, classes, key)
        rules[f"{name} known"] = fits
        rules[f"{name} known, commonest answer"] = _then_commonest(fits, right)
    return rules


def _event_key(element: ElementClass) -> object:
    return element.event


def _set_key(element: ElementClass) -> object:
    return element.set_id


def _fits(
    texts: Mapping[object, set[str]],
    classes: Mapping[int, ElementClass],
    key: Callable[[ElementClass], object],
) -> Callable[[Question], list[float]]:
    def rule(question: Question) -> list[float]:
        possible = texts[key(classes[question.label or 0])]
        return [text in possible for text in question.options]

    return rule


def _then_commonest(fits: Callable[[Question], list[float]], right: Mapping[str, int]) -> Rule:
    def rule(question: Question) -> list[tuple[float, float]]:
        return [
            (fit, right[text]) for fit, text in zip(fits(question), question.options, strict=True)
        ]

    return rule


def _by_text(merit: Callable[[str], float]) -> Rule:
    return lambda question: [merit(text) for text in question.options]


def _credit(question: Question, scores: Scores) -> float:
    """1 or 0; where several options share the highest score, the mean of theirs."""
    best = max(scores)
    return (scores[question.answer] == best) / sum(one == best for one in scores)


def _class_key(question: Question) -> object:
    return question.options[question.answer] if question.label is None else question.label


def _weighted(credits: Sequence[float], weights: Sequence[float]) -> tuple[float, float]:
    """Weighted mean and its standard error, with one variance for all questions."""
    mean = sum(weight * credit for weight, credit in zip(weights, credits, strict=True))
    overall = sum(credits) / len(credits)
    variance = sum((credit - overall) ** 2 for credit in credits) / len(credits)
    return mean, math.sqrt(variance * sum(weight**2 for weight in weights))
