"""One line of a question file -> a question: our own complete lines, and users' short ones.

A user's line holds no more than a question needs:

    {"video": "clip-17", "question": "Which turn?", "options": ["half", "full"], "answer": "B"}

`video` is the clip's id: the name of its file without folder and suffix. `answer` is the letter of
the right option or its text. `question_id` may be added (lines are numbered from 0000000
otherwise), and `frame_length`, and `answer_type`: "what" if the options are names of classes, which
are then compared with the clip's in a manifest; "other" if nothing is said. Our own lines hold
every field of `Question` and call the question `stem`.
"""

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from qa_data.question import LETTERS, Question, QuestionError

NEEDED = ("video", "question", "options", "answer")
OPTIONAL = ("question_id", "frame_length", "answer_type")
COUNTS = 2**31  # counts are below, as in the 32 bits that other formats have for them
COUNT = f"a whole number from 0 to {COUNTS - 1}"
VIDEO_SUFFIX = re.compile(r"\.(mp4|mkv|avi|mov|webm)$", re.IGNORECASE)


def question_of_line(where: str, entry: object, number: int) -> Question:
    """The question of one line.

    Args:
        where: file and line, for messages.
        entry: what the line holds.
        number: of the line, from 0; becomes the id of a question without one.

    Raises:
        QuestionError: something is missing, unknown, or of a wrong type; or the answer of a
            user's line is neither letter nor text of an option, or could be two of them.
    """
    if not isinstance(entry, dict):
        raise QuestionError(f"{where}: found {entry!r:.60}; expected {{{', '.join(NEEDED)}}}")
    return _complete(where, entry) if "stem" in entry else _short(where, entry, number)


def is_count(value: object) -> bool:
    """Whether a value is a whole number from 0 and below COUNTS. True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < COUNTS


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(is_count(one) for one in value)


Check = tuple[Callable[[object], bool], str]
TEXT: Check = (_is_text, "a text")
FORMS: dict[str, Check] = {
    **dict.fromkeys(("question_id", "video", "stem", "question"), TEXT),
    **dict.fromkeys(("event", "source", "answer_type", "dataset"), TEXT),
    **dict.fromkeys(("label", "frame_length"), (is_count, COUNT)),
    "options": (_are_texts, "a list of texts"),
    "option_labels": (_are_counts, "a list of classes"),
}
OR_NULL = ("label", "option_labels", "event", "frame_length")


def _check_forms(where: str, entry: dict[str, Any], answer: Check) -> None:
    for name, value in entry.items():
        fits, form = answer if name == "answer" else FORMS[name]
        if not fits(value) and not (value is None and name in OR_NULL):
            null = " or null" if name in OR_NULL else ""
            raise QuestionError(f"{where}: {name} is {value!r:.60}; expected {form}{null}")


def _complete(where: str, entry: dict[str, Any]) -> Question:
    names = [field.name for field in fields(Question)]
    if sorted(entry) != sorted(names):
        raise QuestionError(f"{where}: its fields are {list(entry)!r:.200}; expected {names}")
    _check_forms(where, entry, (is_count, "a position counted from 0"))
    labels = entry["option_labels"]
    tuples = {
        "options": tuple(entry["options"]),
        "option_labels": None if labels is None else tuple(labels),
    }
    return Question(**{**entry, **tuples})


def _short(where: str, entry: dict[str, Any], number: int) -> Question:
    missing = [name for name in NEEDED if name not in entry]
    unknown = [name for name in entry if name not in (*NEEDED, *OPTIONAL)]
    if missing or unknown:
        fault = f"{missing[0]} is missing" if missing else f"{unknown[0]!r:.40} is unknown"
        raise QuestionError(
            f"{where}: {fault} in {list(entry)!r:.120}; expected {list(NEEDED)}, and if you like "
            f"{list(OPTIONAL)}"
        )
    _check_forms(where, entry, (_is_text, "a letter in quotation marks, or an option's text"))
    options = tuple(entry["options"])
    _check_words(where, entry["video"], options)
    return Question(
        question_id=entry.get("question_id", f"{number:07d}"),
        video=entry["video"],
        stem=entry["question"],
        options=options,
        answer=_answer(where, entry["answer"], options),
        frame_length=entry.get("frame_length"),
        answer_type=entry.get("answer_type", "other"),
        dataset="own",
    )


def _check_words(where: str, video: str, options: tuple[str, ...]) -> None:
    if not 2 <= len(options) <= len(LETTERS):
        raise QuestionError(f"{where}: it has {len(options)} options; give 2 to {len(LETTERS)}")
    if all(re.match(rf"\(?{LETTERS[i]}[.):]", text) for i, text in enumerate(options)):
        raise QuestionError(
            f"{where}: options begin with their letters ({options[0]!r:.40}); leave the letters "
            f"out, they are printed for you"
        )
    if suffix := VIDEO_SUFFIX.search(video):
        raise QuestionError(
            f"{where}: video {video!r:.80} is a file; give the clip's id, without folder and "
            f"{suffix[0]}"
        )


def _answer(where: str, answer: str, options: tuple[str, ...]) -> int:
    places = {place for place, text in enumerate(options) if text == answer}
    letters = LETTERS[: len(options)]
    if len(answer) == 1 and answer in letters:
        places.add(letters.index(answer))
    if len(places) == 1:
        right = options[min(places)]
        places = {place for place, text in enumerate(options) if text == right}
    if len(places) == 1:
        return places.pop()
    if not places:
        raise QuestionError(
            f"{where}: answer {answer!r:.60} is outside the options; give a letter from A to "
            f"{letters[-1]} or the text of one of {list(options)!r:.120}"
        )
    both = " and ".join(letters[place] for place in sorted(places))
    raise QuestionError(
        f"{where}: answer {answer!r:.60} could be option {both}; give options that differ, and "
        f"the letter of one that is no other option's text"
    )
