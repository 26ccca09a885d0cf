from dataclasses import replace

import numpy as np
import pytest

from qa_data.files import SefarError
from sefar_core.intervals import Interval
from sefar_mllm.answer_text import GeneratedAnswer, OtherFormats, TextScore
from sefar_mllm.evaluation.diagnostics import diagnose, interpret_gap
from tests.oracles import toy_llm
from tests.oracles.toy_answers import made

COUNT = 120


def questions_and_predictions(right):
    """Questions, and predictions that are right where `right` says so."""
    predictions = made(COUNT, right, sources=20)
    questions = [
        replace(q, question_id=p.question_id, answer=p.answer)
        for q, p in zip(toy_llm.questions(COUNT), predictions, strict=True)
    ]
    return questions, predictions


def answers(questions, choices, texts=None):
    generated = [
        GeneratedAnswer(question_id=q.question_id, text="", choice=choice)
        for q, choice in zip(questions, choices, strict=True)
    ]
    scores = texts or {q.question_id: TextScore((-1.0, -2.0, -3.0, -4.0), (1, 1, 1, 1))
                       for q in questions}  # fmt: skip
    return OtherFormats(generated=generated, texts=scores)


def diagnosed(questions, predictions, other):
    return diagnose(questions, predictions, other, resamples=400, rng=np.random.default_rng(0))


def test_a_model_that_generates_its_letters_agrees_with_itself():
    questions, predictions = questions_and_predictions(lambda i, label: i % 3 != 0)
    found = diagnosed(questions, predictions, answers(questions, [p.choice for p in predictions]))
    assert (found.agreement, found.unreadable) == (1.0, 0.0)
    assert found.generated.value == pytest.approx(2 / 3)
    assert (found.generated_gap.low, found.generated_gap.high) == (0, 0)
    assert "+0.0 points from the primary number, within noise" in found.interpretation


def test_answers_that_name_no_option_are_wrong_and_reported():
    questions, predictions = questions_and_predictions(lambda i, label: i % 3 != 0)
    choices = [None if i % 2 else p.choice for i, p in enumerate(predictions)]
    found = diagnosed(questions, predictions, answers(questions, choices))
    assert found.unreadable == 0.5
    assert found.generated.value == pytest.approx(1 / 3)
    assert found.agreement == 0.5
    assert "-33.3 points" in found.interpretation
    assert "50.0 % name no option: the prompt is wrong" in found.interpretation


def test_a_gap_without_rotation_is_a_letter_preference():
    questions, predictions = questions_and_predictions(lambda i, label: True)
    predictions = [replace(p, first_letter=0) for p in predictions]
    found = diagnosed(questions, predictions, answers(questions, [0] * COUNT))
    assert found.rotation_gap == found.generated_gap
    assert found.rotation_gap.high < 0
    assert "prefers some letters" in found.interpretation


def test_texts_are_chosen_by_their_sum_and_by_their_mean():
    questions, predictions = questions_and_predictions(lambda i, label: True)
    # By the sum the short first text wins, by the mean over tokens the long right one.
    texts = {}
    for q in questions:
        sums, lengths = [-9.0, -9.5, -9.6, -9.7], [2, 2, 2, 2]
        sums[q.answer], lengths[q.answer] = -9.9, 30
        texts[q.question_id] = TextScore(tuple(sums), tuple(lengths))
    other = answers(questions, [p.choice for p in predictions], texts)
    found = diagnosed(questions, predictions, other)
    assert (found.text_sum.value, found.text_mean.value) == (0.0, 1.0)
    # Either of two equal texts is right.
    twice = [replace(q, options=("a", "b", "a", "c"), answer=0) for q in questions]
    assert diagnosed(twice, predictions, answers(twice, [2] * COUNT)).generated.value == 1


def test_the_interpretation_depends_on_whether_the_interval_includes_zero():
    wide = Interval(value=-0.1, low=-0.3, high=0.0)
    clear = Interval(value=-0.1, low=-0.2, high=-0.05)
    assert "within noise" in interpret_gap(wide, clear, 0.0)
    assert "prefers some letters" in interpret_gap(clear, wide, 0.0)
    assert "not trained on letters" in interpret_gap(clear, clear, 0.0)
    none = Interval(value=-0.1, low=None, high=None)
    assert interpret_gap(none, none, 0.5).endswith("one source video gives no interval")


def test_answers_to_other_questions_are_refused():
    questions, predictions = questions_and_predictions(lambda i, label: True)
    with pytest.raises(SefarError, match="in their order"):
        diagnosed(questions, predictions, answers(questions[::-1], [0] * COUNT))
