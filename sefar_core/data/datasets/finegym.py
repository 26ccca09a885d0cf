"""FineGym: the official class list, element lists and annotations, whole or in part.

The official validation list is the test split; the training list is the pool. A part (one
apparatus, one set, or Gym-New) is cut out of the lists of Gym99 or Gym288, and its classes are
numbered from 0 in the order of their labels there, as in the public lists of SeFAR
(arXiv:2501.01245): the 25 classes of Gym99's bars are its labels 74 to 98, less 74.

Gym-New holds pairs of Gym288 classes that look alike in every picture and differ in their motion.
Two classes are opposites if their texts are the same but for "forward" and "backward", or for
"high bar" and "low bar". Gym288 has 24 such pairs, and the public label files of SeFAR have 20 of
them. LEFT_OUT matches the other four; the paper gives no reason, so the rule is read off its files.

Format of the files: SDOlivia/FineGym, gh-pages, index.html.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from qa_data.finegym import (
    AnnotationError,
    TimeSpan,
    merge_times,
    read_elements,
    times_of_clips,
    to_clips,
)
from qa_data.manifest import Clip
from qa_data.taxonomy import (
    DIRECTIONS,
    EVENTS,
    ElementClass,
    TaxonomyError,
    opposite_pairs,
    read_categories,
)
from sefar_core.data.datasets.records import ListError, Listing

BARS = ("high bar", "low bar")

# Of the floor's saltos the stretched ones only; and no giant circle with half a turn.
LEFT_OUT = re.compile(r"FX .*salto .*(tucked|piked).*|UB giant circle .* with 0\.5 turn .*")
# "UB-S1" is the first set of the uneven bars, event 4: number 41.
SET_OF_EVENT = re.compile(rf"({'|'.join(EVENTS.values())})-S([1-9])")
NUMBER_OF_EVENT = {event: number for number, event in EVENTS.items()}


def read_finegym(
    categories: Path,
    train_list: Path,
    test_list: Path,
    *,
    part: str = "all",
    videos: Literal["trimmed", "full"] = "trimmed",
    annotations: tuple[Path, ...] = (),
) -> Listing:
    """Gym99, Gym288 or a part of them, from FineGym's own files.

    Args:
        categories: class list, such as gym99_categories.txt.
        train_list: element list of the training pool, such as gym99_train_element_v1.1.txt.
        test_list: element list of the test split, such as gym99_val_element.txt.
        part: all; an apparatus: VT, FX, BB, UB; a set by its number (41) or its place on the
            apparatus (UB-S1); or gym_new, the pairs of opposite classes of Gym288.
        videos: files are clips (`<clip id>.mp4`), or whole source videos (`<source>.mp4`).
        annotations: annotation JSON or CSV of times, one or several; full videos need them, and
            for trimmed ones they make the report of near-duplicates exact.

    Raises:
        ListError: a file is missing or damaged, the lists do not belong together, or there is no
            such part.
    """
    if videos == "full" and not annotations:
        raise ListError(
            "videos are 'full', but there are no annotations, which hold where clips begin: give "
            "FineGym's annotation file, or say 'trimmed' if the files are clips"
        )
    try:
        known = read_categories(categories)
        classes = part_of(known, part)
        times = merge_times(annotations)
        cut = times if videos == "full" else None
        pool = _clips(train_list, known, classes, split="labeled", times=cut)
        test = _clips(test_list, known, classes, split="test", times=cut)
        trimmed = [] if cut else [clip.id for clip in (*pool, *test)]
        beside = times_of_clips(trimmed, times) if times else {}
    except (TaxonomyError, AnnotationError) as cause:
        raise ListError(str(cause)) from cause
    names = names_of(classes.values())
    return Listing(classes=names, pool=pool, settled=test, times=beside)


def part_of(known: Mapping[int, ElementClass], part: str) -> dict[int, ElementClass]:
    """The classes of a part under their labels in the class list, each with its label in the part.

    Raises:
        ListError: no class is of that part.
    """
    if part == "gym_new":
        labels = gym_new_labels(known.values())
        return {old: replace(known[old], label=label) for old, label in labels.items()}
    place = SET_OF_EVENT.fullmatch(part)
    name = f"{NUMBER_OF_EVENT[place[1]]}{place[2]}" if place else part
    kept = sorted(
        label for label, one in known.items() if name in ("all", one.event, str(one.set_id))
    )
    if not kept:
        events = sorted({one.event for one in known.values()})
        sets = sorted({one.set_id for one in known.values()})
        raise ListError(
            f"the class list has no class of part {part!r}; its parts are all, gym_new, the "
            f"apparatuses {', '.join(events)} and the sets {', '.join(map(str, sets))}"
        )
    return {old: replace(known[old], label=label) for label, old in enumerate(kept)}


def gym_new_labels(classes: Iterable[ElementClass]) -> dict[int, int]:
    """Label in Gym-New by label in the class list: the k-th pair becomes 2k and 2k + 1.

    Raises:
        ListError: no two classes are opposites, or a class has two opposites.
    """
    kept = [one for one in classes if not LEFT_OUT.fullmatch(f"{one.event} {one.text}")]
    pairs = sorted(opposite_pairs(kept, DIRECTIONS) + opposite_pairs(kept, BARS))
    labels = [label for pair in pairs for label in pair]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ListError(
            f"class {twice[0]} has two opposites in the class list, so that no pairs can be made; "
            f"Gym-New is made from gym288_categories.txt"
        )
    if not pairs:
        raise ListError(
            "no two classes of the class list are opposites, so that it holds no Gym-New; Gym-New "
            "is made from gym288_categories.txt"
        )
    return {label: number for number, label in enumerate(labels)}


def names_of(classes: Iterable[ElementClass]) -> dict[int, str]:
    """Names by label: the text, with apparatus, set or number in Gym530 where it takes them.

    Classes may read alike: `salto backward tucked` is two classes of Gym99, both on the beam.
    """
    forms = {
        one.label: (
            one.text,
            f"({one.event}) {one.text}",
            f"({one.event}, set {one.set_id}) {one.text}",
            f"({one.event}, set {one.set_id}, Gym530 class {one.glabel}) {one.text}",
        )
        for one in classes
    }
    shared = Counter(form for several in forms.values() for form in several)
    return {
        label: next((form for form in several if shared[form] == 1), several[-1])
        for label, several in sorted(forms.items())
    }


def _clips(
    path: Path,
    known: Mapping[int, ElementClass],
    classes: Mapping[int, ElementClass],
    *,
    split: str,
    times: Mapping[str, TimeSpan] | None,
) -> list[Clip]:
    elements = read_elements(path)
    if unknown := sorted({label for _, label in elements} - known.keys()):
        raise AnnotationError(
            f"{path} has label {unknown[0]}, but the class list ends at {max(known)}; is it the "
            f"list of another benchmark?"
        )
    kept = [(clip_id, label) for clip_id, label in elements if label in classes]
    if not kept:
        raise AnnotationError(
            f"{path} has no clip of the part's {len(classes)} classes; is it the list of another "
            f"benchmark?"
        )
    return to_clips(kept, classes, split=split, times=times)
