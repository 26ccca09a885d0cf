"""The trained parameters: LoRA on the language model's linears, and the whole projector (peft).

The pattern matches the linears of the language model's layers by their whole names, so that no
projector and no encoder ever gets LoRA, whatever its layers are called. The projector is saved with
the adapter, in 32-bit floats: in 16 bits AdamW's small steps would be rounded away.
"""

import re
import warnings
from collections.abc import Iterator

from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import nn

from sefar_mllm.model import SefarVlmForConditionalGeneration

LINEARS = (
    *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
    *(f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
)
LAYERS = "model.language_model.layers"
LORA_TARGETS = rf"{re.escape(LAYERS)}\.\d+\.({'|'.join(map(re.escape, LINEARS))})"
PROJECTOR = "multi_modal_projector"

Trained = PeftModel | SefarVlmForConditionalGeneration
"""A model with adapters beside its weights, or with adapters merged into them."""


def add_adapters(
    model: SefarVlmForConditionalGeneration, *, rank: int, alpha: float, dropout: float
) -> PeftModel:
    """The model with LoRA in its language model, a trained projector, and all else frozen.

    The model is changed in place; in 4 bits, parameters that are not quantized become float32.
    LoRA's update is multiplied by alpha / rank; `dropout`, of the input of its branch, is in [0,
    1). ValueError if a layer lacks one of the seven linears; only the others would be adapted.
    """
    refuse_other_layers(model)
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=LORA_TARGETS,
        modules_to_save=[PROJECTOR],
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
    )
    if model.is_loaded_in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    # The composite model has no folder of its own; peft would search for one of this name.
    model.name_or_path = None  # type: ignore[assignment]
    with warnings.catch_warnings():
        # peft 0.18 to 0.21 read a property by a name that transformers 5.2x warns about.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        return get_peft_model(model, settings)


def refuse_other_layers(model: SefarVlmForConditionalGeneration) -> None:
    """Raise ValueError unless every layer has all linears that LoRA is added to.

    Phi-3, for one, has `qkv_proj` in place of three of them.
    """
    named = dict(model.named_modules())
    layers = model.config.text_config.num_hidden_layers
    lost = [
        f"{layer}.{linear}"
        for layer in range(layers)
        for linear in LINEARS
        if f"{LAYERS}.{layer}.{linear}" not in named
    ]
    if lost:
        raise ValueError(
            f"LoRA is added to {', '.join(LINEARS)} of all {layers} layers, but "
            f"{model.config.text_config.model_type} lacks {len(lost)} of them, for example "
            f"{', '.join(lost[: len(LINEARS)])}; take a language model of the Llama family, such "
            f"as lmsys/vicuna-7b-v1.5"
        )


def composite(model: Trained) -> SefarVlmForConditionalGeneration:
    """The composite model with LoRA and projector, without peft's wrapper if it has one. TypeError
    if it is another model.
    """
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(inner, SefarVlmForConditionalGeneration):
        raise TypeError(f"expected the composite model, found {type(inner).__name__}")
    return inner


def lora_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """LoRA matrices by name, frozen or not."""
    return ((name, p) for name, p in model.named_parameters() if "lora_" in name)


def projector_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The projector's trained parameters; peft keeps the original beside them, frozen."""
    return (
        (name, p) for name, p in model.named_parameters() if f"{PROJECTOR}.modules_to_save" in name
    )


def learn_projector_alone(model: nn.Module, alone: bool) -> None:
    """Stage A freezes the LoRA matrices; stage B trains them."""
    for _, parameter in lora_parameters(model):
        parameter.requires_grad_(not alone)


def optimizer_groups(model: nn.Module, *, lora_lr: float, projector_lr: float) -> list[dict]:
    """Parameter groups with a name and a learning rate each, without empty ones. ValueError if a
    parameter is trained that is neither LoRA nor projector.
    """
    lora = [p for _, p in lora_parameters(model) if p.requires_grad]
    projector = [p for _, p in projector_parameters(model) if p.requires_grad]
    known = {id(p) for p in (*lora, *projector)}
    strays = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in known]
    if strays:
        raise ValueError(
            f"{len(strays)} parameters are trained that are neither LoRA nor projector, "
            f"for example {strays[0]}; freeze them before training"
        )
    groups = [
        {"name": "lora", "params": lora, "lr": lora_lr},
        {"name": "projector", "params": projector, "lr": projector_lr},
    ]
    return [group for group in groups if group["params"]]
