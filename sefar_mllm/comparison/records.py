"""What a finished piece of work was made from, so that it is neither repeated nor mistaken.

The record is written last and names every input: question files by hash, tokens by their key,
settings by value. A piece whose record says the same is used again. One that was made from
anything else is refused, never overwritten or passed off as this comparison's.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from sefar_core.runs.folder import as_json, dotted, write_json

SMALL = 2**24  # bytes; larger files of a language model count by name and size


class StaleError(ValueError):
    """A piece of an earlier comparison with other inputs; the message names the first."""


def finished(record: Path, inputs: dict[str, Any]) -> bool:
    """Whether the work was done before, from these very inputs.

    Raises:
        StaleError: it was done from other ones.
    """
    if not record.is_file():
        return False
    found, asked = dotted(json.loads(record.read_text())), dotted(json.loads(as_json(inputs)))
    for name in sorted(found.keys() | asked.keys()):
        if found.get(name) != asked.get(name):
            raise StaleError(
                f"{record.parent} was made with {name} = {found.get(name)}, but "
                f"{asked.get(name)} is asked for; give another --out, or delete {record.parent}"
            )
    return True


def finish(record: Path, inputs: dict[str, Any]) -> None:
    """Say what the work beside this file was made from; called when all of it is written."""
    write_json(record, inputs)


def file_hash(path: Path) -> str:
    """A hash of a file's bytes, short enough to read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def model_hash(name: str) -> str:
    """A hash of a language model's folder; a hub name stands for itself.

    Files of many megabytes count by name and size alone; every fine-tuned model besides checks
    its language model by logits when it is loaded.
    """
    folder = Path(name)
    if not folder.is_dir():
        return name
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix != ".md":
            size = path.stat().st_size
            total.update(f"{path.name} {size} ".encode())
            total.update(file_hash(path).encode() if size <= SMALL else b"")
    return total.hexdigest()[:16]
