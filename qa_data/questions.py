"""Multiple-choice questions about clips: the record, what makes it sound, and its three files.

The public JSON is read by the public code, byte for byte in its format: one object keyed by
seven-digit ids, question and options in one line, no class. The JSON lines file holds every field
of `Question`, one object a line, and calls the question `stem`. A user's own lines hold no more
than a question needs:

    {"video": "clip-17", "question": "Which turn?", "options": ["half", "full"], "answer": "B"}

`video` is the clip's id: the name of its file without folder and suffix. `answer` is the letter of
the right option or its text. Optional are `question_id` (lines are numbered from 0000000
otherwise), `frame_length`, and `answer_type`: "what" if the options are names of classes, which are
then compared with the clip's in a manifest; "other" by default. `read_any` takes all three files.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from qa_data.files import SefarError, composed, parse_json, read_text, write_text
from qa_data.manifest import Clip

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
STEM = "What gymnastics move is this athlete performing?"
"""Of the public Gym-QA."""
LETTER_REQUEST = "Answer with the option's letter from the given choices directly."
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can spell one, UTF-8 cannot
NEEDED = ("video", "question", "options", "answer")
OPTIONAL = ("question_id", "frame_length", "answer_type")
COUNTS = 2**31  # counts are below, as in the 32 bits that other formats have for them
COUNT = f"a whole number from 0 to {COUNTS - 1}"
VIDEO_SUFFIX = re.compile(r"\.(mp4|mkv|avi|mov|webm)$", re.IGNORECASE)
PUBLIC_FIELDS = (
    "answer",
    "question",
    "answer_type",
    "question_id",
    "dataset",
    "video",
    "frame_length",
)


class QuestionError(SefarError):
    """A question or its file that cannot be used. The message names place, found value and fix."""


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
    """What is wrong with a question, or None. Options may repeat, as in the public sets."""
    if not 2 <= len(question.options) <= len(LETTERS):
        return f"it has {len(question.options)} options; give 2 to {len(LETTERS)}"
    if not 0 <= question.answer < len(question.options):
        return (
            f"the answer is option {question.answer} of {len(question.options)}, counted from 0; "
            f"name one of the options"
        )
    return _text_problem(question) or _class_problem(question)


def line_problem(question: Question) -> str | None:
    """Why stem and options cannot be separated again in the line of the public files; else None."""
    try:
        if split_line(question.line) == (question.stem, question.options):
            return None
    except QuestionError:
        pass
    return (
        f"stem and options cannot be separated again in {question.line!r:.200}; end the stem "
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
        return (
            f"it has {len(labels)} classes for {len(question.options)} options; give one for each"
        )
    if labels[question.answer] != question.label:
        return (
            f"the clip's class is {question.label}, but the right option's class is "
            f"{labels[question.answer]}"
        )
    return None


def is_count(value: object) -> bool:
    """Whether a value is a whole number from 0 and below COUNTS; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < COUNTS


def _is_text(value: object) -> bool:
    return isinstance(value, str)


Check = tuple[Callable[[object], bool], str]
TEXT: Check = (_is_text, "a text")
FORMS: dict[str, Check] = {
    **dict.fromkeys(("question_id", "video", "stem", "question"), TEXT),
    **dict.fromkeys(("event", "source", "answer_type", "dataset"), TEXT),
    **dict.fromkeys(("label", "frame_length"), (is_count, COUNT)),
    "options": (lambda one: isinstance(one, list) and all(map(_is_text, one)), "a list of texts"),
    "option_labels": (
        lambda one: isinstance(one, list) and all(map(is_count, one)),
        "a list of classes",
    ),
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


def read_question_text(path: Path) -> str:
    """Text of a UTF-8 file, without a byte order mark.

    Raises:
        QuestionError: the file is missing, or not UTF-8.
    """
    return read_text(
        path,
        error=QuestionError,
        missing=f"no questions at {path}; build them with scripts/build_gym_qa.py",
        fix="save it as UTF-8",
    )


def parse(where: object, text: str) -> Any:
    """What a JSON text says.

    Raises:
        QuestionError: it is not JSON (see `files.parse_json`); names the place, `where`.
    """
    try:
        return parse_json(text)
    except ValueError as cause:
        raise QuestionError(f"{where} is not JSON: {cause}; fix it there") from cause


def attach_classes(questions: Iterable[Question], clips: Iterable[Clip]) -> list[Question]:
    """Questions with the class, apparatus and source that a manifest gives for their clips.

    A question that has its class stays as it is. Options are class texts where the answer_type is
    "what", as in the public files, and are compared with the manifest's there alone.

    Raises:
        QuestionError: a video is in no line of the manifest; a question's class is another than
            the manifest's, or the right answer to what move it is differs from its class text.
    """
    questions = list(questions)
    clip_of = {composed(clip.id): clip for clip in clips}
    check_videos(questions, clip_of)
    attached = []
    for question in questions:
        clip = clip_of[composed(question.video)]
        question = replace(question, video=clip.id)  # as the manifest spells it
        _compare(question, clip)
        if question.label is None:
            question = replace(question, label=clip.label, event=clip.event, source=clip.source)
        attached.append(question)
    return attached


def _compare(question: Question, clip: Clip) -> None:
    right, found = question.options[question.answer], ""
    if question.answer_type == "what" and clip.text and composed(clip.text) != composed(right):
        found = f"the right option is {right!r}, but the manifest calls the clip {clip.text!r}"
    elif None not in (question.label, clip.label) and question.label != clip.label:
        found = f"the clip's class is {question.label}, but {clip.label} in the manifest"
    if found:
        raise QuestionError(
            f"question {question.question_id}: {found}; questions and manifest must come from the "
            f"same class list"
        )


def check_videos(questions: Iterable[Question], clip_ids: Iterable[str]) -> None:
    """Refuse questions about unknown clips, all at once.

    Raises:
        QuestionError: names the first of them and says how many there are.
    """
    known = set(map(composed, clip_ids))
    unknown = [question for question in questions if composed(question.video) not in known]
    if not unknown:
        return
    first = unknown[0]
    meant = re.sub(r"^.*[/\\]|\.\w{2,4}$", "", first.video)
    fix = f"write {meant!r}" if meant in known else "take questions and manifest of one set"
    raise QuestionError(
        f"question {first.question_id}: video {first.video} is not in the manifest; {fix}. "
        f"{len(unknown)} questions name unknown videos"
    )


def write_public_json(questions: Sequence[Question], path: Path) -> None:
    """Write the public format: fields in its order, indented by 4, no line end after the last.

    Raises:
        QuestionError: a question is not sound (see `check_question`), its stem and options cannot
            be separated again once they are in one line, or an id repeats.
    """
    _check_all(path, questions)
    for question in questions:
        if problem := line_problem(question):
            raise QuestionError(f"{path}, question {question.question_id}: {problem}")
    entries = {
        question.question_id: {
            "answer": question.letter,
            "question": question.line,
            **{name: getattr(question, name) for name in PUBLIC_FIELDS[2:]},
        }
        for question in questions
    }
    write_text(path, json.dumps(entries, indent=4))


def write_questions(questions: Sequence[Question], path: Path) -> None:
    """Write every field of each question, one JSON object a line.

    Raises:
        QuestionError: a question is not sound (see `check_question`) or an id repeats.
    """
    _check_all(path, questions)
    lines = (json.dumps(vars(question), ensure_ascii=False) for question in questions)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_questions(path: Path) -> list[Question]:
    """Questions of a JSON lines file: ours, or a user's shorter ones (see above).

    Raises:
        QuestionError: the file is missing or empty, or a line is not a question.
    """
    return _line_questions(path, read_question_text(path))


def read_any(path: Path) -> list[Question]:
    """Questions of a file in any of the three formats, recognized by its content.

    A file that is one JSON object with an object for every key is in the public format; of
    anything else, each line must be a question.

    Raises:
        QuestionError: the file is missing or of none of the formats; the message names the line
            or the question.
    """
    text = read_question_text(path)
    start = text.lstrip()
    if start.startswith("["):
        raise QuestionError(
            f"{path} is a JSON list; write one object a line, without brackets and commas around"
        )
    public = re.match(r'\{\s*("[^"]*"\s*:\s*\{|\}|$)', start)
    return _public_questions(path, text) if public else _line_questions(path, text)


def _public_questions(path: Path, text: str) -> list[Question]:
    entries = parse(path, text)
    if not isinstance(entries, dict) or not entries:
        raise QuestionError(f"{path} holds no questions; expected an object keyed by question id")
    questions = [
        _public_question(f"{path}, question {key:.40}", key, entry)
        for key, entry in entries.items()
    ]
    _check_all(path, questions)
    return questions


def _public_question(where: str, question_id: str, entry: object) -> Question:
    if not isinstance(entry, dict) or list(entry) != list(PUBLIC_FIELDS):
        found = f"its fields are {list(entry)}" if isinstance(entry, dict) else f"found {entry!r}"
        raise QuestionError(f"{where}: {found:.200}; expected {list(PUBLIC_FIELDS)}")
    if entry["question_id"] != question_id:
        raise QuestionError(
            f"{where}: its question_id is {entry['question_id']!r:.40}; make the two agree"
        )
    letter = entry["answer"]
    if not isinstance(letter, str) or not re.fullmatch(r"[A-Z]", letter):
        raise QuestionError(f"{where}: its answer is {letter!r:.40}; expected a letter such as 'A'")
    _check_forms(where, entry, TEXT)
    try:
        stem, options = split_line(entry["question"])
    except QuestionError as error:
        raise QuestionError(f"{where}: {error}") from error
    if letter not in (letters := LETTERS[: len(options)]):
        raise QuestionError(
            f"{where}: its answer is {letter!r}, but its options are A to {letters[-1]}; name one"
        )
    return Question(
        stem=stem,
        options=options,
        answer=letters.index(letter),
        **{name: entry[name] for name in PUBLIC_FIELDS[2:]},
    )


def _line_questions(path: Path, text: str) -> list[Question]:
    lines = text.rstrip("\r\n").split("\n")
    questions = []
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        if not line.strip():
            raise QuestionError(f"{where} is empty; delete it")
        entry = parse(where, line)
        if not isinstance(entry, dict):
            raise QuestionError(f"{where}: found {entry!r:.60}; expected {{{', '.join(NEEDED)}}}")
        short = "stem" not in entry
        questions.append(_short(where, entry, number - 1) if short else _complete(where, entry))
    _check_all(path, questions)
    return questions


def _check_all(path: Path, questions: Sequence[Question]) -> None:
    if not questions:
        raise QuestionError(f"{path}: there are no questions; build them with build_gym_qa.py")
    repeats = [key for key, n in Counter(one.question_id for one in questions).items() if n > 1]
    if repeats:
        raise QuestionError(f"{path}: question id {repeats[0]} is used more than once; renumber")
    for question in questions:
        if problem := check_question(question):
            raise QuestionError(f"{path}, question {question.question_id}: {problem}")
