"""Text lists: their lines, each with the place that an error names."""

import json
import re
from pathlib import Path

from sefar_core.data.lists.listing import ListError

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
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = raw.count(b"\n", 0, cause.start) + 1
        raise ListError(
            f"{path}, line {line}: found the byte 0x{raw[cause.start]:02x}, which is not UTF-8; "
            f"save the list as UTF-8, or fetch it again"
        ) from None
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
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as cause:
        raise ListError(
            f"{path}, line {cause.lineno}: {cause.msg}, so this is not JSON; fetch it again"
        ) from None
    except (RecursionError, ValueError) as cause:
        if isinstance(cause, ListError):
            raise
        raise ListError(
            f"{path} is not JSON that a list would be ({cause}); fetch it again"
        ) from None


def refuse_repeat(seen: dict[str, str], clip_id: str, where: str) -> None:
    """Note where a clip is listed.

    Args:
        seen: where each clip so far is listed, by id; the clip is added.
        clip_id: the clip.
        where: its list and line.

    Raises:
        ListError: the clip is listed already.
    """
    if clip_id in seen:
        raise ListError(
            f"{where}: found {clip_id}, which {seen[clip_id]} lists already; a clip has one line "
            f"and one split: delete one of the two"
        )
    seen[clip_id] = where
