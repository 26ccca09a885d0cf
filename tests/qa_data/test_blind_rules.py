"""What holds for every rule that answers blind, whatever the questions."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_data.blind import audit, blind_scores
from qa_data.questions import Question
from qa_data.text_classifier import option_tables

INVERSIONS = {
    "longest option": "shortest option",
    "commonest answer": "rarest answer",
    "naive Bayes": "naive Bayes inverted",
    "bag of words": "bag of words inverted",
    "words nearest the others": "words farthest from the others",
    "commonest answer to the stem": "rarest answer to the stem",
}


def texts(alphabet=("leap", "split leap", "turn", "giant circle", "split jump", "hop on")):
    return st.lists(st.sampled_from(alphabet), min_size=2, max_size=4)


@st.composite
def question_sets(draw, *, num_options=None):
    shown = draw(st.lists(texts(), min_size=1, max_size=6))
    shown = [one[:num_options] for one in shown]
    return [
        Question(
            question_id="0000000",
            video="clip",
            options=tuple(one),
            answer=draw(st.integers(0, len(one) - 1)),
            stem=draw(st.sampled_from(["Which?", "What?"])),
        )
        for one in shown
    ]


@settings(max_examples=25, deadline=None)
@given(question_sets(), question_sets(), st.randoms(use_true_random=False))
def test_no_blind_rule_knows_the_answers_that_it_is_asked_for(train, questions, rng):
    others = [replace(one, answer=rng.randrange(len(one.options))) for one in questions]
    first = blind_scores(*option_tables(train, questions))
    second = blind_scores(*option_tables(train, others))
    assert {name: one.tolist() for name, one in first.items()} == {
        name: one.tolist() for name, one in second.items()
    }


@settings(max_examples=25, deadline=None)
@given(question_sets(), question_sets(num_options=2))
def test_of_two_options_a_rule_or_its_inversion_is_right(train, questions):
    rows = audit(questions, train, {}).rows
    for name in INVERSIONS.keys() & rows.keys():
        assert rows[name].micro + rows[INVERSIONS[name]].micro == pytest.approx(1), name


@settings(max_examples=25, deadline=None)
@given(question_sets(), question_sets())
def test_the_order_of_the_letters_says_nothing_but_to_the_rules_of_letters(train, questions):
    turned = [
        replace(one, options=one.options[::-1], answer=len(one.options) - 1 - one.answer)
        for one in questions
    ]
    rows, again = (audit(one, train, {}).rows for one in (questions, turned))
    for name in [name for name in rows if not name.startswith("always")]:
        assert rows[name].micro == pytest.approx(again[name].micro), name
