"""What benchmarks/gpu_mllm.py makes of times: each part at toy size against arithmetic by hand."""

import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu_chat, gpu_lora, gpu_mllm, mllm_arithmetic, random_vlm, timing
from benchmarks.mllm_arithmetic import Lengths, Weights, weights_of
from sefar_mllm.adapters import composite

SETTINGS = gpu_mllm.GpuMllm(
    size="toy", device="cpu", rows=2, row_tokens=48, batch_size=3, new_tokens=5, turns=1
)
# The toy: 2 layers, width 64, inner width 172; 7 linears a layer.
LINEARS = 2 * (4 * 64 * 64 + 3 * 64 * 172)


@pytest.fixture(scope="module")
def tokenizer():
    return random_vlm.tokenizer_of("demo/llm")


@pytest.fixture(scope="module")
def model(tokenizer):
    language = random_vlm.language_model("toy", words=len(tokenizer), device="cpu")
    return random_vlm.adapted(language, device="cpu", rank=2).eval()


@pytest.fixture
def clock(monkeypatch):
    """Every call is made once and takes 0.5 s, or the seconds that are put into the list."""
    takes: list[float] = []

    def seconds(call, turns, device):
        call()
        return takes.pop(0) if takes else 0.5

    monkeypatch.setattr(timing, "seconds", seconds)
    monkeypatch.setattr(gpu_chat, "seconds", seconds)
    monkeypatch.setattr(gpu_lora, "seconds", seconds)
    return takes


def test_weights_that_a_token_goes_through_are_counted_at_vicunas_size():
    with torch.device("meta"):
        language = random_vlm.language_model("vicuna_7b", words=0, device="meta")
    found = weights_of(language.config)
    sizes = {name: p.numel() for name, p in language.named_parameters()}
    assert found.linears == sum(n for name, n in sizes.items() if "_proj." in name) == 6476005376
    assert found.head == sizes["lm_head.weight"] == 32000 * 4096
    assert found.norms == sum(n for name, n in sizes.items() if "norm" in name)
    table = sizes["model.embed_tokens.weight"]
    assert found.linears + found.head + found.norms + table == sum(sizes.values())
    assert round(found.whole / 1e9, 1) == 6.6


def test_operations_and_bytes_are_those_of_hand_arithmetic():
    weights = Weights(linears=1000, head=100, norms=10)
    assert weights.whole == 1100
    assert weights.step_flops(7, 2) == 4 * 1000 * 7 + 4 * 100 * 2
    assert weights.step_flops(7, 2, recompute=True) == 6 * 1000 * 7 + 4 * 100 * 2
    assert weights.scoring_flops(7, 4) == 2 * 1000 * 7 + 2 * 100 * 4
    assert weights.decoding_bytes() == 2 * 1110
    assert weights.decoding_bytes(4) == 4 * 1110


def test_bounds_of_vicuna_are_those_of_hand_arithmetic():
    weights = Weights(linears=6_476_005_376, head=131_072_000, norms=266_240)
    found = mllm_arithmetic.bounds(
        weights, Lengths(prompt=136, joined=318, options=4), rows=4, row_tokens=1024
    )
    expected = {
        "weights_a_token": 6.607e9,
        "lora_flops_a_token_4n": 26.43e9,
        "recompute_flops_a_token_6n": 39.64e9,
        "step_tokens": 4096,
        "step_s_at_790": 0.1343,
        "step_recompute_s_at_790": 0.2015,
        "step_s_at_45_percent": 0.2985,
        "step_tokens_a_s_at_45_percent": 13722,
        "bound_prompts_a_s": 448.4,
        "bound_items_a_s": 191.8,
        "items_a_s_at_35_percent": 67.1,
        "limit_decoded_tokens_a_s": 325.4,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_step_is_counted_by_its_tokens_and_labels(model, clock, recompute):
    found = gpu_lora.train(model, SETTINGS, recompute=recompute)
    flops = 4 * LINEARS * 2 * 48 + 4 * 64 * 768 * 4  # two labels in each of two rows
    assert found["tokens_a_s"] == 2 * 48 / 0.5
    assert found["mfu_790"] == pytest.approx(flops / 0.5 / 790e12)
    assert found["mfu_989"] == pytest.approx(flops / 0.5 / 989e12)
    assert found["memory_gb"] is None
    assert not composite(model).training
    assert not recomputes(composite(model).model.language_model)


def test_activations_are_made_again_for_as_long_as_a_step_learns(model):
    language = composite(model).model.language_model
    with gpu_lora.training_mode(model, recompute=True):
        assert model.training and recomputes(language)
    assert not model.training and not recomputes(language)


def test_recomputing_has_another_name_in_transformers_5_3():
    calls: list[object] = []
    old = SimpleNamespace(
        gradient_checkpointing_enable=calls.append,
        gradient_checkpointing_disable=lambda: calls.append("off"),
    )
    with gpu_lora.recomputing(old):
        assert calls == [{"use_reentrant": False}]
    assert calls[1:] == ["off"]


def recomputes(language) -> bool:
    return any(getattr(layer, "gradient_checkpointing", False) for layer in language.layers)


def test_scoring_is_counted_by_the_tokens_that_it_computes(model, tokenizer, clock):
    clock += [0.5, 2.0]
    found = gpu_mllm.score(model, tokenizer, SETTINGS)
    lengths = random_vlm.lengths_of(tokenizer, random_vlm.like_llamas(tokenizer, 3))
    head = 64 * 768
    assert found["prompts_a_s"] == 3 / 0.5 and found["items_a_s"] == 3 / 2.0
    one = 2 * LINEARS * lengths.prompt + 2 * head
    item = 2 * LINEARS * lengths.joined + 2 * head * 4
    assert found["bound_prompts_a_s"] == pytest.approx(790e12 / one)
    assert found["bound_items_a_s"] == pytest.approx(790e12 / item)
    assert found["share_of_bound"] == pytest.approx(1.5 * item / 790e12)


def test_decoding_is_counted_without_its_first_token(model, tokenizer, clock, monkeypatch):
    asked = []
    monkeypatch.setattr(
        gpu_chat, "generate_ids",
        lambda *_, max_new_tokens, static_cache: asked.append((max_new_tokens, static_cache)),
    )  # fmt: skip
    clock += [1.0, 0.2, 0.6, 0.1]
    found = gpu_chat.decoding(model, tokenizer, SETTINGS)
    assert asked == [(5, False), (1, False), (5, True), (1, True)]
    assert found["dynamic: tokens_a_s"] == pytest.approx(4 / 0.8)
    assert found["static, compiled: tokens_a_s"] == pytest.approx(4 / 0.5)
    assert found["static, compiled: first_token_s"] == 0.1
    read = 4 * (LINEARS + 64 * 768 + 5 * 64)  # 32-bit on a CPU
    assert found["limit_tokens_a_s"] == pytest.approx(4.3e12 / read)


def test_decoding_runs_at_toy_size(model, tokenizer, clock):
    clock += [1.0, 0.2, 0.6, 0.1]
    assert gpu_chat.decoding(model, tokenizer, SETTINGS)["dynamic: first_token_s"] == 0.2


def test_the_first_token_from_a_file_goes_the_chats_way(model, tokenizer, clock, monkeypatch):
    def watch(self, path, *, untrusted):
        ways.append(untrusted)
        return trusted(self, path)  # a process of its own takes seconds to begin

    ways: list[bool] = []
    trusted = gpu_chat.Assistant.watch
    monkeypatch.setattr(gpu_chat.Assistant, "watch", watch)
    clock += [0.25, 0.125]
    found = gpu_chat.cold_first_token(model, tokenizer, SETTINGS)
    assert ways == [True, False]
    assert found == {"cold_first_token_s": 0.25, "in this process: cold_first_token_s": 0.125}


def test_four_bits_are_not_measured_where_bitsandbytes_is_not(monkeypatch):
    monkeypatch.setattr(gpu_lora, "find_spec", lambda name: None)
    found = gpu_lora.train_in_four_bits(768, SETTINGS)
    assert set(found.values()) == {None}
    assert "| 4-bit | seconds | not measured |  |" in gpu_mllm.table({"4-bit": found})


def test_goals_stand_beside_figures_that_exist(model, tokenizer, monkeypatch):
    for place, name in ((gpu_lora, "train"), (gpu_mllm, "score"), (gpu_lora, "train_in_four_bits")):
        monkeypatch.setattr(place, name, lambda *_, **__: {"memory_gb": 1.0})
    for part in (gpu_chat.decoding, gpu_chat.cold_first_token):
        monkeypatch.setattr(gpu_chat, part.__name__, lambda *_, **__: {})
    found = gpu_mllm.measure(tokenizer, SETTINGS)
    assert {part for part, _ in mllm_arithmetic.GOALS} == set(found)
    lines = gpu_mllm.table(found)
    assert "| LoRA step | memory_gb | 1 | at most 75 |" in lines
    assert "| chat | cold_first_token_s | not measured | at most 0.250 |" in lines


def test_without_cuda_the_arithmetic_is_written_and_the_rest_is_not_measured(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu_mllm, "measure", lambda *_: pytest.fail("something was measured"))
    gpu_mllm.main(gpu_mllm.GpuMllm(out=tmp_path, batch_size=4))
    (written,) = tmp_path.glob("*-gpu-mllm.json")
    figures = json.loads(written.read_text())["figures"]
    assert list(figures) == ["arithmetic"]
    assert figures["arithmetic"]["limit_decoded_tokens_a_s"] == pytest.approx(325.4, abs=0.1)
    calls = capsys.readouterr().out
    assert "without CUDA" in calls and "| chat | cold_first_token_s | not measured |" in calls
