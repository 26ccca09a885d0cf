"""Parts of a question set that ask for more than the whole: each a set of question ids."""

from collections import Counter
from collections.abc import Iterable, Sequence

from qa_data.manifest import Clip
from qa_data.schema import Question


def prior_adversarial(questions: Iterable[Question], train: Sequence[Question]) -> frozenset[str]:
    """Questions in which some wrong option was the answer more often than the right one.

    Counted by text in the training questions: whoever answers by frequency is wrong here.

    Raises:
        ValueError: there are no training questions.
    """
    if not train:
        raise ValueError("no training questions to count answers in; check the question file")
    answers = Counter(question.options[question.answer] for question in train)
    return frozenset(
        question.question_id
        for question in questions
        if max(answers[text] for text in question.options)
        > answers[question.options[question.answer]]
    )


def unseen_sources(questions: Iterable[Question], clips: Iterable[Clip]) -> frozenset[str]:
    """Questions about source videos from which no labeled or unlabeled clip was cut.

    Args:
        questions: those of no known source are not among them.
        clips: the manifest; its splits labeled and unlabeled are what models learn from. Where the
            source of one of these is not known, no source counts as unseen.
    """
    learned = {clip.source for clip in clips if clip.split in ("labeled", "unlabeled")}
    if "" in learned:
        return frozenset()
    return frozenset(
        question.question_id
        for question in questions
        if question.source and question.source not in learned
    )


def right_text_twice(questions: Iterable[Question]) -> frozenset[str]:
    """Questions that print the text of the right option at another letter as well."""
    return frozenset(
        question.question_id
        for question in questions
        if question.options.count(question.options[question.answer]) > 1
    )


def named_parts(
    questions: Sequence[Question],
    *,
    train: Sequence[Question] | None = None,
    clips: Sequence[Clip] | None = None,
) -> dict[str, frozenset[str]]:
    """The parts that can be told from what is known, by their names.

    Args:
        questions: the set.
        train: the questions that the model learned; gives `prior_adversarial`.
        clips: the manifest; gives `unseen_sources`.
    """
    parts = {"right_text_twice": right_text_twice(questions)}
    if train is not None:
        parts["prior_adversarial"] = prior_adversarial(questions, train)
    if clips is not None:
        parts["unseen_sources"] = unseen_sources(questions, clips)
    return parts
