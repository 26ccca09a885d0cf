"""Test clips as listed, or cut anew so that no source video is on both sides."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_data.files import SefarError
from qa_data.manifest import Clip
from sefar_core.data.group_split import (
    choose_test_sources,
    choose_val_sources,
    group_counts,
    one_source_classes,
    split_test,
    take_groups,
    without_shared_sources,
)
from tests.finegym import benchmark_clips
from tests.oracles import splits as oracles


def clip(number, label, source, split="labeled"):
    name = f"{split[0]}{number}"
    return Clip(
        id=name, path=f"{name}.mp4", label=label, text=f"move {label}", source=source, split=split
    )


def pairs(found, split="labeled"):
    """Clips of (label, source)."""
    return [clip(n, label, source, split) for n, (label, source) in enumerate(found)]


def leaky_lists():
    """Ten sources of 24 clips, four classes; every source has clips in both lists."""
    clips = [
        clip(n, n % 4, f"video {n // 4 % 10}", "labeled" if n % 5 else "test") for n in range(240)
    ]
    return [c for c in clips if c.split == "labeled"], [c for c in clips if c.split == "test"]


def lists_with_a_class_of_one_source():
    pool, test = leaky_lists()
    return [*pool, *(clip(1000 + n, 9, "video 3") for n in range(3))], test


def sources(clips):
    return {one.source for one in clips}


def labels(clips):
    return {one.label for one in clips}


def test_by_source_shares_no_video_and_keeps_the_share_of_test():
    listed_pool, listed_test = leaky_lists()
    pool, test = split_test(*leaky_lists(), rate=0.5)  # which is for data without test clips
    assert not sources(pool) & sources(test)
    assert labels(pool) == labels(test) == {0, 1, 2, 3}
    assert len(test) == 48 and len(pool) == 192
    assert {c.split for c in pool} == {"labeled"} and {c.split for c in test} == {"test"}
    assert {c.id for c in pool + test} == {c.id for c in listed_pool + listed_test}
    first, again = (split_test(*leaky_lists(), seed=3) for _ in range(2))
    assert first == again
    others = {frozenset(sources(split_test(*leaky_lists(), seed=s)[1])) for s in range(8)}
    assert len(others) > 4


def test_lists_stand_as_they_are_if_official_or_nothing_is_shared_or_known():
    pool, test = leaky_lists()
    assert split_test(pool, test, how="official") == (pool, test)
    apart = [replace(one, source=f"other {one.source}") for one in test]
    assert split_test(pool, apart) == (pool, apart)
    unknown = tuple([replace(one, source="") for one in side] for side in (pool, test))
    for how in ("by_source", "official", "official_disjoint"):
        assert split_test(*unknown, how=how) == unknown
    assert split_test([], test) == ([], test)


def test_official_disjoint_keeps_test_and_drops_training_clips_of_its_videos():
    pool = [clip(n, n % 2, f"video {n % 6}") for n in range(60)]
    test = [clip(n, n % 2, f"video {n % 2}", "test") for n in range(10)]
    kept, same = split_test(pool, test, how="official_disjoint")
    assert same == test
    assert kept == [one for one in pool if one.source not in ("video 0", "video 1")]
    pool = pairs([(3, "a"), (4, "a"), (5, "b"), (3, "b")])
    test = pairs([(3, "a"), (4, "a")], "test")
    kept = split_test(pool, test, how="official_disjoint", one_sided="keep")
    assert kept == (pool[2:4], test)
    left = split_test(pool, test, how="official_disjoint", one_sided="leave_out")
    assert left == (pool[2:4], test[:1])
    clips = pairs([(0, "a"), (0, "b"), (0, "")])
    assert without_shared_sources(clips, pairs([(0, "a"), (0, "")], "test")) == clips[1:]


TRIANGLE = pairs([(0, "a"), (0, "b"), (1, "b"), (1, "c"), (2, "a"), (2, "c")])


def test_classes_of_one_source_can_stay_in_training_or_leave():
    for seed in range(3):
        pool, test = split_test(*lists_with_a_class_of_one_source(), one_sided="keep", seed=seed)
        assert labels(pool) == {0, 1, 2, 3, 9} and labels(test) == {0, 1, 2, 3}
    pool, test = split_test(*lists_with_a_class_of_one_source(), one_sided="leave_out")
    assert labels(pool) == labels(test) == {0, 1, 2, 3}
    assert len(pool) + len(test) == 240
    # Classes that block one another.
    kept, test = split_test(TRIANGLE, [], one_sided="keep")
    assert labels(kept) == {0, 1, 2} and len(labels(test)) == 2
    kept, test = split_test(TRIANGLE, [], one_sided="leave_out")
    assert len(labels(kept)) == 2 and labels(kept) == labels(test)


def test_a_folder_of_ones_own_gets_test_clips_of_every_class():
    pool = [clip(n, min(n // 50, 3), "") for n in range(300)]  # 50, 50, 50 and 150 clips
    kept, test = split_test(pool, [], rate=0.2)
    assert Counter(one.label for one in test) == {0: 10, 1: 10, 2: 10, 3: 30}
    assert len(kept) == 240
    assert split_test(pool, [], rate=0.0) == (pool, [])
    # Clips of known source stay together among those of unknown.
    pool = [clip(n, n % 3, f"video {n // 9}" if n < 90 else "") for n in range(180)]
    kept, test = split_test(pool, [], rate=0.3)
    assert not (sources(kept) & sources(test)) - {""}
    assert 45 <= len(test) <= 63


POOL, TEST = leaky_lists()
LOSING = pairs([(3, "a"), (4, "a"), (5, "b"), (3, "b")]), pairs([(3, "a"), (4, "a")], "test")


@pytest.mark.parametrize(
    ("lists", "how", "words"),
    [
        (
            lists_with_a_class_of_one_source(),
            "by_source",
            r": 1 classes have all their clips from one source video: 9 'move 9'.*one_sided='keep'",
        ),
        (
            (pairs((n, f"video {n}") for n in range(100)), []),
            "by_source",
            "100 classes .*: 0 'move 0', .* 39 'move 39', and 60 more",
        ),
        ((TRIANGLE, []), "by_source", "1 classes share so few source videos that no cut"),
        (LOSING, "official_disjoint", r"1 classes lose their last training clip.*: 4 'move 4'\."),
        ((POOL, []), "official", "test_cut='official' needs test clips"),
        ((POOL, []), "official_disjoint", "test_cut='official_disjoint' needs test clips"),
        (([*POOL, TEST[0]], TEST), "by_source", "1 clips are in the training list and in another"),
        (
            (POOL, [replace(TEST[0], label=None), *TEST[1:]]),
            "by_source",
            "1 training or test clips have no label, first t0",
        ),
    ],
)
def test_lists_that_cannot_be_cut_are_refused_with_the_fix(lists, how, words):
    with pytest.raises(SefarError, match=words):
        split_test(*lists, how=how)


toy_clips = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=2, max_size=20)


@given(toy_clips, st.integers(0, 9), st.sampled_from([0.1, 0.25, 0.5]))
def test_no_cut_of_all_would_lack_fewer_classes(drawn, seed, rate):
    pool = pairs((label, f"video {source}") for label, source in drawn)
    kept, test = split_test(pool, [], rate=rate, seed=seed, one_sided="keep")
    assert not sources(kept) & sources(test)
    assert sorted(one.id for one in kept + test) == sorted(one.id for one in pool)
    assert labels(kept) == labels(pool)
    fewest = oracles.fewest_lacking([(f"{source}", label) for label, source in drawn])
    assert len(labels(pool) - labels(test)) == fewest
    # What each other way with classes of one side says.
    if labels(pool) == one_source_classes(pool):
        with pytest.raises(SefarError, match="none is left"):
            split_test(pool, [], rate=rate, seed=seed, one_sided="leave_out")
    else:
        kept, test = split_test(pool, [], rate=rate, seed=seed, one_sided="leave_out")
        assert labels(kept) == labels(test) != set()
    try:
        kept, test = split_test(pool, [], rate=rate, seed=seed)
    except SefarError as error:
        assert fewest > 0
        for label in one_source_classes(pool):
            assert f"{label} 'move {label}'" in str(error)
    else:
        assert labels(kept) == labels(test) == labels(pool)


@pytest.mark.lists
@pytest.mark.slow
def test_gym99_can_be_cut_by_source_with_every_class_on_both_sides():
    pool, test = split_test(*benchmark_clips("gym99"))
    assert not sources(pool) & sources(test)
    assert labels(pool) == labels(test) == set(range(99))
    assert abs(len(test) - 8521) < 0.01 * 34841
    assert len(pool) + len(test) == 34841


@pytest.mark.lists
@pytest.mark.slow
def test_three_classes_of_gym288_come_from_one_video():
    with pytest.raises(
        SefarError,
        match="3 classes have all their clips from one source video: "
        "208 'salto forward tucked with 1 twist', 209 'salto forward tucked', 210",
    ):
        split_test(*benchmark_clips("gym288"))
    pool, test = split_test(*benchmark_clips("gym288"), one_sided="keep")
    assert labels(pool) == set(range(288))
    assert labels(test) == set(range(288)) - {208, 209, 210, 226}


@pytest.mark.lists
@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "lost", "left"),
    [("gym99", "1 classes.*: 70 'salto", (20760, 8521)), ("gym288", "29 classes", (12654, 9646))],
)
def test_classes_of_finegym_are_lost_with_the_videos_of_the_official_test(benchmark, lost, left):
    with pytest.raises(SefarError, match=lost.replace(".*", " lose their last training clip.*")):
        split_test(*benchmark_clips(benchmark), how="official_disjoint")
    pool, test = split_test(*benchmark_clips(benchmark), how="official_disjoint", one_sided="keep")
    assert (len(pool), len(test)) == left


def test_cuts_of_a_seed_stay_the_same():
    mixed = [clip(number, number**2 % 7, f"s{number**3 % 17}") for number in range(120)]
    assert choose_val_sources(mixed, 0.2, Random("0 val")) == {"s0", "s10", "s8"}
    assert choose_test_sources(mixed, 0.2, Random("0 test")) == {"s0", "s6", "s9"}


@pytest.mark.parametrize(
    ("overshoot", "chosen"),
    [("never", ["a", "c"]), ("if_nearer", ["a", "b"]), ("always", ["a", "b"])],
)
def test_whole_groups_are_taken_until_enough_members_are_in(overshoot, chosen):
    counts = group_counts([("a", 0)] * 4 + [("b", 0)] * 3 + [("c", 1)] + [("d", 1)] * 9)
    assert take_groups(counts, "abcd", 6, overshoot=overshoot) == chosen
    assert take_groups(counts, "abcd", 6, spare={0: 4, 1: 0}, overshoot=overshoot) == ["a"]
    # One far beyond what is wanted is taken by `always` alone, one that is just enough by all.
    counts = group_counts([("a", 0)] * 9 + [("b", 0)])
    expected = ["a"] if overshoot == "always" else ["b"]
    assert take_groups(counts, "ab", 2, overshoot=overshoot) == expected
    assert take_groups(counts, "ab", 9, overshoot=overshoot) == ["a"]
