import math

import pytest
import torch

from qa_data.questions import Question
from sefar_mllm.scoring import as_prediction, option_log_probs, option_probs, parse_letter, rotate

OPTIONS = ("one", "two", "three", "four")


def logits(seed=0, questions=3, count=4):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(questions, count, count, generator=generator)


def oracle(table):
    """Mean log-probability of each option, in plain floats, by asking which option a letter is."""
    count = len(table)
    totals = dict.fromkeys(OPTIONS[:count], 0.0)
    for rotation, row in enumerate(table):
        norm = math.log(sum(math.exp(value) for value in row))
        for letter, text in enumerate(rotate(OPTIONS[:count], rotation)):
            totals[text] += (row[letter] - norm) / count
    return list(totals.values())


@pytest.mark.parametrize("count", [2, 3, 4])
def test_options_get_the_mean_log_probability_of_their_letters(count):
    table = logits(count=count)
    expected = torch.tensor([oracle(one.tolist()) for one in table])
    torch.testing.assert_close(option_log_probs(table).mean(dim=1), expected)
    torch.testing.assert_close(option_probs(table), expected.softmax(dim=-1))


def test_a_liking_for_letters_cancels():
    bias = torch.tensor([5.0, -1.0, 0.0, 2.0])
    # A per-letter bias changes each rotation's normalization, and no order of options.
    flat = option_probs(torch.zeros(1, 4, 4) + bias)
    torch.testing.assert_close(flat, torch.full((1, 4), 0.25))


def test_rotating_the_question_rotates_the_probabilities():
    table = logits()
    # Rotation r of the question that begins with option 1 is rotation r + 1 of the original.
    again = table.roll(-1, dims=1)
    torch.testing.assert_close(option_probs(again), option_probs(table).roll(-1, dims=1))


def test_every_option_visits_every_letter_once():
    seen = {(letter, text) for r in range(4) for letter, text in enumerate(rotate(OPTIONS, r))}
    assert len(seen) == 16


def test_strict_asks_for_the_right_letter_in_every_rotation():
    always = torch.zeros(1, 4, 4)
    for rotation in range(4):
        always[0, rotation, rotate(OPTIONS, rotation).index("three")] = 3.0
    once_wrong = always.clone()
    once_wrong[0, 2, rotate(OPTIONS, 2).index("one")] = 4.0
    both = torch.cat([always, once_wrong])
    question = Question(question_id="0", video="v", stem="Which move?", options=OPTIONS, answer=2)
    assert [as_prediction(question, "v", table).strict for table in both] == [True, False]
    assert option_probs(both).argmax(dim=1).tolist() == [2, 2]


def test_missing_rotations_are_refused():
    with pytest.raises(ValueError, match="4 options need 4 rotations"):
        option_log_probs(torch.zeros(1, 3, 4))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("C", 2),
        (" C ", 2),
        ("\nC", 2),
        ("C.", 2),
        ("(B) salto", 1),
        ("(B", 1),
        ("D: giant circle", 3),
        ("A. salto forward", 0),
        ("A.", 0),
        ("A \nsalto forward", 0),
        ("E", None),
        ("E. salto", None),
        ("C, I think", None),
        ("The answer is C.", None),
        ("Best option:(C)", None),
        ("c", None),
        ("CD", None),
        ("\u00c1", None),
    ],
)
def test_only_a_leading_letter_is_an_answer(text, place):
    assert parse_letter(text, 4) == place


@pytest.mark.parametrize(
    ("text", "misread"),
    [
        ("", "found in every right answer by a search of the output in it"),
        ("(", "found in every right answer by a search of the output in it"),
        ("Based on the video, the answer is D", "B, as the first capital anywhere"),
        ("Athlete performs a salto", "A, as the first capital anywhere"),
        ("I cannot tell", "C, where failures become an answer"),
        ("a double salto, option D", "A, as a word of one letter in any case"),
        ("A salto forward", "A, where a blank ends the letter"),
        ("A\tsalto forward", "A, where a blank ends the letter"),
    ],
)
def test_what_other_parsers_misread_is_no_answer(text, misread):
    assert parse_letter(text, 4) is None, misread


@pytest.mark.parametrize("count", [2, 3, 26])
def test_there_are_as_many_letters_as_options(count):
    places = [parse_letter(letter, count) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    assert places == [*range(count), *[None] * (26 - count)]
