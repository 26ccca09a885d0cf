"""Ways to ask which move a clip shows."""

import random
from collections.abc import Sequence
from dataclasses import replace

from qa_data.question import STEM, Question, QuestionError

WORDINGS = (
    STEM,
    "Which gymnastics element is shown in this clip?",
    "What is the name of the skill that the gymnast performs here?",
    "Which of these descriptions fits the movement in the video?",
    "Which element does the athlete show?",
    "How would a judge describe the movement in this video?",
    "Which of the following skills can be seen in the clip?",
)


def reworded(questions: Sequence[Question], wordings: int, seed: int) -> list[Question]:
    """The questions, each in one of the first `wordings` of WORDINGS, all equally likely.

    The wording depends on the seed and the clip, so that it says nothing about the answer.

    Raises:
        QuestionError: there are not as many wordings.
    """
    if not 1 <= wordings <= len(WORDINGS):
        raise QuestionError(
            f"{wordings} wordings are asked for; there are {len(WORDINGS)}, of which 1 takes the "
            f"public one alone"
        )
    if wordings == 1:
        return list(questions)
    return [
        replace(one, stem=random.Random(f"{seed}/{one.video}/wording").choice(WORDINGS[:wordings]))
        for one in questions
    ]
