"""A data set's clips get their splits, and none is lost without a word."""

from collections import Counter

import pytest

from qa_data.files import SefarError
from qa_data.manifest import Clip
from sefar_core.data.splits import SplitConfig, split_dataset

CLASSES, SOURCES, A_PAIR = 3, 12, 4


def clips(split: str, sources: range, *, labeled: bool = True) -> list[Clip]:
    return [
        Clip(
            id=f"{split}-{source}-{label}-{n}",
            path="x.mp4",
            label=label if labeled else None,
            text=f"class {label}" if labeled else None,
            source=f"video {source}",
            split=split,
        )
        for source in sources
        for label in range(CLASSES)
        for n in range(A_PAIR)
    ]


@pytest.mark.parametrize("test_cut", ["by_source", "official", "official_disjoint"])
def test_every_clip_is_in_a_split_or_counted(test_cut):
    pool, test = clips("labeled", range(SOURCES)), clips("test", range(9, 14))
    never = clips("unlabeled", range(20), labeled=False)
    config = SplitConfig(rate=0.5, val_rate=0.2, test_cut=test_cut)
    divided, left_out = split_dataset(pool, [*test, *never], config)
    ids = [clip.id for clip in divided]
    assert len(set(ids)) == len(ids)
    assert len(ids) + sum(left_out.values()) == len(pool) + len(test) + len(never)
    assert left_out["never labeled, of validation or test videos"] > 0


@pytest.mark.parametrize("test_cut", ["by_source", "official", "official_disjoint"])
def test_clips_that_never_had_a_label_share_no_video_with_validation(test_cut):
    pool, test = clips("labeled", range(SOURCES)), clips("test", range(9, 14))
    never = clips("unlabeled", range(20), labeled=False)
    config = SplitConfig(rate=0.5, val_rate=0.2, test_cut=test_cut)
    divided, _ = split_dataset(pool, [*test, *never], config)
    of = {split: {c.source for c in divided if c.split == split} for split in ("val", "test")}
    training = {c.source for c in divided if c.split in ("labeled", "unlabeled")}
    assert of["val"] and not of["val"] & training
    assert bool(of["test"] & training) == (test_cut == "official")


def test_a_data_set_whose_clips_are_all_settled_stays_as_it_is():
    settled = clips("labeled", range(2)) + clips("test", range(2, 3))
    assert split_dataset([], settled, SplitConfig()) == (settled, {})
    with pytest.raises(SefarError, match="fix the split of every clip.*leave these settings out"):
        split_dataset([], settled, SplitConfig(rate=0.3))


def test_settled_validation_clips_stay():
    val = clips("val", range(30, 31))
    divided, _ = split_dataset(clips("labeled", range(SOURCES)), val, SplitConfig(val_rate=0.0))
    assert Counter(clip.split for clip in divided)["val"] == len(val)
