"""Labeled, unlabeled and validation clips of a pool."""

from collections import Counter
from dataclasses import replace

import pytest

from qa_data.manifest import Clip, by_split
from sefar_core.data.splits import SplitConfig, SplitError, draw_labeled, leaks, split_pool, summary

SIZES = {0: 400, 1: 200, 2: 100, 3: 40, 4: 10, 5: 1}


def make_clip(label, number, source):
    clip_id = f"{source}_E_{number // 4:06d}_{number // 4 + 9:06d}_A_{number:04d}_{number:04d}"
    return Clip(
        id=clip_id,
        path=f"{clip_id}.mp4",
        label=label,
        text=f"text {label}",
        event="FX",
        source=source,
        split="labeled",
    )


def long_tailed_pool(num_sources=20):
    """Class c has SIZES[c] clips, dealt out to the sources in turn."""
    labels = [label for label, size in SIZES.items() for _ in range(size)]
    return [
        make_clip(label, number, f"source{number % num_sources:05d}")
        for number, label in enumerate(labels)
    ]


def ids(clips):
    return [clip.id for clip in clips]


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2, 0.5])
def test_a_stratified_draw_gives_every_class_its_share_and_at_least_one(rate):
    labeled = draw_labeled(long_tailed_pool(), SplitConfig(rate=rate))
    assert len(labeled) == round(rate * 751)
    counts = Counter(clip.label for clip in labeled)
    for label, size in SIZES.items():
        assert counts[label] >= 1
        assert abs(counts[label] - rate * size) <= 1


def test_min_per_class_raises_a_draw_that_would_be_too_small():
    labeled = draw_labeled(long_tailed_pool(), SplitConfig(rate=0.01, min_per_class=3))
    assert Counter(clip.label for clip in labeled) == {0: 3, 1: 3, 2: 3, 3: 3, 4: 3, 5: 1}


@pytest.mark.parametrize("draw", ["stratified", "unstratified"])
def test_a_smaller_rate_is_a_subset_of_a_larger_one(draw):
    pool = long_tailed_pool()
    drawn = [
        set(ids(draw_labeled(pool, SplitConfig(rate=rate, draw=draw))))
        for rate in (0.01, 0.05, 0.1, 0.3, 1.0)
    ]
    for smaller, larger in zip(drawn, drawn[1:], strict=False):
        assert smaller < larger


def test_the_seed_decides_and_nothing_else():
    pool = long_tailed_pool()
    same, again = (split_pool(pool, SplitConfig(seed=4)) for _ in range(2))
    other = split_pool(pool, SplitConfig(seed=5))
    assert same == again
    assert ids(by_split(same, "labeled")) != ids(by_split(other, "labeled"))


def test_an_unstratified_draw_may_miss_classes():
    config = SplitConfig(rate=0.01, draw="unstratified", seed=1)
    labeled = draw_labeled(long_tailed_pool(), config)
    assert len(labeled) == 8
    assert len({clip.label for clip in labeled}) < len(SIZES)


def test_plain_draws_label_every_clip_equally_often():
    pool = [make_clip(0, number, "s") for number in range(10)]
    drawn = Counter()
    for seed in range(2000):
        config = SplitConfig(rate=0.3, draw="unstratified", seed=seed)
        drawn.update(ids(draw_labeled(pool, config)))
    # 2000 draws at 0.3: standard deviation 20.5
    assert all(abs(count - 600) < 80 for count in drawn.values())


@pytest.mark.parametrize("val_from", ["labeled", "pool"])
def test_validation_sources_leave_training_whole(val_from):
    pool = long_tailed_pool()
    clips = split_pool(pool, SplitConfig(rate=0.2, val_rate=0.2, val_from=val_from))
    val = by_split(clips, "val")
    training = by_split(clips, "labeled") + by_split(clips, "unlabeled")
    assert val and not {clip.source for clip in val} & {clip.source for clip in training}
    assert {clip.label for clip in by_split(clips, "labeled")} == set(SIZES)
    val_sources = {clip.source for clip in val}
    whole = [clip for clip in pool if clip.source in val_sources]
    if val_from == "pool":
        assert ids(val) == ids(whole)
        assert abs(len(val) - 0.2 * len(pool)) <= 20
    else:
        assert len(val) + len(by_split(clips, "labeled")) == round(0.2 * len(pool))
        assert abs(len(val) - 0.2 * 0.2 * len(pool)) <= 5


def test_order_is_kept_and_unlabeled_clips_tell_nothing():
    pool = long_tailed_pool()
    clips = split_pool(pool, SplitConfig(val_rate=0.0))
    assert ids(clips) == ids(pool)
    assert not by_split(clips, "val")
    for clip in by_split(clips, "unlabeled"):
        assert (clip.label, clip.text, clip.event) == (None, None, None)
    for clip, before in zip(clips, pool, strict=True):
        if clip.split == "labeled":
            assert clip == before


def test_a_cut_that_would_empty_classes_names_them():
    pool = [
        make_clip(label, number, f"source{label:05d}") for label in range(3) for number in range(9)
    ]
    with pytest.raises(SplitError, match=r"3 classes come from one source video only: \[0, 1, 2\]"):
        split_pool(pool, SplitConfig(rate=1.0, val_rate=0.3))


def test_pools_without_clips_or_labels_are_refused():
    with pytest.raises(SplitError, match="has 0 clips"):
        split_pool([], SplitConfig())
    with pytest.raises(SplitError, match="1 have no label"):
        split_pool([replace(make_clip(0, 1, "s"), label=None)], SplitConfig())


@pytest.mark.parametrize(
    "nonsense",
    [{"rate": 0.0}, {"rate": 1.1}, {"val_rate": 1.0}, {"val_rate": -0.1}, {"min_per_class": 0}],
)
def test_settings_out_of_range_are_refused(nonsense):
    with pytest.raises(ValueError, match=next(iter(nonsense))):
        SplitConfig(**nonsense)


def test_leaks_count_what_two_splits_share():
    first = make_clip(0, 0, "source00000")
    same_routine = replace(make_clip(0, 1, "source00000"), split="test")
    same_source = replace(make_clip(0, 8, "source00000"), split="test")
    elsewhere = replace(make_clip(0, 0, "source00001"), split="test")
    assert leaks([first, same_routine, same_source, elsewhere]) == {
        "labeled-test": {
            "clips": 0,
            "sources": 1,
            "routines": 1,
            "clips_of_shared_sources": 2,
        }
    }
    assert leaks([first, replace(first, split="val")])["labeled-val"]["clips"] == 1


def test_the_summary_counts_every_split_and_class():
    clips = split_pool(long_tailed_pool(), SplitConfig(rate=0.1, val_rate=0.0))
    report = summary(clips, SplitConfig(rate=0.1, val_rate=0.0))
    assert report["clips"] == {"labeled": 75, "unlabeled": 676, "val": 0, "test": 0}
    assert sum(report["clips_per_class"]["labeled"].values()) == 75
    assert "unlabeled" not in report["clips_per_class"]
    assert report["settings"]["rate"] == 0.1
