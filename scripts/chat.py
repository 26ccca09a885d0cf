"""Talk with a fine-tuned model about a video, or have it answer a file of questions.

    scripts/chat.py clip.mp4 --model runs/vicuna/model
    scripts/chat.py clip.mp4 --model runs/vicuna/model --question "Which move is this?"
    scripts/chat.py --model runs/vicuna/model --batch in.jsonl --out answers.jsonl

Questions come from --question, or line by line from the keyboard or a pipe. Commands:
/video PATH looks at another video, /options A|B|C|D gives the probability of each answer, /adapter
off lets the base language model answer, /reset forgets what was said, /help lists these, /quit
ends. Ctrl-C stops an answer. The model knows what it was tuned on, which is short answers about
gymnastics: one that was taught letters is a poor talker. Videos are decoded in a process of their
own, which a broken or hostile file cannot leave.

A batch is JSON lines of {"video": PATH, "question": TEXT}, with "id" and "options" if wanted; the
same command again goes on where it stopped and asks again what failed.
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sefar_core.cli import refuse_unwritable, start

import tyro

from sefar_mllm.config import ChatLimits


@dataclass(frozen=True, kw_only=True)
class Talk:
    video: tyro.conf.Positional[Path | None] = None
    """A short video of one element; without one, name it by /video."""
    model: Path
    """Folder that finetune_mllm.py wrote, RUN/model."""
    question: tuple[str, ...] = ()
    """Ask these and end; without any, questions are read from standard input."""
    batch: Path | None = None
    """Answer the questions of this file instead."""
    out: Path | None = None
    """File for the answers of a batch."""
    video_root: Path | None = None
    """Folder that the paths in a batch are relative to."""
    batch_size: int = 16
    """Questions of a batch that are answered at a time."""
    language_model: str | None = None
    """Where the language model lies, if not where it lay in training."""
    encoder_dir: Path | None = None
    """Where the encoder lies, if not where it lay in training."""
    four_bit: bool = False
    """Hold the language model in 4-bit numbers."""
    compiled: bool = False
    """On CUDA, compile the steps: the first answer waits for that, long ones come faster."""
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
    # What a pipe or a file name holds need not be UTF-8, and must not end the chat.
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if settings.batch is not None and settings.out is not None:
        failed = answer_batch(settings, settings.batch, settings.out)
    else:
        failed = chat(settings)
    raise SystemExit(1 if failed else 0)


def chat(settings: Talk) -> bool:
    """Talk; True if a question of the command line was refused."""
    from sefar_mllm.chat.cli import Chat, talk

    conversation = Chat(load(settings))
    if settings.video is not None:
        conversation.watch(settings.video)
    refused = talk(conversation, settings.question)
    return bool(settings.question) and refused > 0


def answer_batch(settings: Talk, questions: Path, out: Path) -> bool:
    """Answer the questions of a file; True if some were left without an answer."""
    from sefar_mllm.chat.assistant import printable
    from sefar_mllm.chat.batch import answer_all, made_with, open_answers, read_batch
    from sefar_mllm.checkpoint import read_config

    inquiries = read_batch(questions, settings.limits)
    read_config(settings.model)  # says what is wrong with the folder
    made = made_with(
        settings.model,
        settings.limits,
        four_bit=settings.four_bit,
        video_root=settings.video_root,
    )
    open_answers(out, inquiries, made)  # what cannot be written is refused before the model loads
    failed = answer_all(
        load(settings),
        inquiries,
        out,
        settings=made,
        video_root=settings.video_root,
        batch_size=settings.batch_size,
    )
    print(f"{len(inquiries) - len(failed)} of {len(inquiries)} questions are answered in {out}")
    for name, cause in failed.items():
        print(printable(f"question {name}: {cause}"))  # a stranger may have written both
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
