"""Exports question sets: by the name of a format, the contents of its files, written as a folder.

The folder is complete or not there, and never replaces files of other origin.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from qa_data.build import NOT_MEASURED
from qa_data.export.card import card
from qa_data.export.writers import (
    QuestionSource,
    llava_json,
    lmms_eval_files,
    messages_jsonl,
    parquet_bytes,
    split_name,
    video_files,
    vlmevalkit_tsv,
)
from qa_data.files import new_folder
from qa_data.manifest import Clip
from qa_data.questions import QuestionError, parse, read_question_text

Format = Literal["llava", "messages", "vlmevalkit", "lmms_eval", "parquet", "card"]
FILE_A_SET = {
    "llava": (llava_json, ".json"),
    "messages": (messages_jsonl, ".jsonl"),
    "vlmevalkit": (vlmevalkit_tsv, ".tsv"),
}


def export(
    source: QuestionSource,
    name: Format,
    out: Path,
    *,
    video_root: Path,
    clips: Sequence[Clip] | None = None,
) -> dict[str, str | bytes]:
    """The files of one format for the folder `out`, by their names.

    lmms-eval, which is run from anywhere, gets the folder of the videos as an absolute path. The
    manifest's `clips` know the files' names (see `video_files`).

    Raises:
        QuestionError: a question cannot be written in the format.
    """
    if name == "card":
        return {"README.md": card(source)}
    if name == "parquet":
        tables = {f"{split_name(k)}.parquet": parquet_bytes(v) for k, v in source.sets.items()}
        return {**tables, "README.md": card(source, parquet=True)}
    if name == "lmms_eval":
        files = video_files(source.questions, video_root.resolve(), clips)
        return {**lmms_eval_files(source.sets, files, out)}
    files = video_files(source.questions, video_root, clips)
    write, suffix = FILE_A_SET[name]
    return {f"{key}{suffix}": write(members, files) for key, members in source.sets.items()}


def left_out(source: QuestionSource, name: Format) -> list[str]:
    """Names of the sets that a format has no place for: training sets in tasks of lmms-eval."""
    return [one for one in source.sets if name == "lmms_eval" and one in NOT_MEASURED]


RECORD = ".export.json"  # what was written here: hash by file name; hidden from `datasets`


def write_folder(out: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write files into a folder of their own, all or none; replaces only what it wrote itself.

    Raises:
        QuestionError: the folder holds something that was not written here, or was changed
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
    with new_folder(out, sum(map(len, files.values()))) as draft:
        for name, content in files.items():
            (draft / name).write_bytes(content)


def check_ours(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier export, as it was written.

    Raises:
        QuestionError: names the file that was not written here, or is not a folder.
    """
    for above in out.parents:
        if above.exists() and not above.is_dir():
            raise QuestionError(f"{above} is a file, and {out} cannot be in it; give a folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise QuestionError(f"{out} is a file; give a folder")
    record = (
        parse(out / RECORD, read_question_text(out / RECORD)) if (out / RECORD).is_file() else {}
    )
    for file in sorted(out.iterdir()):
        if file.name == RECORD:
            continue
        ours = file.is_file() and not file.is_symlink() and file.name in record
        if not ours or hashlib.sha256(file.read_bytes()).hexdigest() != record[file.name]:
            state = "was changed since it was exported" if ours else "was not exported here"
            raise QuestionError(
                f"{file} {state}, and would be lost; move it away or give another folder"
            )
