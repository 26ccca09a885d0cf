"""A folder of exported files: whole or not there, and never in the place of somebody's own."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from qa_data.question import QuestionError
from qa_data.strict_json import parse, read_text

RECORD = ".export.json"  # what was written here: hash by file name; hidden from `datasets`


def write_folder(out: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write files into a folder of their own, all or none; replaces only what it wrote itself.

    Args:
        out: the folder; made if it is missing.
        contents: by file name, texts as UTF-8.

    Raises:
        QuestionError: something stands in the folder that was not written here, or was changed
            since.
    """
    out = out.resolve()
    check_ours(out)
    files = {
        name: content.encode() if isinstance(content, str) else content
        for name, content in contents.items()
    }
    record = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[RECORD] = (json.dumps(record, indent=2) + "\n").encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part"))
    try:
        draft, before = beside / "draft", beside / "before"
        draft.mkdir()
        for name, content in files.items():
            (draft / name).write_bytes(content)
        if out.exists():
            os.rename(out, before)
        try:
            os.rename(draft, out)
        except BaseException:
            if before.exists():
                os.rename(before, out)
            raise
    finally:
        shutil.rmtree(beside)


def check_ours(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier export, as it was written.

    Raises:
        QuestionError: names the file that is not ours, or is no folder.
    """
    for above in out.parents:
        if above.exists() and not above.is_dir():
            raise QuestionError(f"{above} is a file, and {out} cannot be in it; give a folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise QuestionError(f"{out} is a file; give a folder")
    record = parse(out / RECORD, read_text(out / RECORD)) if (out / RECORD).is_file() else {}
    for file in sorted(out.iterdir()):
        if file.name == RECORD:
            continue
        ours = file.is_file() and not file.is_symlink() and file.name in record
        if not ours or hashlib.sha256(file.read_bytes()).hexdigest() != record[file.name]:
            state = "was changed since it was exported" if ours else "was not exported here"
            raise QuestionError(
                f"{file} {state}, and would be lost; move it away or give another folder"
            )
