"""A chat at the terminal or through a pipe: each line is a question or a command.

`Chat` gives the answer to a line in pieces and neither prints nor reads; `talk` puts the terminal
in front of it. Every piece is free of control characters.
"""

import os
import shlex
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from sefar_core.data.decode import VideoReadError
from sefar_mllm.chat.assistant import Assistant, ChatError, Conversation, printable

HELP = {
    "/video PATH": "open another video and start a new conversation",
    "/options A|B|C": "probability of each of these answers",
    "/adapter off|on": "answer with the base language model, or with the fine-tuned one",
    "/reset": "clear the conversation; the video stays",
    "/help": "list these commands",
    "/quit": "end",
}


@dataclass(eq=False)
class Chat:
    """An assistant and its current conversation."""

    assistant: Assistant
    conversation: Conversation | None = None
    """About the last video; None before the first."""

    def answer(self, line: str) -> Generator[str, None, None]:
        """The result of a command, or the model's answer to a question as it is generated.

        ChatError for an unknown command, or a question that cannot be answered; VideoReadError for
        a video that is missing, broken or unsuitable. After either, the conversation is unchanged.
        """
        command, _, rest = line.strip().partition(" ")
        commands: dict[str, Callable[[str], str]] = {
            "/video": self._video,
            "/options": self._options,
            "/adapter": self._adapter,
            "/reset": self._reset,
            "/help": self._help,
        }
        if command in commands:
            yield printable(commands[command](rest.strip()))
        elif command.startswith("/"):
            raise ChatError(f"there is no command {command}; /help lists the commands")
        else:
            yield from self._current().ask(line.strip())

    def watch(self, path: str | Path) -> None:
        """Open a video and start a new conversation; /adapter keeps its state. VideoReadError if it
        is missing, broken or unsuitable; the conversation is unchanged.
        """
        conversation = self.assistant.watch(path, untrusted=True)
        if self.conversation is not None:
            conversation.adapted = self.conversation.adapted
        self.conversation = conversation

    def _video(self, path: str) -> str:
        if not path:
            raise ChatError("name a video: /video PATH")
        path = typed_path(path)
        self.watch(path)
        return f"video: {path}"

    def _options(self, listed: str) -> str:
        options = [option.strip() for option in listed.split("|")]
        probs = self._current().option_probs(options)
        return "\n".join(f"{p:6.1%}  {option}" for option, p in zip(options, probs, strict=True))

    def _adapter(self, wanted: str) -> str:
        if wanted not in ("on", "off"):
            raise ChatError("type /adapter on or /adapter off")
        self._current().adapted = wanted == "on"
        who = "the fine-tuned model" if wanted == "on" else "the base language model"
        return f"{who} answers"

    def _reset(self, _: str) -> str:
        self._current().reset()
        return "conversation cleared"

    def _help(self, _: str) -> str:
        return "\n".join(f"{command:15}  {meaning}" for command, meaning in HELP.items())

    def _current(self) -> Conversation:
        if self.conversation is None:
            raise ChatError("there is no video yet; open one: /video PATH")
        return self.conversation


def typed_path(text: str) -> str:
    """The path in a line: as typed if there is such a file, else without the quotes and backslashes
    that a shell, or a file dragged onto the terminal, adds.
    """
    as_typed = os.path.expanduser(text)
    if os.path.exists(as_typed):
        return as_typed
    try:
        words = shlex.split(text)
    except ValueError:  # a quote that is not closed is part of the name
        return as_typed
    return os.path.expanduser(words[0]) if len(words) == 1 and words[0] else as_typed


REFUSALS = (ChatError, VideoReadError)
"""Errors of `Chat.answer` for a line that cannot be answered; the message is for the user."""


def talk(chat: Chat, questions: Sequence[str] = ()) -> int:
    """Answer these questions, or else the lines of standard input, on standard output; the number
    of lines that were refused.

    Ctrl-C stops an answer; at the prompt it ends the chat, as do /quit and the end of the input.
    """
    refused = 0
    with suppress(KeyboardInterrupt):
        for line in questions or typed_lines():
            if line.strip() == "/quit":
                break
            refused += not print_answer(chat, line)
    return refused


def print_answer(chat: Chat, line: str) -> bool:
    """Print the answer to a line as it is generated; False if the line was refused."""
    try:
        with closing(chat.answer(line)) as pieces:
            for piece in pieces:
                print(piece, end="", flush=True)
        print()
    except REFUSALS as refusal:
        print(f"error: {printable(str(refusal))}", flush=True)
        return False
    except KeyboardInterrupt:
        print("\nstopped; Ctrl-C once more ends the chat", flush=True)
    return True


def typed_lines() -> Iterator[str]:
    """Lines of standard input that are not blank.

    At a terminal there is a prompt, and lines can be edited and recalled with the arrow keys.
    """
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401 - `input` uses it from here on
    while True:
        try:
            line = input("> " if interactive else "")
        except EOFError:
            return
        if line.strip():
            yield line
