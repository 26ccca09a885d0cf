"""A question set as the table that VLMEvalKit evaluates.

Source: VLMEvalKit, vlmeval/dataset (video_base.py asks for `question` and `video`; videomme.py,
tempcompass.py add `index`, `video_path`, `candidates` and `answer`; the tables of images and texts
hold an option in each of A, B, C, D and group results by `category` and `l2-category`).

A table of letters without an image column that lies in LMUData and is called by its name is asked
as text alone: that is the blind control. To show the videos, a dataset class in VLMEvalKit derived
from VideoBaseDataset returns this file and the video folder from `prepare_dataset`.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from qa_data.question import LETTERS, Question, QuestionError

# Words that pandas, by the defaults of read_csv, takes for a missing cell or a truth value.
TAKEN_FOR_ANOTHER = frozenset(
    ["", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>"]
    + ["n/a", "na", "null", "nan", "none", "true", "false"]
)


def vlmevalkit_tsv(questions: Sequence[Question], files: Mapping[str, str]) -> str:
    """Tab-separated table, one line a question; options that a question lacks are empty cells.

    `candidates` holds the options of every set. The columns A, B, ... are left out of a set with
    an option that VLMEvalKit would show otherwise: beside 2.5, pandas reads 2 as 2.0, and None as
    no cell at all. For the same reason `video` holds file names with their suffixes where a clip
    id could be read as a number: 0001 would become 1.

    Args:
        questions: to tell.
        files: path of each video.

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
        _refuse_read_otherwise(question, [*shown, *groups])
        candidates = [f"{letter}. {option}" for letter, option in numbered]
        writer.writerow([index, *shown, *cells, candidates, question.letter, *groups])
    return text.getvalue()


def _refuse_read_otherwise(question: Question, cells: Sequence[str]) -> None:
    for cell in filter(_read_otherwise, cells):
        raise QuestionError(
            f"question {question.question_id}: {cell!r:.60} would be read from the table as a "
            f"number, a truth value or nothing; write it otherwise"
        )


def _read_otherwise(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in TAKEN_FOR_ANOTHER
    return True
