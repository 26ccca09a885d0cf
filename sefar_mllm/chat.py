"""A conversation about a video: encode it once, answer in a stream, remember the turns.

The model reads what was said before; the video's tokens stand in the first turn. What it writes is
cleaned of control characters before anyone sees it. A model that was tuned on letters answers in
letters: `/options` asks for the probabilities of given answers instead.
"""

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TextIteratorStreamer

from qa_data.schema import Question
from sefar_core.data.video import probe, read_fractions
from sefar_mllm.adapters import composite
from sefar_mllm.encoders import ENCODERS, pool
from sefar_mllm.predict import letter_logits
from sefar_mllm.prompt import STEM, Turn, encode_conversation
from sefar_mllm.scoring import option_probs
from sefar_mllm.token_cache import FORMAT, check_keys

MAX_DURATION_S = 120.0
MAX_PIXELS = 2 * 1920 * 1088


class ChatError(ValueError):
    """Something that cannot be answered or shown; the message says why and what to do."""


def encode_video(
    path: Path, model: PeftModel, *, encoder_dir: Path | None = None, device: str = "cpu"
) -> Float[Tensor, "frame row column dim"]:
    """Tokens of a video by the encoder that the model was trained with.

    Args:
        path: a short video.
        model: fine-tuned; its config names the encoder.
        encoder_dir: where the encoder lies, if not where it lay in training.
        device: where the encoder runs.

    Raises:
        VideoReadError: the file is missing or does not decode.
        ChatError: the video is too long or too large.
        CacheError: the encoder is another one than in training.
    """
    refuse_unsuitable(path)
    known = composite(model).config.encoder
    key, origin = known["key"], known["origin"]
    folder = encoder_dir or Path(origin["folder"])
    encoder = ENCODERS[key["encoder"]](folder, seed=origin["seed"], device=device)
    found = {"format": FORMAT, **encoder.key(key["grid"])}
    check_keys(found, key, where=str(folder), who="the fine-tuned model")
    frames = read_fractions(path, encoder.moments)
    return pool(encoder.encode(frames[None]), key["grid"])[0]


def refuse_unsuitable(path: Path) -> None:
    """Look at the header and refuse what would take too long or too much memory.

    Raises:
        VideoReadError: the file is missing or does not decode.
        ChatError: the video is too long or too large.
    """
    info = probe(path)
    if info.duration_s > MAX_DURATION_S:
        raise ChatError(
            f"{path} lasts {info.duration_s:.0f} s; a chat takes up to {MAX_DURATION_S:.0f} s: "
            f"cut out the element first"
        )
    if info.width * info.height > MAX_PIXELS:
        raise ChatError(
            f"{path} has {info.width} x {info.height} pixels; a chat takes up to {MAX_PIXELS} in "
            f"all: scale it down first"
        )


class Conversation:
    """The turns about one video.

    Args:
        model: fine-tuned, in evaluation mode.
        tokenizer: its tokenizer.
        tokens: the video's.
        max_new_tokens: longest answer.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        tokens: Float[Tensor, "frame row column dim"],
        *,
        max_new_tokens: int = 128,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.max_new_tokens = max_new_tokens
        self.turns: list[Turn] = []

    def reset(self) -> None:
        """Forget what was said; the video stays."""
        self.turns = []

    def ask(self, text: str) -> Iterator[str]:
        """The answer, piece by piece; once it is complete it is remembered.

        Raises:
            ChatError: nothing was asked, or the conversation is longer than the model reads.
        """
        if not text.strip():
            raise ChatError("nothing was asked; type a question")
        turns = [*self.turns, Turn(text)]
        answer = ""
        for piece in self._generate(self._prompt(turns)):
            answer += piece
            yield piece
        # An empty answer cannot stand in a prompt: what was asked is then forgotten with it.
        if answer.strip():
            self.turns = [*self.turns, Turn(text, answer.strip())]

    def option_probs(self, options: Sequence[str], stem: str = STEM) -> list[float]:
        """Probability of each option as the answer to `stem`, averaged over their rotations.

        Raises:
            ChatError: fewer than two options, or an empty one.
        """
        if len(options) < 2 or not all(option.strip() for option in options):
            raise ChatError(f"give at least two options, A|B, none of them empty; got {options}")
        question = Question(
            question_id="0", video="video", stem=stem, options=tuple(options), answer=0
        )
        logits = letter_logits(self.model, self.tokenizer, [question], [self.tokens])
        return option_probs(logits)[0].tolist()

    def _prompt(self, turns: Sequence[Turn]) -> list[int]:
        config = composite(self.model).config
        ids = encode_conversation(
            self.tokenizer,
            turns,
            num_video_tokens=config.num_video_tokens,
            video_id=config.video_token_id,
        ).ids
        room = config.text_config.max_position_embeddings - self.max_new_tokens
        if len(ids) > room:
            raise ChatError(
                f"the conversation has {len(ids)} tokens and the model reads {room}; "
                f"start again with /reset"
            )
        return ids

    def _generate(self, ids: list[int]) -> Iterator[str]:
        """Greedy generation in a thread, its text in pieces."""
        model = composite(self.model)
        streamer = TextIteratorStreamer(
            self.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=120
        )
        failures: list[BaseException] = []

        def work() -> None:
            try:
                model.generate(  # type: ignore[misc]
                    input_ids=torch.tensor([ids], device=model.device),
                    attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=model.device),
                    video_tokens=self.tokens[None].to(model.device),
                    max_new_tokens=self.max_new_tokens,
                    do_sample=False,
                    streamer=streamer,
                )
            except BaseException as failure:  # handed to the reader, who raises it
                failures.append(failure)
                streamer.end()

        thread = Thread(target=work, daemon=True)
        thread.start()
        for piece in streamer:
            yield printable(piece)
        thread.join()
        if failures:
            raise failures[0]


def printable(text: str) -> str:
    """The text without control characters, which could rewrite a terminal; newlines stay."""
    return "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf"))


def talk(conversation: Conversation, questions: Sequence[str] = ()) -> None:
    """Answer these questions, or else what standard input says line by line, on standard output."""
    for line in questions or typed_lines():
        if line.strip() == "/quit":
            break
        try:
            for piece in reply(conversation, line):
                print(piece, end="", flush=True)
            print()
        except ChatError as refusal:
            print(f"error: {refusal}")


def typed_lines() -> Iterator[str]:
    """Lines of standard input that say something; a prompt is shown only to a person."""
    person = sys.stdin.isatty()
    while True:
        if person:
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line


def reply(conversation: Conversation, line: str) -> Iterator[str]:
    """What is answered to a line: a command's result, or the model's words.

    Raises:
        ChatError: an unknown command, or what the conversation refuses.
    """
    command, _, rest = line.strip().partition(" ")
    if command == "/options":
        options = [option.strip() for option in rest.split("|")]
        probs = conversation.option_probs(options)
        yield "\n".join(f"{p:6.1%}  {printable(o)}" for o, p in zip(options, probs, strict=True))
    elif command == "/reset":
        conversation.reset()
        yield "forgotten"
    elif command.startswith("/"):
        raise ChatError(f"there is no command {printable(command)}; try /options, /reset, /quit")
    else:
        yield from conversation.ask(line)
