"""Write question sets in the format of another tool.

    python scripts/export_questions.py --questions data/gym99-5/qa-hard --format llava \\
        --video-root data/videos --out data/gym99-5/qa-hard-llava

Formats:

    llava       conversations JSON of LLaVA, one file a set: id, video, human and gpt turns
    messages    JSON lines of user and assistant messages, as OpenAI, TRL and chat templates take
    vlmevalkit  tab-separated table of VLMEvalKit, one file a set
    lmms_eval   task folder of lmms-eval: YAML, questions and functions; training is left out,
                paths are absolute
    parquet     folder that datasets.load_dataset opens, with a dataset card
    card        the dataset card alone: source, license, rule, counts, blind audit

Questions of your own are lines such as

    {"video": "clip-17", "question": "Which turn?", "options": ["half", "full"], "answer": "B"}

where the answer is the letter or the text of the right option. question_id, frame_length and
answer_type are optional; an answer_type of "what" means that the options are names of classes.

Videos are called <clip id>.mp4 unless a manifest names other files; none is opened. A folder is
replaced only if it holds an earlier export and nothing else.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sefar_core.cli import refuse_unwritable, start

import tyro

from qa_data.export.export import Format, check_ours, export, left_out, write_folder
from qa_data.export.writers import read_source
from qa_data.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class ExportQuestions:
    """Which questions to export, in which format, and where to."""

    questions: Path
    """Folder made by scripts/build_gym_qa.py, or a question file: public JSON, or JSON lines."""
    format: Format
    """Format of the other tool, see above."""
    out: Path
    """Folder for the exported files."""
    video_root: Path = Path(".")
    """Folder of the videos as the other tool sees it; put before each video's name."""
    manifest: Path | None = None
    """Manifest of scripts/make_splits.py, for the file names of the videos."""


def main(settings: ExportQuestions) -> None:
    """Read the questions, convert them, write the folder."""
    refuse_unwritable(folders=[settings.out])
    check_ours(settings.out)
    source = read_source(settings.questions)
    clips = None if settings.manifest is None else read_manifest(settings.manifest)
    contents = export(
        source, settings.format, settings.out, video_root=settings.video_root, clips=clips
    )
    write_folder(settings.out, contents)
    counts = ", ".join(f"{len(members)} of {name}" for name, members in source.sets.items())
    print(f"read questions: {counts}; wrote {', '.join(contents)} to {settings.out}")
    if names := left_out(source, settings.format):
        print(f"left out, since nothing is measured on it: {', '.join(names)}")


if __name__ == "__main__":
    start(main, partial(tyro.cli, ExportQuestions, description=__doc__))
