"""The composite model: a Llama-family language model that reads projected video tokens.

Written on transformers' conventions: a config, a `...ForConditionalGeneration` registered with
the Auto classes, placeholders that are already in the ids, and a masked scatter that fills them.
The placeholder's id is outside the vocabulary, so no embedding is added or changed. The encoder is
not part of the model: the model gets its tokens.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    Cache,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from qa_data.files import SefarError
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.projector import Projector
from sefar_mllm.prompt import IGNORE


class SefarVlmModel(PreTrainedModel):
    """Projector and language model, without the output layer."""

    config: SefarVlmConfig
    config_class = SefarVlmConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _keep_in_fp32_modules_strict = {"multi_modal_projector"}
    _no_split_modules = ["LlamaDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]

    def __init__(self, config: SefarVlmConfig):
        super().__init__(config)
        # First, since the model's dtype is that of its first parameter.
        self.language_model = AutoModel.from_config(config.text_config)
        self.multi_modal_projector = Projector(
            config.token_dim, config.token_shape[0], config.text_config.hidden_size
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def merge(
        self,
        input_ids: Int[Tensor, "batch token"],
        video_tokens: Float[Tensor, "clip frame row column dim"] | None,
        clip_ids: Sequence[str] | None = None,
    ) -> Float[Tensor, "batch token embed"]:
        """Embeddings of the ids, with each row's placeholders filled by its clip's tokens.
        SefarError if a row has another number of placeholders than its clip has tokens.
        """
        place = input_ids == self.config.video_token_id
        table = self.get_input_embeddings()
        embeds = table(input_ids.masked_fill(place, 0))
        check_counts(place, video_tokens, clip_ids)
        if video_tokens is None:
            return embeds
        projected = self.multi_modal_projector(video_tokens.to(embeds.device)).to(embeds.dtype)
        return embeds.masked_scatter(place[..., None], projected)

    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        video_tokens: Tensor | None = None,
        clip_ids: Sequence[str] | None = None,
        **language: Any,
    ):
        if inputs_embeds is None and input_ids is not None:
            if video_tokens is None and decodes(input_ids, language.get("past_key_values")):
                inputs_embeds = self.get_input_embeddings()(input_ids)
            else:
                inputs_embeds = self.merge(input_ids, video_tokens, clip_ids)
        return self.language_model(inputs_embeds=inputs_embeds, **language)


class SefarVlmForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """The composite model with its output layer: losses, letter logits, generation."""

    config: SefarVlmConfig
    config_class = SefarVlmConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _keep_in_fp32_modules_strict = {"multi_modal_projector"}
    _no_split_modules = ["LlamaDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    is_loaded_in_4bit = False

    def __init__(self, config: SefarVlmConfig):
        super().__init__(config)
        self.model = SefarVlmModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        **inputs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits, and the loss if labels are given.

        In training with labels, logits are computed for labeled tokens alone, (label vocabulary):
        of a question's hundred and fifty tokens two are labeled.
        `labels` are `prompt.IGNORE` where nothing is to be predicted. `logits_to_keep` are the last
        n positions, or these positions; 0 keeps all. `num_items_in_batch` counts the labels of the
        whole batch, if it is split into micro-batches. `inputs` are `video_tokens`, `clip_ids`, and
        the arguments of the language model.
        """
        outputs = self.model(input_ids, **inputs)
        hidden = outputs.last_hidden_state
        targets: dict[str, Tensor | None] = {"labels": labels}
        if labels is not None and self.training:
            following = F.pad(labels[:, 1:], (0, 1), value=IGNORE)
            labeled = following != IGNORE
            hidden, targets = hidden[labeled], {"labels": None, "shift_labels": following[labeled]}
        else:
            keep = logits_to_keep
            hidden = hidden[:, slice(-keep, None) if isinstance(keep, int) else keep]
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                vocab_size=self.config.text_config.vocab_size,
                num_items_in_batch=num_items_in_batch,
                **targets,
            )
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=outputs.past_key_values
        )

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        video_tokens: Tensor | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """The inputs of one step of `generate`; the video only while there are placeholders."""
        inputs = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids,  # type: ignore[arg-type]
            past_key_values=past_key_values,
            attention_mask=attention_mask,  # type: ignore[arg-type]
            inputs_embeds=inputs_embeds,
            **more,
        )
        ids = inputs.get("input_ids")
        if ids is None or decodes(ids, past_key_values):
            return inputs
        if bool((ids == self.config.video_token_id).any()):
            inputs["video_tokens"] = video_tokens
        return inputs


def decodes(input_ids: Int[Tensor, "batch token"], past_key_values: Cache | None) -> bool:
    """Whether the ids are the model's last outputs: one a row, with a filled cache.

    The model never outputs a placeholder, so there is nothing to count. Reading the ids would
    synchronize the device at every token, and split the step into several compiled graphs.
    """
    filled = past_key_values is not None and past_key_values.is_initialized
    return filled and input_ids.shape[1] == 1


def word_table(model: PreTrainedModel) -> nn.Embedding:
    """The table of the language model's token embeddings. TypeError if it is not a plain table."""
    table = model.get_input_embeddings()
    if not isinstance(table, nn.Embedding):
        raise TypeError(f"expected a table of embeddings, found {type(table).__name__}")
    return table


def check_counts(
    place: Bool[Tensor, "batch token"],
    video_tokens: Float[Tensor, "clip frame row column dim"] | None,
    clip_ids: Sequence[str] | None,
) -> None:
    """Raise SefarError unless each row has as many placeholders as its clip has tokens."""
    found = place.sum(dim=1).tolist()
    want = 0 if video_tokens is None else video_tokens.shape[1:-1].numel()
    if video_tokens is not None and len(video_tokens) != len(found):
        raise SefarError(
            f"{len(found)} prompts came with the tokens of {len(video_tokens)} clips; give one each"
        )
    for row, count in enumerate(found):
        if count != want:
            name = f"clip {clip_ids[row]}" if clip_ids else f"row {row} of the batch"
            raise SefarError(
                f"{name}: the prompt has {count} placeholders, the video {want} tokens; "
                f"encode the prompt with the token_shape of the model's config"
            )


AutoConfig.register("sefar_vlm", SefarVlmConfig)
AutoModel.register(SefarVlmConfig, SefarVlmModel)
AutoModelForImageTextToText.register(SefarVlmConfig, SefarVlmForConditionalGeneration)
