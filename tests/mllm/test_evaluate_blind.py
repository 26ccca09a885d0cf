from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from qa_data.blind import audit
from qa_data.files import SefarError
from sefar_mllm.evaluation.evaluate import blind_predictions
from tests.oracles import toy_llm

TRAIN = [
    replace(q, answer=place, label=place)
    for place, q in zip([3, 3, 3, 1, 1, 0], toy_llm.questions(6), strict=True)
]


def answered(questions, train=TRAIN, seed=0):
    return blind_predictions(questions, train, rng=np.random.default_rng(seed))


def test_the_prior_takes_what_was_the_answer_most_often():
    asked = [replace(q, options=tuple(np.roll(q.options, i))) for i, q in enumerate(TRAIN)]
    found = answered(asked)["prior"]
    counts = Counter(q.options[q.answer] for q in TRAIN)
    for question, one in zip(asked, found, strict=True):
        best = max(question.options, key=counts.__getitem__)
        assert question.options[one.choice] == best
        assert one.strict == (one.choice == one.answer)
        assert (one.question_id, one.label) == (question.question_id, question.label)


def test_the_longest_option_is_the_longest():
    for question, one in zip(TRAIN, answered(TRAIN)["longest"], strict=True):
        assert len(question.options[one.choice]) == max(map(len, question.options))


def test_accuracies_are_those_of_the_audit():
    asked = toy_llm.questions(400)
    rows = audit(asked, TRAIN, {}).rows
    found = answered(asked)
    for name, rule in (("prior", "commonest answer"), ("longest", "longest option")):
        micro = np.mean([p.choice == p.answer for p in found[name]])
        assert micro == pytest.approx(rows[rule].micro, abs=0.06)


def test_ties_are_drawn_and_not_given_to_the_first():
    asked = toy_llm.questions(200)
    never = [replace(q, options=("w", "x", "y", "z")) for q in TRAIN]
    letters = Counter(p.choice for p in answered(asked, never)["prior"])
    assert min(letters.values()) > 30
    assert answered(asked, never) == answered(asked, never)


def test_either_of_two_equal_texts_is_right():
    (question,) = toy_llm.questions(1)
    twice = [replace(question, options=("b", "a", "c", "a"), answer=1, question_id=str(i))
             for i in range(40)]  # fmt: skip
    found = answered(twice, [replace(question, options=("a", "d"), answer=0)])["prior"]
    assert {p.choice for p in found} == {1, 3}
    assert all(p.choice == p.answer for p in found)


def test_questions_with_fewer_options_are_answered_among_theirs():
    asked = [*toy_llm.questions(4), replace(toy_llm.questions(5, num_options=2)[4], answer=1)]
    assert [len(p.probs) for p in answered(asked)["longest"]] == [4, 4, 4, 4, 2]


def test_rules_without_training_questions_are_refused():
    with pytest.raises(SefarError, match="got 6 and 0"):
        answered(TRAIN, [])
