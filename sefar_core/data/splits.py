"""Which clips are labeled, unlabeled, for validation, for test.

First the test clips: as the data set lists them, or cut anew so that no source video is on both
sides. Nothing is tuned on them. Validation clips are cut out of the training pool by source
video, so that none of them shares athlete, camera or arena with a training clip.

The labeled clips are a prefix of one seeded order: with one seed, what is labeled at 5 % is
labeled at 10 % too, if validation clips come from the pool (val_from="pool") or there are none.
Validation clips that cost labels (val_from="labeled") are cut out of the prefix, out of other
sources at each rate, so that only labeled and validation clips together contain those of a
smaller rate.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from qa_data.files import SefarError
from qa_data.finegym import TimeSpan
from qa_data.manifest import SPLITS, Clip, by_split, without_label
from sefar_core.config import check
from sefar_core.data.group_split import (
    OneSided,
    TestCut,
    choose_val_sources,
    group_key,
    split_test,
    without_shared_sources,
)
from sefar_core.data.leaks import leak_report


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How the clips of a data set are cut."""

    rate: float = 0.1
    """Labeled share of the pool, in (0, 1]."""
    draw: Literal["stratified", "unstratified"] = "stratified"
    """Labels spread over the classes by their sizes (stratified), or drawn from all clips alike as
    in the public lists (unstratified)."""
    min_per_class: int = 1
    """Labeled clips that the stratified draw gives every class that has as many; validation clips
    that cost labels leave them."""
    val_rate: float = 0.0
    """Share of the clips (see val_from) that becomes validation clips, in [0, 1). With none, the
    last network of a training counts; cut some to choose settings."""
    val_from: Literal["labeled", "pool"] = "labeled"
    """Validation clips cost labels (labeled), or are labels on top of the rate (pool)."""
    test_cut: TestCut = "by_source"
    """Training and test clips cut anew so that they share no source video, if the lists let them
    share any (by_source); as listed (official); test as listed, and training without the clips of
    its source videos (official_disjoint)."""
    test_rate: float = 0.2
    """Share of the clips that becomes the test split of a data set without one, in [0, 1)."""
    one_sided: OneSided = "refuse"
    """Classes that cannot be on both sides of the test cut, since their clips come from too few
    source videos: an error that names them; keep them where they are (after a new cut: in
    training); or leave all their clips out."""
    seed: int = 0
    """Random seed of all draws."""

    def __post_init__(self) -> None:
        check(0 < self.rate <= 1, "rate must be in (0, 1]", self.rate)
        check(0 <= self.val_rate < 1, "val_rate must be in [0, 1)", self.val_rate)
        if self.val_from == "pool" and self.val_rate == 0:
            raise ValueError(
                "val_from = pool has no effect without validation clips; give val_rate too"
            )
        check(0 <= self.test_rate < 1, "test_rate must be in [0, 1)", self.test_rate)
        check(self.min_per_class >= 1, "min_per_class must be at least 1", self.min_per_class)


def split_dataset(
    pool: Sequence[Clip], settled: Sequence[Clip], config: SplitConfig
) -> tuple[list[Clip], dict[str, int]]:
    """The pool of labeled training clips cut as the settings say, settled clips as they are; and
    the number of clips in no split, by reason.

    Clips without a label are training clips: those that share a source video with validation clips
    are left out, and with test clips too unless the cut is `official`. The pool may be empty if all
    clips are settled. SefarError if it cannot be cut by these settings, or there is none and
    settings for one.
    """
    if not pool:
        if config != SplitConfig():
            raise SefarError(
                "the lists of this data set fix the split of every clip, so that rates and cuts "
                "change nothing; leave these settings out"
            )
        return list(settled), {}
    unlabeled = by_split(settled, "unlabeled")
    others = [clip for clip in settled if clip.split not in ("unlabeled", "test")]
    listed_test = by_split(settled, "test")
    training, test = split_test(
        pool,
        listed_test,
        how=config.test_cut,
        rate=config.test_rate,
        one_sided=config.one_sided,
        seed=config.seed,
    )
    cut = split_pool(training, config)
    aside = [*by_split([*cut, *others], "val"), *(test if config.test_cut != "official" else ())]
    kept = without_shared_sources(unlabeled, aside)
    left_out = {
        "to keep test apart": len(pool) + len(listed_test) - len(training) - len(test),
        "unlabeled, of validation videos": len(training) - len(cut),
        "never labeled, of validation or test videos": len(unlabeled) - len(kept),
    }
    return [*cut, *others, *kept, *test], {why: count for why, count in left_out.items() if count}


def split_pool(pool: Sequence[Clip], config: SplitConfig) -> list[Clip]:
    """Labeled, unlabeled and validation clips of a training pool, in the pool's order.

    All clips of a validation source leave training. Which of them are validation clips is a
    question of budget: with `val_from="labeled"` those that the rate has labeled, with
    `val_from="pool"` all of them, which tunes on labels that the rate does not count.

    Unlabeled clips lose their labels; those of a validation source are left out. SefarError if the
    pool is empty or lacks labels, or no validation sources can be cut without taking the clips from
    training that a class must have there.
    """
    unknown = sum(clip.label is None for clip in pool)
    if not pool or unknown:
        raise SefarError(
            f"the training pool has {len(pool)} clips, of which {unknown} have no label; it needs "
            f"clips, and labels to draw from: is the training list the right one?"
        )
    of_labeled = config.val_from == "labeled"
    candidates = draw_labeled(pool, config) if of_labeled else pool
    each_class_keeps = config.min_per_class if of_labeled and config.draw == "stratified" else 1
    rng = random.Random(f"{config.seed} val")
    sources = choose_val_sources(candidates, config.val_rate, rng, min_per_class=each_class_keeps)
    val = [clip for clip in candidates if group_key(clip) in sources]
    rest = [clip for clip in candidates if group_key(clip) not in sources]
    labeled = rest if of_labeled else draw_labeled(rest, config)
    split_of = {clip.id: "val" for clip in val} | {clip.id: "labeled" for clip in labeled}
    return [
        replace(clip, split=split_of[clip.id])
        if clip.id in split_of
        else without_label(replace(clip, split="unlabeled"))
        for clip in pool
        if clip.id in split_of or group_key(clip) not in sources
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
    place (2 j + 1) / size, which is the divisor method of Webster and Sainte-Lague. The length of
    the first part is returned too.
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


def split_report(
    clips: Sequence[Clip],
    config: SplitConfig,
    *,
    classes: Mapping[int, str] | None = None,
    times: Mapping[str, TimeSpan] | None = None,
    video_root: Path | None = None,
) -> dict:
    """Settings, counts and leaks (see `leak_report`) of splits, as plain values for splits.json."""
    per_split = Counter(clip.split for clip in clips)
    per_class: Mapping[str, Counter] = {split: Counter() for split in SPLITS}
    sources: Mapping[str, set] = {split: set() for split in SPLITS}
    for clip in clips:
        if clip.label is not None:
            per_class[clip.split][clip.label] += 1
        if clip.source:
            sources[clip.split].add(clip.source)
    return {
        "settings": asdict(config),
        "clips": {split: per_split[split] for split in SPLITS},
        "sources": {split: len(found) for split, found in sources.items()},
        "clips_per_class": {s: dict(sorted(n.items())) for s, n in per_class.items() if n},
        **leak_report(clips, classes=classes, times=times, video_root=video_root),
    }
