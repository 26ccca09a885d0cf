"""Text and JSON that other people wrote, read strictly: nothing is guessed, nothing is dropped."""

import json
from pathlib import Path
from typing import Any, NoReturn
from unicodedata import normalize


class TextFileError(ValueError):
    """Bytes that are no UTF-8. The message names file, line and what was found."""


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, without a byte order mark.

    Raises:
        OSError: the file is missing.
        TextFileError: it is not UTF-8.
    """
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TextFileError(f"{path} is UTF-16")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as cause:
        line = data.count(b"\n", 0, cause.start) + 1
        raise TextFileError(
            f"{path}, line {line}: byte {data[cause.start]:#04x} is not UTF-8"
        ) from cause


def parse_json(text: str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: the text is not JSON, an object in it has a key twice (json would keep the last
            in silence), a number is NaN or infinite or has thousands of digits, or brackets are
            nested hundreds deep.
    """
    try:
        return json.loads(text, object_pairs_hook=_unrepeated, parse_constant=_refuse)
    except RecursionError as cause:
        raise ValueError("brackets stand in brackets too deep to read") from cause


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.60} stands twice in one object, {found!r:.120}")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"found {constant} in place of a number")


def composed(name: str) -> str:
    """A name with its accented letters composed: those from a Mac are often decomposed (NFD).

    Names are compared in this form. Those of files, folders and clips are kept as they are.
    """
    return normalize("NFC", name)


def folded(name: str) -> str:
    """A name made alike for comparison without regard to case, its letters composed."""
    return composed(composed(name).casefold())
