"""A multiple-choice question about a clip: the record and what makes it sound."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
STEM = "What gymnastics move is this athlete performing?"


class QuestionError(ValueError):
    """A question or its file that cannot be used. The message names place, found, mend."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One multiple-choice question about one clip."""

    question_id: str
    """Seven digits in the public files."""
    video: str
    """Clip id: the video's name without folder and suffix."""
    stem: str
    """The question without its options; ends in a question mark."""
    options: tuple[str, ...]
    """Texts to choose from, in the order of the letters. The public files repeat some."""
    answer: int
    """Position of the right option, from 0."""
    label: int | None = None
    """Class of the clip."""
    option_labels: tuple[int, ...] | None = None
    """Class of each option, where the builder drew classes."""
    event: str | None = None
    """Apparatus of the clip."""
    source: str = ""
    """The video that the clip was cut from."""
    frame_length: int | None = None
    """Frames in the clip."""
    answer_type: str = "what"
    dataset: str = "finegym"

    @property
    def letter(self) -> str:
        """Letter of the right option."""
        return LETTERS[self.answer]

    @property
    def line(self) -> str:
        """Question and options as the public files print them."""
        options = zip(LETTERS, self.options, strict=False)
        return " ".join([self.stem, *(f"{letter}.{text}" for letter, text in options)])


def check_question(question: Question) -> str | None:
    """What is wrong with a question, or None. An option may repeat: the public sets' do."""
    if not 2 <= len(question.options) <= len(LETTERS):
        return f"it has {len(question.options)} options; give 2 to {len(LETTERS)}"
    if not 0 <= question.answer < len(question.options):
        return f"the answer is option {question.answer} of {len(question.options)}, counted from 0"
    if not all(text.strip() for text in (question.video, *question.options)):
        return f"video {question.video!r} or one of the options {question.options} is empty"
    if question.option_labels is not None:
        if len(question.option_labels) != len(question.options):
            return (
                f"{len(question.option_labels)} classes stand for {len(question.options)} options"
            )
        if question.option_labels[question.answer] != question.label:
            return (
                f"the clip's class is {question.label}, but the right option's class is "
                f"{question.option_labels[question.answer]}"
            )
    if split_line(question.line) != (question.stem, question.options):
        return f"stem and options could not be told apart again in {question.line!r}"
    return None


def split_line(line: str) -> tuple[str, tuple[str, ...]]:
    """Stem and options of a printed question: `<stem>? A.<text> B.<text> ...`.

    Raises:
        QuestionError: no question mark followed by " A." and " B.".
    """
    stem, mark, rest = line.partition("? A.")
    options = []
    for letter in LETTERS[1:]:
        text, found, tail = rest.partition(f" {letter}.")
        if not found:
            break
        options.append(text)
        rest = tail
    if not mark or not options:
        raise QuestionError(
            f"found {line!r}; expected a question mark and options ' A.<text> B.<text> ...'"
        )
    return f"{stem}?", (*options, rest)


def count_repeats(questions: Iterable[Question]) -> Mapping[str, int]:
    """Questions that print some option twice, and those that print the right one twice."""
    counts = Counter({"some_option_twice": 0, "right_option_twice": 0})
    for question in questions:
        counts["some_option_twice"] += len(set(question.options)) < len(question.options)
        counts["right_option_twice"] += (
            question.options.count(question.options[question.answer]) > 1
        )
    return dict(counts)


def _class_problem(question: Question) -> str | None:
    labels = question.option_labels
    if labels is None:
        return None
    if len(labels) != len(question.options):
        return f"{len(labels)} classes stand for {len(question.options)} options"
    if labels[question.answer] != question.label:
        return (
            f"the clip's class is {question.label}, but the right option's class is "
            f"{labels[question.answer]}"
        )
    return None
