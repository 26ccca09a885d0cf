"""What is exported: the question sets of a folder, their audit, and where their videos are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from qa_data.gym_qa import SPLIT_OF_FILE
from qa_data.manifest import Clip
from qa_data.question import Question, QuestionError
from qa_data.schema import check_videos, read_any
from qa_data.strict_json import parse, read_text
from qa_data.text_file import composed

ENDINGS = (".json", ".jsonl")  # the second, which knows more, is read where both are


@dataclass(frozen=True, kw_only=True)
class QuestionSource:
    """Question sets that belong together."""

    sets: Mapping[str, Sequence[Question]]
    """By the name of their file."""
    report: Mapping[str, Any] | None
    """What audit.json says; none if there is no such file."""

    @property
    def questions(self) -> list[Question]:
        """The questions of all sets."""
        return [question for members in self.sets.values() for question in members]


def read_source(path: Path) -> QuestionSource:
    """The sets of a folder of scripts/build_gym_qa.py, or the one set of a question file.

    Of a folder, the sets that its audit.json names are read: another file of questions there is
    of another build. Without audit.json, train, unlabel, val and test are read. A set is read from
    .jsonl where there is one, else from .json.

    Raises:
        QuestionError: nothing is there, a set of the report is missing, or a file cannot be read.
    """
    if path.is_file():
        return QuestionSource(sets={path.stem: read_any(path)}, report=None)
    candidates = [(name, path / f"{name}{end}") for name in SPLIT_OF_FILE for end in ENDINGS]
    files = {name: file for name, file in candidates if file.is_file()}
    if not files:
        raise QuestionError(
            f"{path} holds no train, val or test.jsonl; give a folder made by "
            f"scripts/build_gym_qa.py, or a question file"
        )
    audit = path / "audit.json"
    report = _report(audit) if audit.exists() else None
    if report is not None:
        if missing := [name for name in report["pools"] if name not in files]:
            raise QuestionError(
                f"{path} holds no {missing[0]}.jsonl, of which its audit.json tells; build the "
                f"questions again with build_gym_qa.py"
            )
        files = {name: file for name, file in files.items() if name in report["pools"]}
    sets = {name: read_any(file) for name, file in files.items()}
    return QuestionSource(sets=sets, report=report)


def _report(path: Path) -> Mapping[str, Any]:
    found = parse(path, read_text(path))
    told = found if isinstance(found, dict) else {}
    if not {"settings", "audits"} <= set(told) or not isinstance(told.get("pools"), dict):
        raise QuestionError(
            f"{path} is no report of a build; build the questions again with build_gym_qa.py"
        )
    return told


def video_files(
    questions: Iterable[Question], root: Path, clips: Sequence[Clip] | None = None
) -> dict[str, str]:
    """The path of each question's video, as other tools are to open it. None is looked at.

    Args:
        questions: about the videos.
        root: folder of the videos.
        clips: their manifest, which knows the files' names; without it a file is called
            `<clip id>.mp4`.

    Raises:
        QuestionError: a video is not in the manifest, or is a stretch of a longer file there.
    """
    questions = list(questions)
    if clips is None:
        return {one.video: (root / f"{one.video}.mp4").as_posix() for one in questions}
    clip_of = {composed(clip.id): clip for clip in clips}
    check_videos(questions, clip_of)
    files = {}
    for question in questions:
        clip = clip_of[composed(question.video)]
        if clip.start_s is not None:
            raise QuestionError(
                f"question {question.question_id}: clip {clip.id} is a stretch of {clip.path}, but "
                f"other tools show whole files; cut the clips with scripts/trim_finegym.py"
            )
        files[question.video] = (root / PurePath(clip.path)).as_posix()
    return files
