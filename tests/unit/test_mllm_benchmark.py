"""Benchmarks of the language-model half: rivals that answer alike, counts that are right."""

import pytest
import torch

from benchmarks import gpu_mllm, mllm, random_vlm
from sefar_mllm.adapters import composite


@pytest.fixture(scope="module")
def tokenizer():
    return random_vlm.tokenizer_of("demo/llm")


@pytest.fixture(scope="module")
def model(tokenizer):
    language = random_vlm.language_model("toy", words=len(tokenizer), device="cpu")
    return random_vlm.adapted(language, device="cpu", rank=2).eval()


def test_rivals_of_scoring_give_our_answers_and_a_wrong_one_is_found_out(
    model, tokenizer, monkeypatch
):
    ways = mllm.scoring_ways(model, tokenizer, 2)
    assert ways["a forward an option"]().shape == (2, 4, 4)
    monkeypatch.setattr(
        "benchmarks.option_forwards.forward_a_rotation",
        lambda *asked: ways["a forward a rotation"]().roll(1, dims=1),
    )
    with pytest.raises(AssertionError):
        mllm.scoring_ways(model, tokenizer, 2)


def test_weights_that_a_token_goes_through_are_counted_at_vicunas_size():
    with torch.device("meta"):
        language = random_vlm.language_model("vicuna_7b", words=0, device="meta")
    hidden, inner = 4096, 11008
    layer = 4 * hidden**2 + 3 * hidden * inner
    found = sum(p.numel() for n, p in language.named_parameters() if n.endswith("_proj.weight"))
    assert found == 32 * layer
    # Norms are weights of the layers too; embeddings are looked up, not multiplied.
    wanted = 32 * (layer + 2 * hidden) + 32000 * hidden
    assert gpu_mllm.num_weights(language) == wanted
    assert round(wanted / 1e9, 1) == 6.6


def test_a_step_on_few_tokens_is_timed_without_a_gpu(model):
    settings = gpu_mllm.GpuMllm(size="toy", device="cpu", rows=1, row_tokens=48, turns=1)
    for recompute in (False, True):
        found = gpu_mllm.train(model, settings, recompute=recompute)
        assert found["tokens_a_s"] == pytest.approx(48 / found["seconds"])
        assert found["memory_gb"] is None
    assert not composite(model).training
