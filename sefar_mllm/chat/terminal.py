"""A chat at the terminal, or through a pipe: read a line, print what is said to it."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress

from sefar_mllm.chat.conversation import printable
from sefar_mllm.chat.replies import REFUSALS, Chat


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
