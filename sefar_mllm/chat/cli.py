"""A chat at the terminal, or through a pipe: read a line, print what is said to it.

A chat, line by line: a line goes in, what is said to it comes out in pieces.

Nothing is printed and nothing is read here: a terminal (`terminal`) or a page is put in front of
it. Every piece is free of control characters.
"""

import os
import shlex
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from sefar_core.data.decode import VideoReadError
from sefar_mllm.chat.assistant import Assistant, ChatError, Conversation, printable

HELP = {
    "/video PATH": "look at another video; the conversation begins anew",
    "/options A|B|C": "how probable each of these answers is",
    "/adapter off|on": "let the base language model answer, or the fine-tuned one",
    "/reset": "forget what was said; the video stays",
    "/help": "these lines",
    "/quit": "end",
}


class Chat:
    """An assistant, and the conversation that it is in.

    Args:
        assistant: who looks and answers.

    Attributes:
        conversation: about the video that was given last; None before the first.
    """

    def __init__(self, assistant: Assistant):
        self.assistant = assistant
        self.conversation: Conversation | None = None

    def reply(self, line: str) -> Generator[str, None, None]:
        """What is said to a line: a command's result, or the model's words as they come.

        Raises:
            ChatError: an unknown command, or what cannot be answered; everything stays as it was.
            VideoReadError: a video that is missing, broken or unsuitable; likewise.
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
            raise ChatError(f"there is no command {command}; /help lists those that there are")
        else:
            yield from self._current().ask(line.strip())

    def watch(self, path: str | Path) -> None:
        """Look at a video and begin anew; what answers, base or fine-tuned, stays.

        Raises:
            VideoReadError: it is missing, broken or unsuitable; the conversation stays as it was.
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
        return f"looking at {path}"

    def _options(self, listed: str) -> str:
        options = [option.strip() for option in listed.split("|")]
        probs = self._current().option_probs(options)
        return "\n".join(f"{p:6.1%}  {option}" for option, p in zip(options, probs, strict=True))

    def _adapter(self, wanted: str) -> str:
        if wanted not in ("on", "off"):
            raise ChatError("say /adapter on or /adapter off")
        self._current().adapted = wanted == "on"
        who = "the fine-tuned model" if wanted == "on" else "the base language model"
        return f"{who} answers"

    def _reset(self, _: str) -> str:
        self._current().reset()
        return "forgotten"

    def _help(self, _: str) -> str:
        return "\n".join(f"{command:15}  {meaning}" for command, meaning in HELP.items())

    def _current(self) -> Conversation:
        if self.conversation is None:
            raise ChatError("there is no video yet; name one: /video PATH")
        return self.conversation


def typed_path(text: str) -> str:
    """The path that a line names: as it stands if there is such a file, else without the quotes
    and backslashes that a shell, or a file dragged onto the terminal, puts around it.
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
"""What `reply` raises for a line that cannot be answered; the message is for the user."""


def talk(chat: Chat, questions: Sequence[str] = ()) -> int:
    """Answer these questions, or else what standard input says line by line, on standard output.

    Ctrl-C stops an answer; at the prompt it ends the chat, as do /quit and the end of the input.

    Returns:
        How many lines were refused.
    """
    refused = 0
    with suppress(KeyboardInterrupt):
        for line in questions or typed_lines():
            if line.strip() == "/quit":
                break
            refused += not answered(chat, line)
    return refused


def answered(chat: Chat, line: str) -> bool:
    """Print what is said to a line, as it comes; False if it was refused."""
    try:
        with closing(chat.reply(line)) as pieces:
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
    """Lines of standard input that say something.

    A person gets a prompt, and lines can be edited and called back with the arrow keys.
    """
    person = sys.stdin.isatty()
    if person:
        import readline  # noqa: F401 - `input` uses it from here on
    while True:
        try:
            line = input("> " if person else "")
        except EOFError:
            return
        if line.strip():
            yield line
