"""Benchmarks of the language-model half: implementations with equal answers, correct counts."""

import statistics
from types import SimpleNamespace

import pytest
import torch

from benchmarks import finetune_step, mllm, option_forwards, random_vlm, timing
from benchmarks.timing import Timing
from sefar_mllm.scoring import letter_logits


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
    assert [way().shape for way in ways.values()] == [(2, 4, 4)] * 5
    other = option_forwards.forward_a_rotation
    monkeypatch.setattr(
        option_forwards, "forward_a_rotation", lambda *a, **k: other(*a, **k).roll(1, dims=1)
    )
    with pytest.raises(AssertionError):
        mllm.scoring_ways(model, tokenizer, 2)


@pytest.mark.parametrize("at_once", [1, 3, 99])
def test_rivals_take_as_many_prompts_at_a_time_as_they_say(model, tokenizer, at_once):
    asked, clips = random_vlm.questions(2), list(random_vlm.video_tokens(2))
    sizes = []
    hook = model.get_base_model().register_forward_pre_hook(
        lambda _, args, inputs: sizes.append(len(inputs["input_ids"])), with_kwargs=True
    )
    found = option_forwards.forward_a_rotation(model, tokenizer, asked, clips, at_once=at_once)
    hook.remove()
    whole, rest = divmod(8, at_once)
    assert sizes == [at_once] * whole + [rest] * (rest > 0)
    expected = letter_logits(model, tokenizer, asked, clips)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


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


def test_the_plain_trainer_is_given_our_batches(model, tokenizer, tmp_path, monkeypatch):
    def kept(batches):
        def collate(self, features):
            batch = collator(self, features)
            batches.append(batch["attention_mask"].sum(dim=1).tolist())
            return batch

        return collate

    collator = finetune_step.Collator.__call__
    seen = {}
    ways, _ = mllm.training_ways(model, tokenizer, 24, tmp_path)
    for name, way in ways.items():
        batches = seen[name] = []
        monkeypatch.setattr(finetune_step.Collator, "__call__", kept(batches))
        way()
    assert seen[finetune_step.OURS] == seen[finetune_step.SAME] != seen[finetune_step.OWN]
    assert sorted(sum(seen[finetune_step.OURS], [])) == sorted(sum(seen[finetune_step.OWN], []))
    once = list(seen[finetune_step.OURS])
    for _ in range(2):  # each turn of the benchmark learns all of it again
        seen[finetune_step.OURS].clear()
        monkeypatch.setattr(finetune_step.Collator, "__call__", kept(seen[finetune_step.OURS]))
        ways[finetune_step.OURS]()
        assert seen[finetune_step.OURS] == once


def test_ratios_are_reported_beside_their_goals():
    def took(seconds):
        return Timing([seconds], [seconds])

    scoring = {mllm.OURS: took(2.0), "a prompt an option, one at a time": took(9.0),
               "a prompt an option, 16 at a time": took(8.0)}  # fmt: skip
    names = (finetune_step.OURS, finetune_step.SAME, finetune_step.OWN)
    training = dict(zip(names, map(took, (4.0, 5.0, 6.0)), strict=True))
    lines = mllm.ratios(scoring, training, {"ours": 0.031, "plain": 0.1})
    assert "4.00 times" in lines[0] and "at least 3.5" in lines[0]
    assert "1.25 times as fast on the same batches" in lines[1] and "1.50 times" in lines[1]
    assert "ours 3.1%, plain 10.0%" in lines[2]


def test_seconds_are_the_median_of_the_timed_calls(monkeypatch):
    # Two calls are not timed; the others take 5, 1 and 2 s.
    clock = iter([0, 100, 200, 205, 300, 301, 400, 402])
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    calls = []
    assert timing.seconds(lambda: calls.append(1), 3, "cpu") == 2
    assert len(calls) == 5
