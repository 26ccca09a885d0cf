"""A fine-tuned model with its encoder, loaded once: shown a video, it begins a conversation.

import sefar_mllm
assistant = sefar_mllm.from_pretrained("runs/vicuna/model")
print(assistant.watch("clip.mp4").answer("Which move is this?"))
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sefar_core.checkpoint import CheckpointError
from sefar_core.data.decoding import VideoReadError
from sefar_mllm.adapters import Trained, composite
from sefar_mllm.chat.conversation import Conversation
from sefar_mllm.chat.guarded_video import Footage, read_frames, read_frames_apart
from sefar_mllm.config import ChatLimits
from sefar_mllm.encoders import ENCODERS, Encoder, pool, shown_at
from sefar_mllm.folders.checkpoint import load_trained
from sefar_mllm.places import recorded_folder
from sefar_mllm.tokens.cache import check_keys
from sefar_mllm.tokens.features import token_key

DECODERS = 2
"""Processes that decode at a time where there are several videos."""


class Assistant:
    """Looks at videos and talks about them.

    Args:
        model: fine-tuned, in evaluation mode.
        tokenizer: its tokenizer.
        encoder: the one that it was trained with.
        limits: of every conversation.
        compiled: keep keys and values in memory of fixed size. On CUDA the steps are then
            compiled, which the first answer waits for and long ones gain from.
    """

    def __init__(
        self,
        model: Trained,
        tokenizer: PreTrainedTokenizerBase,
        encoder: Encoder,
        *,
        limits: ChatLimits | None = None,
        compiled: bool = False,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.limits = limits or ChatLimits()
        self.compiled = compiled
        self.grid: int = composite(model).config.encoder["key"]["grid"]

    def watch(
        self,
        path: str | Path,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        untrusted: bool = False,
    ) -> Conversation:
        """A conversation about a video, or about a stretch of it.

        Args:
            path: a video file of a usual format, or a folder of numbered pictures.
            start_s: where the clip begins, seconds from the first shown frame.
            end_s: where it ends.
            untrusted: decode in a process of its own, which a file may crash, hang or blow up
                without harm; some 50 ms a video, 2 s before the first. A script that asks for it
                needs `if __name__ == "__main__":` around what it does.

        Raises:
            VideoReadError: the file is missing or broken, or longer or larger than a chat takes.
            ValueError: the clip has no length.
        """
        footage = Footage(path=Path(path), start_s=start_s, end_s=end_s)
        if not untrusted:
            return self.begin(self.tokens_of(read_frames(footage, self.encoder.moments)))
        ((_, tokens),) = self.look([footage])
        if isinstance(tokens, VideoReadError):
            raise tokens
        return self.begin(tokens)

    def begin(self, tokens: Float[Tensor, "frame row column dim"]) -> Conversation:
        """A conversation about a video whose tokens are there already."""
        return Conversation(
            self.model, self.tokenizer, tokens, limits=self.limits, compiled=self.compiled
        )

    def look(
        self, footages: Sequence[Footage]
    ) -> Iterator[tuple[Footage, Float[Tensor, "frame row column dim"] | VideoReadError]]:
        """Each video with its tokens, or with what is wrong with it, as they are done.

        They are decoded in processes of their own.
        """
        decoded = read_frames_apart(footages, self.encoder.moments, workers=DECODERS)
        for footage, frames in decoded:
            yield footage, frames if isinstance(frames, VideoReadError) else self.tokens_of(frames)

    def tokens_of(
        self, frames: UInt8[Tensor, "frame height width 3"]
    ) -> Float[Tensor, "frame row column dim"]:
        """Tokens of a clip's frames, as the model was trained on."""
        return pool(self.encoder.encode(frames[None]), self.grid)[0]


def from_pretrained(
    folder: str | Path,
    *,
    language_model: str | None = None,
    encoder_dir: str | Path | None = None,
    device: str | None = None,
    four_bit: bool = False,
) -> Assistant:
    """The model of a run with its encoder, checked against what it was trained with.

    Args:
        folder: what scripts/finetune_mllm.py wrote, RUN/model.
        language_model: where the language model lies, if not where it lay in training.
        encoder_dir: where the encoder lies, if not where it lay in training.
        device: where both run; by default CUDA if there is one.
        four_bit: hold the language model in 4-bit numbers.

    Raises:
        FolderError: the folder is no fine-tuned model, or computes other logits than it did.
        CacheError: the encoder is another one than in training.
        CheckpointError: the encoder's folder is missing or damaged.
        OSError: the language model is not there.
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
    """The encoder that a model was trained with.

    Args:
        model: fine-tuned; its config names the encoder.
        folder: of the model, in which the encoder may lie.
        encoder_dir: where the encoder lies, if not where it lay in training.
        device: where the encoder runs.

    Raises:
        CacheError: the encoder there is another one.
        CheckpointError: it is missing, no longer where it was, or damaged.
    """
    known = composite(model).config.encoder
    key, origin = known["key"], known["origin"]
    place = encoder_dir or recorded_folder(origin["folder"], Path(folder))
    if place is None:
        raise CheckpointError(
            f"{folder} was trained with the encoder in {origin['folder']}, and there is no such "
            f"folder; say where it lies with --encoder-dir"
        )
    encoder = ENCODERS[key["encoder"]](Path(place), seed=origin["seed"], device=device)
    if encoder.any_moments:
        encoder = shown_at(encoder, key["moments"])
    check_keys(token_key(encoder, key["grid"]), key, where=str(place), who="the fine-tuned model")
    return encoder
