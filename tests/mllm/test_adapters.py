import pytest
import torch
from torch import nn
from transformers import LlamaConfig, Phi3Config, Phi3ForCausalLM

from sefar_mllm.adapters import (
    add_adapters,
    composite,
    learn_projector_alone,
    lora_parameters,
    optimizer_groups,
    projector_parameters,
)
from sefar_mllm.build import build_vlm, wrap
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.model_config import SefarVlmConfig
from tests.oracles import toy_llm

NUM_LORA = 2 * 7 * 2  # matrices, linears, layers
SHAPE = {"token_dim": toy_llm.DIM, "token_shape": toy_llm.SHAPE, "encoder": {}}


def namesakes():
    """What a vision tower looks like to a pattern of layer names."""
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    linears = nn.ModuleDict({name: nn.Linear(4, 4) for name in names})
    layer = nn.ModuleDict({"self_attn": linears, "mlp": linears})
    return nn.ModuleDict({"layers": nn.ModuleList([layer]), "layer": layer})


@pytest.fixture
def model(llm):
    """LoRA beside modules with the layer names of the language model: the usual leak."""
    vlm = build_vlm(llm, **SHAPE)
    for module in (vlm, vlm.model, vlm.model.multi_modal_projector, vlm.model.language_model):
        module.vision_tower = namesakes()
        module.language_model_of_another = namesakes()
    return add_adapters(vlm, rank=2, alpha=4.0, dropout=0.0)


def test_lora_is_on_the_language_models_linears_and_only_it_and_the_projector_learn(model):
    names = [name for name, _ in lora_parameters(model)]
    assert len(names) == NUM_LORA
    assert all(n.startswith("base_model.model.model.language_model.layers.") for n in names)
    projector = [name for name, _ in projector_parameters(model)]
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {*names, *projector}
    assert len([n for n in projector if "vision" not in n and "another" not in n]) == 7


def test_trained_parameters_of_a_16_bit_model_are_in_32_bits(llm):
    vlm = build_vlm(llm, **SHAPE, dtype=torch.bfloat16)
    assert composite(vlm) is vlm
    model = add_adapters(vlm, rank=2, alpha=4.0, dropout=0.0)
    assert composite(model) is vlm
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_each_part_has_its_learning_rate_and_stage_a_trains_the_projector_alone(model):
    lora, projector = optimizer_groups(model, lora_lr=0.1, projector_lr=0.2)
    assert (lora["lr"], len(lora["params"]), projector["lr"]) == (0.1, NUM_LORA, 0.2)
    assert {id(p) for p in projector["params"]} == {id(p) for _, p in projector_parameters(model)}
    learn_projector_alone(model, True)
    assert not any(p.requires_grad for _, p in lora_parameters(model))
    (group,) = optimizer_groups(model, lora_lr=0.1, projector_lr=0.2)
    assert group["lr"] == 0.2
    learn_projector_alone(model, False)
    assert all(p.requires_grad for _, p in lora_parameters(model))


def test_another_parameter_that_learns_is_refused(model):
    model.get_base_model().lm_head.weight.requires_grad_(True)
    with pytest.raises(ValueError, match="neither LoRA nor projector.*lm_head"):
        optimizer_groups(model, lora_lr=0.1, projector_lr=0.2)


def test_layers_that_lack_a_linear_are_refused_by_name():
    """Phi-3 has one linear in place of three; LoRA would go into the others in silence."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
    phi = Phi3ForCausalLM(Phi3Config(vocab_size=640, num_attention_heads=2, **sizes))
    vlm = wrap(phi, **SHAPE)
    named = r"phi3 lacks 10 of them, for example 0.self_attn.q_proj, .*0.mlp.up_proj, 1.self_attn"
    with pytest.raises(ValueError, match=named):
        add_adapters(vlm, rank=2, alpha=4.0, dropout=0.0)
    assert not list(lora_parameters(vlm))


def test_vicunas_shape_learns_as_many_parameters_as_the_arithmetic_says():
    dim, rank, hidden, inner, layers, frames = 768, 16, 4096, 11008, 32, 8
    vicuna = LlamaConfig(
        vocab_size=32000,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=32,
        max_position_embeddings=4096,
    )
    config = SefarVlmConfig(vicuna, token_dim=dim, token_shape=(frames, 2, 2))
    with torch.device("meta"):
        vlm = SefarVlmForConditionalGeneration(config)
        model = add_adapters(vlm, rank=rank, alpha=32.0, dropout=0.05)
    lora = sum(p.numel() for _, p in lora_parameters(model))
    assert lora == layers * rank * (4 * (hidden + hidden) + 3 * (hidden + inner)) == 39_976_960
    projector = sum(p.numel() for _, p in projector_parameters(model))
    linears = (dim * hidden + hidden) + (hidden * hidden + hidden)
    assert projector == 2 * dim + frames * dim + linears
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert frozen - projector == 6_738_415_616  # Llama-7B; peft keeps the first projector beside
