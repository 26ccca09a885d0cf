"""What splits share, against hand counts, brute force and the figures of FineGym's lists."""

import io
import json
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_data.files import SefarError
from qa_data.finegym import TimeSpan, read_elements, read_timestamps, to_clips
from qa_data.manifest import Clip, without_label
from qa_data.taxonomy import read_categories
from qa_data.terminal import console
from sefar_core.data.class_names import conflict_lines
from sefar_core.data.leaks import (
    leak_report,
    leak_tables,
    near_duplicates,
    overlap,
    overlap_lines,
)
from tests.finegym import finegym_folder
from tests.oracles import splits as oracles


def gym_clip(source, event, action, *, split, label=0):
    clip_id = f"{source:_<11}_E_{event:06d}_{event + 30:06d}_A_{action:04d}_{action + 1:04d}"
    return Clip(
        id=clip_id,
        path=f"{clip_id}.mp4",
        label=label,
        text=f"text {label}",
        source=f"{source:_<11}",
        split=split,
    )


def timed_clip(name, source, start_s, end_s, split="labeled"):
    return Clip(
        id=name,
        path=f"{source or 'v'}.mp4",
        start_s=start_s,
        end_s=end_s,
        label=0,
        source=source,
        split=split,
    )


def test_each_thing_shared_is_counted_apart():
    train = [
        gym_clip("one", 0, 0, split="labeled"),
        gym_clip("one", 0, 5, split="labeled"),
        gym_clip("two", 100, 0, split="labeled"),
        gym_clip("four", 0, 0, split="labeled"),
    ]
    test = [
        gym_clip("one", 0, 9, split="test"),  # a routine of training
        gym_clip("one", 0, 15, split="test"),
        gym_clip("one", 500, 0, split="test"),  # another routine of its video
        gym_clip("two", 700, 0, split="test"),
        gym_clip("three", 0, 0, split="test"),  # a video of its own
        replace(train[3], split="test"),
    ]
    assert overlap(train, test) == {
        "clips": 1,
        "sources": 3,
        "of_sources": 4,
        "of_routines": 5,
        "routines": 2,
        "of_clips": 6,
        "clips_of_shared_sources": 5,
        "clips_of_shared_routines": 3,
        "clips_of_shared_frames": 1,
        "without_source": 0,
        "of_first": 4,
        "of_first_without_source": 0,
        "near_duplicates": 0,
    }


def test_training_is_what_is_labeled_and_what_is_not():
    clips = [
        gym_clip("one", 0, 0, split="labeled"),
        without_label(gym_clip("two", 0, 0, split="unlabeled")),
        gym_clip("one", 50, 0, split="test"),
        gym_clip("two", 50, 0, split="test"),
        gym_clip("two", 60, 0, split="test"),
    ]
    leaks = leak_report(clips)["leaks"]
    assert list(leaks) == ["training-test", "labeled-unlabeled", "labeled-test", "unlabeled-test"]
    assert [leaks[pair]["clips_of_shared_sources"] for pair in leaks] == [3, 0, 1, 2]


def test_clips_of_unknown_source_share_nothing_that_could_be_told():
    clips = [Clip(id="a", path="a.mp4", label=0, split="labeled")]
    clips += [Clip(id=name, path=f"{name}.mp4", label=0, split="test") for name in "bc"]
    report = leak_report(clips)
    assert report["leaks"]["labeled-test"]["sources"] == 0
    assert report["leaks"]["labeled-test"]["routines"] == 0
    assert report["without_source"] == {"labeled": 1, "test": 2}
    assert "sources unknown" in printed(report)


def test_unknown_sources_are_never_said_to_share_nothing():
    """Of three test clips one has a known source, which training shares."""
    train = [
        Clip(id="a", path="a.mp4", label=0, source="film", split="labeled"),
        Clip(id="b", path="b.mp4", split="unlabeled"),
    ]
    test = [
        Clip(id="c", path="c.mp4", label=0, source="film", split="test"),
        Clip(id="d", path="d.mp4", label=0, split="test"),
        Clip(id="e", path="e.mp4", label=0, split="test"),
    ]
    lines = overlap_lines(overlap(train, test))
    assert lines == [
        "1 of 1 clips of known source come from source videos that training clips come from too",
        "2 of 3 clips have no known source: whether training clips share it is unknown",
        "1 training clips have no known source; they may share more",
    ]
    assert overlap_lines(overlap(train, test[1:])) == [
        "2 of 2 clips have no known source: whether training clips share it is unknown"
    ]
    assert overlap_lines(overlap(train[:1], test[:1])) == [
        "1 of 1 clips come from source videos that training clips come from too"
    ]
    shown = printed(leak_report([train[0], test[1], test[2]]))
    assert shown.count("unknown") >= 2 and "0 of 0" not in shown


def test_a_label_of_two_names_and_a_name_of_two_labels_are_named():
    clips = [
        Clip(id="a", path="a.mp4", label=0, text="salto", split="labeled"),
        Clip(id="b", path="b.mp4", label=1, text="salto", split="test"),
        Clip(id="c", path="c.mp4", label=1, text="stalder", split="labeled"),
        Clip(id="d", path="d.mp4", label=2, text="salto", event="UB", split="test"),
    ]
    report = leak_report(clips)
    assert report["names_of_one_label"] == {1: ["salto", "stalder"]}
    assert report["labels_of_one_name"] == {"salto": [0, 1]}
    assert conflict_lines(report) == [
        "label 1 has several names: salto, stalder",
        "salto is the name of several labels: 0, 1",
    ]
    assert conflict_lines(leak_report(clips[2:])) == []


def test_names_with_brackets_are_printed_as_they_are():
    clips = [
        Clip(id=name, path=name, label=label, text=f"jump {name} [on/off] :smile:", split=split)
        for name, label, split in (("[/]", 0, "labeled"), ("[b]", 1, "test"))
    ]
    shown = printed(leak_report(clips))
    assert "jump [/] [on/off] :smile:" in shown and "jump [b] [on/off]" in shown


def test_classes_without_a_labeled_clip_are_named():
    clips = [
        gym_clip("one", 0, 0, split="labeled", label=1),
        gym_clip("one", 0, 3, split="test", label=2),
        gym_clip("one", 0, 6, split="test", label=1),
    ]
    assert leak_report(clips)["missing_classes"] == {"labeled": {2: "text 2"}, "test": {}}
    report = leak_report(clips, classes={0: "zero", 1: "one", 2: "two"})
    assert report["missing_classes"] == {
        "labeled": {0: "zero", 2: "two"},
        "test": {0: "zero"},
    }
    assert "2: 0 zero; 2 two" in printed(report)
    many = leak_report(clips, classes={label: f"c{label}" for label in range(30)})
    assert "29: 0 c0; 2 c2" in printed(many) and "and 19 more" in printed(many)


def test_one_moment_cut_out_twice_is_found_by_exact_times_or_whole_seconds():
    once = gym_clip("one", 100, 8, split="labeled")
    again = gym_clip("one", 98, 10, split="test")  # the routine cut two seconds earlier
    elsewhere = gym_clip("two", 98, 10, split="test")
    next_one = gym_clip("one", 100, 10, split="test")
    assert list(near_duplicates([once, again, elsewhere, next_one])) == [(0, 1)]
    times = {once.id: TimeSpan(108.2, 109.1), again.id: TimeSpan(108.9, 109.9)}
    assert list(near_duplicates([once, again], times=times)) == []
    report = leak_report([once, again, elsewhere])
    assert report["near_duplicates"] == {"labeled": 0, "test": 0}
    assert report["leaks"]["labeled-test"]["near_duplicates"] == 1


def test_parts_of_one_file_are_compared_even_if_its_source_is_not_said():
    clips = [timed_clip("a", "", 1.0, 3.0), timed_clip("b", "", 1.05, 3.05)]
    assert list(near_duplicates(clips)) == [(0, 1)]
    assert list(near_duplicates([replace(clips[0], path="w.mp4"), clips[1]])) == []


def test_dives_of_one_event_begin_each_at_its_own_zero():
    one = [timed_clip(f"01__1_{n}", "01", n, n + 1.0) for n in range(2)]
    other = [timed_clip(f"01__2_{n}", "01", n, n + 1.0) for n in range(2)]
    one = [replace(clip, path="01/1") for clip in one]
    other = [replace(clip, path="01/2") for clip in other]
    assert list(near_duplicates(one + other)) == []
    again = replace(one[0], id="again", source="another name of the event")
    assert list(near_duplicates([*one, *other, again])) == [(0, 4)]


def test_a_cut_file_and_its_stretch_of_the_full_video_are_one_moment():
    cut = gym_clip("one", 100, 8, split="labeled")
    full = replace(cut, id="full", path="videos/one________.mkv", start_s=108.0, end_s=110.0)
    assert list(near_duplicates([cut, full])) == [(0, 1)]
    routine = replace(full, path=f"{cut.id[:27]}.mp4")  # its times count in the routine's file
    assert list(near_duplicates([cut, routine])) == []


moments = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 60), st.integers(1, 40)), max_size=25
)


@settings(max_examples=200, deadline=None)
@given(moments)
def test_the_sweep_finds_what_looking_at_every_pair_finds(drawn):
    clips = [timed_clip(str(i), s, float(a), float(a + n)) for i, (s, a, n) in enumerate(drawn)]
    found = [frozenset(pair) for pair in near_duplicates(clips)]
    assert len(found) == len(set(found))
    assert set(found) == oracles.same_moments([(s, a, a + n) for s, a, n in drawn])


@pytest.mark.parametrize("end_s", [1.0, 0.5, float("nan"), float("inf")])
def test_a_clip_that_ends_before_it_starts_is_named(end_s):
    clip = Clip(id="bad", path="a.mp4", label=0, source="s", split="labeled")
    with pytest.raises(SefarError, match=r"clip bad runs from 1.0 to"):
        list(near_duplicates([clip], times={"bad": TimeSpan(1.0, end_s)}))


def test_the_report_is_plain_and_prints_the_same_from_a_file():
    clips = [gym_clip("one", 0, 0, split="labeled"), gym_clip("one", 0, 3, split="test", label=1)]
    report = leak_report(clips)
    read_back = json.loads(json.dumps(report))
    assert printed(read_back) == printed(report)
    assert "1 of 1" in printed(report) and "not known" not in printed(report)


def printed(report):
    terminal = console(io.StringIO(), width=200)
    terminal.print(*leak_tables(report))
    return terminal.file.getvalue()


@cache
def finegym(benchmark):
    """Training and test clips of a benchmark, as its lists have them."""
    folder = finegym_folder()
    classes = read_categories(folder / f"{benchmark}_categories.txt")
    train = read_elements(folder / f"{benchmark}_train_element_v1.1.txt")
    test = read_elements(folder / f"{benchmark}_val_element.txt")
    return to_clips(train, classes, split="labeled"), to_clips(test, classes, split="test")


@pytest.mark.lists
@pytest.mark.parametrize(
    ("benchmark", "found"),
    [
        ("gym99", (0, 40, 65, 265, 8521, 3417, 1228, 0)),
        ("gym288", (0, 113, 117, 623, 9646, 9353, 3145, 2)),
    ],
)
def test_the_official_lists_leak_as_much_as_is_known_of_them(benchmark, found):
    train, test = finegym(benchmark)
    names = (
        "clips", "sources", "of_sources", "routines", "of_clips",
        "clips_of_shared_sources", "clips_of_shared_routines", "near_duplicates",
    )  # fmt: skip
    leaks = leak_report([*train, *test])["leaks"]["labeled-test"]
    assert {name: leaks[name] for name in names} == dict(zip(names, found, strict=True))
    assert leaks["clips_of_shared_frames"] == 0


@pytest.mark.lists
def test_each_benchmark_tests_on_clips_that_the_other_trains_on():
    (train99, test99), (train288, test288) = finegym("gym99"), finegym("gym288")
    assert overlap(train99, test288)["clips"] == 99
    assert overlap(train288, test99)["clips"] == 99


@pytest.mark.lists
def test_exact_times_find_the_moments_that_gym99_shows_twice():
    train, test = finegym("gym99")
    folder = finegym_folder() / "timestamps"
    times = read_timestamps(folder / "train99.csv") | read_timestamps(folder / "val99.csv")
    report = leak_report([*train, *test], times=times)
    assert report["near_duplicates"] == {"labeled": 30, "test": 12}
    assert report["leaks"]["labeled-test"]["near_duplicates"] == 0
    clips = [*train, *test]
    for i, j in near_duplicates(clips, times=times):
        assert clips[i].label == clips[j].label
        assert clips[i].id.split("_A_")[0] != clips[j].id.split("_A_")[0]


@pytest.mark.lists
def test_whole_seconds_of_the_names_find_some_of_them():
    train, test = finegym("gym99")
    assert leak_report([*train, *test])["near_duplicates"] == {"labeled": 13, "test": 6}
