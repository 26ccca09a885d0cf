"""A multiple-choice question about a clip: the record and what makes it sound."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qa_data.text_file import composed

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
STEM = "What gymnastics move is this athlete performing?"
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can spell one, UTF-8 cannot


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
    """The question without its options; for the public files it ends in a question mark."""
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
    """The video that the clip was cut from; its letters are composed, as in `Clip`."""
    frame_length: int | None = None
    """Frames in the clip."""
    answer_type: str = "what"
    dataset: str = "finegym"

    def __post_init__(self):
        object.__setattr__(self, "source", composed(self.source))

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
        return (
            f"the answer is option {question.answer} of {len(question.options)}, counted from 0; "
            f"name one of the options"
        )
    return _text_problem(question) or _class_problem(question)


def line_problem(question: Question) -> str | None:
    """Why stem and options cannot be told apart in the line that the public files print."""
    try:
        if split_line(question.line) == (question.stem, question.options):
            return None
    except QuestionError:
        pass
    return (
        f"stem and options could not be told apart again in {question.line!r:.200}; end the stem "
        f"in a question mark, keep '? A.' and ' B.' out of the texts, or use .jsonl files"
    )


def split_line(line: str) -> tuple[str, tuple[str, ...]]:
    """Stem and options of a printed question: `<stem>? A.<text> B.<text> ...`.

    Raises:
        QuestionError: no question mark followed by " A.", or a letter is missing.
    """
    stem, mark, rest = line.partition("? A.")
    if not mark:
        raise QuestionError(
            f"found {line!r:.200}; expected a question mark and options ' A.<text> B.<text> ...'"
        )
    options: list[str] = []
    for letter in LETTERS[1:]:
        text, found, tail = rest.partition(f" {letter}.")
        if not found:
            break
        options.append(text)
        rest = tail
    missing = len(options) + 1
    after = LETTERS[missing + 1 : missing + 2]
    if not options or (after and f" {after}." in rest):
        raise QuestionError(
            f"option {LETTERS[missing]} is missing in {line!r:.200}; expected options ' A.<text> "
            f"B.<text> ...' with every letter up to the last"
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


def _text_problem(question: Question) -> str | None:
    shown = [("its id", question.question_id), ("the video", question.video)]
    shown.append(("the question", question.stem))
    shown += [(f"option {LETTERS[i]}", text) for i, text in enumerate(question.options)]
    for name, text in shown:
        if not text.strip():
            return f"{name} is empty; give it a text"
    for text in (*vars(question).values(), *question.options):
        if isinstance(text, str) and not text.isascii() and HALF_CHARACTER.search(text):
            return f"{text!r:.60} holds half a character, which no file can; type it again"
    return None


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
