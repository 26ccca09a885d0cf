"""Validation questions of whole sources that leave every class something to learn from."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_data.files import SefarError
from qa_data.questions import Question
from sefar_mllm.validation import accuracies, best_epoch, cut_validation
from tests.oracles import toy_answers


def questions_of(places):
    """A question for each (source, class)."""
    return [
        Question(
            question_id=f"{i:07d}", video=f"clip{i}", stem="Which?", options=("a", "b"), answer=0,
            label=label, source=source,
        )
        for i, (source, label) in enumerate(places)
    ]  # fmt: skip


LONG_TAIL = questions_of(
    [(f"s{i % 40}", 0 if i % 3 else i % 17) for i in range(400)] + [("s7", 90), ("s8", 91)]
)


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 4)), min_size=1, max_size=60),
    st.floats(0.01, 0.9),
    st.integers(0, 5),
)
def test_a_cut_takes_whole_sources_and_no_class_away(places, rate, seed):
    questions = questions_of(places)
    try:
        train, validation = cut_validation(questions, rate, seed)
    except SefarError as refusal:
        assert "can be held out" in str(refusal)
        return
    ids = [q.question_id for q in questions]
    assert sorted(q.question_id for q in [*train, *validation]) == ids
    assert not {q.source for q in train} & {q.source for q in validation}
    assert {q.label for q in train} == {q.label for q in questions}
    assert 0 < len(validation) <= round(rate * len(questions)) <= 2 * len(validation)


def test_a_cut_is_drawn_from_the_seed_and_not_from_the_order_of_the_questions():
    _, validation = cut_validation(LONG_TAIL, 0.1, 3)
    assert len(validation) == pytest.approx(40, abs=10)
    _, again = cut_validation(LONG_TAIL[::-1], 0.1, 3)
    assert [q.question_id for q in again] == [q.question_id for q in validation[::-1]]
    cuts = [{q.source for q in cut_validation(LONG_TAIL, 0.3, seed)[1]} for seed in range(8)]
    assert len(set(map(frozenset, cuts))) > 3
    assert not any({"s7", "s8"} & cut for cut in cuts)  # the only sources of their classes
    assert cut_validation(LONG_TAIL, 0.0, 3) == (LONG_TAIL, [])
    mixed = questions_of([(f"s{number**3 % 17}", number**2 % 7) for number in range(120)])
    assert {q.source for q in cut_validation(mixed, 0.2, 0)[1]} == {"s1", "s8", "s11"}
    nameless = [replace(q, label=None) for q in LONG_TAIL]
    assert len(cut_validation(nameless, 0.2, 0)[1]) > 40


def test_a_cut_that_cannot_be_made_is_refused():
    lone = [*LONG_TAIL, replace(LONG_TAIL[0], question_id="lone", source="")]
    with pytest.raises(SefarError, match="1 of 403 questions have no source, the first is lone"):
        cut_validation(lone, 0.1, 0)
    with pytest.raises(SefarError, match="needs 5 of 10 questions, but only 0 can be held out"):
        cut_validation(questions_of([("a", 0)] * 4 + [("b", 1)] * 6), 0.5, 0)


def test_micro_counts_questions_and_macro_counts_classes():
    right = [1.0, 1.0, 1.0, 0.0, 0.0, 1.0]
    found = toy_answers.predictions(right, ["s"] * 6, [0, 0, 0, 0, 1, 2])
    expected = {"dev_micro": 4 / 6, "dev_macro": (3 / 4 + 0 + 1) / 3}
    assert accuracies(found) == pytest.approx(expected)
    plain = toy_answers.predictions(right, ["s"] * 6, [None] * 6)
    assert accuracies(plain) == pytest.approx({"dev_micro": 4 / 6})


def test_the_best_epoch_is_the_first_of_equals(tmp_path):
    lines = [{"step": 1, "loss": 2.0}]
    lines += [{"step": s, "epoch": s, "dev_micro": m} for s, m in ((2, 0.4), (3, 0.6), (4, 0.6))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert best_epoch(tmp_path) == lines[2]
