"""Question files as text and JSON: what is wrong with them, said as a QuestionError."""

from pathlib import Path
from typing import Any

from qa_data import text_file
from qa_data.question import QuestionError


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, without a byte order mark.

    Raises:
        QuestionError: the file is missing, or not UTF-8.
    """
    if not path.is_file():
        raise QuestionError(f"no questions at {path}; build them with scripts/build_gym_qa.py")
    try:
        return text_file.read_text(path)
    except text_file.TextFileError as cause:
        raise QuestionError(f"{cause}; save it as UTF-8") from cause


def parse(where: object, text: str) -> Any:
    """What a JSON text says.

    Args:
        where: file, or file and line, for the message.
        text: of the file or the line.

    Raises:
        QuestionError: it is no JSON (see `text_file.parse_json`).
    """
    try:
        return text_file.parse_json(text)
    except ValueError as cause:
        raise QuestionError(f"{where} is not JSON: {cause}; mend it there") from cause
