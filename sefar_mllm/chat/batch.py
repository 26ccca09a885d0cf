"""Batches of questions about many videos: a file of questions in, a file of answers out.

    in     {"video": "a.mp4", "question": "Which move is this?"}
           {"id": "q7", "video": "a.mp4", "question": "Which?", "options": ["salto", "stalder"]}
    out    {"id": "1", "video": "a.mp4", "question": "Which move is this?", "answer": "salto"}
           {"id": "q7", ..., "options": [...], "answer": "stalder", "probs": [0.2, 0.8]}
           {"id": "8", ..., "error": "b.mp4 does not exist or is not a file. ..."}

A line without an id gets its line number. Each video is decoded and encoded once, for all its
questions. Answers are appended as they are made: a stopped run keeps them, and the same command
resumes. The settings of the answers are written beside them, so that no file mixes the answers of
two models. Prompts are padded on the left, and answers are those of single questions.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from qa_data.files import (
    SefarError,
    on_disk,
    parse_json,
    read_text,
    write_json,
    write_text,
    writing,
)
from qa_data.questions import Question
from sefar_core.data.decode import VideoReadError
from sefar_mllm.chat.assistant import (
    MAX_JOINED,
    Assistant,
    ChatError,
    choice_of,
    joined_length,
    printable,
    refuse_halves,
    refuse_text,
)
from sefar_mllm.chat.safe_video import VideoClip
from sefar_mllm.checkpoint import fingerprint_file
from sefar_mllm.config import ChatLimits
from sefar_mllm.generate import generate_ids
from sefar_mllm.scoring import batches_by_options, letter_logits, option_probs

FIELDS = ("id", "video", "question", "options")
SHOWN = 5
"""Number of faulty lines that a message lists."""

Answer = dict[str, Any]
"""A line of the file of answers."""


@dataclass(frozen=True, kw_only=True)
class BatchQuestion:
    """A question about a video."""

    id: str
    video: str
    """As the line names it."""
    question: str
    options: tuple[str, ...] | None = None
    """Answers to choose from; None: the model answers in words."""

    def fields(self) -> Answer:
        """The fields that its answer repeats."""
        options = {} if self.options is None else {"options": list(self.options)}
        return {"id": self.id, "video": self.video, "question": self.question} | options


def read_batch(path: Path, limits: ChatLimits) -> list[BatchQuestion]:
    """The questions of a file. SefarError if there is no such file, it is not UTF-8 or is empty, or
    lines are not questions; the message has their numbers.
    """
    fix = "give a UTF-8 file of JSON lines"
    missing = f"cannot read {path}: there is no such file; {fix}"
    text = read_text(path, error=SefarError, missing=missing, fix=fix)
    if not text.strip():
        raise SefarError(f"{path} is empty; write a question a line")
    questions, faults = [], []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        try:
            questions.append(question_of(line, number, limits))
        except (SefarError, ValueError) as fault:
            faults.append(f"line {number}: {fault}")
    many = Counter(question.id for question in questions)
    faults += [f"{count} lines have the id {one!r}" for one, count in many.items() if count > 1]
    if faults:
        listed = "; ".join(faults[:SHOWN])
        raise SefarError(f"{path} has {len(faults)} faults; fix them: {listed}")
    return questions


def question_of(line: str, number: int, limits: ChatLimits) -> BatchQuestion:
    """The question of a line. ValueError if it is not a question; the message says why."""
    entry = parse_json(line)
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
        return BatchQuestion(**entry)
    if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
        raise ValueError(f"options is {options!r:.60}; expected a list of texts")
    choice_of(options, entry["question"], limits)
    return BatchQuestion(**{**entry, "options": tuple(options)})


def open_answers(
    out: Path, questions: Iterable[BatchQuestion], settings: Mapping[str, Any]
) -> dict[str, Answer]:
    """The answers that a file holds already, by id, without failed ones.

    An incomplete last line of a stopped run is dropped. For a new file the settings are written
    beside it.

    Raises:
        SefarError: there is a folder or a file that a batch did not write, a line that is not
            an answer, or answers to other questions or with other settings.
        WriteError: the settings cannot be written.
    """
    beside = out.with_name(f"{out.name}.settings.json")
    if not out.exists():
        if not out.parent.is_dir():
            raise SefarError(
                f"cannot write {out}: there is no folder {out.parent}; make it, or give another "
                f"--out"
            )
        write_json(beside, settings)
        return {}
    found = written_with(out, beside)
    if differing := [name for name in settings if found.get(name) != settings[name]]:
        name = differing[0]
        raise SefarError(
            f"{out} holds answers made with {name} = {found.get(name)}, this run has "
            f"{settings[name]}; give another --out"
        )
    expected = {question.id: question.fields() for question in questions}
    *lines, _ = out.read_bytes().decode("utf-8", "replace").split("\n")  # without a cut last one
    answers = [answer_of(out, line, number, expected) for number, line in enumerate(lines, 1)]
    return {answer["id"]: answer for answer in answers if "error" not in answer}


def written_with(out: Path, beside: Path) -> dict[str, Any]:
    """The settings of a file of answers, read from the file beside it. SefarError if the file is
    not of a batch, or its settings are damaged.
    """
    if not out.is_file() or not beside.is_file():
        what = "a folder" if out.is_dir() else "not a file of answers"
        raise SefarError(f"{out} is {what}; give --out the name of a file that does not exist")
    try:
        return dict(json.loads(beside.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as cause:
        raise SefarError(f"{beside} is damaged ({cause}); give another --out") from cause


def answer_of(out: Path, line: str, number: int, expected: Mapping[str, Answer]) -> Answer:
    """The answer in a line, to one of the questions of this run. SefarError if it is not such an
    answer.
    """
    try:
        answer = json.loads(line)
        question = {name: answer[name] for name in FIELDS if name in answer}
        known = expected.get(question["id"]) == question and (
            "answer" in answer or "error" in answer
        )
    except (ValueError, TypeError, KeyError) as cause:
        raise SefarError(
            f"{out}, line {number} is not an answer ({cause!r}); give another --out"
        ) from cause
    if not known:
        raise SefarError(
            f"{out}, line {number} answers a question of another batch: {question!r:.160}; give "
            f"another --out"
        )
    return answer


def write_answers(
    out: Path, questions: Iterable[BatchQuestion], answers: Mapping[str, Answer]
) -> None:
    """Write the answers in the order of the questions, all or nothing."""
    kept = [answers[question.id] for question in questions if question.id in answers]
    write_text(out, "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in kept))


Seen = Float[Tensor, "frame row column dim"] | VideoReadError
"""A video's tokens, or its error."""


def answer_all(
    assistant: Assistant,
    questions: Sequence[BatchQuestion],
    out: Path,
    *,
    settings: Mapping[str, Any],
    video_root: Path | None = None,
    batch_size: int = 16,
) -> dict[str, str]:
    """Answer the questions that `out` does not answer yet.

    The questions have distinct ids. `out` gets one JSON object a line, in the end in the order of
    the questions. `settings` is what the answers depend on (`made_with`). Returned, by id: the
    error of each question that could not be answered. SefarError if `out` holds other answers, or a
    path leads out of `video_root`.
    """
    paths = {question.id: path_of(question, video_root) for question in questions}
    answers = open_answers(out, questions, settings)
    write_answers(out, questions, answers)
    todo = [question for question in questions if question.id not in answers]
    left = Counter(paths[question.id] for question in todo)
    seen: dict[Path, Seen] = {}
    with (
        out.open("a", encoding="utf-8") as file,
        tqdm(total=len(todo), desc="questions", unit="q") as bar,
    ):
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            new = sorted({paths[one.id] for one in batch} - seen.keys())
            encoded = assistant.encode_videos([VideoClip(path=path) for path in new])
            seen |= {clip.path: tokens for clip, tokens in encoded}
            found = answer_batch(assistant, batch, [seen[paths[one.id]] for one in batch])
            with writing(out, 0):
                file.writelines(json.dumps(a, ensure_ascii=False) + "\n" for a in found)
                file.flush()
            answers |= {answer["id"]: answer for answer in found}
            left -= Counter(paths[one.id] for one in batch)
            seen = {path: tokens for path, tokens in seen.items() if path in left}
            bar.update(len(batch))
    write_answers(out, questions, answers)
    return {one: answer["error"] for one, answer in answers.items() if "error" in answer}


def made_with(
    model: Path, limits: ChatLimits, *, four_bit: bool, video_root: Path | None
) -> dict[str, Any]:
    """What answers depend on: the model, by its fingerprint, its precision, the limits, and the
    folder of the videos. OSError if there is no fine-tuned model in the folder.
    """
    return {
        "model": hashlib.sha256(fingerprint_file(model).read_bytes()).hexdigest()[:16],
        "max_new_tokens": limits.max_new_tokens,
        "four_bit": four_bit,
        "video_root": None if video_root is None else os.path.realpath(video_root),
    }


def path_of(question: BatchQuestion, video_root: Path | None) -> Path:
    """The path of a question's video; below the root links are followed, since their targets are
    read. SefarError if its path leads out of the root.
    """
    if video_root is None:
        return on_disk(Path(question.video))
    inner = os.path.normpath(question.video)
    path = Path(os.path.realpath(on_disk(video_root / question.video)))
    if os.path.isabs(inner) or inner.split(os.sep)[0] == os.pardir:
        fix = "name videos relative to it, or leave it out"
    elif not path.is_relative_to(os.path.realpath(video_root)):
        fix = (
            "a link there points elsewhere; give the folder that holds the files themselves, let "
            "the root itself be the link, or leave --video-root out if you wrote the questions"
        )
    else:
        return path
    raise SefarError(
        f"question {question.id}: {question.video} leads out of --video-root {video_root}; {fix}"
    )


def answer_batch(
    assistant: Assistant, questions: Sequence[BatchQuestion], seen: Sequence[Seen]
) -> list[Answer]:
    """The answers to a batch: words, or the most probable option with the probabilities of all."""
    found: dict[str, Answer] = {}
    open_questions: list[tuple[BatchQuestion, Tensor]] = []
    with_options: list[tuple[BatchQuestion, Tensor]] = []
    for question, tokens in zip(questions, seen, strict=True):
        if isinstance(tokens, VideoReadError):
            found[question.id] = {"error": str(tokens)}
        else:
            (open_questions if question.options is None else with_options).append(
                (question, tokens)
            )
    found |= answer_in_words(assistant, open_questions) | answer_by_options(assistant, with_options)
    return [question.fields() | found[question.id] for question in questions]


def answer_in_words(
    assistant: Assistant,
    questions: Sequence[tuple[BatchQuestion, Float[Tensor, "frame row column dim"]]],
) -> dict[str, Answer]:
    """Answers in words, generated together."""
    found: dict[str, Answer] = {}
    prompts: dict[str, list[int]] = {}
    for question, tokens in questions:
        try:
            prompts[question.id] = assistant.begin(tokens).prompt(question.question)
        except ChatError as refusal:
            found[question.id] = {"error": str(refusal)}
    if not prompts:
        return found
    answers = generate_ids(
        assistant.model,
        list(prompts.values()),
        [tokens for question, tokens in questions if question.id in prompts],
        max_new_tokens=assistant.limits.max_new_tokens,
        end_id=assistant.tokenizer.eos_token_id,
        static_cache=assistant.compiled,
    )
    for name, ids in zip(prompts, answers, strict=True):
        text = str(assistant.tokenizer.decode(ids, skip_special_tokens=True))
        found[name] = {"answer": printable(text).strip()}
    return found


def answer_by_options(
    assistant: Assistant,
    questions: Sequence[tuple[BatchQuestion, Float[Tensor, "frame row column dim"]]],
) -> dict[str, Answer]:
    """The most probable option of each, and the probabilities of all, rotation-averaged."""
    found: dict[str, Answer] = {}
    tokens = {one.id: seen for one, seen in questions}
    choices: list[Question] = []
    for one, seen in questions:
        try:
            question = assistant.begin(seen).choice(one.options or (), one.question)
            choices.append(replace(question, question_id=one.id))
        except ChatError as refusal:
            found[one.id] = {"error": str(refusal)}
    for batch in scored_together(assistant, choices):
        shown = [tokens[question.question_id] for question in batch]
        logits = letter_logits(assistant.model, assistant.tokenizer, batch, shown)
        for question, probs in zip(batch, option_probs(logits).tolist(), strict=True):
            best = question.options[max(range(len(probs)), key=probs.__getitem__)]
            found[question.question_id] = {"answer": best, "probs": probs}
    return found


def scored_together(
    assistant: Assistant, questions: Sequence[Question]
) -> Iterator[Sequence[Question]]:
    """Batches of questions with equally many options, within the memory of the longest question."""
    for batch in batches_by_options(questions, max(1, len(questions))):
        lengths = [joined_length(assistant.model, assistant.tokenizer, one) for one in batch]
        room = max(1, MAX_JOINED**2 // max(lengths) ** 2)
        for start in range(0, len(batch), room):
            yield batch[start : start + room]
