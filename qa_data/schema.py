"""The files of a question set, read and written.

Two files hold the same questions. The public JSON is read by the public code, byte for byte in
its format: one object keyed by seven-digit ids, question and options in one line, no class. The
JSON lines file holds everything that is known of each question, one object a line.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from qa_data.atomic import write_text
from qa_data.manifest import Clip
from qa_data.question import LETTERS, Question, QuestionError, check_question, split_line

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

    Raises:
        QuestionError: a video is in no line of the manifest, or its class text is not the right
            option.
    """
    clip_of = {clip.id: clip for clip in clips}
    attached = []
    for question in questions:
        clip = clip_of.get(question.video)
        where = f"question {question.question_id}"
        if clip is None:
            raise QuestionError(f"{where}: video {question.video} is not in the manifest")
        right = question.options[question.answer]
        if clip.text is not None and clip.text != right:
            raise QuestionError(
                f"{where}: the right option is {right!r}, but the manifest calls the clip "
                f"{clip.text!r}; questions and manifest must come from the same class list"
            )
        attached.append(replace(question, label=clip.label, event=clip.event, source=clip.source))
    return attached


def write_public_json(questions: Sequence[Question], path: Path) -> None:
    """Write the public format: fields in its order, indented by 4, no line end after the last.

    Raises:
        QuestionError: a question is not sound (see `check_question`) or an id repeats.
    """
    _check_all(path, questions)
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
    entries = _load(path, _read_text(path), pairs_hook=list)
    if not isinstance(entries, list) or not entries:
        raise QuestionError(f"{path} holds no questions; expected an object keyed by question id")
    questions = []
    for entry in entries:
        if not isinstance(entry, tuple) or not isinstance(entry[1], list):
            raise QuestionError(f"{path}: found {entry!r:.60}; expected {{question id: {{...}}}}")
        questions.append(_public_question(f"{path}, question {entry[0]}", *entry))
    _check_all(path, questions)
    return questions


def write_questions(questions: Sequence[Question], path: Path) -> None:
    """Write everything that is known of each question, one JSON object a line.

    Raises:
        QuestionError: a question is not sound (see `check_question`) or an id repeats.
    """
    _check_all(path, questions)
    lines = (json.dumps(asdict(question), ensure_ascii=False) for question in questions)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_questions(path: Path) -> list[Question]:
    """Questions of a JSON lines file.

    Raises:
        QuestionError: the file is missing or empty, or a line is no question.
    """
    lines = _read_text(path).rstrip("\n").split("\n")
    questions = [_own_question(f"{path}, line {i}", line) for i, line in enumerate(lines, 1)]
    _check_all(path, questions)
    return questions


def _public_question(where: str, question_id: str, pairs: list[tuple[str, object]]) -> Question:
    entry = dict(pairs)
    if [name for name, _ in pairs] != list(PUBLIC_FIELDS):
        raise QuestionError(
            f"{where}: its fields are {list(entry)}; expected {list(PUBLIC_FIELDS)}"
        )
    if entry["question_id"] != question_id:
        raise QuestionError(
            f"{where}: its question_id is {entry['question_id']!r}; make the two agree"
        )
    letter, line, frames = entry["answer"], entry["question"], entry["frame_length"]
    if not isinstance(letter, str) or not re.fullmatch(r"[A-Z]", letter):
        raise QuestionError(f"{where}: its answer is {letter!r}; expected a letter such as 'A'")
    if not isinstance(line, str) or not (frames is None or isinstance(frames, int)):
        raise QuestionError(
            f"{where}: question is {line!r:.60} and frame_length is {frames!r}; expected a text "
            f"and a whole number or null"
        )
    try:
        stem, options = split_line(line)
    except QuestionError as error:
        raise QuestionError(f"{where}: {error}") from error
    return Question(
        question_id=question_id,
        video=str(entry["video"]),
        stem=stem,
        options=options,
        answer=LETTERS.index(letter),
        frame_length=frames,
        answer_type=str(entry["answer_type"]),
        dataset=str(entry["dataset"]),
    )


def _own_question(where: str, line: str) -> Question:
    entry = _load(where, line)
    names = [field.name for field in fields(Question)]
    if not isinstance(entry, dict) or sorted(entry) != sorted(names):
        raise QuestionError(f"{where}: found {line:.60}; expected the fields {names}")
    labels, options = entry["option_labels"], entry["options"]
    if not isinstance(entry["answer"], int) or not isinstance(options, list):
        raise QuestionError(
            f"{where}: answer is {entry['answer']!r} and options are {options!r:.60}; expected a "
            f"position and a list of texts"
        )
    entry |= {"options": tuple(options), "option_labels": labels and tuple(labels)}
    return Question(**entry)


def _check_all(path: Path, questions: Sequence[Question]) -> None:
    if not questions:
        raise QuestionError(f"{path}: there are no questions; build them with build_gym_qa.py")
    repeats = [key for key, n in Counter(one.question_id for one in questions).items() if n > 1]
    if repeats:
        raise QuestionError(f"{path}: question id {repeats[0]} is used more than once; renumber")
    for question in questions:
        if problem := check_question(question):
            raise QuestionError(f"{path}, question {question.question_id}: {problem}")


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise QuestionError(f"no questions at {path}; build them with scripts/build_gym_qa.py")
    return path.read_text(encoding="utf-8")


def _load(where: object, text: str, pairs_hook: Callable | None = None) -> Any:
    try:
        return json.loads(text, object_pairs_hook=pairs_hook)
    except ValueError as cause:
        raise QuestionError(f"{where} is not JSON: {cause}; fetch or build it again") from cause
