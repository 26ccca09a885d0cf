"""Files read strictly and written whole.

Text and JSON that other people wrote are read as they are or refused: nothing is guessed, nothing
is dropped. What is written, a file or a folder, has its name once it is complete; until then it is
a draft `.name.process` beside that place.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from unicodedata import normalize

from safetensors import SafetensorError


class SefarError(Exception):
    """An error for the user: the message names the thing, what was found, and the fix."""


def read_text(path: Path, *, error: type[Exception], missing: str, fix: str) -> str:
    """Text of a UTF-8 file or pipe, without a byte order mark.

    Raises `error` with the message `missing`; or, if the file cannot be read, as a folder, or is
    not UTF-8, with file, line, found byte and the `fix`.
    """
    try:
        if not path.exists():
            raise error(missing)
        data = path.read_bytes()
    except OSError as cause:
        raise error(f"cannot read {path}: {cause.strerror}; {fix}") from cause
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error(f"{path} is UTF-16; {fix}")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as cause:
        line = data.count(b"\n", 0, cause.start) + 1
        raise error(
            f"{path}, line {line}: byte {data[cause.start]:#04x} is not UTF-8; {fix}"
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
        raise ValueError("brackets are nested too deep to read") from cause


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.60} is twice in one object, {found!r:.120}")
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


def first_few(names: Sequence[str], most: int = 10) -> list[str]:
    """The first `most` names for a message, followed by how many more there are, if any."""
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return [*names[:most], *more]


class WriteError(SefarError, OSError):
    """A file cannot be written. The message names it, and the space that it needs."""


@contextmanager
def writing(path: Path, needed: int, draft: Path | None = None) -> Iterator[None]:
    """Around what writes: a full disk becomes an error of one line, and no draft is left.

    `needed` is the size in bytes, 0 if it is not known.

    Raises:
        WriteError: the disk is full, or refuses otherwise.
    """
    try:
        yield
    except (OSError, SafetensorError) as cause:  # safetensors has an error of its own
        _remove(draft)
        free = shutil.disk_usage(path.parent if path.parent.exists() else "/").free
        size = f"it needs {needed:,} bytes, {free:,}" if needed else f"{free:,} bytes"
        raise WriteError(
            f"cannot write {path}: {cause}; {size} are free. Make room, or give a folder that may "
            f"be written, and run the same command again"
        ) from cause
    except BaseException:
        _remove(draft)
        raise


def _remove(draft: Path | None) -> None:
    if draft is not None and draft.is_dir():
        shutil.rmtree(draft)
    elif draft is not None:
        draft.unlink(missing_ok=True)


def draft_of(path: Path) -> Path:
    """Where this process writes what will be `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def remove_drafts(folder: Path, name: str = "*") -> None:
    """Remove drafts (of `name`) that killed processes left in a folder where nobody writes."""
    for path in folder.glob(".*"):
        match = re.fullmatch(r"\.(.+)\.\d+", path.name)
        if match and name in ("*", match[1]):
            _remove(path)


def sync(path: Path) -> None:
    """Have the disk take a file, or the names in a folder, before anything else happens."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file; its folder is made if it is missing.

    A reader, or a run that is stopped halfway, sees the old file or the whole of the other one.

    Raises:
        WriteError: the disk is full, or refuses otherwise.
    """
    draft = draft_of(path)
    with writing(path, len(data), draft):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        sync(draft)  # else a cut of the power may leave the name without the content
        os.replace(draft, path)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, line ends as given, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hex digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def as_json(value: Any) -> str:
    """Indented JSON; paths become text."""
    return json.dumps(value, indent=2, default=str) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, as `write_bytes` does."""
    write_text(path, as_json(value))


@contextmanager
def new_folder(folder: Path, needed: int = 0) -> Iterator[Path]:
    """Write a folder: a draft to fill, which takes the folder's name, and its place, in the end.

    `needed` is the size of all files in bytes, 0 if it is not known.

    Raises:
        WriteError: the disk is full, or refuses otherwise. What had the name is untouched.
    """
    draft, old = draft_of(folder), folder.with_name(f".{folder.name}.old.{os.getpid()}")
    with writing(folder, needed, draft):
        _remove(draft)
        draft.mkdir(parents=True)
        yield draft
        by_umask(draft)
        for path in [*draft.rglob("*"), draft]:
            sync(path)
        if folder.exists():
            folder.rename(old)
        try:
            draft.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
        sync(folder.parent)
    _remove(old)


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
