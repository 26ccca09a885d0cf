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


@needs_bitsandbytes
@pytest.mark.parametrize("trained_in_four_bits", [False, True])
def test_a_model_is_loaded_in_four_bits_and_merged(llm, tmp_path, trained_in_four_bits):
    # 4 bits need wide layers.
    wide = toy_trained.relative(llm, tmp_path / "llm", hidden_size=64, intermediate_size=128)
    folder = toy_trained.save(wide, tmp_path / "model", four_bit=trained_in_four_bits)
    load_trained(folder)
    for place in (folder, merge(folder, tmp_path / "merged")):
        model, _ = load_trained(place, four_bit=True)
        assert precision(model) == "four_bit"
    other = toy_trained.relative(wide, tmp_path / "other", seed=7)
    with pytest.raises(CheckpointError, match="computes other logits"):
        load_trained(folder, four_bit=True, language_model=other)
