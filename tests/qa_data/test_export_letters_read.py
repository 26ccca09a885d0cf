"""Two readers of letters, ours and the one that goes out with a task, agree on the same answers."""

import pytest

from qa_data.export.lmms_eval_functions import read_letter
from sefar_mllm.scoring import parse_letter

OPTIONS = ["salto forward", "full", "A double salto", "giant circle of type B"]

NO_SINGLE_OPTION = [
    "A: B",
    "A. B",
    "A) B)",
    "(A) (B)",
    "A.B.C.D",
    "A. B. C. D.",
    "A\nB",
    "A. and B.",
    "A: B or C",
    "A: A, B",
    "A. salto forward B. full C. A double salto",
    "A. salto forward\nB. full",
    "A. salto forward (B) full",
    "A, B",
    "A or B",
    "AB",
    "A salto",
    "",
]
ONE_OPTION = [
    ("B", 1),
    ("(B)", 1),
    ("B.", 1),
    ("B. full", 1),
    ("C. A double salto", 2),
    ("C: A double salto", 2),
    ("D. giant circle of type B", 3),
    ("D) giant circle of type B.", 3),
    ("A: A", 0),
    ("A. (A)", 0),
    ("B. full, since A is wrong", 1),
    ("B. E", 1),
    ("A. I think", 0),
    ("B. full\nA triple would be higher", 1),
]
IN_A_SENTENCE = [
    ("Answer: A, B", None),
    ("Answer: A; C.", None),
    ("Answer: A. B. C.", None),
    ("The answer is A: B", None),
    ("Answer: A, or B", None),
    ("The answer is A, not B", "A"),
    ("Answer: (A).", "A"),
    ("The answer is B. A double salto has more turns", "B"),
    ("Answer: B, A double salto is not seen", "B"),
]


@pytest.mark.parametrize("said", NO_SINGLE_OPTION)
def test_neither_reads_an_answer_that_names_no_single_option(said):
    assert parse_letter(said, len(OPTIONS)) is None
    assert read_letter(said, OPTIONS) is None


@pytest.mark.parametrize(("said", "place"), ONE_OPTION)
def test_both_read_an_answer_that_begins_with_one_option(said, place):
    assert parse_letter(said, len(OPTIONS)) == place
    assert read_letter(said, OPTIONS) == "ABCD"[place]


@pytest.mark.parametrize(("said", "letter"), IN_A_SENTENCE)
def test_a_sentence_names_one_option_or_none(said, letter):
    assert read_letter(said, OPTIONS) == letter
    assert parse_letter(said, len(OPTIONS)) is None
