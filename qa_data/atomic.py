"""Files that are either whole or not there: written beside their place, then moved into it."""

import os
import tempfile
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, line ends as given; make the folder if it is missing.

    A reader, or a run that is stopped halfway, sees the old file or the whole of the other one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        by_umask(draft)
        os.replace(draft, path)
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
