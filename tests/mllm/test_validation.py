"""Validation questions of whole sources that leave every class something to learn from."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_data.files import SefarError
from qa_data.questions import Question
from sefar_mllm.validation import accuracies, best_epoch, cut_validation
from tests.oracles import toy_answers


def asked(places):
    """A question for each (source, class)."""
    return [
        Question(
            question_id=f"{i:07d}", video=f"clip{i}", stem="Which?", options=("a", "b"), answer=0,
            label=label, source=source,
        )
        for i, (source, label) in enumerate(places)
    ]  # fmt: skip


LONG_TAIL = asked(
    [(f"s{i % 40}", 0 if i % 3 else i % 17) for i in range(400)] + [("s7", 90), ("s8", 91)]
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 4)), min_size=1, max_size=60),
    st.floats(0.01, 0.9),
    st.integers(0, 5),
)
def test_a_cut_takes_whole_sources_and_no_class_away(places, rate, seed):
    questions = asked(places)
    try:
        train, validation = cut_validation(questions, rate, seed)
    except SefarError as refusal:
        assert "can be held out" in str(refusal)
        return
    assert sorted(q.question_id for q in [*train, *validation]) == [
        q.question_id for q in questions
    ]
    assert not {q.source for q in train} & {q.source for q in validation}
    assert {q.label for q in train} == {q.label for q in questions}
    assert 0 < len(validation) <= round(rate * len(questions)) <= 2 * len(validation)


def test_a_cut_is_drawn_from_the_seed_and_not_from_the_order_of_the_questions():
    train, validation = cut_validation(LONG_TAIL, 0.1, 3)
    assert len(validation) == pytest.approx(40, abs=10)
    again = cut_validation(LONG_TAIL[::-1], 0.1, 3)
    assert [q.question_id for q in again[1]] == [q.question_id for q in validation[::-1]]
    assert (
        len({tuple(q.source for q in cut_validation(LONG_TAIL, 0.1, seed)[1]) for seed in range(6)})
        > 3
    )
    assert cut_validation(LONG_TAIL, 0.0, 3) == (LONG_TAIL, [])
    mixed = asked([(f"s{number**3 % 17}", number**2 % 7) for number in range(120)])
    assert {q.source for q in cut_validation(mixed, 0.2, 0)[1]} == {"s1", "s8", "s11"}


def test_the_only_source_of_a_class_is_always_learned_from():
    for seed in range(20):
        _, validation = cut_validation(LONG_TAIL, 0.3, seed)
        assert not {"s7", "s8"} & {q.source for q in validation}


def test_questions_without_a_class_are_cut_by_their_sources():
    questions = [replace(q, label=None) for q in LONG_TAIL]
    train, validation = cut_validation(questions, 0.2, 0)
    assert Counter(q.label for q in validation) == {None: len(validation)} and len(validation) > 40


def test_questions_without_a_source_are_refused():
    lone = [*LONG_TAIL, replace(LONG_TAIL[0], question_id="lone", source="")]
    with pytest.raises(SefarError, match="1 of 403 questions have no source, the first is lone"):
        cut_validation(lone, 0.1, 0)


def test_a_cut_that_would_be_too_small_is_refused():
    with pytest.raises(SefarError, match="needs 5 of 10 questions, but only 0 can be held out"):
        cut_validation(asked([("a", 0)] * 4 + [("b", 1)] * 6), 0.5, 0)


def test_micro_counts_questions_and_macro_counts_classes():
    right = [1.0, 1.0, 1.0, 0.0, 0.0, 1.0]
    found = toy_answers.predictions(right, ["s"] * 6, [0, 0, 0, 0, 1, 2])
    assert accuracies(found) == pytest.approx(
        {"dev_micro": 4 / 6, "dev_macro": (3 / 4 + 0 + 1) / 3}
    )
    plain = toy_answers.predictions(right, ["s"] * 6, [None] * 6)
    assert accuracies(plain) == pytest.approx({"dev_micro": 4 / 6})


def test_the_best_epoch_is_the_first_of_equals(tmp_path):
    lines = [{"step": 1, "loss": 2.0}]
    lines += [{"step": s, "epoch": s, "dev_micro": m} for s, m in ((2, 0.4), (3, 0.6), (4, 0.6))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert best_epoch(tmp_path) == lines[2]
