"""Benchmarks of the language-model half: equal answers, counts and figures by hand, at toy size."""

import json
import statistics

import pytest
import torch

from benchmarks import (
    finetune_step,
    gpu_mllm,
    mllm,
    mllm_arithmetic,
    option_forwards,
    random_vlm,
)
from benchmarks.mllm_arithmetic import Lengths, Weights, weights_of
from benchmarks.timing import Timing
from sefar_mllm.build import load_tokenizer

SETTINGS = gpu_mllm.GpuMllm(
    size="toy", device="cpu", rows=2, row_tokens=48, batch_size=3, new_tokens=5, turns=1
)
# The toy: 2 layers, width 64, inner width 172; 7 linears a layer; 768 words.
LINEARS, HEAD = 2 * (4 * 64 * 64 + 3 * 64 * 172), 64 * 768


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("demo:llm")


@pytest.fixture(scope="module")
def model(tokenizer):
    language = random_vlm.language_model("toy", words=len(tokenizer), device="cpu")
    return random_vlm.adapted(language, device="cpu", rank=2).eval()


def test_rivals_of_scoring_give_our_answers_and_a_wrong_one_is_found_out(
    model, tokenizer, monkeypatch
):
    ways = mllm.scoring_ways(model, tokenizer, 2)
    assert [way().shape for way in ways.values()] == [(2, 4, 4)] * 5
    rival = option_forwards.forward_a_rotation
    monkeypatch.setattr(
        option_forwards, "forward_a_rotation", lambda *a, **k: rival(*a, **k).roll(1, dims=1)
    )
    with pytest.raises(AssertionError):
        mllm.scoring_ways(model, tokenizer, 2)


def test_questions_are_as_long_as_gym_qas_in_llamas_vocabulary(tokenizer):
    asked = random_vlm.like_llamas(tokenizer, 150)
    found = sorted(random_vlm.prompt_tokens(tokenizer, one.stem, one.options) for one in asked)
    assert statistics.mean(found) == pytest.approx(66 + 38 + 32, abs=3)
    assert found[int(0.95 * len(found))] == pytest.approx(88 + 38 + 32, abs=5)
    lengths = random_vlm.lengths_of(tokenizer, asked)
    assert lengths.prompt == pytest.approx(statistics.mean(found), abs=0.5)
    assert 2 * lengths.prompt < lengths.joined < 3 * lengths.prompt
    plain = random_vlm.lengths_of(tokenizer, random_vlm.questions(150)).prompt
    assert 1.05 * plain < lengths.prompt < 1.25 * plain


def test_ratios_are_reported_beside_their_goals():
    names = (mllm.OURS, "a prompt an option, one at a time", "a prompt an option, 16 at a time")
    passes = (finetune_step.OURS, finetune_step.SAME, finetune_step.OWN)
    scoring, training = (
        {name: Timing([took], [took]) for name, took in zip(some, times, strict=True)}
        for some, times in ((names, (2.0, 9.0, 8.0)), (passes, (4.0, 5.0, 6.0)))
    )
    lines = mllm.ratios(scoring, training, {"ours": 0.031, "plain": 0.1})
    assert "4.00 times" in lines[0] and "at least 3.5" in lines[0]
    assert "1.25 times as fast on the same batches" in lines[1] and "1.50 times" in lines[1]
    assert "ours 3.1%, plain 10.0%" in lines[2]


def test_weights_that_a_token_goes_through_are_counted_at_vicunas_size():
    language = random_vlm.language_model("vicuna_7b", words=0, device="meta")
    found = weights_of(language.config)
    sizes = {name: p.numel() for name, p in language.named_parameters()}
    assert found.linears == sum(n for name, n in sizes.items() if "_proj." in name) == 6476005376
    assert found.head == sizes["lm_head.weight"] == 32000 * 4096
    assert found.norms == sum(n for name, n in sizes.items() if "norm" in name)
    table = sizes["model.embed_tokens.weight"]
    assert found.linears + found.head + found.norms + table == sum(sizes.values())
    assert round(found.whole / 1e9, 1) == 6.6


def test_operations_bytes_and_bounds_are_those_of_hand_arithmetic():
    small = Weights(linears=1000, head=100, norms=10)
    assert small.whole == 1100
    assert small.step_flops(7, 2) == 4 * 1000 * 7 + 4 * 100 * 2
    assert small.step_flops(7, 2, recompute=True) == 6 * 1000 * 7 + 4 * 100 * 2
    assert small.scoring_flops(7, 4) == 2 * 1000 * 7 + 2 * 100 * 4
    assert (small.decoding_bytes(), small.decoding_bytes(4)) == (2 * 1110, 4 * 1110)
    vicuna = Weights(linears=6_476_005_376, head=131_072_000, norms=266_240)
    lengths = Lengths(prompt=136, joined=318, options=4)
    found = mllm_arithmetic.bounds(vicuna, lengths, rows=4, row_tokens=1024)
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


def test_scoring_is_counted_by_the_tokens_that_it_computes(model, tokenizer, monkeypatch):
    takes = iter([0.5, 2.0])
    monkeypatch.setattr(gpu_mllm, "seconds", lambda call, *_: (call(), next(takes))[1])
    found = gpu_mllm.score(model, tokenizer, SETTINGS)
    lengths = random_vlm.lengths_of(tokenizer, random_vlm.like_llamas(tokenizer, 3))
    assert found["prompts_a_s"] == 3 / 0.5 and found["items_a_s"] == 3 / 2.0
    one = 2 * LINEARS * lengths.prompt + 2 * HEAD
    item = 2 * LINEARS * lengths.joined + 2 * HEAD * 4
    assert found["bound_prompts_a_s"] == pytest.approx(790e12 / one)
    assert found["bound_items_a_s"] == pytest.approx(790e12 / item)
    assert found["share_of_bound"] == pytest.approx(1.5 * item / 790e12)


@pytest.mark.slow
def test_a_dry_run_measures_every_part(tokenizer):
    found = gpu_mllm.measure(tokenizer, SETTINGS)
    figures = {name: value for part in found.values() for name, value in part.items()}
    assert {"mfu_790", "items_a_s", "limit_tokens_a_s", "cold_first_token_s"} <= figures.keys()
    assert all(value is None or value > 0 for value in figures.values())


def test_goals_stand_beside_figures_that_exist_and_the_rest_is_not_measured(
    tokenizer, tmp_path, monkeypatch, capsys
):
    for name in ("train", "score"):
        monkeypatch.setattr(gpu_mllm, name, lambda *_, **__: {"memory_gb": 1.0})
    for name in ("decoding", "cold_first_token"):
        monkeypatch.setattr(gpu_mllm, name, lambda *_, **__: {})
    monkeypatch.setattr(gpu_mllm, "find_spec", lambda name: None)  # without bitsandbytes
    found = gpu_mllm.measure(tokenizer, SETTINGS)
    assert {part for part, _ in mllm_arithmetic.GOALS} == set(found)
    lines = gpu_mllm.table(found)
    assert "| LoRA step | memory_gb | 1 | at most 75 |" in lines
    assert "| LoRA step, 4-bit | seconds | not measured |  |" in lines
    assert "| chat | cold_first_token_s | not measured | at most 0.250 |" in lines

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu_mllm, "measure", lambda *_: pytest.fail("something was measured"))
    gpu_mllm.main(gpu_mllm.GpuMllm(out=tmp_path, batch_size=4))
    (written,) = tmp_path.glob("*-gpu-mllm.json")
    figures = json.loads(written.read_text())["figures"]
    assert list(figures) == ["arithmetic"]
    assert figures["arithmetic"]["limit_decoded_tokens_a_s"] == pytest.approx(325.4, abs=0.1)
    printed = capsys.readouterr().out
    assert "without CUDA" in printed and "| chat | cold_first_token_s | not measured |" in printed
