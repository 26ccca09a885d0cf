"""Questions beyond "which move": one attribute of it, or the movement against its mirror image.

A question about an attribute offers the values that the classes of one FineGym set have; a mirror
question offers a class and the class that differs from it in two opposite words alone ("forward"
and "backward", "high" and "low").

A question template says what to ask and the right option of each class. The options of a question
are right answers of other clips of the same template. As many clips get a question as can be such
that whoever reads question and options is right once in k, by a `BlockDesign` over the answers.
The others are left out: an answer that most clips have could be guessed.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

from qa_data.attributes import TURNS, Attributes, attributes_of, family_of
from qa_data.balanced_design import block_design
from qa_data.generate import PoolReport, QuestionSet, balance_letters, check_classes
from qa_data.manifest import Clip
from qa_data.questions import STEM, Question, QuestionError
from qa_data.taxonomy import DIRECTIONS, ElementClass, opposite_pairs


@dataclass(frozen=True, kw_only=True)
class QuestionTemplate:
    """One question for the clips of some classes."""

    name: str
    """Becomes the questions' answer_type."""
    scope: str
    """The classes it applies to, for the report."""
    stem: str
    answers: Mapping[int, str]
    """The right option by class; clips of other classes get no question."""
    classes_of_options: bool = False
    """Whether the options are classes' texts."""


MIRRORS = (DIRECTIONS, ("high", "low"))
# Movements that turn the body by their nature, by an angle that their text does not give.
TURNING = ("arabian", "johnson", "round-off", "cartwheel")


class AttributeQuestion(NamedTuple):
    """How one attribute is asked about."""

    name: str
    stem: str
    value: Callable[[Attributes], str | None]
    """The right option; none if the text does not name one."""


ATTRIBUTE_QUESTIONS = (
    AttributeQuestion(
        "direction",
        "Does the movement go forward or backward?",
        lambda one: one.direction if one.direction in DIRECTIONS else None,
    ),
    AttributeQuestion(
        "turns",
        "How many turns about the long axis does the athlete make?",
        lambda one: None if one.turns is None else f"{one.turns:g}",
    ),
    AttributeQuestion(
        "turning",
        "Does the athlete turn about the long axis?",
        lambda one: None if one.turns is None else _yes_or_no(one.turns > 0),
    ),
    AttributeQuestion(
        "saltos",
        "How many saltos does the athlete make in the air?",
        lambda one: str(one.saltos),
    ),
    AttributeQuestion(
        "shape",
        "What shape is the body in during the salto?",
        lambda one: one.shape if one.saltos else None,
    ),
    AttributeQuestion(
        "stretched",
        "Is the body stretched during the salto?",
        lambda one: _yes_or_no(one.shape == "stretched") if one.saltos and one.shape else None,
    ),
)


def attribute_questions(
    clips: Sequence[Clip],
    classes: Mapping[int, ElementClass],
    *,
    seed: int,
    num_options: int = 4,
) -> QuestionSet:
    """For each clip, one question of each ATTRIBUTE_QUESTIONS with several answers in its set.

    A question has `num_options` options, fewer where there are not as many values.

    Raises:
        QuestionError: there are no clips, a clip does not fit the class list, or no question
            can be asked at chance.
    """
    members: dict[int, list[ElementClass]] = defaultdict(list)
    for element in classes.values():
        members[family_of(element)].append(element)
    templates = [
        _template(attribute, family, elements)
        for attribute in ATTRIBUTE_QUESTIONS
        for family, elements in sorted(members.items())
    ]
    return _build_all(clips, classes, templates, seed=seed, num_options=num_options)


def pair_questions(
    clips: Sequence[Clip], classes: Mapping[int, ElementClass], *, seed: int
) -> QuestionSet:
    """Is it this movement or its mirror image: two options, for the clips of opposing classes.

    Raises:
        QuestionError: there are no clips, a clip does not fit the class list, or no pair has
            clips of both classes.
    """
    pairs = sorted({pair for words in MIRRORS for pair in opposite_pairs(classes.values(), words)})
    templates = [
        QuestionTemplate(
            name="pair",
            scope=f"classes {one} and {other}",
            stem=STEM,
            answers={label: classes[label].text for label in (one, other)},
            classes_of_options=True,
        )
        for one, other in pairs
    ]
    return _build_all(clips, classes, templates, seed=seed, num_options=2)


def _template(
    attribute: AttributeQuestion, family: int, elements: Sequence[ElementClass]
) -> QuestionTemplate:
    answers = {}
    for element in elements:
        found = attributes_of(element)
        if element.event != "VT" and (
            TURNS.search(found.kind) or any(word in found.kind for word in TURNING)
        ):
            found = replace(found, turns=None)
        value = attribute.value(found)
        if value is not None:
            answers[element.label] = value
    stem = attribute.stem
    if elements[0].event == "VT":
        stem = f"{stem.removesuffix('?')} after leaving the vault table?"
    return QuestionTemplate(name=attribute.name, scope=f"set {family}", stem=stem, answers=answers)


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def _build_all(
    clips: Sequence[Clip],
    classes: Mapping[int, ElementClass],
    templates: Sequence[QuestionTemplate],
    *,
    seed: int,
    num_options: int,
) -> QuestionSet:
    """The questions of all templates, in order of templates and clips, letters balanced by name."""
    check_classes(clips, classes)
    by_name: dict[str, list[Question]] = defaultdict(list)
    reports: list[PoolReport] = []
    for template in templates:
        questions, found = _build(clips, classes, template, seed, num_options)
        by_name[template.name] += questions
        reports += found
    balanced = [one for questions in by_name.values() for one in balance_letters(questions, seed)]
    if not balanced:
        raise QuestionError(
            f"of {len(clips)} clips none can be asked about its "
            f"{', '.join(sorted({one.name for one in templates}) or ['mirror image'])} at chance: "
            f"no set has clips with different answers; ask which move it is"
        )
    numbered = [replace(one, question_id=f"{i:07d}") for i, one in enumerate(balanced)]
    return QuestionSet(questions=numbered, pools=reports)


def _build(
    clips: Sequence[Clip],
    classes: Mapping[int, ElementClass],
    template: QuestionTemplate,
    seed: int,
    num_options: int,
) -> tuple[list[Question], list[PoolReport]]:
    """Questions without numbers, and what became of the clips."""
    fitting = [clip for clip in clips if clip.label in template.answers]
    counts = Counter(template.answers[clip.label or 0] for clip in fitting)
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
        rng = random.Random(f"{seed}/{clip.id}/{template.name}")
        answer = template.answers[clip.label or 0]
        block = design.draw(values.index(answer), rng)
        if block is None:
            left[answer] += 1
        else:
            options = rng.sample([values[unit] for unit in block], size)
            questions.append(_question(clip, classes, template, options, answer))
    return questions, _reports(template, size, len(questions), left)


def _question(
    clip: Clip,
    classes: Mapping[int, ElementClass],
    template: QuestionTemplate,
    options: Sequence[str],
    answer: str,
) -> Question:
    label_of = {text: label for label, text in template.answers.items()}
    return Question(
        question_id="",
        video=clip.id,
        stem=template.stem,
        options=tuple(options),
        answer=options.index(answer),
        label=clip.label,
        option_labels=tuple(label_of[one] for one in options)
        if template.classes_of_options
        else None,
        event=classes[clip.label or 0].event,
        source=clip.source,
        frame_length=clip.num_frames,
        answer_type=template.name,
    )


def _reports(
    template: QuestionTemplate, size: int, built: int, left: Counter[str]
) -> list[PoolReport]:
    name = f"{template.name} in {template.scope}"
    reports = [PoolReport(pool=name, clips=built, asked=True, bound=1 / size)]
    if over := left.total():
        bound = max(1 / size, max(left.values()) / over)
        reports.append(
            PoolReport(pool=f"{name}, commoner answers", clips=over, asked=False, bound=bound)
        )
    return reports
