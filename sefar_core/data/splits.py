"""Which clips are labeled, unlabeled, for validation, for test.

The official validation list is the test split; nothing is tuned on it. Validation clips are cut
out of the training pool by source video, so that none of them shares athlete, camera or arena
with a training clip. The labeled part is a prefix of one seeded order of the pool: with one seed,
what is labeled at 5 % is labeled at 10 % too.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from qa_data.annotations import event_of
from qa_data.manifest import SPLITS, Clip, without_label

VAL_TRIES = 200  # seeded orders of the sources, of which the one that shows most classes is kept


class SplitError(ValueError):
    """A split that cannot be made as asked. The message says what stands against it."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How a training pool is cut."""

    rate: float = 0.1
    """Labeled share of the pool, in (0, 1]."""
    draw: Literal["stratified", "unstratified"] = "stratified"
    """Labels spread over the classes by their sizes, or drawn plainly as in the public lists."""
    min_per_class: int = 1
    """Labeled clips that the stratified draw gives every class that has as many."""
    val_rate: float = 0.1
    """Share of the clips (see val_from) that becomes validation clips, in [0, 1)."""
    val_from: Literal["labeled", "pool"] = "labeled"
    """Validation clips cost labels (labeled), or are labels on top of the rate (pool)."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate must be in (0, 1], got {self.rate}")
        if not 0 <= self.val_rate < 1:
            raise ValueError(f"val_rate must be in [0, 1), got {self.val_rate}")
        if self.min_per_class < 1:
            raise ValueError(f"min_per_class must be at least 1, got {self.min_per_class}")


def split_pool(pool: Sequence[Clip], config: SplitConfig) -> list[Clip]:
    """Labeled, unlabeled and validation clips of a training pool, in the pool's order.

    All clips of a validation source leave training. Which of them are validation clips is a
    question of budget: with `val_from="labeled"` those that the rate has labeled, with
    `val_from="pool"` all of them, which tunes on labels that the rate does not count.

    Args:
        pool: clips with labels, of any split.
        config: rates, kinds of draw and seed.

    Returns:
        The clips with their splits. Unlabeled clips have lost their labels; unlabeled clips of a
        validation source are left out.

    Raises:
        SplitError: the pool is empty or lacks labels, or no validation sources can be cut
            without taking a class's last clip from training.
    """
    if not pool or any(clip.label is None for clip in pool):
        raise SplitError(
            f"the training pool has {len(pool)} clips, of which "
            f"{sum(clip.label is None for clip in pool)} have no label; it needs clips, and "
            f"labels to draw from: is the training list the right one?"
        )
    if config.val_from == "labeled":
        labeled = draw_labeled(pool, config)
        sources = cut_sources(labeled, config.val_rate, random.Random(f"{config.seed} val"))
        val = [clip for clip in labeled if clip.source in sources]
        labeled = [clip for clip in labeled if clip.source not in sources]
    else:
        sources = cut_sources(pool, config.val_rate, random.Random(f"{config.seed} val"))
        val = [clip for clip in pool if clip.source in sources]
        labeled = draw_labeled([clip for clip in pool if clip.source not in sources], config)
    split_of = {clip.id: "val" for clip in val} | {clip.id: "labeled" for clip in labeled}
    return [
        replace(clip, split=split_of[clip.id])
        if clip.id in split_of
        else without_label(replace(clip, split="unlabeled"))
        for clip in pool
        if clip.id in split_of or clip.source not in sources
    ]


def draw_labeled(pool: Sequence[Clip], config: SplitConfig) -> list[Clip]:
    """The labeled part of the pool: round(rate * clips), more if every class must have some."""
    rng = random.Random(f"{config.seed} labeled")
    if config.draw == "unstratified":
        order, least = rng.sample(pool, len(pool)), 1
    else:
        order, least = stratified_order(pool, config.min_per_class, rng)
    return order[: max(round(config.rate * len(pool)), least)]


def stratified_order(
    pool: Sequence[Clip], min_per_class: int, rng: random.Random
) -> tuple[list[Clip], int]:
    """The pool in an order whose every long enough prefix mirrors its class frequencies.

    First come `min_per_class` clips of each class; then a class's j-th clip (from 0) takes the
    place (2 j + 1) / size, which is the divisor method of Webster and Sainte-Lague.

    Returns:
        The order, and the length of its first part.
    """
    by_class: dict[int | None, list[Clip]] = defaultdict(list)
    for clip in pool:
        by_class[clip.label].append(clip)
    ranked = []
    for _, clips in sorted(by_class.items(), key=lambda item: str(item[0])):
        for rank, clip in enumerate(rng.sample(clips, len(clips))):
            tie_break = rng.random()
            place = (rank >= min_per_class, (2 * rank + 1) / len(clips), tie_break)
            ranked.append((place, clip))
    ranked.sort(key=lambda item: item[0])
    least = sum(not place[0] for place, _ in ranked)
    return [clip for _, clip in ranked], least


def cut_sources(clips: Sequence[Clip], rate: float, rng: random.Random) -> set[str]:
    """Source videos that hold about `rate` of the clips, while every class keeps a clip elsewhere.

    Raises:
        SplitError: less than half of what was asked for can be cut.
    """
    wanted = rate * len(clips)
    if wanted < 0.5:
        return set()
    counts, sources, labels = _count_table(clips)
    best: list[int] = []
    best_merit = (-1, -np.inf)
    for _ in range(VAL_TRIES):
        chosen = _fill(counts, rng.sample(range(len(sources)), len(sources)), wanted)
        inside = counts[chosen].sum(axis=0)
        merit = (int((inside > 0).sum()), -abs(float(inside.sum()) - wanted))
        if merit > best_merit:
            best, best_merit = chosen, merit
    if counts[best].sum() < wanted / 2:
        single = [
            label for label, row in zip(labels, counts.T, strict=True) if (row > 0).sum() == 1
        ]
        raise SplitError(
            f"{wanted:.0f} of {len(clips)} clips were to become validation clips, but only "
            f"{int(counts[best].sum())} can leave training by whole source videos without taking "
            f"a class's last clip. {len(single)} classes come from one source video only: "
            f"{single}. Lower val_rate, raise rate, or take val_from='pool'."
        )
    return {sources[index] for index in best}


def leaks(clips: Iterable[Clip]) -> dict[str, dict[str, int]]:
    """What each two splits share: clip ids, source videos, routines, and clips of shared sources.

    `clips_of_shared_sources` counts the clips of the second split whose source is in the first.
    """
    members: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for clip in clips:
        members[clip.split].append(clip)
    report = {}
    for first, second in combinations([split for split in SPLITS if members[split]], 2):
        shared_sources = {clip.source for clip in members[first]} & {
            clip.source for clip in members[second]
        }
        report[f"{first}-{second}"] = {
            "clips": _num_shared(members[first], members[second], lambda clip: clip.id),
            "sources": len(shared_sources),
            "routines": _num_shared(
                members[first], members[second], lambda clip: event_of(clip.id)
            ),
            "clips_of_shared_sources": sum(c.source in shared_sources for c in members[second]),
        }
    return report


def summary(clips: Sequence[Clip], config: SplitConfig) -> dict:
    """Settings, counts and leaks of a split, as plain values for splits.json."""
    per_split = Counter(clip.split for clip in clips)
    per_class: Mapping[str, Counter] = {split: Counter() for split in SPLITS}
    for clip in clips:
        if clip.label is not None:
            per_class[clip.split][clip.label] += 1
    return {
        "settings": asdict(config),
        "clips": {split: per_split[split] for split in SPLITS},
        "sources": {s: len({c.source for c in clips if c.split == s}) for s in SPLITS},
        "clips_per_class": {s: dict(sorted(n.items())) for s, n in per_class.items() if n},
        "leaks": leaks(clips),
    }


def _num_shared(first: Sequence[Clip], second: Sequence[Clip], key: Callable[[Clip], str]) -> int:
    return len({key(clip) for clip in first} & {key(clip) for clip in second})


def _count_table(clips: Sequence[Clip]) -> tuple[np.ndarray, list[str], list[int]]:
    """Clips by (source, class), with the names of the rows and the columns."""
    sources = sorted({clip.source for clip in clips})
    labels = sorted({clip.label for clip in clips if clip.label is not None})
    row, column = ({key: i for i, key in enumerate(keys)} for keys in (sources, labels))
    counts = np.zeros((len(sources), len(labels)), dtype=int)
    for clip in clips:
        counts[row[clip.source], column[clip.label]] += 1
    return counts, sources, labels


def _fill(counts: np.ndarray, order: Sequence[int], wanted: float) -> list[int]:
    """Sources in this order that bring the cut nearer to `wanted` clips and leave every class."""
    outside = counts.sum(axis=0)
    chosen, size = [], 0
    for index in order:
        more = int(counts[index].sum())
        nearer = abs(size + more - wanted) < abs(size - wanted)
        if nearer and (outside - counts[index] > 0).all():
            chosen.append(index)
            size += more
            outside = outside - counts[index]
    return chosen
