"""Training questions with other wrong options in every epoch.

What a question asks, its right answer and its clip stay; what stands beside the answer is drawn
anew by a rule of the builder. Under `hard` the options of every epoch are exchangeable, so that no
epoch teaches which answer is likely.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from qa_data.distractors import OTHER_NAMES
from qa_data.generate import build_questions
from qa_data.manifest import Clip
from qa_data.question import Question, QuestionError
from qa_data.taxonomy import ElementClass


def redrawn(
    questions: Sequence[Question],
    clips: Sequence[Clip],
    classes: Mapping[int, ElementClass],
    *,
    rule: str,
    seed: int,
) -> Callable[[int], list[Question]]:
    """A function from the epoch to the same questions, in their order, with options of its own.

    An epoch's options are a function of (seed, epoch, clip), and of which clips are asked about.

    Args:
        questions: one a clip, about which move it is, all with as many options.
        clips: of the manifest; those asked about need a class.
        classes: the class list that their labels count in.
        rule: of the wrong options, one of generate.RULES or of OTHER_NAMES.
        seed: of all draws.

    Raises:
        QuestionError: two questions are about one clip, a clip is missing or has no class, the
            numbers of options differ, or the right option is not the text of the clip's class.
        TooFewOptions: the rule finds too few wrong options.
    """
    size = _only_size(questions)
    wanted = {question.video for question in questions}
    asked = [clip for clip in clips if clip.id in wanted]
    if lost := sorted(wanted - {clip.id for clip in asked}):
        raise QuestionError(
            f"{len(lost)} of {len(wanted)} clips are not in the manifest, the first is {lost[0]}; "
            f"take questions and manifest of one set"
        )

    def draw(epoch: int) -> list[Question]:
        epoch_seed = random.Random(f"{seed}/{epoch}/redraw").getrandbits(48)
        built = build_questions(
            asked,
            classes,
            rule=OTHER_NAMES.get(rule, rule),
            seed=epoch_seed,
            num_options=size,
            common="keep",
        )
        of_clip = {one.video: one for one in built.questions}
        return [_with_options(question, of_clip.get(question.video)) for question in questions]

    return draw


def _only_size(questions: Sequence[Question]) -> int:
    clip, count = Counter(question.video for question in questions).most_common(1)[0]
    if count > 1:
        raise QuestionError(
            f"{count} questions are about {clip}, and options are redrawn for one question a clip; "
            f"give one question file, or leave out --redraw"
        )
    sizes = sorted({len(question.options) for question in questions})
    if len(sizes) > 1:
        raise QuestionError(
            f"the questions have {', '.join(map(str, sizes))} options, and options are redrawn for "
            f"questions of one size; leave out --redraw"
        )
    return sizes[0]


def _with_options(question: Question, other: Question | None) -> Question:
    if other is None:
        raise QuestionError(
            f"question {question.question_id}: its clip {question.video} shows too few different "
            f"texts on its apparatus for this rule; redraw by another, or leave out --redraw"
        )
    right = question.options[question.answer]
    if (found := other.options[other.answer]) != right:
        raise QuestionError(
            f"question {question.question_id}: the right option is {right!r}, but the clip's class "
            f"is {found!r}; options can be redrawn for questions about which move it is alone"
        )
    return replace(
        question, options=other.options, answer=other.answer, option_labels=other.option_labels,
        label=other.label,
    )  # fmt: skip
