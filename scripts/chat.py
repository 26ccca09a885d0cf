"""Talk with a fine-tuned model about a video.

    scripts/chat.py clip.mp4 --model runs/mllm-sefar/model
    scripts/chat.py clip.mp4 --model runs/mllm-sefar/model --question "Which move is this?"

Questions come from --question, or line by line from the keyboard or a pipe. Commands:
/options A|B|C|D gives the probability of each answer, /reset forgets what was said, /quit ends. The
model knows what it was tuned on, which is short answers about gymnastics.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class Chat:
    video: tyro.conf.Positional[Path]
    """A short video of one element."""
    model: Path
    """Folder that finetune_mllm.py wrote, RUN/model."""
    question: tuple[str, ...] = ()
    """Ask these and end; without any, questions are read from standard input."""
    encoder_dir: Path | None = None
    """Where the encoder lies, if not where it lay in training."""
    max_new_tokens: int = 128
    """Longest answer, tokens."""


def main(settings: Chat) -> None:
    import torch

    from sefar_core.checkpoint import CheckpointError
    from sefar_core.data.video import VideoReadError
    from sefar_mllm.chat import ChatError, Conversation, encode_video, talk
    from sefar_mllm.checkpoint import FolderError, load_trained
    from sefar_mllm.token_cache import CacheError

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model, tokenizer = load_trained(settings.model, device=device)
        tokens = encode_video(
            settings.video, model, encoder_dir=settings.encoder_dir, device=device
        )
    except (ChatError, VideoReadError, CacheError, CheckpointError, FolderError, OSError) as cause:
        raise SystemExit(f"error: {cause}") from cause
    conversation = Conversation(model, tokenizer, tokens, max_new_tokens=settings.max_new_tokens)
    talk(conversation, settings.question)


if __name__ == "__main__":
    main(tyro.cli(Chat, description=__doc__))
