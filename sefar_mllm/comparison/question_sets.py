"""The question folders of a comparison, and training questions that teach something wrong."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qa_data.manifest import Clip
from qa_data.schema import Question, QuestionError
from sefar_mllm.comparison.plan import Lessons
from sefar_mllm.data import load_questions
from sefar_mllm.evaluation.parts import prior_adversarial, unseen_sources
from sefar_mllm.scoring.wrong_videos import wrong_videos


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """Questions of one rule."""

    name: str
    """The folder's."""
    rule: str
    """Rule of the wrong options, from the folder's audit: public, hard, and so on."""
    folder: Path
    train: Sequence[Question]
    test: Sequence[Question]
    blind: Mapping[str, Any]
    """Rows of the audit of the test questions: what every rule that never looks gets right."""
    parts: Mapping[str, frozenset[str]]
    """Ids of the prior-adversarial test questions, and of those about unseen sources."""

    @property
    def files(self) -> dict[str, Path]:
        return {name: self.folder / f"{name}.jsonl" for name in ("train", "test")}


def read_sets(folders: Sequence[Path], clips: Sequence[Clip]) -> list[QuestionSet]:
    """The question sets in these folders.

    Raises:
        QuestionError: a folder is not whole, two are called alike or follow one rule, or a
            training question is about a clip that is not labeled.
    """
    sets = [read_set(folder, clips) for folder in folders]
    for kind in ("name", "rule"):
        found = [getattr(one, kind) for one in sets]
        if len(set(found)) < len(found):
            raise QuestionError(
                f"two question folders have one {kind} among {found}; leave one out"
            )
    labeled = {clip.id for clip in clips if clip.split == "labeled"}
    for one in sets:
        strays = [question.video for question in one.train if question.video not in labeled]
        if strays:
            raise QuestionError(
                f"{one.files['train']} asks about {len(strays)} clips that are not labeled in the "
                f"manifest, for example {strays[0]}; give the manifest it was built from"
            )
    return sets


def read_set(folder: Path, clips: Sequence[Clip]) -> QuestionSet:
    """Training and test questions with the audit that was made with them."""
    audit = folder / "audit.json"
    if not audit.is_file():
        raise QuestionError(
            f"{folder} has no audit.json; give a folder that scripts/build_gym_qa.py wrote"
        )
    try:
        told = json.loads(audit.read_bytes())
        rule, blind = told["settings"]["distractors"], told["audits"]["test"]["rows"]
    except (ValueError, KeyError, TypeError) as cause:
        raise QuestionError(
            f"{audit} is damaged, or tells no audit of a test set with rules of wrong options "
            f"({cause!r}); build the questions again with scripts/build_gym_qa.py"
        ) from cause
    train, test = (load_whole(folder / f"{name}.jsonl") for name in ("train", "test"))
    return QuestionSet(
        name=folder.resolve().name,
        rule=rule,
        folder=folder,
        train=train,
        test=test,
        blind=blind,
        parts={
            "prior_adversarial": prior_adversarial(test, train),
            "unseen_sources": unseen_sources(test, clips),
        },
    )


def load_whole(path: Path) -> Sequence[Question]:
    """The questions of a file, for which the control of wrong videos can be made.

    Raises:
        QuestionError: they cannot be read, or too many clips share a class, an answer or a source.
    """
    questions = load_questions(path)
    try:
        wrong_videos(questions, random.Random(0))
    except ValueError as cause:
        raise QuestionError(f"{path}: {cause}; a comparison needs this control (C3)") from cause
    return questions


def taught(questions: Sequence[Question], lessons: Lessons, seed: int) -> list[Question]:
    """The training questions as a row learns them.

    `wrong_videos` gives every question the video of another one, of another class, answer and
    source: a model may learn what the answer is not, and fall below the blind one. `wrong_answers`
    permutes the places of the answers among the questions with as many options: the right option
    is called right by chance alone, whatever its text.
    """
    rng = random.Random(seed)
    if lessons == "wrong_videos":
        other = wrong_videos(questions, rng)
        return [replace(question, video=other[question.video]) for question in questions]
    if lessons == "wrong_answers":
        return permute_answers(questions, rng)
    return list(questions)


def permute_answers(questions: Sequence[Question], rng: random.Random) -> list[Question]:
    """Every question with the answer's place of a question with as many options."""
    places: dict[int, list[int]] = {}
    for question in questions:
        places.setdefault(len(question.options), []).append(question.answer)
    for drawn in places.values():
        rng.shuffle(drawn)
    return [
        replace(question, answer=places[len(question.options)].pop(), option_labels=None)
        for question in questions
    ]
