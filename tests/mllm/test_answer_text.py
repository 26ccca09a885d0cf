from dataclasses import replace

import pytest

from sefar_mllm.adapters import composite
from sefar_mllm.answer_text import TextScore, option_text_scores, pointwise_information
from sefar_mllm.build import load_tokenizer
from sefar_mllm.prompt import IGNORE, TEXT_REQUEST, Turn
from tests.oracles import toy_llm
from tests.oracles.letters import encoded, sharp_model, text_log_probs_alone


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_llm.language_model(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def model(folder):
    return sharp_model(folder)


def option_text_sums(*asked, **how):
    scores = option_text_scores(*asked, **how)
    return {name: score.sums for name, score in scores.items()}


@pytest.fixture
def asked():
    """Options that begin alike, one that is the beginning of another, and 2 to 4 of them."""
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


def test_log_probabilities_are_those_of_each_answer_alone(model, tokenizer, asked, tmp_path):
    cache = toy_llm.cache(tmp_path, asked)
    got = option_text_sums(model, tokenizer, asked, cache)
    single = option_text_sums(model, tokenizer, asked, cache, batch_size=1)
    assert list(got) == [question.question_id for question in asked]
    for question in asked:
        tokens = cache[question.video].float()
        alone = text_log_probs_alone(composite(model), tokenizer, question, tokens)
        assert got[question.question_id] == pytest.approx(alone, abs=1e-4, rel=1e-6)
        assert single[question.question_id] == pytest.approx(alone, abs=1e-4, rel=1e-6)


def test_means_divide_by_the_trained_tokens(model, tokenizer, asked, tmp_path):
    cache = toy_llm.cache(tmp_path, asked)
    scores = option_text_scores(model, tokenizer, asked, cache)
    for question in asked:
        score = scores[question.question_id]
        user = f"{question.stem} {TEXT_REQUEST}"
        trained = [
            sum(label != IGNORE for label in encoded(composite(model), tokenizer, turn).labels)
            for turn in (Turn(user, option) for option in question.options)
        ]
        assert score.lengths == tuple(trained)
        assert score.means == pytest.approx(
            [s / n for s, n in zip(score.sums, trained, strict=True)]
        )


def test_the_order_of_the_options_and_the_letters_play_no_part(model, tokenizer, asked, tmp_path):
    cache = toy_llm.cache(tmp_path, asked)
    turned = [replace(q, options=q.options[::-1]) for q in asked]
    one = option_text_sums(model, tokenizer, asked, cache)
    other = option_text_sums(model, tokenizer, turned, cache)
    for name, row in one.items():
        assert row == pytest.approx(other[name][::-1], abs=1e-4)


def test_another_clip_is_shown_where_asked(model, tokenizer, asked, tmp_path):
    cache = toy_llm.cache(tmp_path, asked)
    shown = {"clip0": "clip2"}
    other = option_text_sums(model, tokenizer, asked[:1], cache, shown=shown)
    moved = option_text_sums(model, tokenizer, [replace(asked[0], video="clip2")], cache)
    own = option_text_sums(model, tokenizer, asked[:1], cache)
    assert other["0000000"] == pytest.approx(moved["0000000"], abs=1e-5)
    assert other["0000000"] != pytest.approx(own["0000000"], abs=1e-3)


def test_what_a_blind_run_finds_likely_is_taken_off():
    seen = {"a": TextScore((-4.0, -6.0, -7.0), (2, 4, 7))}
    blind = {"a": TextScore((-3.0, -8.0, -7.5), (2, 4, 7))}
    assert pointwise_information(seen, blind) == {"a": (-1.0, 2.0, 0.5)}


ONE, TWO = TextScore((-1.0,), (1,)), TextScore((-1.0, -2.0), (1, 1))


@pytest.mark.parametrize("blind", [{}, {"a": ONE}, {"a": TWO, "b": ONE}])
def test_runs_over_other_questions_are_not_compared(blind):
    with pytest.raises(ValueError, match="1 questions do not have as many options"):
        pointwise_information({"a": TWO}, blind)
