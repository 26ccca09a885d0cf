"""Text and JSON that other people wrote, read strictly: nothing is guessed, nothing is dropped.

Files that are either whole or not there: written beside their place, then moved into it.

A listed path under the spelling that it has on this disk.
"""

import json
import os
import tempfile
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


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, line ends as given; make the folder if it is missing.

    A reader, or a run that is stopped halfway, sees the old file or the whole of the other one.

    Raises:
        OSError: The disk is full, or refuses otherwise. The message names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        by_umask(draft)
        os.replace(draft, path)
    except OSError as cause:
        draft.unlink(missing_ok=True)
        raise OSError(cause.errno, cause.strerror, str(path)) from cause
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def by_umask(path: Path) -> None:
    """Give a file, or every file of a folder, the permissions that `open` would have given it.

    `tempfile` and safetensors (from 0.8) write files that only their owner can read.
    """
    mask = os.umask(0o077)  # the mask can only be read by setting it
    os.umask(mask)
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    for file in files:
        file.chmod(0o666 & ~mask)


def on_disk(path: Path) -> Path:
    """The path, each part of it in its other spelling where only that one exists: letters composed
    or decomposed.

    Archives from a Mac unpack with decomposed letters (NFD), while lists mostly have composed ones
    (NFC). A part of neither spelling is left as it is, for the error of whoever opens it.
    """
    if os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        spellings = (found / one for one in (part, normalize("NFC", part), normalize("NFD", part)))
        found = next((one for one in spellings if os.path.lexists(one)), found / part)
    return found
