"""A question set and answers to it, for tests of the comparison."""

from pathlib import Path

from qa_data.questions import Question, write_questions
from sefar_mllm.comparison.rows import QuestionFolder
from sefar_mllm.scoring import Prediction
from tests.oracles import toy_llm

TRAIN, TEST = toy_llm.questions(24)[:12], toy_llm.questions(24)[12:]


def question_set(folder: Path) -> QuestionFolder:
    """Twelve questions to learn and twelve to answer, and their files."""
    write_questions(TRAIN, folder / "train.jsonl")
    write_questions(TEST, folder / "test.jsonl")
    return QuestionFolder(
        name="qa-hard", rule="hard", folder=folder, train=TRAIN, test=TEST, blind={}, subsets={}
    )


def answer_of(question: Question, choice: int) -> Prediction:
    """The prediction of a model that chooses this option."""
    probs = tuple(0.7 if place == choice else 0.1 for place in range(4))
    return Prediction(
        question_id=question.question_id,
        video=question.video,
        shown=question.video,
        source=question.source,
        event=question.event,
        label=question.label,
        answer=question.answer,
        probs=probs,
        first_letter=choice,
        strict=False,
    )
