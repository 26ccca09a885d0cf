"""The control of wrong videos: each question is shown a clip that cannot answer it.

A clip of the same class would be a right video under another name, and one of the same source has
the same athlete, arena and camera. Both are left out, so that what is still right was not seen.
"""

import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence

from qa_data.questions import Question

Marks = Mapping[str, frozenset[tuple[str, object]]]
"""By clip, what it may not share with the clip that is shown in its place."""


def mismatched_videos(questions: Sequence[Question], rng: random.Random) -> dict[str, str]:
    """Another clip for every clip, each shown once, none of its own class, answer or source.

    A maximum matching: each clip takes the first clip left that fits, and where none does, a
    shortest chain of clips hands on what they were given (augmenting paths: Berge, PNAS 43, 1957).

    Args:
        questions: about the clips; several may be about one.
        rng: draws.

    Raises:
        ValueError: it cannot be done, for too many clips share a class, an answer or a source.
    """
    marks = marks_of(questions)
    asked, free = sorted(marks), sorted(marks)
    rng.shuffle(asked)
    rng.shuffle(free)
    shown: dict[str, str] = {}
    for clip in asked:
        chain = shortest_chain(clip, marks, free, shown)
        if chain is None:
            raise ValueError(cannot_be_shown(clip, marks))
        shown |= chain
        free.remove(next(iter(chain.values())))
    return shown


def marks_of(questions: Sequence[Question]) -> Marks:
    """Class, right texts and source of each clip; classes of other numbers may read alike."""
    marks: dict[str, set[tuple[str, object]]] = {}
    for one in questions:
        found = marks.setdefault(one.video, {("clip", one.video)})
        found.add(("answer", one.options[one.answer]))
        if one.label is not None:
            found.add(("class", one.label))
        if one.source:
            found.add(("source", one.source))
    return {clip: frozenset(found) for clip, found in marks.items()}


def shortest_chain(
    clip: str, marks: Marks, free: Sequence[str], shown: Mapping[str, str]
) -> dict[str, str] | None:
    """What `clip` and the clips of a chain are shown from here on; none if there is no chain.

    Args:
        clip: is shown nothing yet.
        marks: of all clips.
        free: clips that are not shown yet, the preferred first.
        shown: what the other clips are shown so far.

    Returns:
        The last clip of the chain, which takes a free one, first; `clip` last.
    """
    giver: dict[str, str] = {}  # a clip -> the one that would take over what it is shown
    waiting, unseen = deque([clip]), list(shown)
    while waiting:
        taker = waiting.popleft()
        fits = (one for one in free if marks[taker].isdisjoint(marks[one]))
        if (found := next(fits, None)) is not None:
            chain = {taker: found}
            while taker != clip:
                taker, found = giver[taker], shown[taker]
                chain[taker] = found
            return chain
        for other in unseen:
            if marks[taker].isdisjoint(marks[shown[other]]):
                giver[other] = taker
                waiting.append(other)
        unseen = [other for other in unseen if other not in giver]
    return None


def cannot_be_shown(clip: str, marks: Marks) -> str:
    """Why there is no wrong video for a clip: the largest group of clips that may not meet."""
    counts = Counter(mark for found in marks.values() for mark in found)
    (kind, value), count = max(counts.items(), key=lambda pair: (pair[1], str(pair[0])))
    return (
        f"there is no wrong video for clip {clip}: of {len(marks)} clips, {count} are of {kind} "
        f"{value!r}, the largest group, and every clip is to be shown one of another class, answer "
        f"and source; ask about more classes and sources"
    )
