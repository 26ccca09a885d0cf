"""The Vicuna v1.5 conversation: turns and a video's place -> token ids and label mask.

Source: FastChat's template `vicuna_v1.1`, which also serves the weights v1.3 and v1.5:

    {SYSTEM} USER: <video>\\n{question} ASSISTANT: {answer}</s>USER: {follow-up} ASSISTANT:

Ids are built piece by piece. What a user typed is encoded with every special token split into
ordinary text, and the video's place is a run of ids that no text can produce: nothing typed can
move, repeat or fake the video, or end a turn. Labels are appended with the ids, so they cannot
shift against them. docs/paper_map.md, row "prompt".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from qa_data.questions import LETTER_REQUEST, LETTERS
from sefar_mllm.model_config import SefarVlmConfig

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
BLANK = "\u2581"  # how SentencePiece writes a blank
IGNORE = -100  # the label that the loss leaves out
VIDEO_WORD = "video"  # projected tokens start around this word's embedding
TEXT_REQUEST = "Answer with the name of the move."
BOTH_REQUEST = "Answer with the option's letter and its text."


@dataclass(frozen=True)
class Turn:
    """What the user said, and the assistant's answer; None asks the model for one."""

    user: str
    assistant: str | None = None


@dataclass
class EncodedPrompt:
    """Token ids and their labels; `IGNORE` marks ids that are not trained on."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def as_prompt(self, ids: Sequence[int]) -> None:
        """Append ids that the model reads: without labels."""
        self.ids.extend(ids)
        self.labels.extend([IGNORE] * len(ids))

    def as_target(self, ids: Sequence[int]) -> None:
        """Append ids that the model is trained to produce."""
        self.ids.extend(ids)
        self.labels.extend(ids)


def question_text(
    stem: str, options: Sequence[str], request: str = LETTER_REQUEST, *, letters: str = LETTERS
) -> str:
    """A multiple-choice question on one line: `stem A. first B. second ... request`.

    The option marker of Vicuna's tokenizer is then the same token as the answer's letter. There are
    2 or more options, no more than letters. Letters other than A, B, C, ..., one character each,
    show whether the model depends on them.
    """
    if not 2 <= len(options) <= len(letters):
        raise ValueError(
            f"a question needs 2 to {len(letters)} options, got {len(options)}: {options}"
        )
    marked = (f"{letter}. {text}" for letter, text in zip(letters, options, strict=False))
    return " ".join([stem.strip(), *marked, request])


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    *,
    num_video_tokens: int,
    video_id: int,
) -> EncodedPrompt:
    """Ids and labels of a conversation about one video.

    Only the last turn may lack its answer; the ids then end in `ASSISTANT:`, ready for generation.
    Text alone has 0 video tokens; `video_id`, their placeholder, is outside the tokenizer's
    vocabulary. Answers and the end mark after each are labeled, everything else is `IGNORE`.
    ValueError for no turns, an unanswered turn that is not the last, an empty text, or a
    placeholder id that the tokenizer could produce.
    """
    if not turns:
        raise ValueError("a conversation needs at least one turn, got none")
    if video_id < len(tokenizer):
        raise ValueError(
            f"the video's placeholder id {video_id} is a token of the tokenizer (size "
            f"{len(tokenizer)}); take the number of embedding rows or more"
        )
    prompt = EncodedPrompt()
    prompt.as_prompt([tokenizer.bos_token_id, *_plain(tokenizer, f"{SYSTEM} USER:")])
    for number, turn in enumerate(turns):
        if number > 0:
            prompt.as_prompt(_after_break(tokenizer, "USER:"))
            prompt.as_prompt(_plain(tokenizer, _typed(turn.user)))
        elif num_video_tokens > 0:
            blank: Any = tokenizer.convert_tokens_to_ids(BLANK)
            prompt.as_prompt([blank, *[video_id] * num_video_tokens])
            prompt.as_prompt([_newline_id(tokenizer), *_after_break(tokenizer, _typed(turn.user))])
        else:
            prompt.as_prompt(_plain(tokenizer, _typed(turn.user)))
        prompt.as_prompt(_plain(tokenizer, "ASSISTANT:"))
        if turn.assistant is not None:
            prompt.as_target([*_plain(tokenizer, _typed(turn.assistant)), tokenizer.eos_token_id])
        elif number != len(turns) - 1:
            raise ValueError(f"turn {number + 1} of {len(turns)} has no answer; only the last may")
    return prompt


def encode_example(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    *,
    num_video_tokens: int,
    video_id: int,
) -> EncodedPrompt:
    """`encode_conversation` for training: refuses a conversation without labels. ValueError if no
    id has a label, so the loss of this item would silently be zero.
    """
    prompt = encode_conversation(
        tokenizer, turns, num_video_tokens=num_video_tokens, video_id=video_id
    )
    if all(label == IGNORE for label in prompt.labels):
        raise ValueError(
            f"no label is left in a conversation of {len(turns)} turns; "
            f"give the last turn its answer: {turns[-1].user[:60]!r}"
        )
    return prompt


def encode_question(
    tokenizer: PreTrainedTokenizerBase, turn: Turn, config: SefarVlmConfig, question_id: str
) -> EncodedPrompt:
    """`encode_conversation` of one turn about the clip of a question, for a composite model.
    ValueError if the prompt is longer than the model reads; nothing is ever cut.
    """
    prompt = encode_conversation(
        tokenizer,
        [turn],
        num_video_tokens=config.num_video_tokens,
        video_id=config.video_token_id,
    )
    limit = config.text_config.max_position_embeddings
    if len(prompt.ids) > limit:
        raise ValueError(
            f"question {question_id}: its prompt has {len(prompt.ids)} tokens, the language model "
            f"reads {limit}; shorten it, or pool the video to fewer tokens (--grid)"
        )
    return prompt


def letter_ids(tokenizer: PreTrainedTokenizerBase, count: int) -> list[int]:
    """The ids of the first `count` letters as they follow `ASSISTANT:` (Llama: 319 350 315 360).
    ValueError if a letter is not a single token, so letter likelihoods would be wrong.
    """
    ids = []
    for letter in LETTERS[:count]:
        pieces = _plain(tokenizer, letter)
        if len(pieces) != 1:
            raise ValueError(
                f"the letter {letter} after 'ASSISTANT:' is {len(pieces)} tokens of this "
                f"tokenizer ({pieces}), not one; letter scoring needs a Llama-family tokenizer"
            )
        ids += pieces
    return ids


def marker_ids(tokenizer: PreTrainedTokenizerBase, letters: str) -> tuple[list[int], list[int]]:
    """Ids of option markers after `ASSISTANT:`: those that all begin with, and the last of each.

    Llama's tokenizer makes one token of a letter; a digit follows a token for the space. ValueError
    if a marker occurs twice or is not a single token after the common ids, so likelihoods of single
    tokens would be wrong.
    """
    pieces = [_plain(tokenizer, letter) for letter in letters]
    shared = pieces[0][:-1]
    last = [piece[-1] for piece in pieces]
    if any(piece[:-1] != shared for piece in pieces) or len(set(last)) < len(last):
        raise ValueError(
            f"the option markers {letters!r} after 'ASSISTANT:' are the tokens {pieces} of this "
            f"tokenizer; each must end in one token of its own, after the same tokens"
        )
    return shared, last


def missing_for_prompts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What a tokenizer lacks to encode conversations as the template has them.

    Llama and Llama 2 have all of it; byte-level ones, such as Llama 3's, do not.
    """
    newline, line = _plain(tokenizer, "\n"), _plain(tokenizer, "\nUSER:")
    first = tokenizer.convert_ids_to_tokens(_plain(tokenizer, "USER:"))[0]
    fulfilled = {
        f"a token {BLANK!r} for a blank alone": BLANK in tokenizer.get_vocab(),
        "a token for a newline alone": newline != [] and line[: len(newline)] == newline,
        "the blank before a text": first.startswith(BLANK),
    }
    return [need for need, met in fulfilled.items() if not met]


def _typed(text: str) -> str:
    """Text without outer white space, which would change the ids of its neighbors."""
    if not text.strip():
        raise ValueError("an empty text cannot be a question or an answer; write at least a word")
    return text.strip()


def _plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text` after a space, with nothing in it read as a special token."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def _after_break(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text` directly after a newline or an end mark, without a space."""
    newline = _newline_id(tokenizer)
    ids = _plain(tokenizer, "\n" + text)
    return ids[ids.index(newline) + 1 :]


def _newline_id(tokenizer: PreTrainedTokenizerBase) -> int:
    return _plain(tokenizer, "\n")[-1]
