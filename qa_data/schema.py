"""The files of a question set, read and written.

Two files hold the same questions. The public JSON is read by the public code, byte for byte in
its format: one object keyed by seven-digit ids, question and options in one line, no class. The
JSON lines file holds everything that is known of each question, one object a line. Users' own
questions may be shorter lines (see `question_lines`); `read_any` takes all three.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qa_data.atomic import write_text
from qa_data.manifest import Clip
from qa_data.question import (
    LETTERS,
    Question,
    QuestionError,
    check_question,
    line_problem,
    split_line,
)
from qa_data.question_lines import COUNT, is_count, question_of_line
from qa_data.strict_json import parse, read_text
from qa_data.text_file import composed

PUBLIC_FIELDS = (
    "answer",
    "question",
    "answer_type",
    "question_id",
    "dataset",
    "video",
    "frame_length",
)


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
    """Refuse questions about clips that are not there, all at once.

    Raises:
        QuestionError: names the first of them and says how many there are.
    """
    known = set(map(composed, clip_ids))
    unknown = [question for question in questions if composed(question.video) not in known]
    if not unknown:
        return
    first = unknown[0]
    meant = re.sub(r"^.*[/\\]|\.\w{2,4}$", "", first.video)
    mend = f"write {meant!r}" if meant in known else "take questions and manifest of one set"
    raise QuestionError(
        f"question {first.question_id}: video {first.video} is not in the manifest; {mend}. So "
        f"it is with {len(unknown)} questions"
    )


def write_public_json(questions: Sequence[Question], path: Path) -> None:
    """Write the public format: fields in its order, indented by 4, no line end after the last.

    Raises:
        QuestionError: a question is not sound (see `check_question`), its stem and options cannot
            be told apart once they stand in one line, or an id repeats.
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


def read_public_json(path: Path) -> list[Question]:
    """Questions of a file in the public format, in its order; writing them gives the same bytes.

    Raises:
        QuestionError: the file is missing or not of the format; the message names the question.
    """
    return _public_questions(path, read_text(path))


def write_questions(questions: Sequence[Question], path: Path) -> None:
    """Write everything that is known of each question, one JSON object a line.

    Raises:
        QuestionError: a question is not sound (see `check_question`) or an id repeats.
    """
    _check_all(path, questions)
    lines = (json.dumps(vars(question), ensure_ascii=False) for question in questions)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_questions(path: Path) -> list[Question]:
    """Questions of a JSON lines file: ours, or a user's shorter ones (see `question_lines`).

    Raises:
        QuestionError: the file is missing or empty, or a line is no question.
    """
    return _line_questions(path, read_text(path))


def read_any(path: Path) -> list[Question]:
    """Questions of a file of any of the three formats, told apart by what stands in it.

    A file that is one JSON object with an object for every key is in the public format; of
    anything else, each line must be a question.

    Raises:
        QuestionError: the file is missing or of none of the formats; the message names the line
            or the question.
    """
    text = read_text(path)
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
    _check_public_fields(where, question_id, entry)
    letter = entry["answer"]
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


def _check_public_fields(where: str, question_id: str, entry: dict[str, Any]) -> None:
    if entry["question_id"] != question_id:
        raise QuestionError(
            f"{where}: its question_id is {entry['question_id']!r:.40}; make the two agree"
        )
    letter, frames = entry["answer"], entry["frame_length"]
    if not isinstance(letter, str) or not re.fullmatch(r"[A-Z]", letter):
        raise QuestionError(f"{where}: its answer is {letter!r:.40}; expected a letter such as 'A'")
    for name in ("question", "video", "answer_type", "dataset"):
        if not isinstance(entry[name], str):
            raise QuestionError(f"{where}: {name} is {entry[name]!r:.60}; expected a text")
    if frames is not None and not is_count(frames):
        raise QuestionError(f"{where}: frame_length is {frames!r:.40}; expected {COUNT}, or null")


def _line_questions(path: Path, text: str) -> list[Question]:
    lines = text.rstrip("\r\n").split("\n")
    questions = []
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        if not line.strip():
            raise QuestionError(f"{where} is empty; delete it")
        questions.append(question_of_line(where, parse(where, line), number - 1))
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
