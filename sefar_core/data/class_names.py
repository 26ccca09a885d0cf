"""Which class has which number: the names that a network was trained with, and those of a manifest.

A class folder that is renamed or added moves the numbers of all classes behind it. A network scores
numbers; without the names it would silently be scored against other classes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from qa_data.files import SefarError, composed, first_few
from qa_data.manifest import Clip

ClassNames: TypeAlias = tuple[str | None, ...]
"""By label; None for a class whose name is not known."""
NUM_NAMED = 3  # classes that an error names


class ClassMismatch(SefarError):
    """Classes of other names. The message names them."""


@dataclass(frozen=True, kw_only=True)
class ClassMatch:
    """How the classes of a network fit those of a manifest."""

    state: Literal["same", "by_name", "unchecked"]
    order: tuple[int, ...] | None = None
    """The network's class for each label of the manifest; None if they are the same."""
    unnamed: int = 0
    """Classes that have no two names to compare."""


def name_of(clip: Clip) -> str:
    """What a clip's class is called, its apparatus before it; empty if it has no name."""
    text = clip.text or ""
    return composed(f"{clip.event} {text}" if clip.event and text else text)


def class_names(clips: Sequence[Clip], num_classes: int | None = None) -> ClassNames:
    """The names of the classes that labeled clips show, by label.

    `class 3` as the name of class 3 is a placeholder of lists without names, and does not count.
    There is one class more than the largest label, unless their number is given.
    """
    names: dict[int, str] = {}
    for clip in clips:
        if clip.label is not None and clip.text != f"class {clip.label}":
            names[clip.label] = names.get(clip.label) or name_of(clip)
    labels = (clip.label for clip in clips if clip.label is not None)
    count = max(labels, default=-1) + 1 if num_classes is None else num_classes
    return tuple(names.get(label) or None for label in range(count))


def match_classes(known: Sequence[str | None] | None, wanted: Sequence[str | None]) -> ClassMatch:
    """Compare the classes of a network with those of a manifest.

    `known` are the network's names by class (None: it keeps none), `wanted` the manifest's by
    label. ClassMismatch if some names differ, and the classes are not the same ones in another
    order.
    """
    pairs = [
        (label, one, other)
        for label, (one, other) in enumerate(zip(known or (), wanted, strict=False))
        if one is not None and other is not None
    ]
    if not pairs:
        return ClassMatch(state="unchecked")
    differing = [pair for pair in pairs if pair[1] != pair[2]]
    if not differing:
        return ClassMatch(state="same", unnamed=len(wanted) - len(pairs))
    places = {name: place for place, name in enumerate(known or ())}
    if Counter(known) == Counter(wanted) and len(places) == len(wanted) and None not in places:
        return ClassMatch(state="by_name", order=tuple(places[name] for name in wanted))
    shown = [f"class {n} is {one!r} there and {two!r} here" for n, one, two in differing]
    named = "; ".join(first_few(shown, NUM_NAMED))
    raise ClassMismatch(f"{len(shown)} classes have other names: {named}")


def names_of_one_label(clips: Iterable[Clip]) -> dict[int, list[str]]:
    """The labels that have several names, each with these."""
    return _several(_named(clips))


def _named(clips: Iterable[Clip]) -> set[tuple[int, str]]:
    return {(c.label, name_of(c)) for c in clips if c.label is not None and c.text}


def _several(pairs: Iterable[tuple]) -> dict:
    found = defaultdict(list)
    for one, other in sorted(pairs):
        found[one].append(other)
    return {one: others for one, others in found.items() if len(others) > 1}


def class_conflicts(clips: Sequence[Clip]) -> dict[str, dict]:
    """Labels of several names and names of several labels, as splits.json records them."""
    return {
        "names_of_one_label": names_of_one_label(clips),
        "labels_of_one_name": _several((name, label) for label, name in _named(clips)),
    }


def conflict_lines(report: Mapping[str, Any]) -> list[str]:
    """A sentence for each of the conflicts that `class_conflicts` found; of many, the first."""
    names = [
        f"label {label} has several names: {', '.join(found)}"
        for label, found in report["names_of_one_label"].items()
    ]
    labels = [
        f"{name} is the name of several labels: {', '.join(map(str, found))}"
        for name, found in report["labels_of_one_name"].items()
    ]
    return [*first_few(names), *first_few(labels)]


def refuse_several_names(clips: Iterable[Clip], where: object) -> None:
    """Raise ValueError if a label has several names: some clips are of other classes."""
    if found := names_of_one_label(clips):
        label, names = next(iter(found.items()))
        raise ValueError(
            f"{where}: label {label} has several names: {', '.join(names)}; correct its columns "
            f"text and label, of which check_videos.py lists every contradiction"
        )
