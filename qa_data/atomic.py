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
        draft.chmod(0o644)  # mkstemp makes files that only their owner can read
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
