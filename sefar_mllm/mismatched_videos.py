"""The control of mismatched videos: each question is shown a clip that cannot answer it.

A clip of the same class would show the right answer, and one of the same source has the same
athlete, arena and camera. Both are excluded, so that answers that are still right do not come from
the video.
"""

import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence

from qa_data.questions import Question

Marks = Mapping[str, frozenset[tuple[str, object]]]
"""By clip, the marks that the clip shown in its place must not have."""


def mismatched_videos(questions: Sequence[Question], rng: random.Random) -> dict[str, str]:
    """Another clip for every clip, each shown once, none of its own class, answer or source.

    A maximum matching by augmenting paths (Berge, PNAS 43, 1957): each clip takes the first free
    clip that fits; where none does, clips along a shortest path exchange theirs. Several questions
    may be about one clip. ValueError if there is no such matching: too many clips share a class, an
    answer or a source.
    """
    marks = marks_of(questions)
    clips, free = sorted(marks), sorted(marks)
    rng.shuffle(clips)
    rng.shuffle(free)
    shown: dict[str, str] = {}
    for clip in clips:
        path = shortest_path(clip, marks, free, shown)
        if path is None:
            raise ValueError(no_match(clip, marks))
        shown |= path
        free.remove(next(iter(path.values())))
    return shown


def marks_of(questions: Sequence[Question]) -> Marks:
    """Class, right texts and source of each clip; different classes may have equal texts."""
    marks: dict[str, set[tuple[str, object]]] = {}
    for one in questions:
        found = marks.setdefault(one.video, {("clip", one.video)})
        found.add(("answer", one.options[one.answer]))
        if one.label is not None:
            found.add(("class", one.label))
        if one.source:
            found.add(("source", one.source))
    return {clip: frozenset(found) for clip, found in marks.items()}


def shortest_path(
    clip: str, marks: Marks, free: Sequence[str], shown: Mapping[str, str]
) -> dict[str, str] | None:
    """The changes to `shown` that give `clip` a clip, too, along a shortest path; None without one.

    The clip that takes one of the `free` clips, the preferred first, comes first, and `clip` last.
    """
    giver: dict[str, str] = {}  # a clip -> the one that would take its shown clip
    waiting, unseen = deque([clip]), list(shown)
    while waiting:
        taker = waiting.popleft()
        fits = (one for one in free if marks[taker].isdisjoint(marks[one]))
        if (found := next(fits, None)) is not None:
            path = {taker: found}
            while taker != clip:
                taker, found = giver[taker], shown[taker]
                path[taker] = found
            return path
        for other in unseen:
            if marks[taker].isdisjoint(marks[shown[other]]):
                giver[other] = taker
                waiting.append(other)
        unseen = [other for other in unseen if other not in giver]
    return None


def no_match(clip: str, marks: Marks) -> str:
    """Why there is no mismatched video for a clip: the largest group of clips that share a mark."""
    counts = Counter(mark for found in marks.values() for mark in found)
    (kind, value), count = max(counts.items(), key=lambda pair: (pair[1], str(pair[0])))
    return (
        f"there is no mismatched video for clip {clip}: of {len(marks)} clips, {count} are of "
        f"{kind} {value!r}, the largest group, and every clip needs one of another class, "
        f"answer and source; take questions about more classes and sources"
    )
