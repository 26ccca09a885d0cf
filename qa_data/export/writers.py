"""Question sets in the formats of other tools: pure functions, questions in, contents out.

- `llava_json`, `messages_jsonl`: conversations for training. Source: LLaVA's training file; TRL and
  transformers, chat templates with video parts.
- `lmms_eval_files`: a task folder for lmms-eval, a YAML file a set, its questions, and the
  functions they name. Source: lmms-eval, docs/task_guide.md (fields, `!function file.name`, data
  files by `dataset_kwargs`) and its --include_path.
- `parquet_bytes`: a Parquet file with typed features for `datasets.load_dataset`.
- `vlmevalkit_tsv`: the table that VLMEvalKit evaluates. Source: VLMEvalKit, vlmeval/dataset
  (video_base.py reads `question` and `video`; videomme.py, tempcompass.py add `index`,
  `video_path`, `candidates` and `answer`; the tables of images and texts hold an option in each of
  A, B, C, D and group results by `category` and `l2-category`). A table of letters without an image
  column in LMUData, called by its name, is evaluated as text alone: that is the blind control. To
  show the videos, a dataset class in VLMEvalKit derived from VideoBaseDataset returns this file and
  the video folder from `prepare_dataset`.

`read_source` reads the sets to export, `video_files` names their videos.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from qa_data.build import NOT_MEASURED, SPLIT_OF_FILE
from qa_data.export import lmms_eval_functions
from qa_data.files import composed
from qa_data.manifest import Clip
from qa_data.questions import (
    LETTER_REQUEST,
    LETTERS,
    Question,
    QuestionError,
    check_videos,
    parse,
    read_any,
    read_question_text,
)

ENDINGS = (".json", ".jsonl")  # the second, which knows more, is read where both are


@dataclass(frozen=True, kw_only=True)
class QuestionSource:
    """Question sets that belong together."""

    sets: Mapping[str, Sequence[Question]]
    """By the name of their file."""
    report: Mapping[str, Any] | None
    """The content of audit.json; None if there is no such file."""

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
                f"{path} holds no {missing[0]}.jsonl, which its audit.json lists; build the "
                f"questions again with build_gym_qa.py"
            )
        files = {name: file for name, file in files.items() if name in report["pools"]}
    sets = {name: read_any(file) for name, file in files.items()}
    return QuestionSource(sets=sets, report=report)


def _report(path: Path) -> Mapping[str, Any]:
    found = parse(path, read_question_text(path))
    report = found if isinstance(found, dict) else {}
    if not {"settings", "audits"} <= set(report) or not isinstance(report.get("pools"), dict):
        raise QuestionError(
            f"{path} is not a report of a build; build the questions again with build_gym_qa.py"
        )
    return report


def video_files(
    questions: Iterable[Question], root: Path, clips: Sequence[Clip] | None = None
) -> dict[str, str]:
    """The path of each question's video, for other tools. No file is opened.

    The manifest's clips know the files' names; without them a file is called `<clip id>.mp4`.

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


PLACEHOLDERS = ("<video>", "<image>")


def _prompt_text(question: Question) -> str:
    """Question, an option a line, and the request for a letter.

    A text with a placeholder, which would count as a second video, is refused.
    """
    options = [f"{letter}. {text}" for letter, text in zip(LETTERS, question.options, strict=False)]
    text = "\n".join([question.stem, *options, LETTER_REQUEST])
    for placeholder in PLACEHOLDERS:
        if placeholder in text:
            raise QuestionError(
                f"question {question.question_id}: {placeholder} is in its text, where models "
                f"would expect another video; write it otherwise"
            )
    return text


def llava_json(questions: Sequence[Question], files: Mapping[str, str]) -> str:
    """LLaVA's training file: one entry a question, the file of its video first, then its letter."""
    entries = [
        {
            "id": question.question_id,
            "video": files[question.video],
            "conversations": [
                {"from": "human", "value": f"<video>\n{_prompt_text(question)}"},
                {"from": "gpt", "value": question.letter},
            ],
        }
        for question in questions
    ]
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def messages_jsonl(questions: Sequence[Question], files: Mapping[str, str]) -> str:
    """One line a question: `messages`, the user's with the file of the video before the text."""
    lines = []
    for question in questions:
        request = [
            {"type": "video", "video": files[question.video]},
            {"type": "text", "text": _prompt_text(question)},
        ]
        answered = [{"type": "text", "text": question.letter}]
        messages = [
            {"role": "user", "content": request},
            {"role": "assistant", "content": answered},
        ]
        line = {"id": question.question_id, "messages": messages}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


YAML = """\
# {count} questions. Run with this folder's path, from anywhere:
#   python -m lmms_eval --include_path FOLDER --tasks {task} --model ...
# Paths of questions and videos are absolute: if either is moved, export again.
task: "{task}"
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
generation_kwargs:
  max_new_tokens: 16
  temperature: 0
  do_sample: false
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answer
process_results: !function utils.process_results
metric_list:
  - metric: accuracy
    aggregation: mean
    higher_is_better: true
  - metric: mean_class_accuracy
    aggregation: !function utils.mean_of_classes
    higher_is_better: true
  - metric: unreadable
    aggregation: mean
    higher_is_better: false
metadata:
  - version: 1.0
"""


def lmms_eval_files(
    sets: Mapping[str, Sequence[Question]], files: Mapping[str, str], out: Path
) -> dict[str, str]:
    """The files of the task folder by name; training sets are left out.

    lmms-eval needs absolute paths of videos and data files, hence of `out`, the future folder.

    Raises:
        QuestionError: all sets are training sets.
    """
    if set(sets) <= set(NOT_MEASURED):
        raise QuestionError(
            f"{' and '.join(sets)} would be left out, as training questions are, and nothing left "
            f"to measure on; give a folder with val or test, or a question file of another name"
        )
    folder = out.resolve()
    contents = {"utils.py": Path(lmms_eval_functions.__file__).read_text(encoding="utf-8")}
    for name, questions in sets.items():
        if name in NOT_MEASURED:
            continue
        data = f"{name}.jsonl"
        contents[data] = "".join(_line(question, files) for question in questions)
        task = re.sub(r"\W+", "_", f"{folder.name}_{name}")
        contents[f"{task}.yaml"] = YAML.format(
            count=len(questions),
            task=task,
            data=json.dumps(str(folder / data), ensure_ascii=False),
        )
    return contents


def _line(question: Question, files: Mapping[str, str]) -> str:
    entry = {
        "question_id": question.question_id,
        "video_path": files[question.video],
        "question": question.stem,
        "options": question.options,
        "answer": question.letter,
        # By what the mean over classes groups: the class, or the right option's text.
        "class": question.options[question.answer]
        if question.label is None
        else str(question.label),
    }
    return json.dumps(entry, ensure_ascii=False) + "\n"


SPLIT_OF_SET = {"val": "validation"}  # what `datasets` calls it; others keep their names


def split_name(set_name: str) -> str:
    """What `datasets` calls a set: letters, digits and underscores.

    Raises:
        QuestionError: the set is called "all", by which `datasets` means all sets together.
    """
    if set_name == "all":
        raise QuestionError(
            "a set called all cannot be loaded: to `datasets` the word means all sets together; "
            "rename the question file"
        )
    return SPLIT_OF_SET.get(set_name, re.sub(r"\W", "_", set_name))


def parquet_bytes(questions: Sequence[Question]) -> bytes:
    """One Parquet file: every field of a question, and `letter`.

    `answer` is the right option's position, from 0, so that `options[answer]` is its text.
    """
    from datasets import Dataset, Features, List, Value, disable_progress_bars

    text, number = Value("string"), Value("int32")
    types = dict.fromkeys(("answer", "label", "frame_length"), number)
    types |= {"options": List(text), "option_labels": List(number)}
    names = [field.name for field in fields(Question)]
    names.insert(names.index("answer") + 1, "letter")
    features = Features({name: types.get(name, text) for name in names})
    columns = {name: [getattr(question, name) for question in questions] for name in features}
    stream = io.BytesIO()
    disable_progress_bars()
    Dataset.from_dict(columns, features=features).to_parquet(stream)
    return stream.getvalue()


# Words that pandas, by the defaults of read_csv, takes for a missing cell or a truth value.
TAKEN_FOR_ANOTHER = frozenset(
    ["", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>"]
    + ["n/a", "na", "null", "nan", "none", "true", "false"]
)


def vlmevalkit_tsv(questions: Sequence[Question], files: Mapping[str, str]) -> str:
    """Tab-separated table, one line a question; options that a question lacks are empty cells.

    `candidates` holds the options of every set. The columns A, B, ... are left out of a set with
    an option that VLMEvalKit would show otherwise: beside 2.5, pandas reads 2 as 2.0, and None as
    no cell at all. For the same reason `video` holds the names of `files` with their suffixes where
    a clip id could be read as a number: 0001 would become 1.

    Raises:
        QuestionError: a question or a name reads as a number, or as no cell.
    """
    letters = LETTERS[: max(len(question.options) for question in questions)]
    if any(_read_otherwise(option) for question in questions for option in question.options):
        letters = ""
    named = {question.video: question.video for question in questions}
    if any(map(_read_otherwise, named)):
        named = {video: PurePosixPath(files[video]).name for video in named}
    columns = ["index", "video", "video_path", "question", *letters, "candidates", "answer"]
    columns += ["category", "l2-category"]
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    for index, question in enumerate(questions):
        numbered = zip(LETTERS, question.options, strict=False)
        cells = [*question.options, *[""] * len(letters)][: len(letters)]
        shown = [named[question.video], files[question.video], question.stem]
        groups = [question.event or question.answer_type, question.answer_type]
        if changed := [*filter(_read_otherwise, [*shown, *groups])]:
            raise QuestionError(
                f"question {question.question_id}: {changed[0]!r:.60} would be read from the table "
                f"as a number, a truth value or nothing; write it otherwise"
            )
        candidates = [f"{letter}. {option}" for letter, option in numbered]
        writer.writerow([index, *shown, *cells, candidates, question.letter, *groups])
    return text.getvalue()


def _read_otherwise(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in TAKEN_FOR_ANOTHER
    return True
