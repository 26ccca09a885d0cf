"""The composite model's config, and where it records its language model and its encoder.

A folder is recorded by its absolute path, so that it is found from any working directory and is
never mistaken for a name on the hub. Older files hold paths as they were typed.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig


class SefarVlmConfig(PreTrainedConfig):
    """Settings of the composite model.

    Args:
        text_config: the language model's config, or its dictionary.
        video_token_id: the placeholder's id, outside the vocabulary; by default its size.
        token_dim: width of the encoder's tokens.
        token_shape: frames, rows and columns of a clip's tokens.
        language_model: absolute path or name that the language model was loaded from.
        language_model_from_hub: `language_model` is a name, of the hub or of a shipped model. Older
            folders lack this: theirs may also be a relative path.
        encoder: key and origin of the encoder's token cache.
    """

    model_type = "sefar_vlm"
    sub_configs = {"text_config": AutoConfig}

    def __init__(  # noqa: PLR0913 - transformers rebuilds a config from keywords
        self,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        *,
        video_token_id: int | None = None,
        token_dim: int = 384,
        token_shape: Sequence[int] = (8, 2, 2),
        language_model: str = "",
        language_model_from_hub: bool = False,
        encoder: dict[str, Any] | None = None,
        **common: Any,
    ):
        if text_config is None:
            text_config = {"model_type": "llama"}
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        self.text_config = text_config
        self.video_token_id = text_config.vocab_size if video_token_id is None else video_token_id
        self.token_dim = token_dim
        self.token_shape = list(token_shape)
        self.language_model = language_model
        self.language_model_from_hub = language_model_from_hub
        self.encoder = encoder or {}
        self.initializer_range = getattr(text_config, "initializer_range", 0.02)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            common.setdefault(name, getattr(text_config, name, None))
        common.setdefault("tie_word_embeddings", text_config.tie_word_embeddings)
        super().__init__(**common)

    @property
    def num_video_tokens(self) -> int:
        """Number of placeholders of one clip."""
        frames, rows, columns = self.token_shape
        return frames * rows * columns


def lasting_place(name: str | Path) -> str:
    """How a model is recorded: an existing folder's absolute path, or the name as it is."""
    return os.path.abspath(name) if os.path.isdir(name) else str(name)


def recorded_folder(recorded: str, model_folder: Path) -> Path | None:
    """The folder that was recorded; None if it is not there.

    `recorded` is absolute, or relative to the working directory or to the model folder that holds
    the record.
    """
    if not recorded:
        return None
    places = (Path(recorded), model_folder / recorded)
    return next((place for place in places if place.is_dir()), None)
