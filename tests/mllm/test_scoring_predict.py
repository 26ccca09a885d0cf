import copy
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qa_data.files import SefarError
from sefar_mllm.adapters import composite
from sefar_mllm.build import load_tokenizer
from sefar_mllm.prompt import marker_ids
from sefar_mllm.scoring import (
    Prediction,
    as_prediction,
    batches_by_options,
    letter_logits,
    predict_answers,
    read_predictions,
    write_predictions,
)
from tests.oracles import toy_llm
from tests.oracles.letters import letter_logits_alone, letter_logits_padded, sharp_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_llm.language_model(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def model(folder):
    return sharp_model(folder)


LONG = "stalder backward to handstand with 1 turn"


def uneven(count, *, num_options=4):
    """Questions whose stems and options differ in length."""
    return [
        replace(
            question,
            stem="What " + "very " * i + "hard move is this?",
            options=(*question.options[: num_options - 1], LONG[: 10 + 9 * i]),
        )
        for i, question in enumerate(toy_llm.questions(count, num_options=num_options))
    ]


@pytest.mark.parametrize("num_options", [2, 3, 4])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_letter_logits_are_those_of_each_prompt_alone(
    model, tokenizer, tmp_path, num_options, attention
):
    asked = uneven(3, num_options=num_options)
    cache = toy_llm.cache(tmp_path, asked)
    tokens = [cache[question.video].float() for question in asked]
    vlm = composite(model)
    alone = [letter_logits_alone(vlm, tokenizer, *pair) for pair in zip(asked, tokens, strict=True)]
    vlm.set_attn_implementation(attention)
    got = letter_logits(model, tokenizer, asked, tokens)
    vlm.set_attn_implementation("sdpa")
    assert torch.stack(alone).std(dim=1).median() > 0.02
    # A joined row is summed in another order than a prompt alone, by some processors.
    torch.testing.assert_close(got, torch.stack(alone), atol=1e-4, rtol=1e-4)


def test_in_16_bits_letter_logits_are_as_near_as_those_of_a_batch(model, tokenizer, tmp_path):
    asked = uneven(3)
    cache = toy_llm.cache(tmp_path, asked)
    tokens = [cache[question.video].float() for question in asked]
    coarse = copy.deepcopy(model).bfloat16()
    composite(coarse).model.multi_modal_projector.float()
    vlm = composite(coarse)
    alone = torch.stack(
        [letter_logits_alone(vlm, tokenizer, *pair) for pair in zip(asked, tokens, strict=True)]
    )
    batch = letter_logits_padded(vlm, tokenizer, asked, tokens)
    got = letter_logits(coarse, tokenizer, asked, tokens)
    assert (got - alone).abs().max() < 2 * (batch - alone).abs().max() + 0.02


@pytest.mark.parametrize("letters", ["DCBA", "EFGH"])
def test_other_letters_stand_in_the_question_and_are_the_answers(
    model, tokenizer, tmp_path, letters
):
    (question,) = uneven(1)
    cache = toy_llm.cache(tmp_path, [question])
    tokens = cache[question.video].float()
    alone = letter_logits_alone(composite(model), tokenizer, question, tokens, letters)
    got = letter_logits(model, tokenizer, [question], [tokens], letters=letters)
    torch.testing.assert_close(got[0], alone, atol=1e-4, rtol=1e-4)
    (one,) = predict_answers(model, tokenizer, [question], cache, letters=letters)
    assert one.first_letter == int(alone[0].argmax())


@pytest.mark.vicuna
def test_digits_of_vicuna_stand_behind_a_token_of_their_own():
    if "SEFAR_TOKENIZER_DIR" not in os.environ:
        pytest.skip("needs the Llama tokenizer: set SEFAR_TOKENIZER_DIR to its folder")
    llama = load_tokenizer(Path(os.environ["SEFAR_TOKENIZER_DIR"]))
    assert marker_ids(llama, "ABCD") == ([], [319, 350, 315, 360])
    assert marker_ids(llama, "1234") == ([29871], [29896, 29906, 29941, 29946])


def test_letters_that_are_alike_or_too_few_are_refused(model, tokenizer, tmp_path):
    asked = toy_llm.questions(1)
    cache = toy_llm.cache(tmp_path, asked)
    for letters in ("ABCA", "ABCE"):  # E is two tokens of this tokenizer
        with pytest.raises(ValueError, match=f"option markers '{letters}'"):
            predict_answers(model, tokenizer, asked, cache, letters=letters)
    with pytest.raises(ValueError, match="2 to 3 options, got 4"):
        predict_answers(model, tokenizer, asked, cache, letters="ABC")


def test_prompts_that_are_longer_than_the_model_reads_are_refused(model, tokenizer, tmp_path):
    (question,) = toy_llm.questions(1)
    cache = toy_llm.cache(tmp_path, [question])
    with pytest.raises(ValueError, match="question 0000000: its prompt has .* model reads 512"):
        predict_answers(model, tokenizer, [replace(question, stem="why " * 400)], cache)


def test_clips_are_projected_once_and_whole_prompts_never_repeat(model, tokenizer, tmp_path):
    asked = uneven(2)
    cache = toy_llm.cache(tmp_path, asked)
    vlm, seen = composite(model), []
    hooks = [
        part.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].shape))
        for part in (vlm.model.multi_modal_projector, vlm.lm_head)
    ]
    predict_answers(model, tokenizer, asked, cache)
    for hook in hooks:
        hook.remove()
    assert [tuple(shape) for shape in seen] == [(2, 8, 2, 2, 12), (2, 4, 32)]


def test_batches_hold_questions_alike_and_fewer_the_more_options_they_have():
    asked = [*uneven(5), *uneven(5, num_options=2)]
    asked += [replace(q, options=tuple(f"move {k}" for k in range(16))) for q in uneven(5)]
    found = list(batches_by_options(asked, 4))
    assert [(len(batch), len(batch[0].options)) for batch in found] == [
        (4, 2), (1, 2), (4, 4), (1, 4), (1, 16), (1, 16), (1, 16), (1, 16), (1, 16)
    ]  # fmt: skip
    assert sorted(map(id, asked)) == sorted(id(q) for batch in found for q in batch)
    assert all(len({len(q.options) for q in batch}) == 1 for batch in found)


def test_batches_change_nothing_and_predictions_keep_the_order(model, tokenizer, tmp_path):
    asked = [*toy_llm.questions(5), replace(toy_llm.questions(6, num_options=2)[5], answer=1)]
    cache = toy_llm.cache(tmp_path, toy_llm.questions(6))
    whole = predict_answers(model, tokenizer, asked, cache, batch_size=8)
    single = predict_answers(model, tokenizer, asked, cache, batch_size=1)
    assert [p.question_id for p in whole] == [q.question_id for q in asked]
    assert [len(p.probs) for p in whole] == [4, 4, 4, 4, 4, 2]
    for one, other in zip(whole, single, strict=True):
        assert one.probs == pytest.approx(other.probs, abs=1e-5)


def test_shuffled_videos_show_another_clip(model, tokenizer, tmp_path):
    asked = toy_llm.questions(5)
    cache = toy_llm.cache(tmp_path, asked)
    shown = {f"clip{i}": f"clip{(i + 2) % 5}" for i in range(5)}
    shuffled = predict_answers(model, tokenizer, asked, cache, shown=shown)
    swapped = predict_answers(
        model, tokenizer, [replace(q, video=shown[q.video]) for q in asked], cache
    )
    assert {p.video: p.shown for p in shuffled} == shown
    for one, other in zip(shuffled, swapped, strict=True):
        assert one.probs == pytest.approx(other.probs, abs=1e-5)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_refused_with_the_clip(broken):
    (question,) = toy_llm.questions(1)
    logits = torch.zeros(4, 4)
    logits[2, 1] = broken
    with pytest.raises(FloatingPointError, match="question 0000000, shown clip7: letter logits"):
        as_prediction(question, "clip7", logits)


@pytest.mark.parametrize(("options", "strict"), [(("a", "b", "a"), True), (("a", "b", "c"), False)])
def test_strict_takes_options_that_read_alike_for_one(options, strict):
    question = replace(toy_llm.questions(1)[0], options=options, answer=0)
    logits = torch.zeros(3, 3)
    # In rotation r letter k is option (k + r) mod 3: chosen are options 0, 0 and 2.
    logits[0, 0] = logits[1, 2] = logits[2, 0] = 5.0
    assert as_prediction(question, "clip", logits).strict is strict


def test_predictions_come_back_from_their_file(tmp_path):
    predictions = [
        Prediction(
            question_id=str(i), video=f"clip{i}", shown=f"clip{i + 1}", source=f"s{i}",
            event=None if i == 2 else "FX", label=None if i == 2 else i, answer=i % 2,
            probs=(0.25 + i / 10, 0.75 - i / 10), first_letter=1 - i % 2, strict=i == 0,
        )
        for i in range(3)
    ]  # fmt: skip
    write_predictions(predictions, tmp_path / "p.jsonl")
    assert read_predictions(tmp_path / "p.jsonl") == predictions


@pytest.mark.parametrize("text", [b"{", b"{}", b"[]", b"7", b"\xff"])
def test_lines_that_are_no_predictions_are_named(tmp_path, text):
    (tmp_path / "p.jsonl").write_bytes(text + b"\n")
    with pytest.raises(SefarError, match=r"p\.jsonl, line 1"):
        read_predictions(tmp_path / "p.jsonl")


def test_a_file_of_predictions_that_is_missing_is_named(tmp_path):
    with pytest.raises(SefarError, match="no predictions at"):
        read_predictions(tmp_path / "none.jsonl")
