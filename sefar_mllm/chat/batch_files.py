"""The files of a batch of questions: lines in, lines out, and what a second run finds there.

    in     {"video": "a.mp4", "question": "Which move is this?"}
           {"id": "q7", "video": "a.mp4", "question": "Which?", "options": ["salto", "stalder"]}
    out    {"id": "1", "video": "a.mp4", "question": "Which move is this?", "answer": "salto"}
           {"id": "q7", ..., "options": [...], "answer": "stalder", "probs": [0.2, 0.8]}
           {"id": "8", ..., "error": "b.mp4 does not exist or is not a file. ..."}

A line without an id gets its line number. Beside the answers lie the settings that they were made
with, so that no file mixes the answers of two models.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sefar_core.runs.folder import write_json, write_text
from sefar_mllm.chat.conversation import choice_of, refuse_halves, refuse_text
from sefar_mllm.config import ChatLimits

FIELDS = ("id", "video", "question", "options")
SHOWN = 5
"""Faulty lines that a message lists."""

Answer = dict[str, Any]
"""A line of the file of answers."""


class BatchError(ValueError):
    """Files that cannot be used; the message names file and lines, what was found, the mend."""


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """A question about a video."""

    id: str
    video: str
    """As the line names it."""
    question: str
    options: tuple[str, ...] | None = None
    """Answers to choose from; None asks for words."""

    def asked(self) -> Answer:
        """What its answer repeats."""
        options = {} if self.options is None else {"options": list(self.options)}
        return {"id": self.id, "video": self.video, "question": self.question} | options


def read_inquiries(path: Path, limits: ChatLimits) -> list[Inquiry]:
    """The questions of a file.

    Raises:
        BatchError: no such file, nothing in it, or lines that are no questions, with their
            numbers.
    """
    inquiries, faults = [], []
    for number, line in enumerate(lines_of(path), 1):
        try:
            inquiries.append(inquiry_of(line, number, limits))
        except ValueError as fault:
            faults.append(f"line {number}: {fault}")
    many = Counter(inquiry.id for inquiry in inquiries)
    faults += [f"{count} lines have the id {one!r}" for one, count in many.items() if count > 1]
    if faults:
        listed = "; ".join(faults[:SHOWN])
        raise BatchError(f"{path} has {len(faults)} faults; mend them there: {listed}")
    if not inquiries:
        raise BatchError(f"{path} is empty; write a question a line")
    return inquiries


def lines_of(path: Path) -> list[str]:
    """Lines of a UTF-8 file.

    Raises:
        BatchError: it is missing, or no UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        raise BatchError(f"cannot read {path}: {cause}; give a UTF-8 file of JSON lines") from cause
    return text.removesuffix("\n").split("\n") if text.strip() else []


def inquiry_of(line: str, number: int, limits: ChatLimits) -> Inquiry:
    """The question of a line.

    Raises:
        ValueError: it is none, and why.
    """
    entry = json.loads(line, object_pairs_hook=once)
    if not isinstance(entry, dict) or not {"video", "question"} <= entry.keys() <= set(FIELDS):
        raise ValueError(f"found {line:.80}; expected an object of video, question, [id, options]")
    entry = {"id": str(number), **entry}
    for name in ("id", "video", "question"):
        if not isinstance(entry[name], str) or not entry[name] or "\0" in entry[name]:
            raise ValueError(f"{name} is {entry[name]!r:.60}; expected a text")
        refuse_halves(entry[name], name)
    options = entry.get("options")
    if options is None and "options" not in entry:
        refuse_text(entry["question"], "question", limits)
        return Inquiry(**entry)
    if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
        raise ValueError(f"options is {options!r:.60}; expected a list of texts")
    choice_of(options, entry["question"], limits)
    return Inquiry(**{**entry, "options": tuple(options)})


def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, unless it has a key twice."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"a key stands twice among {[key for key, _ in pairs]}")
    return dict(pairs)


def open_answers(
    out: Path, inquiries: Iterable[Inquiry], settings: Mapping[str, Any]
) -> dict[str, Answer]:
    """The answers that lie in a file already, by id; failed ones are left out.

    A last line that a stopped run left half-written is dropped. The settings are written beside a
    file that begins.

    Raises:
        BatchError: there is a folder or a file that a batch did not write, a line that is no
            answer, or answers to other questions or of other settings.
        WriteError: the settings cannot be written.
    """
    beside = out.with_name(f"{out.name}.settings.json")
    if not out.exists():
        write_json(beside, settings)
        return {}
    found = written_with(out, beside)
    if differing := [name for name in settings if found.get(name) != settings[name]]:
        name = differing[0]
        raise BatchError(
            f"{out} holds answers made with {name} = {found.get(name)}, this run has "
            f"{settings[name]}; give another --out"
        )
    asked = {inquiry.id: inquiry.asked() for inquiry in inquiries}
    answers = [answer_of(out, line, number, asked) for number, line in whole_lines(out)]
    return {answer["id"]: answer for answer in answers if "error" not in answer}


def written_with(out: Path, beside: Path) -> dict[str, Any]:
    """The settings of a file of answers, read from the file beside it.

    Raises:
        BatchError: no batch wrote the file, or its settings are damaged.
    """
    if not out.is_file() or not beside.is_file():
        what = "a folder" if out.is_dir() else "no file of answers"
        raise BatchError(f"{out} is {what}; give --out the name of a file that does not exist")
    try:
        return dict(json.loads(beside.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as cause:
        raise BatchError(f"{beside} is damaged ({cause}); give another --out") from cause


def whole_lines(path: Path) -> Iterable[tuple[int, str]]:
    """Numbered lines, without a last one that has no end."""
    return enumerate(path.read_bytes().decode("utf-8", "replace").split("\n")[:-1], 1)


def answer_of(out: Path, line: str, number: int, asked: Mapping[str, Answer]) -> Answer:
    """The answer in a line, to a question that is asked.

    Raises:
        BatchError: it is none.
    """
    try:
        answer = json.loads(line)
        question = {name: answer[name] for name in FIELDS if name in answer}
        known = asked.get(question["id"]) == question and ("answer" in answer or "error" in answer)
    except (ValueError, TypeError, KeyError) as cause:
        raise BatchError(
            f"{out}, line {number} is no answer ({cause!r}); give another --out"
        ) from cause
    if not known:
        raise BatchError(
            f"{out}, line {number} answers a question that is not asked: {question!r:.160}; give "
            f"another --out"
        )
    return answer


def write_answers(out: Path, inquiries: Iterable[Inquiry], answers: Mapping[str, Answer]) -> None:
    """The answers that there are, in the order of the questions, all or nothing."""
    kept = [answers[inquiry.id] for inquiry in inquiries if inquiry.id in answers]
    write_text(out, "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in kept))
