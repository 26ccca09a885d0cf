"""Text lists: their lines, each with the place that an error names."""

import re
from pathlib import Path

from qa_data import text_file
from qa_data.text_file import composed
from sefar_core.data.lists.listing import ListError

ALIKE = " (names that differ only in how their accented letters are composed)"
# Signs that no name in a manifest may have: controls, and what stands for bytes not in UTF-8.
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def read_lines(path: Path) -> list[tuple[str, str]]:
    """The lines that are not blank, in their order, each with where it stands.

    Windows line ends, a byte order mark and a missing last line end are fine, and blanks around a
    line are dropped.

    Returns:
        Pairs of `"<path>, line <number from 1>"` and the line.

    Raises:
        ListError: see `read_text`.
    """
    lines = read_text(path).split("\n")
    return [
        (f"{path}, line {number}", text)
        for number, line in enumerate(lines, 1)
        if (text := line.strip())
    ]


def read_text(path: Path) -> str:
    r"""The text of a file, its lines ended by "\n" whatever ends them there.

    Raises:
        ListError: the file is missing or blank, is not UTF-8, or holds a NUL.
    """
    if not path.is_file():
        raise ListError(f"there is no file {path}; give the folder or file that holds the lists")
    try:
        text = text_file.read_text(path)
    except text_file.TextFileError as cause:
        raise ListError(f"{cause}; save the list as UTF-8, or fetch it again") from cause
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        raise ListError(
            f"{path}, line {line}: found a NUL, so this is no text (a video, an archive, or a "
            f"download that was cut?); fetch it again"
        )
    if not text.strip():
        raise ListError(f"{path} is empty; fetch it again")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> object:
    """What a JSON file holds.

    Raises:
        ListError: see `read_text`; or the text is not JSON.
    """
    text = read_text(path)
    try:
        return text_file.parse_json(text)
    except ValueError as cause:
        raise ListError(f"{path} is not JSON: {cause}; fetch it again") from cause


def refuse_repeat(seen: dict[str, str], clip_id: str, where: str) -> None:
    """Note where a clip is listed.

    Args:
        seen: where each clip so far is listed, by id; the clip is added.
        clip_id: the clip; ids that differ only in how letters are composed are one.
        where: its list and line.

    Raises:
        ListError: the clip is listed already.
    """
    name = composed(clip_id)
    if name in seen:
        other = seen[name]
        alike = ALIKE if where != other and composed(where) == composed(other) else ""
        raise ListError(
            f"{where}: found {clip_id}, which {other} lists already{alike}; a clip has one line "
            f"and one split: delete one of the two"
        )
    seen[name] = where
