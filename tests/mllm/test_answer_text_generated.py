from dataclasses import replace

import pytest
import torch

from sefar_mllm.adapters import composite
from sefar_mllm.answer_text import GeneratedAnswer, as_answer, failure_rate, generate_answers
from sefar_mllm.build import load_tokenizer
from sefar_mllm.prompt import Turn, question_text
from tests.oracles import toy_llm
from tests.oracles.letters import encoded, sharp_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_llm.language_model(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def model(folder):
    return sharp_model(folder)


def uneven(count):
    """Questions whose lengths differ, the longest first."""
    stems = ["Which " + "very " * (count - i) + "hard move is this?" for i in range(count)]
    options = [4, 2, 3]
    return [
        replace(toy_llm.questions(count, num_options=options[i % 3])[i], stem=stem)
        for i, stem in enumerate(stems)
    ]


def greedy(vlm, tokenizer, question, tokens, steps):
    """The likeliest token, step by step, without cache, batch or padding."""
    ids = list(encoded(vlm, tokenizer, Turn(question_text(question.stem, question.options))).ids)
    start = len(ids)
    for _ in range(steps):
        with torch.inference_mode():
            logits = vlm(input_ids=torch.tensor([ids]), video_tokens=tokens[None]).logits[0, -1]
        ids.append(int(logits.argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_batched_answers_are_greedy_answers_to_each_question_alone(model, tokenizer, tmp_path):
    asked = uneven(5)
    cache = toy_llm.cache(tmp_path, asked)
    said = generate_answers(model, tokenizer, asked, cache, max_new_tokens=6)
    single = generate_answers(model, tokenizer, asked, cache, batch_size=1, max_new_tokens=6)
    assert said == single
    assert [answer.question_id for answer in said] == [q.question_id for q in asked]
    for answer, question in zip(said, asked, strict=True):
        tokens = cache[question.video].float()
        assert answer.text == greedy(composite(model), tokenizer, question, tokens, 6)
    assert len({answer.text for answer in said}) > 1


def test_another_clip_is_shown_where_asked(model, tokenizer, tmp_path):
    asked = toy_llm.questions(2)
    cache = toy_llm.cache(tmp_path, asked)
    other = generate_answers(model, tokenizer, asked[:1], cache, shown={"clip0": "clip1"})
    moved = generate_answers(model, tokenizer, [replace(asked[0], video="clip1")], cache)
    assert other == moved


def test_what_comes_behind_the_end_mark_is_not_part_of_the_answer(model, tokenizer, tmp_path):
    (question,) = toy_llm.questions(1)
    cache = toy_llm.cache(tmp_path, [question])
    vlm = composite(model)
    kept = vlm.lm_head.weight.data.clone()
    seen = []
    hook = vlm.lm_head.register_forward_hook(lambda module, inputs, out: seen.append(out.argmax()))
    try:
        # Two tokens take the place of all others: the letter C, and the end mark after it.
        letter, end = tokenizer(" C")["input_ids"][-1], tokenizer.eos_token_id
        scores = iter([letter, end, letter, letter])
        pushed = vlm.lm_head.register_forward_hook(
            lambda module, inputs, out: out.fill_(0.0).index_fill_(
                -1, torch.tensor([next(scores)]), 1.0
            )
        )
        (answer,) = generate_answers(model, tokenizer, [question], cache)
    finally:
        pushed.remove()
        hook.remove()
    assert answer == GeneratedAnswer(question_id=question.question_id, text="C", choice=2)
    assert torch.equal(kept, vlm.lm_head.weight.data)
    assert len(seen) == 2


@pytest.mark.parametrize(("said", "choice"), [("B", 1), ("D", None), ("turn", None)])
def test_only_a_letter_of_the_question_is_a_choice(tokenizer, said, choice):
    question = replace(toy_llm.questions(1, num_options=3)[0])
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    answer = as_answer(tokenizer, question, [*ids, tokenizer.eos_token_id])
    assert answer == GeneratedAnswer(question_id="0000000", text=said, choice=choice)


def test_failures_are_counted_and_never_left_out():
    choices = [0, None, 3, None, None]
    answers = [
        GeneratedAnswer(question_id=str(i), text="", choice=c) for i, c in enumerate(choices)
    ]
    assert failure_rate(answers) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="no answers to count"):
        failure_rate([])


def test_prompts_that_are_too_long_are_refused(model, tokenizer, tmp_path):
    (question,) = toy_llm.questions(1)
    cache = toy_llm.cache(tmp_path, [question])
    with pytest.raises(ValueError, match="model reads 512"):
        generate_answers(model, tokenizer, [replace(question, stem="why " * 400)], cache)
