"""A fine-tuned model with its encoder, loaded once: given a video, it starts a conversation.

    import sefar_mllm
    assistant = sefar_mllm.from_pretrained("runs/vicuna/model")
    print(assistant.watch("clip.mp4").answer("Which move is this?"))

A `Conversation` holds the turns about one video; the video's tokens are in the first turn, and the
model reads all turns before. Answers are streamed and cleaned of control characters. A model that
was trained on letters answers in letters: `option_probs` gives the probabilities of given answers
instead.
"""

import unicodedata
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qa_data.files import SefarError
from qa_data.questions import LETTERS, STEM, Question
from sefar_core.checkpoint import CheckpointError
from sefar_core.data.decode import VideoReadError
from sefar_mllm.adapters import Trained, composite
from sefar_mllm.chat.safe_video import VideoClip, read_frames, read_frames_apart
from sefar_mllm.checkpoint import load_trained
from sefar_mllm.config import ChatLimits
from sefar_mllm.encoders import ENCODERS, Encoder, pool, with_frame_times
from sefar_mllm.feature_cache import check_keys
from sefar_mllm.features import token_key
from sefar_mllm.generate import lora_switched_off, stream
from sefar_mllm.model_config import recorded_folder
from sefar_mllm.prompt import Turn, encode_conversation, marker_ids, question_text
from sefar_mllm.scoring import letter_logits, option_probs, rotated_prompts
from sefar_mllm.shared_prefix import join

MAX_JOINED = 8192
"""Most tokens of a question with all rotations of its options, scored in one row. Memory grows with
the square: about a gigabyte at this length."""
DECODERS = 2
"""Number of decoding processes for several videos."""


class ChatError(SefarError):
    """A question that cannot be answered; the message says why and what to do."""


@dataclass(eq=False)
class Conversation:
    """The turns about one video."""

    model: Trained
    """Fine-tuned, in evaluation mode."""
    tokenizer: PreTrainedTokenizerBase
    tokens: Float[Tensor, "frame row column dim"]
    """The video's."""
    _: KW_ONLY
    limits: ChatLimits = ChatLimits()
    compiled: bool = False
    """See `Assistant`."""
    turns: list[Turn] = field(default_factory=list)
    """The questions and answers so far. An interrupted answer is not kept."""
    _adapted: bool = field(default=True, init=False)

    def reset(self) -> None:
        """Clear the turns; the video stays."""
        self.turns = []

    @property
    def adapted(self) -> bool:
        """Whether the fine-tuned model answers, or the base model behind the same projector.

        Setting it to False raises ChatError where there is no adapter to switch off.
        """
        return self._adapted

    @adapted.setter
    def adapted(self, wanted: bool) -> None:
        if not wanted and not isinstance(self.model, PeftModel):
            raise ChatError(
                "this model is merged: it has no adapter to switch off; give the folder of the run "
                "that it was merged from"
            )
        self._adapted = wanted

    def answer(self, text: str) -> str:
        """The whole answer to a question. See `ask`."""
        return "".join(self.ask(text)).strip()

    def ask(self, text: str) -> Generator[str, None, None]:
        """The answer, piece by piece; a complete answer is kept in `turns`. ChatError if the
        question is empty, or longer than the limits or the model allow.
        """
        ids = self.prompt(text)
        answer = ""
        pieces = stream(
            self.model,
            self.tokenizer,
            ids,
            self.tokens,
            max_new_tokens=self.limits.max_new_tokens,
            static_cache=self.compiled,
        )
        with self._adapter(), closing(pieces):
            for piece in map(printable, pieces):
                answer += piece
                yield piece
        # An empty answer cannot be in a prompt: its question is not kept either.
        if answer.strip():
            self.turns = [*self.turns, Turn(text, answer.strip())]

    def option_probs(self, options: Sequence[str], stem: str = STEM) -> list[float]:
        """Probability of each option as the answer to `stem`, averaged over their rotations.
        ChatError for fewer than two options, an empty or repeated one, or more than the limits, the
        model or its tokenizer's letters allow.
        """
        question = self.choice(options, stem)
        with self._adapter():
            logits = letter_logits(self.model, self.tokenizer, [question], [self.tokens])
        return option_probs(logits)[0].tolist()

    def choice(self, options: Sequence[str], stem: str = STEM) -> Question:
        """A question about the video with these options. ChatError as in `option_probs`."""
        question = choice_of(options, stem, self.limits)
        refuse_unmarked(self.tokenizer, len(options))
        # Each rotation may be a token or so longer at every seam between two options.
        self._ids([Turn(question_text(stem, options))], spare=len(options))
        length = joined_length(self.model, self.tokenizer, question)
        if length > MAX_JOINED:
            raise ChatError(
                f"the {len(options)} options have {length:,} tokens in all their rotations, at "
                f"most {MAX_JOINED:,} can be scored; give fewer options, or shorter ones"
            )
        return question

    def prompt(self, text: str) -> list[int]:
        """Ids of the turns and of this question, ending where its answer begins. ChatError if the
        question is empty, or longer than the limits or the model allow.
        """
        refuse_text(text, "question", self.limits)
        if len(self.turns) >= self.limits.max_turns:
            raise ChatError(
                f"the conversation has {len(self.turns)} questions, the limit; "
                f"start again with /reset"
            )
        return self._ids([*self.turns, Turn(text)], spare=self.limits.max_new_tokens)

    def _ids(self, turns: Sequence[Turn], *, spare: int) -> list[int]:
        """Ids of the turns; ChatError unless the model has room for them and `spare` more."""
        config = composite(self.model).config
        ids = encode_conversation(
            self.tokenizer,
            turns,
            num_video_tokens=config.num_video_tokens,
            video_id=config.video_token_id,
        ).ids
        room = config.text_config.max_position_embeddings - spare
        if len(ids) > room:
            raise ChatError(
                f"video and text have {len(ids)} tokens and the model reads {room} before an "
                f"answer; start again with /reset, or use fewer words"
            )
        return ids

    def _adapter(self) -> AbstractContextManager[None]:
        if isinstance(self.model, PeftModel) and not self.adapted:
            return lora_switched_off(self.model)
        return nullcontext()


def choice_of(options: Sequence[str], stem: str, limits: ChatLimits) -> Question:
    """A question about the conversation's video with these options. ChatError for fewer than two
    options, too many, an empty, repeated or too long one.
    """
    if not 2 <= len(options) <= len(LETTERS) or len(set(options)) < len(options):
        raise ChatError(
            f"give 2 to {len(LETTERS)} different options, A|B, got {len(options)}: "
            f"{' | '.join(options):.200}"
        )
    refuse_text(stem, "question", limits)
    for option in options:
        refuse_text(option, "option", limits)
    return Question(question_id="0", video="video", stem=stem, options=tuple(options), answer=0)


def refuse_unmarked(tokenizer: PreTrainedTokenizerBase, count: int) -> None:
    """Raise ChatError for more options than there are letters that are one token each."""
    for number in range(2, count + 1):
        try:
            marker_ids(tokenizer, LETTERS[:number])
        except ValueError as cause:
            if number == 2:
                raise ChatError(
                    f"this model's tokenizer has no letters of one token to score {count} options "
                    f"by; ask without options"
                ) from cause
            raise ChatError(
                f"got {count} options, but the letter {LETTERS[number - 1]} is not a single token "
                f"of this model's tokenizer and cannot be scored; give up to {number - 1} options"
            ) from cause


def joined_length(model: Trained, tokenizer: PreTrainedTokenizerBase, question: Question) -> int:
    """Tokens of the row in which all orders of a question's options are scored."""
    config = composite(model).config
    return len(join(rotated_prompts(tokenizer, question, config, LETTERS)).ids)


def refuse_text(text: str, kind: str, limits: ChatLimits) -> None:
    """Raise ChatError for a text that is empty, too long, or not valid Unicode."""
    if not text.strip():
        raise ChatError(f"the {kind} is empty; write at least a word")
    if len(text) > limits.max_question_chars:
        raise ChatError(
            f"the {kind} has {len(text)} characters, at most {limits.max_question_chars} are "
            f"allowed; use fewer words"
        )
    refuse_halves(text, kind)


def refuse_halves(text: str, kind: str) -> None:
    """Raise ChatError for a text with lone surrogates, which UTF-8 cannot encode."""
    if any(unicodedata.category(c) == "Cs" for c in text):
        raise ChatError(f"the {kind} holds halves of characters, which are not text; type it again")


def printable(text: str) -> str:
    """The text without control characters, which could rewrite a terminal; newlines stay."""
    return "".join(
        c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
    )


@dataclass(eq=False)
class Assistant:
    """Encodes videos and answers questions about them."""

    model: Trained
    """Fine-tuned, in evaluation mode."""
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    """The encoder that the model was trained with."""
    _: KW_ONLY
    limits: ChatLimits = ChatLimits()
    """Of every conversation."""
    compiled: bool = False
    """Keep keys and values in memory of fixed size. On CUDA the steps are then compiled: the first
    answer is slower, long ones are faster."""

    def watch(
        self,
        path: str | Path,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        untrusted: bool = False,
    ) -> Conversation:
        """A conversation about a video, or about a part of it.

        Args:
            path: a video file of a usual format, or a folder of numbered pictures.
            start_s: where the clip begins, seconds from the first shown frame.
            end_s: where it ends.
            untrusted: decode in a process of its own, in which a hostile file may crash, hang or
                use up memory without harm; some 50 ms a video, 2 s before the first. A script
                that uses it needs `if __name__ == "__main__":` around its code.

        Raises:
            VideoReadError: the file is missing or broken, or longer or larger than a chat accepts.
            ValueError: the clip has no length.
        """
        clip = VideoClip(path=Path(path), start_s=start_s, end_s=end_s)
        if not untrusted:
            return self.begin(self.tokens_of(read_frames(clip, self.encoder.moments)))
        ((_, tokens),) = self.encode_videos([clip])
        if isinstance(tokens, VideoReadError):
            raise tokens
        return self.begin(tokens)

    def begin(self, tokens: Float[Tensor, "frame row column dim"]) -> Conversation:
        """A conversation about a video whose tokens are given."""
        return Conversation(
            self.model, self.tokenizer, tokens, limits=self.limits, compiled=self.compiled
        )

    def encode_videos(
        self, clips: Sequence[VideoClip]
    ) -> Iterator[tuple[VideoClip, Float[Tensor, "frame row column dim"] | VideoReadError]]:
        """Each video with its tokens or its error, in the order in which they finish.

        They are decoded in processes of their own.
        """
        decoded = read_frames_apart(clips, self.encoder.moments, workers=DECODERS)
        for clip, frames in decoded:
            yield clip, frames if isinstance(frames, VideoReadError) else self.tokens_of(frames)

    def tokens_of(
        self, frames: UInt8[Tensor, "frame height width 3"]
    ) -> Float[Tensor, "frame row column dim"]:
        """Tokens of a clip's frames, pooled as in training."""
        grid = composite(self.model).config.encoder["key"]["grid"]
        return pool(self.encoder.encode(frames[None]), grid)[0]


def from_pretrained(
    folder: str | Path,
    *,
    language_model: str | None = None,
    encoder_dir: str | Path | None = None,
    device: str | None = None,
    four_bit: bool = False,
) -> Assistant:
    """The model of a run with its encoder, which must be the one of training.

    Args:
        folder: what scripts/finetune_mllm.py wrote, RUN/model.
        language_model: folder or hub name of the language model, if it is not where it was in
            training.
        encoder_dir: folder of the encoder, for clip and eva also a hub name, if it is not where it
            was in training.
        device: where both run; by default CUDA if there is one.
        four_bit: load the language model in 4 bits.

    Raises:
        CheckpointError: the folder is not a fine-tuned model, or computes other logits than in
            training; or the encoder's folder is missing or damaged.
        CacheError: the encoder is not the one of training.
        OSError: the language model is missing.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, tokenizer = load_trained(
        Path(folder), language_model=language_model, device=device, four_bit=four_bit
    )
    encoder = load_encoder_of(model, folder, encoder_dir=encoder_dir, device=device)
    return Assistant(model, tokenizer, encoder)


def load_encoder_of(
    model: Trained,
    folder: str | Path,
    *,
    encoder_dir: str | Path | None = None,
    device: str = "cpu",
) -> Encoder:
    """The encoder that a model was trained with. CacheError if it is another one; CheckpointError
    if it is missing or damaged. See `from_pretrained`.
    """
    known = composite(model).config.encoder
    key, origin = known["key"], known["origin"]
    place = encoder_dir or recorded_folder(origin["folder"], Path(folder))
    if place is None:
        raise CheckpointError(
            f"{folder} was trained with the encoder in {origin['folder']}, and there is no such "
            f"folder; give its folder by --encoder-dir"
        )
    encoder = ENCODERS[key["encoder"]](Path(place), seed=origin["seed"], device=device)
    if encoder.any_moments:
        encoder = with_frame_times(encoder, key["moments"])
    check_keys(token_key(encoder, key["grid"]), key, where=str(place), who="the fine-tuned model")
    return encoder
