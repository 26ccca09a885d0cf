"""JSON as it ought to be: UTF-8, no key twice, no NaN, nothing that Python alone understands.

A byte order mark and Windows line ends are taken as they come: editors add them.
"""

import json
from pathlib import Path
from typing import Any, NoReturn

from qa_data.question import QuestionError


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, without a byte order mark.

    Raises:
        QuestionError: the file is missing, or not UTF-8.
    """
    if not path.is_file():
        raise QuestionError(f"no questions at {path}; build them with scripts/build_gym_qa.py")
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise QuestionError(f"{path} is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as cause:
        line = data.count(b"\n", 0, cause.start) + 1
        raise QuestionError(
            f"{path}, line {line}: byte {data[cause.start]:#04x} is not UTF-8; save it as UTF-8"
        ) from cause


def parse(where: object, text: str) -> Any:
    """What a JSON text says.

    Args:
        where: file, or file and line, for the message.
        text: of the file or the line.

    Raises:
        QuestionError: the text is not JSON, or an object in it has a key twice, or a number is
            NaN or infinite or has thousands of digits, or brackets are nested hundreds deep.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse)
    except QuestionError as error:
        raise QuestionError(f"{where}: {error}") from error
    except RecursionError as cause:
        raise QuestionError(f"{where}: brackets stand in brackets too deep to read") from cause
    except ValueError as cause:
        raise QuestionError(f"{where} is not JSON: {cause}; mend it there") from cause


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        place = f" of question {found['question_id']!r:.40}" if "question_id" in found else ""
        raise QuestionError(f"{twice!r:.60} is used more than once{place}; rename or delete one")
    return found


def _refuse(constant: str) -> NoReturn:
    raise QuestionError(f"found {constant}, which is no number of JSON; write a number or null")
