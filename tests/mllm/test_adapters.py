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

LINEARS = 7
LAYERS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_llm.language_model(tmp_path_factory.mktemp("llm"))


def namesakes():
    """What a vision tower looks like to a pattern of layer names."""
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    linears = nn.ModuleDict({name: nn.Linear(4, 4) for name in names})
    layer = nn.ModuleDict({"self_attn": linears, "mlp": linears})
    return nn.ModuleDict({"layers": nn.ModuleList([layer]), "layer": layer})


@pytest.fixture
def model(folder):
    whole = build_vlm(folder, token_dim=toy_llm.DIM, token_shape=toy_llm.SHAPE, encoder={})
    # Others with the same layer names as the language model's: the usual leak.
    for place in (
        whole,
        whole.model,
        whole.model.multi_modal_projector,
        whole.model.language_model,
    ):
        place.vision_tower = namesakes()
        place.language_model_of_another = namesakes()
    return add_adapters(whole, rank=2, alpha=4.0, dropout=0.0)


def test_every_linear_of_the_language_model_gets_lora_and_nothing_else_does(model):
    names = [name for name, _ in lora_parameters(model)]
    assert len(names) == 2 * LINEARS * LAYERS
    inside = "base_model.model.model.language_model.layers."
    assert all(name.startswith(inside) for name in names)
    assert not any("vision_tower" in name or "another" in name for name in names)


def test_only_lora_and_projector_learn(model):
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {n for n, _ in lora_parameters(model)} | {n for n, _ in projector_parameters(model)}
    assert learning == expected
    own = {n for n, _ in projector_parameters(model) if "vision" not in n and "another" not in n}
    assert len(own) == 7


def test_what_learns_is_in_full_precision_over_a_16_bit_model(folder):
    whole = build_vlm(
        folder,
        token_dim=toy_llm.DIM,
        token_shape=toy_llm.SHAPE,
        encoder={},
        dtype=torch.bfloat16,
    )
    model = add_adapters(whole, rank=2, alpha=4.0, dropout=0.0)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_stage_a_teaches_the_projector_alone(model):
    learn_projector_alone(model, True)
    assert not any(p.requires_grad for _, p in lora_parameters(model))
    (group,) = optimizer_groups(model, lora_lr=0.1, projector_lr=0.2)
    assert group["lr"] == 0.2
    learn_projector_alone(model, False)
    assert all(p.requires_grad for _, p in lora_parameters(model))


def test_lora_and_projector_have_rates_of_their_own(model):
    lora, projector = optimizer_groups(model, lora_lr=0.1, projector_lr=0.2)
    assert lora["lr"] == 0.1
    assert len(lora["params"]) == 2 * LINEARS * LAYERS
    assert projector["lr"] == 0.2
    assert {id(p) for p in projector["params"]} == {id(p) for _, p in projector_parameters(model)}


def test_a_stray_that_learns_is_refused(model):
    model.get_base_model().lm_head.weight.requires_grad_(True)
    with pytest.raises(ValueError, match="neither LoRA nor projector.*lm_head"):
        optimizer_groups(model, lora_lr=0.1, projector_lr=0.2)


def test_layers_that_lack_a_linear_are_refused_by_name():
    """Phi-3 has one linear in place of three; LoRA would go into the others in silence."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
    phi = Phi3ForCausalLM(Phi3Config(vocab_size=640, num_attention_heads=2, **sizes))
    whole = wrap(phi, token_dim=toy_llm.DIM, token_shape=toy_llm.SHAPE, encoder={})
    named = r"phi3 lacks 10 of them, for example 0.self_attn.q_proj, .*0.mlp.up_proj, 1.self_attn"
    with pytest.raises(ValueError, match=named):
        add_adapters(whole, rank=2, alpha=4.0, dropout=0.0)
    assert not list(lora_parameters(whole))


@pytest.mark.parametrize(("dim", "rank"), [(384, 16), (768, 16), (1024, 8), (1408, 64)])
def test_vicunas_shape_learns_as_many_parameters_as_the_arithmetic_says(dim, rank):
    hidden, inner, layers, frames = 4096, 11008, 32, 8
    vicuna = LlamaConfig(
        vocab_size=32000,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=32,
        max_position_embeddings=4096,
    )
    with torch.device("meta"):
        whole = SefarVlmForConditionalGeneration(
            SefarVlmConfig(vicuna, token_dim=dim, token_shape=(frames, 2, 2))
        )
        model = add_adapters(whole, rank=rank, alpha=2.0 * rank, dropout=0.05)
    lora = dict(lora_parameters(model))
    attention, mlp = 4 * (hidden + hidden), 3 * (hidden + inner)
    assert sum(p.numel() for p in lora.values()) == layers * rank * (attention + mlp)
    assert len(lora) == 2 * LINEARS * layers
    assert all(".language_model.layers." in name for name in lora)
    norm, position = 2 * dim, frames * dim
    linears = (dim * hidden + hidden) + (hidden * hidden + hidden)
    found = sum(p.numel() for _, p in projector_parameters(model))
    assert found == norm + position + linears
    if rank == 16:
        assert layers * rank * (attention + mlp) == 39_976_960
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert frozen - found == 6_738_415_616  # Llama-7B; peft keeps the first projector beside


def test_the_composite_model_is_found_with_and_without_adapters(folder):
    whole = build_vlm(folder, token_dim=toy_llm.DIM, token_shape=toy_llm.SHAPE, encoder={})
    assert composite(whole) is whole
    assert composite(add_adapters(whole, rank=2, alpha=4.0, dropout=0.0)) is whole
