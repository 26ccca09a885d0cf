"""Words of an option beside those of the others, and what a classifier learns of them."""

import numpy as np
import pytest

from qa_data import text_classifier
from qa_data.questions import Question
from qa_data.text_classifier import (
    choice_probs,
    classifier_scores,
    fit_conditional_logit,
    mean_similarity,
    option_tables,
    word_similarity,
    words,
)
from tests.oracles import blind as oracle

TRAIN = [
    (("salto forward tucked", "salto backward tucked", "split leap", "1.5 turn"), 1),
    (("flic-flac", "salto backward tucked", "split leap with 1 turn"), 1),
    (("salto forward tucked", "flic-flac", "split leap", "split leap with 1 turn"), 2),
    (("1.5 turn", "salto backward tucked", "flic-flac", "salto forward tucked"), 3),
    (("split leap", "1.5 turn"), 0),
    (("salto backward tucked", "salto backward tucked", "1.5 turn", "flic-flac"), 0),
    (("split leap with 1 turn", "split leap", "salto forward tucked"), 0),
]
ASKED = [
    (("salto backward piked", "salto forward tucked", "1.5 turn", "split leap"), 0),
    (("flic-flac", "Salto Backward", "unheard of"), 1),
    (("split leap with 1 turn", "1.5 turn"), 1),
]


def questions(rows):
    return [
        Question(question_id="0", video="v", stem="Which?", options=options, answer=answer)
        for options, answer in rows
    ]


def test_a_word_keeps_its_hyphen_and_its_decimals():
    found = words("Flic-flac with 1.5 turn, (also from side) to 2 turn.")
    assert found == {"flic-flac", "with", "1.5", "turn", "also", "from", "side", "to", "2"}


def test_nearness_is_the_mean_overlap_with_the_others():
    _, asked = option_tables(questions(TRAIN), questions(ASKED))
    near = word_similarity(asked)
    for row, (options, _) in enumerate(ASKED):
        expected = [oracle.mean_overlap(options, place) for place in range(len(options))]
        assert near[row].tolist() == pytest.approx(expected + [0] * (4 - len(options)))


def test_nearness_asks_once_for_each_pair_that_meets():
    asked = []

    def nearness(one, other):
        asked.append((one, other))
        return 10 * one + other

    near = mean_similarity(np.array([[3, 1, -1], [1, 3, 2]]), nearness)
    assert sorted(asked) == [(1, 2), (1, 3), (2, 3)]
    assert near.tolist() == [[13, 13, 0], [(13 + 12) / 2, (13 + 23) / 2, (12 + 23) / 2]]


def test_the_classifier_learns_what_plain_gradient_ascent_learns():
    train, asked = option_tables(questions(TRAIN), questions(ASKED))
    scores = classifier_scores(train, asked, word_similarity(asked))
    expected = oracle.learned_scores(TRAIN, [options for options, _ in ASKED])
    for found, wanted in zip(scores.tolist(), expected, strict=True):
        assert np.subtract(found[: len(wanted)], found[0]) == pytest.approx(
            np.subtract(wanted, wanted[0]), abs=1e-4
        )


def test_the_classifier_is_the_same_in_chunks_and_takes_even_rows_of_a_large_set(monkeypatch):
    train, asked = option_tables(questions(TRAIN), questions(ASKED))
    whole = classifier_scores(train, asked, word_similarity(asked))
    monkeypatch.setattr(text_classifier, "CHUNK", 2 * asked.printed.shape[1])
    assert classifier_scores(train, asked, word_similarity(asked)) == pytest.approx(whole)
    many = [one for row in TRAIN for one in (row, ASKED[0])][:-1]
    large, asked = option_tables(questions(many), questions(ASKED))
    monkeypatch.setattr(text_classifier, "MAX_OPTIONS", len(TRAIN) * large.printed.shape[1])
    assert classifier_scores(large, asked, word_similarity(asked)) == pytest.approx(whole)


def test_a_word_that_marks_the_answer_is_found_and_its_position_is_not_needed():
    rng = np.random.default_rng(0)
    nouns = [f"move{i}" for i in range(40)]
    rows = []
    for _ in range(200):
        options = [f"{noun} plain" for noun in rng.choice(nouns, 4, replace=False)]
        answer = int(rng.integers(4))
        options[answer] = options[answer].replace("plain", "marked")
        rows.append((tuple(options), answer))
    train, asked = option_tables(questions(rows[:100]), questions(rows[100:]))
    scores = classifier_scores(train, asked, word_similarity(asked))
    assert (scores.argmax(axis=1) == asked.answer).all()


def test_options_of_one_length_are_learned_from():
    rows = [(("aa", "bb", "cc"), 0), (("aa", "cc", "dd"), 0), (("bb", "dd", "cc"), 1)] * 5
    train, asked = option_tables(questions(rows), questions([(("bb", "aa"), 1)]))
    (scores,) = classifier_scores(train, asked, word_similarity(asked))
    assert scores[1] > scores[0]


def test_the_fit_recovers_the_weights_that_chose():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(4000, 4, 3))
    present = np.ones((4000, 4), dtype=bool)
    present[:2000, 3] = False
    features[:2000, 3] = np.nan  # not read
    weights = np.array([1.0, -0.5, 0.0])
    probs = choice_probs(np.nan_to_num(features) @ weights, present)
    answer = (rng.random((4000, 1)) > probs.cumsum(axis=1)).sum(axis=1)
    assert fit_conditional_logit(features, present, answer) == pytest.approx(weights, abs=0.1)


def test_a_feature_that_parts_all_answers_keeps_a_finite_weight():
    features = np.array([[[1.0], [0.0]]] * 10)
    (weight,) = fit_conditional_logit(
        features, np.ones((10, 2), dtype=bool), np.zeros(10, dtype=int)
    )
    # slope of 10 log(1 / (1 + exp(-w))) - w^2 / 2
    assert 10 / (1 + np.exp(weight)) - weight == pytest.approx(0, abs=1e-6)
