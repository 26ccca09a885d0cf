from importlib.util import find_spec

import pytest
import torch
from torch import nn
from transformers import LlamaConfig
from transformers.quantizers.quantizers_utils import should_convert_module

from sefar_core.checkpoint import CheckpointError
from sefar_mllm import build
from sefar_mllm.build import build_vlm
from sefar_mllm.checkpoint import load_trained, merge, precision
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.model_config import SefarVlmConfig
from tests.oracles import toy_trained

LINEARS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


def test_without_bitsandbytes_four_bits_are_refused_before_anything_is_loaded(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(build.SefarError, match="pip install 'bitsandbytes"):
        build_vlm(tmp_path / "gone", token_dim=12, token_shape=(8, 2, 2), encoder={}, four_bit=True)


def test_transformers_quantizes_the_seven_linears_of_each_layer_and_nothing_else():
    settings = LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    with torch.device("meta"):
        model = SefarVlmForConditionalGeneration(SefarVlmConfig(settings))
    quantized = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and should_convert_module(name, build.KEPT)
    ]
    assert len(quantized) == 14
    assert {name.rsplit(".", 1)[1] for name in quantized} == LINEARS
    assert all(name.startswith("model.language_model.layers.") for name in quantized)


@pytest.fixture(scope="module")
def wide(llm, tmp_path_factory):
    """A language model of widths that 4 bits need."""
    folder = tmp_path_factory.mktemp("wide") / "llm"
    return toy_trained.relative(llm, folder, hidden_size=64, intermediate_size=128)


@needs_bitsandbytes
def test_a_model_saved_in_full_precision_is_loaded_in_four_bits(wide, tmp_path):
    folder = toy_trained.save(wide, tmp_path / "model")
    for place in (folder, merge(folder, tmp_path / "merged")):
        model, _ = load_trained(place, four_bit=True)
        assert precision(model) == "four_bit"
        quantized = [
            name.removesuffix(".base_layer")
            for name, module in model.named_modules()
            if type(module).__module__.startswith("bitsandbytes")
        ]
        assert len(quantized) == 14
        assert {name.rsplit(".", 1)[1] for name in quantized} == LINEARS
    other = toy_trained.relative(wide, tmp_path / "other", seed=7)
    with pytest.raises(CheckpointError, match="computes other logits"):
        load_trained(folder, four_bit=True, language_model=other)


@needs_bitsandbytes
def test_a_model_trained_in_four_bits_is_merged_into_the_base_as_it_was(wide, tmp_path):
    model = toy_trained.adapted(wide, four_bit=True)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    folder = toy_trained.save(wide, tmp_path / "model", four_bit=True)
    load_trained(folder, four_bit=True)
    load_trained(folder)
    load_trained(merge(folder, tmp_path / "merged"))
