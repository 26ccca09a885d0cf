"""Questions about many videos, answered in the order asked.

Each video is decoded and encoded once, however often it is asked about. Answers are appended as
they come: a stopped run keeps them, and the same command goes on from there. Batches are padded on
the left, and their answers are those of single questions.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from qa_data.schema import Question
from sefar_core.data.decoding import VideoReadError
from sefar_core.data.on_disk import on_disk
from sefar_core.runs.folder import writing
from sefar_mllm.chat.assistant import Assistant
from sefar_mllm.chat.batch_files import Answer, BatchError, Inquiry, open_answers, write_answers
from sefar_mllm.chat.conversation import MAX_JOINED, ChatError, joined_length, printable
from sefar_mllm.chat.generation import generate_ids
from sefar_mllm.chat.guarded_video import Footage
from sefar_mllm.config import ChatLimits
from sefar_mllm.folders.self_check import PROBE
from sefar_mllm.scoring.letters import letter_logits
from sefar_mllm.scoring.predict import batches
from sefar_mllm.scoring.rotations import option_probs

Seen = Float[Tensor, "frame row column dim"] | VideoReadError
"""A video's tokens, or what is wrong with it."""


def answer_all(
    assistant: Assistant,
    inquiries: Sequence[Inquiry],
    out: Path,
    *,
    settings: Mapping[str, Any],
    video_root: Path | None = None,
    batch_size: int = 16,
) -> dict[str, str]:
    """Answer what `out` does not answer yet.

    Args:
        assistant: who looks and answers.
        inquiries: with ids of their own.
        out: file of answers, one JSON object a line; in the order of the inquiries in the end.
        settings: what the answers depend on.
        video_root: folder that the videos' paths are relative to.
        batch_size: questions answered at a time.

    Returns:
        By id, what stood in the way of each question that could not be answered.

    Raises:
        BatchError: `out` holds other answers, or a path leads out of `video_root`.
    """
    paths = {inquiry.id: path_of(inquiry, video_root) for inquiry in inquiries}
    answers = open_answers(out, inquiries, settings)
    write_answers(out, inquiries, answers)
    todo = [inquiry for inquiry in inquiries if inquiry.id not in answers]
    left = Counter(paths[inquiry.id] for inquiry in todo)
    seen: dict[Path, Seen] = {}
    with (
        out.open("a", encoding="utf-8") as file,
        tqdm(total=len(todo), desc="questions", unit="q") as bar,
    ):
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            seen |= look(assistant, {paths[one.id] for one in batch} - seen.keys())
            found = answer_batch(assistant, batch, [seen[paths[one.id]] for one in batch])
            with writing(out, 0):
                file.writelines(json.dumps(a, ensure_ascii=False) + "\n" for a in found)
                file.flush()
            answers |= {answer["id"]: answer for answer in found}
            left -= Counter(paths[one.id] for one in batch)
            seen = {path: tokens for path, tokens in seen.items() if path in left}
            bar.update(len(batch))
    write_answers(out, inquiries, answers)
    return {one: answer["error"] for one, answer in answers.items() if "error" in answer}


def made_with(
    model: Path, limits: ChatLimits, *, four_bit: bool, video_root: Path | None
) -> dict[str, Any]:
    """What answers depend on: the model in a folder, told by the logits of its probe, how it is
    held, the limits, and where the videos lie.

    Raises:
        OSError: there is no fine-tuned model in the folder.
    """
    return {
        "model": hashlib.sha256((model / PROBE).read_bytes()).hexdigest()[:16],
        "max_new_tokens": limits.max_new_tokens,
        "four_bit": four_bit,
        "video_root": None if video_root is None else os.path.realpath(video_root),
    }


def path_of(inquiry: Inquiry, video_root: Path | None) -> Path:
    """Where an inquiry's video lies; below the root every link is followed, for what it leads to
    is what would be read.

    Raises:
        BatchError: its path leads out of the root.
    """
    if video_root is None:
        return on_disk(Path(inquiry.video))
    inner = os.path.normpath(inquiry.video)
    path = Path(os.path.realpath(on_disk(video_root / inquiry.video)))
    if os.path.isabs(inner) or inner.split(os.sep)[0] == os.pardir:
        mend = "name videos relative to it, or leave it out"
    elif not path.is_relative_to(os.path.realpath(video_root)):
        mend = (
            "a link there points elsewhere; give the folder where the files themselves lie, let "
            "the root itself be the link, or leave --video-root out if you wrote the questions"
        )
    else:
        return path
    raise BatchError(
        f"question {inquiry.id}: {inquiry.video} leads out of --video-root {video_root}; {mend}"
    )


def look(assistant: Assistant, paths: Iterable[Path]) -> dict[Path, Seen]:
    """Each video's tokens, or what is wrong with it."""
    footages = [Footage(path=path) for path in sorted(paths)]
    return {footage.path: tokens for footage, tokens in assistant.look(footages)}


def answer_batch(
    assistant: Assistant, inquiries: Sequence[Inquiry], seen: Sequence[Seen]
) -> list[Answer]:
    """The answers to a batch: words, or the most probable option with the probabilities of all."""
    found: dict[str, Answer] = {}
    spoken: list[tuple[Inquiry, Tensor]] = []
    chosen: list[tuple[Inquiry, Tensor]] = []
    for inquiry, tokens in zip(inquiries, seen, strict=True):
        if isinstance(tokens, VideoReadError):
            found[inquiry.id] = {"error": str(tokens)}
        else:
            (spoken if inquiry.options is None else chosen).append((inquiry, tokens))
    found |= speak(assistant, spoken) | choose(assistant, chosen)
    return [inquiry.asked() | found[inquiry.id] for inquiry in inquiries]


def speak(
    assistant: Assistant, asked: Sequence[tuple[Inquiry, Float[Tensor, "frame row column dim"]]]
) -> dict[str, Answer]:
    """Answers in words, generated together."""
    found: dict[str, Answer] = {}
    prompts: dict[str, list[int]] = {}
    for inquiry, tokens in asked:
        try:
            prompts[inquiry.id] = assistant.begin(tokens).prompt(inquiry.question)
        except ChatError as refusal:
            found[inquiry.id] = {"error": str(refusal)}
    if not prompts:
        return found
    answers = generate_ids(
        assistant.model,
        list(prompts.values()),
        [tokens for inquiry, tokens in asked if inquiry.id in prompts],
        max_new_tokens=assistant.limits.max_new_tokens,
        end_id=assistant.tokenizer.eos_token_id,
        static_cache=assistant.compiled,
    )
    for name, ids in zip(prompts, answers, strict=True):
        text = str(assistant.tokenizer.decode(ids, skip_special_tokens=True))
        found[name] = {"answer": printable(text).strip()}
    return found


def choose(
    assistant: Assistant, asked: Sequence[tuple[Inquiry, Float[Tensor, "frame row column dim"]]]
) -> dict[str, Answer]:
    """The most probable option of each, and the probabilities of all, rotation-averaged."""
    found: dict[str, Answer] = {}
    tokens = {inquiry.id: seen for inquiry, seen in asked}
    questions = []
    for inquiry, seen in asked:
        try:
            question = assistant.begin(seen).choice(inquiry.options or (), inquiry.question)
            questions.append(replace(question, question_id=inquiry.id))
        except ChatError as refusal:
            found[inquiry.id] = {"error": str(refusal)}
    for batch in scored_together(assistant, questions):
        shown = [tokens[question.question_id] for question in batch]
        logits = letter_logits(assistant.model, assistant.tokenizer, batch, shown)
        for question, probs in zip(batch, option_probs(logits).tolist(), strict=True):
            best = question.options[max(range(len(probs)), key=probs.__getitem__)]
            found[question.question_id] = {"answer": best, "probs": probs}
    return found


def scored_together(
    assistant: Assistant, questions: Sequence[Question]
) -> Iterator[Sequence[Question]]:
    """Questions with as many options, no more at a time than one of the longest may take memory."""
    for batch in batches(questions, max(1, len(questions))):
        lengths = [joined_length(assistant.model, assistant.tokenizer, one) for one in batch]
        room = max(1, MAX_JOINED**2 // max(lengths) ** 2)
        for start in range(0, len(batch), room):
            yield batch[start : start + room]
