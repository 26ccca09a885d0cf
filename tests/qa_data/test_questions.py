"""The question record: what makes it sound, and the line that the public files print."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_data.questions import (
    LETTERS,
    Question,
    QuestionError,
    check_question,
    count_repeats,
    line_problem,
    split_line,
)
from tests.finegym import finegym_folder

QUESTION = Question(
    question_id="0000000", video="clip", stem="Which?", options=("one", "two"), answer=1
)
# Letters, full stops and blanks, of which markers such as " B." are made, and a few others.
TEXTS = st.text(alphabet="ABCD. ?é", min_size=1, max_size=8)


def test_letters_and_lines_are_printed_as_in_the_public_files():
    assert QUESTION.letter == "B"
    assert QUESTION.line == "Which? A.one B.two"


def test_sound_questions_have_no_problem_even_with_repeated_texts():
    repeated = replace(QUESTION, options=("two", "two", "three"))
    assert check_question(repeated) is None
    elsewhere = replace(QUESTION, options=("one", "two", "one"))
    assert count_repeats([QUESTION, repeated, elsewhere]) == {
        "some_option_twice": 2,
        "right_option_twice": 1,
    }


@given(st.lists(TEXTS, min_size=2, max_size=6), TEXTS)
@settings(max_examples=100, deadline=None)
def test_a_line_without_problem_is_told_apart_again_and_another_never_in_silence(options, stem):
    question = replace(QUESTION, options=tuple(options), stem=f"{stem}?")
    if line_problem(question) is None:
        assert split_line(question.line) == (question.stem, question.options)
    else:
        try:
            assert split_line(question.line) != (question.stem, question.options)
        except QuestionError as error:
            assert "expected" in str(error)


@pytest.mark.parametrize("count", range(2, 27))
def test_every_number_of_letters_is_told_apart(count):
    line = " ".join(["Which?", *(f"{letter}.move" for letter in LETTERS[:count])])
    assert split_line(line) == ("Which?", ("move",) * count)


@pytest.mark.lists
@pytest.mark.parametrize("benchmark", ["gym99", "gym288", "gym530"])
def test_every_class_text_of_finegym_can_stand_at_every_letter(benchmark):
    text = (finegym_folder() / f"{benchmark}_categories.txt").read_text(encoding="utf-8")
    texts = [line.partition(") ")[2].strip() for line in text.splitlines() if line.strip()]
    assert len(texts) == int(benchmark.removeprefix("gym"))
    for start in range(len(texts)):
        options = tuple(texts[(start + 7 * place) % len(texts)] for place in range(6))
        assert line_problem(replace(QUESTION, options=options)) is None


@pytest.mark.parametrize("missing", range(25))
def test_a_missing_letter_is_named(missing):
    texts = [f"{letter}.move" for i, letter in enumerate(LETTERS) if i != missing]
    with pytest.raises(QuestionError) as caught:
        split_line(" ".join(["Which?", *texts]))
    named = "expected a question mark" if missing == 0 else f"option {LETTERS[missing]} is missing"
    assert named in str(caught.value)


def test_one_option_alone_is_refused():
    with pytest.raises(QuestionError, match="option B is missing"):
        split_line("Which? A.one")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"options": ("one", "")}, "option B is empty"),
        ({"options": tuple("abcdefghijklmnopqrstuvwxyzä")}, "it has 27 options"),
        ({"answer": 2}, "the answer is option 2 of 2"),
        ({"video": "\ud83d"}, "half a character"),
        ({"option_labels": (1, 2), "label": 1}, "the right option's class is 2"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(change, found):
    problem = check_question(replace(QUESTION, **change))
    assert problem is not None and found in problem


def test_whole_characters_outside_the_first_plane_are_sound():
    assert check_question(replace(QUESTION, stem="🤸?")) is None
