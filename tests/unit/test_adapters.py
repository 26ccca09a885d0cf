import pytest
import torch
from torch import nn

from sefar_mllm.adapters import (
    adapter_dtype,
    add_adapters,
    learn_projector_alone,
    lora_parameters,
    optimizer_groups,
    projector_parameters,
)
from sefar_mllm.checkpoint import assemble
from tests.oracles import toy_llm

LINEARS = 7
LAYERS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_llm.language_model(tmp_path_factory.mktemp("llm"))


@pytest.fixture
def model(folder):
    whole = assemble(folder, token_dim=toy_llm.DIM, token_shape=toy_llm.SHAPE, encoder={})
    # An encoder with the same layer names as the language model's: the usual leak.
    whole.model.vision_tower = nn.ModuleDict(
        {"q_proj": nn.Linear(4, 4), "up_proj": nn.Linear(4, 4)}
    )
    return add_adapters(whole, rank=2, alpha=4.0, dropout=0.0)


def test_every_linear_of_the_language_model_gets_lora_and_nothing_else_does(model):
    names = [name for name, _ in lora_parameters(model)]
    assert len(names) == 2 * LINEARS * LAYERS
    assert all(".language_model.layers." in name for name in names)
    assert not any("vision_tower" in name or "projector" in name for name in names)


def test_only_lora_and_projector_learn(model):
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {n for n, _ in lora_parameters(model)} | {n for n, _ in projector_parameters(model)}
    assert learning == expected
    assert len({n for n, _ in projector_parameters(model)}) == 7


def test_what_learns_is_in_full_precision_over_a_16_bit_model(folder):
    whole = assemble(
        folder,
        token_dim=toy_llm.DIM,
        token_shape=toy_llm.SHAPE,
        encoder={},
        dtype=torch.bfloat16,
    )
    assert adapter_dtype(add_adapters(whole, rank=2, alpha=4.0, dropout=0.0)) == {torch.float32}


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
