"""The files of spoken answers and of the options' texts, there and back."""

import pytest

from qa_data.files import SefarError
from qa_data.questions import Question
from sefar_mllm.answer_text import (
    GeneratedAnswer,
    OtherFormats,
    TextScore,
    read_other_formats,
    write_other_formats,
)

LINE_SIGNS = "salto\u2028tucked\u0085\u2029\x0b\x0c\r\n"


def test_answers_with_any_sign_of_a_lines_end_come_back(tmp_path):
    question = Question(
        question_id="7", video="clip", stem="Which?", options=("salto", LINE_SIGNS), answer=1
    )
    answers = OtherFormats(
        generated=[GeneratedAnswer(question_id="7", text=LINE_SIGNS, choice=None)],
        texts={"7": TextScore((-1.5, -2.0), (3, 4))},
    )
    write_other_formats([question], answers, tmp_path, "test")
    assert read_other_formats(tmp_path, "test") == answers


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "spoken-test.jsonl").write_text('{"question_id": "1"}\n{"question_')
    with pytest.raises(SefarError, match=r"spoken-test\.jsonl, line 2 is not a JSON object"):
        read_other_formats(tmp_path, "test")
