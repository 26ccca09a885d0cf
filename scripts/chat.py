"""Chat with a fine-tuned model about a video, or answer a file of questions.

    scripts/chat.py clip.mp4 --model runs/vicuna/model
    scripts/chat.py clip.mp4 --model runs/vicuna/model --question "Which move is this?"
    scripts/chat.py --model runs/vicuna/model --batch in.jsonl --out answers.jsonl

Questions come from --question, or line by line from the keyboard or a pipe. Commands: /video PATH
opens another video, /options A|B|C|D gives the probability of each answer, /adapter off answers
with the base language model, /reset clears the conversation, /help lists these commands, /quit
ends. Ctrl-C stops an answer. The model gives what it was trained on, which is short answers about
gymnastics; a model that was trained on letters answers in letters. Videos are decoded in a process
of their own, which contains a broken or hostile file.

A batch is JSON lines of {"video": PATH, "question": TEXT}, optionally with "id" and "options". The
same command resumes a batch that was stopped, and retries questions that failed.
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from sefar_core.cli import refuse_unwritable, start

import tyro

from sefar_mllm.config import ChatLimits


@dataclass(frozen=True, kw_only=True)
class Talk:
    video: tyro.conf.Positional[Path | None] = None
    """A short video of one element; it can also be given by /video."""
    model: Path
    """Folder that finetune_mllm.py wrote, RUN/model."""
    question: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(default: none)")] = ()
    """Answer these questions and end; by default questions are read from standard input."""
    batch: Path | None = None
    """Batch mode: answer the questions in this file."""
    out: Path | None = None
    """File for the answers of --batch."""
    video_root: Path | None = None
    """Folder that the video paths in --batch start from."""
    batch_size: int = 16
    """Number of questions of --batch that are answered at a time."""
    language_model: str | None = None
    """Folder or hub name of the language model, if it is not where it was in training."""
    encoder_dir: Path | None = None
    """Folder of the encoder, for clip and eva also a hub name, if it is not where it was in
    training."""
    four_bit: bool = False
    """Load the language model in 4 bits. Needs bitsandbytes."""
    compiled: bool = False
    """On CUDA, compile the decoding steps: the first answer is slower, long ones are faster."""
    limits: tyro.conf.OmitArgPrefixes[ChatLimits] = field(default_factory=ChatLimits)

    def __post_init__(self):
        if (self.batch is None) != (self.out is None):
            raise ValueError("--batch and --out go together: questions in, answers out")
        if self.batch is not None and (self.video is not None or self.question):
            raise ValueError("--batch names its videos and questions itself; leave out others")
        if self.batch is None and self.video_root is not None:
            raise ValueError("--video-root is for --batch; name the video with its whole path")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


def main(settings: Talk) -> None:
    refuse_unwritable(files=[settings.out])
    # Pipes and file names need not be UTF-8, and must not end the chat.
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if settings.batch is not None and settings.out is not None:
        failed = answer_batch(settings, settings.batch, settings.out)
    else:
        failed = chat(settings)
    raise SystemExit(1 if failed else 0)


def chat(settings: Talk) -> bool:
    """Run the chat; True if a question of the command line was refused."""
    from sefar_mllm.chat.cli import Chat, talk

    conversation = Chat(load(settings))
    if settings.video is not None:
        conversation.watch(settings.video)
    refused = talk(conversation, settings.question)
    return bool(settings.question) and refused > 0


def answer_batch(settings: Talk, questions: Path, out: Path) -> bool:
    """Answer the questions of a file; True if some have no answer."""
    from sefar_mllm.chat.assistant import printable
    from sefar_mllm.chat.batch import answer_all, made_with, open_answers, read_batch
    from sefar_mllm.checkpoint import read_config

    batch = read_batch(questions, settings.limits)
    read_config(settings.model)  # refuses a folder that is not a model
    made = made_with(
        settings.model,
        settings.limits,
        four_bit=settings.four_bit,
        video_root=settings.video_root,
    )
    open_answers(out, batch, made)  # what cannot be written is refused before the model loads
    failed = answer_all(
        load(settings),
        batch,
        out,
        settings=made,
        video_root=settings.video_root,
        batch_size=settings.batch_size,
    )
    print(f"{len(batch) - len(failed)} of {len(batch)} questions are answered in {out}")
    for name, cause in failed.items():
        print(printable(f"question {name}: {cause}"))  # both may be of untrusted origin
    return bool(failed)


def load(settings: Talk) -> Any:
    """The assistant."""
    import sefar_mllm

    assistant = sefar_mllm.from_pretrained(
        settings.model,
        language_model=settings.language_model,
        encoder_dir=settings.encoder_dir,
        four_bit=settings.four_bit,
    )
    assistant.limits, assistant.compiled = settings.limits, settings.compiled
    return assistant


if __name__ == "__main__":
    start(main, partial(tyro.cli, Talk, description=__doc__))
