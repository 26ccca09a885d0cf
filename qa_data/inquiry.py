"""Questions whose right answer follows from the clip's class: put to as many clips as can be fair.

The options of a question are right answers of other clips of the same inquiry. As many clips are
asked as can be such that whoever reads question and options is right once in k, by a `BlockDesign`
over the answers. The others are left out: an answer that most clips have could be guessed.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from qa_data.block_design import block_design
from qa_data.generate import QuestionSet, balance_letters, check_clips
from qa_data.manifest import Clip
from qa_data.pool_report import PoolReport
from qa_data.question import Question, QuestionError
from qa_data.taxonomy import ElementClass


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """One question for the clips of some classes."""

    name: str
    """What is asked, which becomes the questions' answer_type."""
    scope: str
    """Where it is asked, for the report."""
    stem: str
    answers: Mapping[int, str]
    """The right option by class; clips of other classes are not asked."""
    classes_of_options: bool = False
    """Whether the options are classes' texts."""


def ask_all(
    clips: Sequence[Clip],
    classes: Mapping[int, ElementClass],
    inquiries: Sequence[Inquiry],
    *,
    seed: int,
    num_options: int,
) -> QuestionSet:
    """The questions of all inquiries, in their order and the clips', letters balanced in each kind.

    Args:
        clips: all with a class.
        classes: the class list that their labels count in.
        inquiries: what to ask.
        seed: of all draws.
        num_options: options of a question, fewer where there are not as many answers.

    Raises:
        QuestionError: there are no clips, a clip does not fit the class list, or nothing can be
            asked at chance.
    """
    check_clips(clips, classes)
    asked: dict[str, list[Question]] = defaultdict(list)
    reports: list[PoolReport] = []
    for inquiry in inquiries:
        questions, found = _ask(clips, classes, inquiry, seed, num_options)
        asked[inquiry.name] += questions
        reports += found
    balanced = [one for questions in asked.values() for one in balance_letters(questions, seed)]
    if not balanced:
        raise QuestionError(
            f"of {len(clips)} clips none can be asked about its "
            f"{', '.join(sorted({one.name for one in inquiries}) or ['mirror image'])} at chance: "
            f"no set has clips with different answers; ask which move it is"
        )
    numbered = [replace(one, question_id=f"{i:07d}") for i, one in enumerate(balanced)]
    return QuestionSet(questions=numbered, pools=reports)


def _ask(
    clips: Sequence[Clip],
    classes: Mapping[int, ElementClass],
    inquiry: Inquiry,
    seed: int,
    num_options: int,
) -> tuple[list[Question], list[PoolReport]]:
    """Questions without numbers, and what became of the clips."""
    fitting = [clip for clip in clips if clip.label in inquiry.answers]
    counts = Counter(inquiry.answers[clip.label or 0] for clip in fitting)
    values = sorted(counts)
    size = min(num_options, len(values))
    if size < 2:
        return [], []
    design = block_design(
        [counts[value] for value in values], list(combinations(range(len(values)), size))
    )
    questions = []
    left: Counter[str] = Counter()
    for clip in fitting:
        rng = random.Random(f"{seed}/{clip.id}/{inquiry.name}")
        answer = inquiry.answers[clip.label or 0]
        block = design.draw(values.index(answer), rng)
        if block is None:
            left[answer] += 1
        else:
            options = rng.sample([values[unit] for unit in block], size)
            questions.append(_question(clip, classes, inquiry, options, answer))
    return questions, _reports(inquiry, size, len(questions), left)


def _question(
    clip: Clip,
    classes: Mapping[int, ElementClass],
    inquiry: Inquiry,
    options: Sequence[str],
    answer: str,
) -> Question:
    label_of = {text: label for label, text in inquiry.answers.items()}
    return Question(
        question_id="",
        video=clip.id,
        stem=inquiry.stem,
        options=tuple(options),
        answer=options.index(answer),
        label=clip.label,
        option_labels=tuple(label_of[one] for one in options)
        if inquiry.classes_of_options
        else None,
        event=classes[clip.label or 0].event,
        source=clip.source,
        frame_length=clip.num_frames,
        answer_type=inquiry.name,
    )


def _reports(inquiry: Inquiry, size: int, asked: int, left: Counter[str]) -> list[PoolReport]:
    name = f"{inquiry.name} in {inquiry.scope}"
    reports = [PoolReport(pool=name, clips=asked, asked=True, bound=1 / size)]
    if over := left.total():
        bound = max(1 / size, max(left.values()) / over)
        reports.append(
            PoolReport(pool=f"{name}, commoner answers", clips=over, asked=False, bound=bound)
        )
    return reports
