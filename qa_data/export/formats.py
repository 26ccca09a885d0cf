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
from qa_data.gym_qa import NOT_MEASURED
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
        video_root: folder of the videos, for formats that name video files; lmms-eval, which is
            run from anywhere, gets it absolute.
        clips: manifest that knows the files' names (see `video_files`).

    Raises:
        QuestionError: a question cannot be told in the format.
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
