"""The formats by name: question sets in, contents of files out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from qa_data.export.card import card
from qa_data.export.conversations import llava_json, messages_jsonl
from qa_data.export.lmms_eval import lmms_eval_files
from qa_data.export.parquet import parquet_bytes, split_name
from qa_data.export.source import QuestionSource, video_files
from qa_data.export.vlmevalkit import vlmevalkit_tsv
from qa_data.manifest import Clip

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
    """The files of one format, by their names.

    Args:
        source: the question sets.
        name: of the format.
        out: folder that the files are for.
        video_root: folder of the videos, for formats that name video files.
        clips: manifest that knows the files' names (see `video_files`).

    Raises:
        QuestionError: a question cannot be told in the format.
    """
    if name == "card":
        return {"README.md": card(source)}
    if name == "parquet":
        tables = {f"{split_name(k)}.parquet": parquet_bytes(v) for k, v in source.sets.items()}
        return {**tables, "README.md": card(source, parquet=True)}
    files = video_files(source.questions, video_root, clips)
    if name == "lmms_eval":
        return {**lmms_eval_files(source.sets, files, out)}
    write, suffix = FILE_A_SET[name]
    return {f"{key}{suffix}": write(members, files) for key, members in source.sets.items()}
