"""Answers in other formats than letters: generated ones, and the likelihoods of options' texts."""

from dataclasses import replace

import pytest
import torch

from qa_data.files import SefarError
from sefar_mllm.adapters import composite
from sefar_mllm.answer_text import (
    GeneratedAnswer,
    OtherFormats,
    TextScore,
    as_answer,
    failure_rate,
    generate_answers,
    option_text_scores,
    pointwise_information,
    read_other_formats,
    write_other_formats,
)
from sefar_mllm.prompt import IGNORE, TEXT_REQUEST, Turn, question_text
from tests.oracles import toy_chat, toy_llm
from tests.oracles.letters import encoded, text_log_probs_alone


@pytest.fixture
def questions():
    """Of unequal length; options begin alike, one is the beginning of another, 2 to 4 of them."""
    options = [
        ("salto forward tucked", "salto forward", "salto forward tucked with 1 turn"),
        ("giant circle forward", "stalder forward", "salto", "stalder forward with 0.5 turn"),
        ("salto backward tucked", "salto backward stretched"),
        ("giant circle", "giant circle backward to handstand", "salto", "stalder"),
    ]
    return [
        replace(question, options=texts, answer=0, stem="What " + "very " * i + "odd move is it?")
        for i, (question, texts) in enumerate(zip(toy_llm.questions(4), options, strict=True))
    ]


@pytest.fixture
def cache(questions, tmp_path):
    return toy_llm.cache(tmp_path / "tokens", questions)


@pytest.mark.parametrize("batch_size", [1, 32])
def test_text_scores_are_those_of_each_answer_alone(sharp, tokenizer, questions, cache, batch_size):
    scores = option_text_scores(sharp, tokenizer, questions, cache, batch_size=batch_size)
    assert list(scores) == [question.question_id for question in questions]
    for question in questions:
        score = scores[question.question_id]
        tokens = cache[question.video].float()
        alone = text_log_probs_alone(composite(sharp), tokenizer, question, tokens)
        assert score.sums == pytest.approx(alone, abs=1e-4, rel=1e-6)
        turns = [Turn(f"{question.stem} {TEXT_REQUEST}", option) for option in question.options]
        prompts = [encoded(composite(sharp), tokenizer, turn) for turn in turns]
        lengths = [sum(label != IGNORE for label in prompt.labels) for prompt in prompts]
        assert list(score.lengths) == lengths
        assert score.means == pytest.approx([s / n for s, n in zip(alone, lengths, strict=True)])


@pytest.mark.parametrize("batch_size", [1, 32])
def test_generated_answers_are_greedy_answers_to_each_question_alone(
    sharp, tokenizer, questions, cache, batch_size
):
    answers = generate_answers(sharp, tokenizer, questions, cache, batch_size=batch_size)
    assert [answer.question_id for answer in answers] == [q.question_id for q in questions]
    assert len({answer.text for answer in answers}) > 1
    for answer, question in zip(answers, questions, strict=True):
        turn = Turn(question_text(question.stem, question.options))
        ids = encoded(composite(sharp), tokenizer, turn).ids
        written = toy_chat.greedy(sharp, ids, cache[question.video].float(), 8)
        if tokenizer.eos_token_id in written:
            written = written[: written.index(tokenizer.eos_token_id)]
        assert answer.text == tokenizer.decode(written, skip_special_tokens=True)


def test_another_clip_is_shown_on_request(sharp, tokenizer, questions, cache):
    first, moved = questions[:1], [replace(questions[0], video="clip2")]
    shown = {"clip0": "clip2"}
    other, expected, own = (
        option_text_scores(sharp, tokenizer, one, cache, shown=clips)["0000000"].sums
        for one, clips in ((first, shown), (moved, None), (first, None))
    )
    assert other == pytest.approx(expected, abs=1e-5)
    assert other != pytest.approx(own, abs=1e-3)
    answers = generate_answers(sharp, tokenizer, first, cache, shown=shown)
    assert answers == generate_answers(sharp, tokenizer, moved, cache)


def test_tokens_after_the_end_mark_are_not_part_of_the_answer(sharp, tokenizer, questions, cache):
    letter, end = tokenizer(" C")["input_ids"][-1], tokenizer.eos_token_id
    likeliest = iter([letter, end, letter, letter])
    hook = composite(sharp).lm_head.register_forward_hook(
        lambda module, inputs, out: out.fill_(0.0).index_fill_(
            -1, torch.tensor([next(likeliest)]), 1.0
        )
    )
    (answer,) = generate_answers(sharp, tokenizer, questions[:1], cache)
    hook.remove()
    assert answer == GeneratedAnswer(question_id="0000000", text="C", choice=2)
    assert list(likeliest) == [letter, letter]  # it stopped at the end mark


@pytest.mark.parametrize(("text", "choice"), [("B", 1), ("D", None), ("turn", None)])
def test_only_a_letter_of_the_question_is_a_choice(tokenizer, questions, text, choice):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = as_answer(tokenizer, questions[0], [*ids, tokenizer.eos_token_id])
    assert answer == GeneratedAnswer(question_id="0000000", text=text, choice=choice)


def test_answers_without_an_option_count_as_failures():
    choices = [0, None, 3, None, None]
    answers = [
        GeneratedAnswer(question_id=str(i), text="", choice=c) for i, c in enumerate(choices)
    ]
    assert failure_rate(answers) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="no answers to count"):
        failure_rate([])


ONE, TWO = TextScore((-1.0,), (1,)), TextScore((-1.0, -2.0), (1, 1))


def test_pointwise_information_subtracts_the_blind_run_of_the_same_questions():
    seen = {"a": TextScore((-4.0, -6.0, -7.0), (2, 4, 7))}
    blind = {"a": TextScore((-3.0, -8.0, -7.5), (2, 4, 7))}
    assert pointwise_information(seen, blind) == {"a": (-1.0, 2.0, 0.5)}
    for other in ({}, {"a": ONE}, {"a": TWO, "b": ONE}):
        with pytest.raises(ValueError, match="1 questions do not have as many options"):
            pointwise_information({"a": TWO}, other)


def test_answers_with_any_line_separator_are_read_as_written(questions, tmp_path):
    text = "salto\u2028tucked\u0085\u2029\x0b\x0c\r\n"
    question = replace(questions[2], options=("salto", text))
    answers = OtherFormats(
        generated=[GeneratedAnswer(question_id=question.question_id, text=text, choice=None)],
        texts={question.question_id: TextScore((-1.5, -2.0), (3, 4))},
    )
    write_other_formats([question], answers, tmp_path, "test")
    assert read_other_formats(tmp_path, "test") == answers
    (tmp_path / "spoken-test.jsonl").write_text('{"question_id": "1"}\n{"question_')
    with pytest.raises(SefarError, match=r"spoken-test\.jsonl, line 2 is not a JSON object"):
        read_other_formats(tmp_path, "test")
