"""Questions beyond "which move": one attribute of it, or the movement against its mirror image.

The clips of a set of FineGym's are asked for one attribute, the options being values that the
set's classes have; a question of Gym-New's kind shows a class and the class that differs from it
in two opposite words alone ("forward" and "backward", "high" and "low"). Both are at chance by
construction (see `inquiry`).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from qa_data.attributes import TURNS, Attributes, attributes_of, family_of
from qa_data.generate import QuestionSet
from qa_data.inquiry import Inquiry, ask_all
from qa_data.manifest import Clip
from qa_data.question import STEM
from qa_data.taxonomy import DIRECTIONS, ElementClass, opposite_pairs

MIRRORS = (DIRECTIONS, ("high", "low"))
# Movements that turn the body by their nature, by as much as their text does not say.
TURNING = ("arabian", "johnson", "round-off", "cartwheel")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A question about one attribute."""

    name: str
    stem: str
    value: Callable[[Attributes], str | None]
    """The right option; none if the text does not tell."""


KINDS = (
    Kind(
        name="direction",
        stem="Does the movement go forward or backward?",
        value=lambda one: one.direction if one.direction in DIRECTIONS else None,
    ),
    Kind(
        name="turns",
        stem="How many turns about the long axis does the athlete make?",
        value=lambda one: None if one.turns is None else f"{one.turns:g}",
    ),
    Kind(
        name="turning",
        stem="Does the athlete turn about the long axis?",
        value=lambda one: None if one.turns is None else _yes_or_no(one.turns > 0),
    ),
    Kind(
        name="saltos",
        stem="How many saltos does the athlete make in the air?",
        value=lambda one: str(one.saltos),
    ),
    Kind(
        name="shape",
        stem="What shape is the body in during the salto?",
        value=lambda one: one.shape if one.saltos else None,
    ),
    Kind(
        name="stretched",
        stem="Is the body stretched during the salto?",
        value=lambda one: (
            _yes_or_no(one.shape == "stretched") if one.saltos and one.shape else None
        ),
    ),
)


def attribute_questions(
    clips: Sequence[Clip],
    classes: Mapping[int, ElementClass],
    *,
    seed: int,
    num_options: int = 4,
) -> QuestionSet:
    """For each clip one question of each of KINDS that its set has different answers to.

    Args:
        clips: all with a class.
        classes: the class list that their labels count in.
        seed: of all draws.
        num_options: options of a question, fewer where there are not as many values.

    Raises:
        QuestionError: there are no clips, a clip does not fit the class list, or nothing can be
            asked at chance.
    """
    members: dict[int, list[ElementClass]] = defaultdict(list)
    for element in classes.values():
        members[family_of(element)].append(element)
    inquiries = [
        _inquiry(kind, family, elements)
        for kind in KINDS
        for family, elements in sorted(members.items())
    ]
    return ask_all(clips, classes, inquiries, seed=seed, num_options=num_options)


def pair_questions(
    clips: Sequence[Clip], classes: Mapping[int, ElementClass], *, seed: int
) -> QuestionSet:
    """Is it this movement or its mirror image: two options, for the clips of opposing classes.

    Args:
        clips: all with a class.
        classes: the class list that their labels count in.
        seed: of all draws.

    Raises:
        QuestionError: there are no clips, a clip does not fit the class list, or no pair has
            clips of both classes.
    """
    pairs = sorted({pair for words in MIRRORS for pair in opposite_pairs(classes.values(), words)})
    inquiries = [
        Inquiry(
            name="pair",
            scope=f"classes {one} and {other}",
            stem=STEM,
            answers={label: classes[label].text for label in (one, other)},
            classes_of_options=True,
        )
        for one, other in pairs
    ]
    return ask_all(clips, classes, inquiries, seed=seed, num_options=2)


def _inquiry(kind: Kind, family: int, elements: Sequence[ElementClass]) -> Inquiry:
    answers = {}
    for element in elements:
        found = attributes_of(element)
        if element.event != "VT" and (
            TURNS.search(found.kind) or any(word in found.kind for word in TURNING)
        ):
            found = replace(found, turns=None)
        value = kind.value(found)
        if value is not None:
            answers[element.label] = value
    stem = kind.stem
    if elements[0].event == "VT":
        stem = f"{stem.removesuffix('?')} after leaving the vault table?"
    return Inquiry(name=kind.name, scope=f"set {family}", stem=stem, answers=answers)


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
