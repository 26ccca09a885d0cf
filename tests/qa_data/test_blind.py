"""Answering without looking."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_data.blind import (
    audit,
    audit_table,
    blind_scores,
    class_weights,
    credits_of,
    weighted_accuracy,
)
from qa_data.generate import build_questions
from qa_data.manifest import Clip
from qa_data.questions import Question, QuestionError
from qa_data.taxonomy import ElementClass
from qa_data.text_classifier import option_tables

CLASSES = {
    0: ElementClass(0, 21, 0, "FX", "leap"),
    1: ElementClass(1, 21, 1, "FX", "split leap"),
    2: ElementClass(2, 22, 2, "FX", "turn"),
    3: ElementClass(3, 44, 3, "UB", "giant circle"),
    4: ElementClass(4, 44, 4, "UB", "leap"),
}
CODES = {0: "10", 1: "11", 2: "1011", 3: "01", 4: "00"}


def make_question(number, labels, answer, *, source="s", stem="Which?"):
    return Question(
        question_id=f"{number:07d}",
        video=f"clip{number}",
        stem=stem,
        options=tuple(CLASSES[label].text for label in labels),
        answer=answer,
        label=labels[answer],
        option_labels=labels,
        source=source,
    )


TRAIN = [
    make_question(0, (0, 2, 3), 0),
    make_question(1, (0, 2, 1), 0),
    make_question(2, (0, 2, 3), 1),
    make_question(3, (1, 2, 3), 2, source="t"),
]
# Right in TRAIN: leap 2, turn 1, giant circle 1, split leap 0.
QUESTIONS = [
    make_question(0, (2, 0, 1), 1, source="t"),
    make_question(1, (2, 3, 1), 0, source="u"),
    make_question(2, (3, 0, 1), 2, source="u"),
    make_question(3, (3, 4, 2), 1, source="v"),
]
# By hand: what each rule earns on each of QUESTIONS. The bag of words has an oracle of its own
# (test_text_classifier.py).
EARNED = {
    "chance": [1 / 3, 1 / 3, 1 / 3, 1 / 3],
    "always A": [0, 1, 0, 0],
    "always B": [1, 0, 0, 1],
    "always C": [0, 0, 1, 0],
    "longest option": [0, 0, 0, 0],
    "shortest option": [1 / 2, 1, 0, 1 / 2],
    "commonest answer": [1, 1 / 2, 0, 1],
    "rarest answer": [0, 0, 1, 0],
    # right + 1 over wrong + 1: leap 3/2, turn 2/4, giant circle 2/3, split leap 1/3
    "naive Bayes": [1, 0, 0, 1],
    "naive Bayes inverted": [0, 0, 1, 0],
    # leap and split leap share one word of two, no others share any
    "words nearest the others": [1 / 2, 1 / 3, 1 / 2, 1 / 3],
    "words farthest from the others": [0, 1 / 3, 0, 1 / 3],
    # 0 and 1, 3 and 4 are in one set; turn and leap begin alike in trees of two sets
    "code nearest the others": [1 / 2, 1 / 3, 1 / 2, 1 / 2],
    "code farthest from the others": [0, 1 / 3, 0, 0],
    # giant circle is on the bars alone, leap on both, the others on the floor
    "apparatus known": [1 / 3, 1 / 2, 1 / 2, 1 / 2],
    "apparatus known, commonest answer": [1, 1, 0, 1],
    "set known": [1 / 2, 1, 1 / 2, 1 / 2],
    "set known, commonest answer": [1, 1, 0, 1],
}


def test_every_rule_earns_what_it_earns_by_hand():
    rows = audit(QUESTIONS, TRAIN, CLASSES, codes=CODES).rows
    assert set(rows) - set(EARNED) == {"bag of words", "bag of words inverted"}
    assert {name: rows[name].micro for name in EARNED} == pytest.approx(
        {name: sum(earned) / 4 for name, earned in EARNED.items()}
    )
    learned, asked = option_tables(TRAIN, QUESTIONS)
    scores = blind_scores(learned, asked)
    for name in scores.keys() & EARNED.keys():
        assert credits_of(asked, scores[name]).tolist() == pytest.approx(EARNED[name]), name
    # What differs by rounding is a tie.
    third = np.array([[0.1 + 0.2, 0.3, 0.3]] * 4)
    assert credits_of(asked, third).tolist() == [1 / 3] * 4


def test_the_mean_of_classes_weighs_each_class_alike():
    found = weighted_accuracy(np.array([1.0, 1, 1, 0]), class_weights(["a", "a", "a", "b"]))
    assert (found.micro, found.macro) == pytest.approx((3 / 4, 1 / 2))
    variance = 3 / 4 * 1 / 4
    assert found.micro_se == pytest.approx((variance / 4) ** 0.5)
    assert found.macro_se == pytest.approx((variance * (3 / 36 + 1 / 4)) ** 0.5)


def test_a_letter_that_a_question_lacks_is_guessed():
    two = replace(QUESTIONS[0], options=("turn", "leap"), option_labels=(2, 0))
    rows = audit([two, QUESTIONS[2]], TRAIN, CLASSES).rows
    assert rows["always C"].micro == pytest.approx((1 / 2 + 1) / 2)


def test_several_stems_are_counted_apart():
    train, questions = (
        [make_question(n, (0, 2), answer, stem=f"What {word}?") for n, (word, answer) in asked]
        for asked in (
            enumerate([("jump", 0), ("jump", 0), ("spin", 1)]),
            enumerate([("jump", 0), ("spin", 1), ("else", 1)]),
        )
    )
    rows = audit(questions, train, CLASSES).rows
    assert rows["commonest answer"].micro == pytest.approx(1 / 3)
    assert rows["commonest answer to the stem"].micro == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert rows["rarest answer to the stem"].micro == pytest.approx((0 + 0 + 1 / 2) / 3)
    assert "commonest answer to the stem" not in audit(QUESTIONS, TRAIN, CLASSES).rows


def test_letters_repeats_and_shared_sources_are_counted():
    doubled = make_question(4, (0, 4, 2), 0, source="s")
    found = audit([*QUESTIONS, doubled], TRAIN, CLASSES, bound=0.5)
    assert found.letters == {"A": 2, "B": 2, "C": 1}
    assert found.repeats == {"some_option_twice": 1, "right_option_twice": 1}
    assert (found.shared_sources, found.num_questions, found.bound) == (2, 5, 0.5)
    assert found.questions_of_shared_sources == 2
    # Clips without source share none.
    bare = [replace(one, source="") for one in QUESTIONS]
    found = audit(bare, [replace(one, source="") for one in TRAIN], CLASSES)
    assert (found.shared_sources, found.questions_of_shared_sources) == (0, 0)
    assert found.questions_without_source == len(bare)
    assert "shared with training: unknown" in str(audit_table(found, "x").caption)
    mixed = audit([*bare, *QUESTIONS], TRAIN, CLASSES)
    assert f", and {len(bare)} of unknown source" in str(audit_table(mixed, "x").caption)


def test_rows_that_need_a_class_or_a_code_of_every_option_are_left_out_without():
    some = {label: code for label, code in CODES.items() if label != 3}
    for change, codes, word in (
        ({"label": None, "option_labels": None}, CODES, "known"),
        ({"label": 9, "option_labels": None}, CODES, "known"),
        ({"options": ("no", "yes", "perhaps")}, CODES, "known"),
        ({"option_labels": None}, CODES, "code"),
        ({}, None, "code"),
        ({}, some, "code"),
    ):
        questions = [*QUESTIONS, replace(QUESTIONS[0], **change)]
        rows = audit(questions, TRAIN, CLASSES, codes=codes).rows
        assert "commonest answer" in rows
        assert not [name for name in rows if word in name]


def test_the_table_has_a_row_for_every_rule_and_the_record_is_json():
    found = audit(QUESTIONS, TRAIN, CLASSES, bound=0.25)
    table = audit_table(found, "test")
    assert table.row_count == len(found.rows)
    assert "best possible blind rule: 25.00%" in str(table.caption)
    assert "shared with training: 1, with 1 questions" in str(table.caption)
    assert json.loads(json.dumps(asdict(found))) == asdict(found)
    for questions, train, counts in (([], TRAIN, "0 and 4"), (QUESTIONS, [], "4 and 0")):
        with pytest.raises(QuestionError, match=f"got {counts}; is a split empty"):
            audit(questions, train, CLASSES)


def test_exchangeable_sets_are_at_chance_for_every_blind_rule_and_public_ones_are_not():
    classes = {
        label: ElementClass(label, 21, label, "FX", "x" * (label + 1)) for label in range(12)
    }
    clips = [
        Clip(id=f"{label} {i}", path="x", label=label, split="test")
        for label in range(12)
        for i in range(5 + 12 * label)  # the commoner, the longer, as little as text may hide
    ]
    train = build_questions(clips, classes, rule="event_prior", seed=1).questions
    questions = build_questions(clips, classes, rule="event_prior", seed=0).questions
    codes = {label: f"{label:04b}" for label in classes}
    rows = audit(questions, train, classes, codes=codes).rows
    for name, row in rows.items():
        assert abs(row.micro - 0.25) <= 2.5 * row.micro_se + 1e-12, name
    public = build_questions(clips, classes, rule="public", seed=0).questions
    assert audit(public, public, classes).rows["commonest answer"].micro > 0.4


INVERSIONS = {
    "longest option": "shortest option",
    "commonest answer": "rarest answer",
    "naive Bayes": "naive Bayes inverted",
    "bag of words": "bag of words inverted",
    "words nearest the others": "words farthest from the others",
    "commonest answer to the stem": "rarest answer to the stem",
}


MOVES = st.sampled_from(["leap", "split leap", "turn", "giant circle", "split jump", "hop on"])
TEXTS = st.lists(MOVES, min_size=2, max_size=4)


@st.composite
def question_sets(draw, *, num_options=None):
    shown = draw(st.lists(TEXTS, min_size=1, max_size=6))
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


@given(question_sets(), question_sets(), st.randoms(use_true_random=False))
def test_no_blind_rule_knows_the_answers_that_it_is_asked_for(train, questions, rng):
    others = [replace(one, answer=rng.randrange(len(one.options))) for one in questions]
    first = blind_scores(*option_tables(train, questions))
    second = blind_scores(*option_tables(train, others))
    assert {name: one.tolist() for name, one in first.items()} == {
        name: one.tolist() for name, one in second.items()
    }


@given(question_sets(), question_sets(num_options=2))
def test_of_two_options_a_rule_or_its_inversion_is_right(train, questions):
    rows = audit(questions, train, {}).rows
    for name in INVERSIONS.keys() & rows.keys():
        assert rows[name].micro + rows[INVERSIONS[name]].micro == pytest.approx(1), name


@given(question_sets(), question_sets())
def test_the_order_of_the_letters_says_nothing_but_to_the_rules_of_letters(train, questions):
    turned = [
        replace(one, options=one.options[::-1], answer=len(one.options) - 1 - one.answer)
        for one in questions
    ]
    rows, again = (audit(one, train, {}).rows for one in (questions, turned))
    for name in [name for name in rows if not name.startswith("always")]:
        assert rows[name].micro == pytest.approx(again[name].micro), name
