"""Cuts that leave source videos whole: no video has clips on both sides.

Two clips of one video share athlete, camera and arena; a network that has seen one of them has
an easy time with the other. Where a clip's source is not known, the clip is a group of its own.

Official lists may share most of their source videos: of Gym288's 9,646 test clips, 9,353 come from
a training video. What is learned of that video's athletes and arena then counts as skill. So
`split_test` gives training and test clips as the data set lists them, or without a source video in
common. `choose_val_sources` cuts validation clips; `take_groups` is the plain greedy cut, of
validation questions and of a probe's held-out clips too.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from qa_data.files import SefarError, first_few
from qa_data.manifest import Clip

VAL_TRIES = 200  # seeded orders of the sources, of which the one that shows most classes is kept
TEST_TRIES = 40  # seeded starts of the search for the best test side
MOST_NAMED = 40
EFFORT = 1_000_000  # sources (or classes of sources) visited in all tries together, about
TestCut = Literal["by_source", "official", "official_disjoint"]
OneSided = Literal["refuse", "keep", "leave_out"]
Sides = tuple[list[Clip], list[Clip]]


def group_key(clip: Clip) -> str:
    """The group that no cut divides: the clip's source video, or the clip itself if unknown."""
    return clip.source or clip.id


def without_shared_sources(clips: Iterable[Clip], others: Iterable[Clip]) -> list[Clip]:
    """The clips that share no known source video with the others, in their order."""
    units = {group_key(clip) for clip in others}
    return [clip for clip in clips if group_key(clip) not in units]


def name_classes(labels: Iterable[int], clips: Iterable[Clip]) -> str:
    """Classes by number and name, for a message; of very many, the first ones."""
    texts = {clip.label: clip.text for clip in clips}
    names = [f"{label} {texts.get(label)!r}" for label in sorted(labels)]
    return ", ".join(first_few(names, MOST_NAMED))


def one_source_classes(clips: Iterable[Clip]) -> set[int]:
    """The classes whose clips all come from one source, so that no cut shows them twice."""
    units = defaultdict(set)
    for clip in clips:
        if clip.label is not None:
            units[clip.label].add(group_key(clip))
    return {label for label, found in units.items() if len(found) == 1}


def group_counts(members: Iterable[tuple[str, int | None]]) -> dict[str, Counter]:
    """Members of each class in each group, from pairs of group and class."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for group, label in members:
        counts[group][label] += 1
    return dict(counts)


def take_groups(
    counts: Mapping[str, Counter],
    order: Iterable[str],
    wanted: int | float,
    *,
    spare: Mapping[int | None, int | float] | None = None,
    overshoot: Literal["never", "if_nearer", "always"],
) -> list[str]:
    """Whole groups, in the given order, that together have about `wanted` members.

    Each class gives at most what it can `spare` (None: all). `overshoot`: whether a group is taken
    that has more members than are still wanted: never, if the total is nearer to `wanted` with it,
    or always.
    """
    left = None if spare is None else Counter(spare)
    chosen, size = [], 0
    for group in order:
        if size >= wanted:
            break
        more = counts[group].total()
        if overshoot == "never" and size + more > wanted:
            continue
        if overshoot == "if_nearer" and abs(size + more - wanted) >= abs(size - wanted):
            continue
        if left is not None:
            if any(left[label] < number for label, number in counts[group].items()):
                continue
            left.subtract(counts[group])
        chosen.append(group)
        size += more
    return chosen


def choose_val_sources(
    clips: Sequence[Clip], rate: float, rng: random.Random, *, min_per_class: int = 1
) -> set[str]:
    """Sources that hold about `rate`, in [0, 1), of the clips, while every class keeps clips
    elsewhere.

    Classes need not be among those cut; of several cuts the one that shows most of them is taken.
    Every class keeps `min_per_class` clips; one of fewer keeps them all. SefarError if less than
    half of `rate` can be cut.
    """
    wanted = rate * len(clips)
    if wanted <= 0.5:
        return set()
    counts = group_counts((group_key(clip), clip.label) for clip in clips)
    totals = Counter(clip.label for clip in clips)
    spare = Counter({label: max(0, total - min_per_class) for label, total in totals.items()})
    order = sorted(counts)
    best: list[str] = []
    best_merit = (-1, -math.inf)
    for _ in range(_tries(VAL_TRIES, len(order))):
        shuffled = [order[index] for index in rng.sample(range(len(order)), len(order))]
        chosen = take_groups(counts, shuffled, wanted, spare=spare, overshoot="if_nearer")
        inside = sum(counts[unit].total() for unit in chosen)
        seen = {label for unit in chosen for label in counts[unit]}
        merit = (len(seen), -abs(inside - wanted))
        if merit > best_merit:
            best, best_merit = chosen, merit
    size = sum(counts[unit].total() for unit in best)
    if size < wanted / 2:
        single = one_source_classes(clips)
        raise SefarError(
            f"{wanted:.0f} of {len(clips)} clips were to become validation clips, but only "
            f"{size} can leave training by whole source videos such that each class keeps "
            f"{min_per_class}. {len(single)} classes come from one source video only: "
            f"{name_classes(single, clips) or 'none'}. Lower val_rate or "
            f"min_per_class, raise rate, or take val_from='pool'."
        )
    return set(best)


def choose_test_sources(clips: Sequence[Clip], rate: float, rng: random.Random) -> set[str]:
    """Sources that hold about `rate` of the clips, and of every class, which has clips elsewhere.

    Sources change sides one at a time as long as that lowers the cost: the sum of
    (clips cut - rate * clips)^2 / clips over the classes and the whole, and a penalty, larger
    than any such sum, for each class that one side lacks. The best of several seeded starts is
    taken. If the sources leave no other way, it has classes on one side only; then it is rather
    the cut that lacks a class than what remains.
    """
    counts = group_counts((group_key(clip), clip.label) for clip in clips)
    totals = Counter(clip.label for clip in clips)
    for unit_counts in counts.values():
        unit_counts[None] = unit_counts.total()  # the whole, as one more class
    totals[None] = len(clips)
    penalty = 2.0 * len(clips)
    all_cut = penalty * len(totals)
    costs = {label: _costs(total, rate, penalty, all_cut) for label, total in totals.items()}
    order = sorted(counts)
    best: set[str] = set()
    best_cost = math.inf
    num_entries = sum(map(len, counts.values()))
    for attempt in range(_tries(TEST_TRIES, 10 * num_entries)):
        density = rate if attempt % 2 == 0 else 0.5
        chosen = {unit for unit in order if rng.random() < density}
        cost = _descend(counts, costs, rng.sample(order, len(order)), chosen)
        if cost < best_cost:
            best, best_cost = chosen, cost
    return best


def _tries(most: int, size: int) -> int:
    """As many tries as the effort allows: many for videos of many clips, few for single clips."""
    return max(1, min(most, EFFORT // size))


def _costs(total: int, rate: float, none_cut: float, all_cut: float) -> list[float]:
    """Cost of 0, 1, ..., `total` cut clips of a class that has `total`."""
    costs = [(cut - rate * total) ** 2 / total for cut in range(total + 1)]
    costs[0] += none_cut
    costs[total] += all_cut
    return costs


def _descend(
    counts: Mapping[str, Counter],
    costs: Mapping[int | None, Sequence[float]],
    order: Sequence[str],
    chosen: set[str],
) -> float:
    """Let sources change sides, in place, until no single change helps; the cost reached."""
    inside: Counter[int | None] = Counter()
    for unit in chosen:
        inside.update(counts[unit])
    moved = True
    while moved:
        moved = False
        for unit in order:
            sign = -1 if unit in chosen else 1
            gain = sum(
                costs[label][inside[label]] - costs[label][inside[label] + sign * num]
                for label, num in counts[unit].items()
            )
            if gain > 1e-9:
                chosen ^= {unit}
                for label, num in counts[unit].items():
                    inside[label] += sign * num
                moved = True
    return sum(table[inside[label]] for label, table in costs.items())


def split_test(
    pool: Sequence[Clip],
    test: Sequence[Clip],
    *,
    how: TestCut = "by_source",
    rate: float = 0.2,
    one_sided: OneSided = "refuse",
    seed: int = 0,
) -> Sides:
    """Training pool and test clips of a data set, cut as `how` says.

    `official` leaves both as they are listed. `official_disjoint` keeps the test clips and leaves
    out the training clips of their source videos. `by_source` cuts all clips anew by source video,
    the test split as large as it was; lists that share no source video, or whose sources are not
    known, stay as they are. A data set without test clips gets them by `by_source`: by source video
    where it is known, clip by clip where not, of every class the same share as far as the sources
    allow. `rate` is the share of the clips for test if there are no test clips, in [0, 1); 0 makes
    none. `one_sided` as in `SplitConfig`. The result is the pool (split `labeled`) and the test
    clips.

    Raises:
        SefarError: a clip lacks a label, or is in both lists; a class (of `leave_out`: every
            class) cannot be on both sides; or a variant needs test clips and there are none.
    """
    _refuse_unfit(pool, test)
    if not test and how != "by_source":
        raise SefarError(f"test_cut={how!r} needs test clips, and there are none; take 'by_source'")
    disjoint = without_shared_sources(pool, test)
    if how == "official_disjoint":
        gone = _labels(pool) - _labels(disjoint)
        why = "lose their last training clip, since test has clips of all their source videos"
        return _settle((disjoint, list(test)), gone, why, one_sided, [*pool, *test])
    if how == "official" or not pool or (rate == 0 and not test):
        return list(pool), list(test)
    if test and len(disjoint) == len(pool):
        return list(pool), list(test)
    return _cut_anew([*pool, *test], len(test) / (len(pool) + len(test)) or rate, one_sided, seed)


def _cut_anew(clips: Sequence[Clip], rate: float, one_sided: OneSided, seed: int) -> Sides:
    """Both sides of a cut by source video."""
    single = one_source_classes(clips)
    if one_sided == "leave_out":
        clips = [clip for clip in clips if clip.label not in single]
    if not clips:
        raise SefarError(
            "each class has all its clips from one source video: with one_sided='leave_out' none "
            "is left. Take test_cut='official' or test_rate=0, or give sources only where clips do "
            "share a video."
        )
    cut = choose_test_sources(clips, rate, random.Random(f"{seed} test"))
    outside = [replace(clip, split="labeled") for clip in clips if group_key(clip) not in cut]
    inside = [replace(clip, split="test") for clip in clips if group_key(clip) in cut]
    lacking = _labels(outside) ^ _labels(inside)
    why = "share so few source videos that no cut was found for them"
    if lacking & single:  # which rule out other cuts
        why, lacking = "have all their clips from one source video", lacking & single
    return _settle((outside, inside), lacking, why, one_sided, clips)


def _settle(
    sides: Sides, lacking: set[int], why: str, one_sided: OneSided, clips: Sequence[Clip]
) -> Sides:
    """Both sides, after the classes that one of them lacks are kept, left out or refused."""
    pool, test = sides
    if one_sided == "keep" or not lacking:
        return pool, test
    if one_sided == "leave_out":
        pool, test = ([clip for clip in side if clip.label not in lacking] for side in sides)
        return pool, test
    raise SefarError(
        f"training and test cannot both have every class without sharing source videos: "
        f"{len(lacking)} classes {why}: {name_classes(lacking, clips)}. Take one_sided='keep' "
        f"(they stay on one side), one_sided='leave_out' (they are in neither), or "
        f"test_cut='official'."
    )


def _labels(clips: Sequence[Clip]) -> set[int]:
    return {clip.label for clip in clips if clip.label is not None}


def _refuse_unfit(pool: Sequence[Clip], test: Sequence[Clip]) -> None:
    if unknown := [clip.id for clip in [*pool, *test] if clip.label is None]:
        raise SefarError(
            f"{len(unknown)} training or test clips have no label, first {unknown[0]}; clips "
            f"without a label can only be unlabeled ones: is it the right list?"
        )
    refuse_shared(pool, test)


def refuse_shared(pool: Sequence[Clip], settled: Sequence[Clip]) -> None:
    """Raise SefarError if a clip is in the training list and in another."""
    if shared := sorted({clip.id for clip in pool} & {clip.id for clip in settled}):
        raise SefarError(
            f"{len(shared)} clips are in the training list and in another list, first "
            f"{shared[0]}; take both lists of one benchmark, or delete them from one"
        )
