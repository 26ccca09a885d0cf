"""What a finished piece of work was made from, so that it is neither repeated nor mistaken.

The record is written last and names every input: question files by hash, tokens by their key,
settings by value, the code of the packages by hash. A piece whose record says the same is used
again. One that was made from anything else is refused, never overwritten or passed off as this
comparison's.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sefar_core.runs.folder import as_json, dotted, write_json

SMALL = 2**24  # bytes; larger files of a language model count by name and size
CODE = tuple(Path(__file__).parents[2] / name for name in ("qa_data", "sefar_core", "sefar_mllm"))
ONLY_READ = tuple(
    f"sefar_mllm/comparison/{name}.py"
    for name in ("page", "pair_tables", "plots", "published", "table", "told", "verdict")
)
"""Files that read finished work and make none of it: the page may be written anew."""


class StaleError(ValueError):
    """A piece of an earlier comparison with other inputs; the message names the first."""


def finished(record: Path, inputs: dict[str, Any]) -> bool:
    """Whether the work was done before, from these very inputs.

    Raises:
        StaleError: it was done from other ones, or the record is damaged.
    """
    if not record.is_file():
        return False
    asked = dotted(json.loads(as_json(with_code(inputs))))
    try:
        found = dotted(dict(json.loads(record.read_bytes())))
    except (ValueError, TypeError) as cause:
        raise StaleError(
            f"{record} is damaged ({cause}); delete {record.parent}: the same command makes it "
            f"again"
        ) from cause
    for name in sorted(found.keys() | asked.keys()):
        if found.get(name) != asked.get(name):
            raise StaleError(
                f"{record.parent} was made with {name} = {found.get(name)}, but "
                f"{asked.get(name)} is asked for; give another --out, or delete {record.parent}"
            )
    return True


def finish(record: Path, inputs: dict[str, Any]) -> None:
    """Say what the work beside this file was made from; called when all of it is written."""
    write_json(record, with_code(inputs))


def with_code(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs and the code that makes something of them."""
    return {"code": code_hash(), **inputs}


@cache
def code_hash(packages: Sequence[Path] = CODE) -> str:
    """A hash of the source of packages, but for what only reads finished work."""
    total = hashlib.sha256()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            name = path.relative_to(package.parent).as_posix()
            if name not in ONLY_READ:
                total.update(f"{name} {file_hash(path)} ".encode())
    return total.hexdigest()[:16]


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
