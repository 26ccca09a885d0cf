"""What splits share, against hand counts, brute force and the figures of FineGym's lists."""

import io
import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_data.files import SefarError
from qa_data.finegym import TimeSpan, read_timestamps
from qa_data.manifest import Clip, without_label
from qa_data.terminal import console
from sefar_core.data.class_names import conflict_lines
from sefar_core.data.leaks import (
    files_of,
    leak_report,
    leak_tables,
    manifest_lines,
    near_duplicates,
    overlap,
    overlap_lines,
    sharing_frames,
)
from tests.finegym import benchmark_clips, finegym_folder
from tests.oracles import splits as oracles


def gym_clip(source, event, action, split="labeled", *, label=0):
    clip_id = f"{source:_<11}_E_{event:06d}_{event + 30:06d}_A_{action:04d}_{action + 1:04d}"
    one = clip(clip_id, f"{clip_id}.mp4", split, label=label, source=f"{source:_<11}")
    return replace(one, text=f"text {label}")


def clip(name, path, split="labeled", **cells):
    return Clip(id=name, path=path, split=split, **{"label": 0, **cells})


def timed_clip(name, source, start_s, end_s, **cells):
    return clip(name, f"{source or 'v'}.mp4", start_s=start_s, end_s=end_s, source=source, **cells)


def printed(report):
    terminal = console(io.StringIO(), width=200)
    terminal.print(*leak_tables(report))
    return terminal.file.getvalue()


def test_each_thing_shared_is_counted_apart():
    train = [gym_clip("one", 0, 0), gym_clip("one", 0, 5), gym_clip("two", 100, 0)]
    train += [gym_clip("four", 0, 0)]
    test = [
        gym_clip("one", 0, 9, "test"),  # a routine of training
        gym_clip("one", 0, 15, "test"),
        gym_clip("one", 500, 0, "test"),  # another routine of its video
        gym_clip("two", 700, 0, "test"),
        gym_clip("three", 0, 0, "test"),  # a video of its own
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
        gym_clip("one", 0, 0),
        without_label(gym_clip("two", 0, 0, "unlabeled")),
        gym_clip("one", 50, 0, "test"),
        gym_clip("two", 50, 0, "test"),
        gym_clip("two", 60, 0, "test"),
    ]
    leaks = leak_report(clips)["leaks"]
    assert list(leaks) == ["training-test", "labeled-unlabeled", "labeled-test", "unlabeled-test"]
    assert [leaks[pair]["clips_of_shared_sources"] for pair in leaks] == [3, 0, 1, 2]


def test_unknown_sources_are_never_said_to_share_nothing():
    """Of three test clips one has a known source, which training shares."""
    train = [clip("a", "a.mp4", source="film"), clip("b", "b.mp4", "unlabeled", label=None)]
    test = [clip("c", "c.mp4", "test", source="film")]
    test += [clip(name, f"{name}.mp4", "test") for name in "de"]
    assert overlap_lines(overlap(train, test)) == [
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
    report = leak_report([train[0], *test[1:]])
    assert printed(report).count("unknown") >= 2 and "0 of 0" not in printed(report)
    report = leak_report([replace(train[0], source=""), *test[1:]])
    assert report["leaks"]["labeled-test"]["sources"] == 0
    assert report["leaks"]["labeled-test"]["routines"] == 0
    assert report["without_source"] == {"labeled": 1, "test": 2}
    assert "sources unknown" in printed(report)


def test_a_label_of_two_names_and_a_name_of_two_labels_are_named():
    clips = [
        clip("a", "a.mp4", text="salto"),
        clip("b", "b.mp4", "test", label=1, text="salto"),
        clip("c", "c.mp4", label=1, text="stalder"),
        clip("d", "d.mp4", "test", label=2, text="salto", event="UB"),
    ]
    report = leak_report(clips)
    assert report["names_of_one_label"] == {1: ["salto", "stalder"]}
    assert report["labels_of_one_name"] == {"salto": [0, 1]}
    assert conflict_lines(report) == [
        "label 1 has several names: salto, stalder",
        "salto is the name of several labels: 0, 1",
    ]
    assert conflict_lines(leak_report(clips[2:])) == []


def test_classes_without_a_clip_are_named_and_names_are_printed_as_they_are():
    clips = [
        gym_clip("one", 0, 0, label=1),
        gym_clip("one", 0, 3, "test", label=2),
        gym_clip("one", 0, 6, "test", label=1),
    ]
    assert leak_report(clips)["missing_classes"] == {"labeled": {2: "text 2"}, "test": {}}
    report = leak_report(clips, classes={0: "[/on] :smile:", 1: "one", 2: "two"})
    assert report["missing_classes"] == {
        "labeled": {0: "[/on] :smile:", 2: "two"},
        "test": {0: "[/on] :smile:"},
    }
    assert "2: 0 [/on] :smile:; 2 two" in printed(report)
    many = leak_report(clips, classes={label: f"c{label}" for label in range(30)})
    assert "29: 0 c0; 2 c2" in printed(many) and "and 19 more" in printed(many)
    read_back = json.loads(json.dumps(report))
    assert printed(read_back) == printed(report)
    assert "1 of 1" in printed(report) and "not known" not in printed(report)


def test_one_moment_cut_out_twice_is_found_by_exact_times_or_whole_seconds():
    once = gym_clip("one", 100, 8)
    again = gym_clip("one", 98, 10, "test")  # the routine cut two seconds earlier
    elsewhere = gym_clip("two", 98, 10, "test")
    next_one = gym_clip("one", 100, 10, "test")
    assert list(near_duplicates([once, again, elsewhere, next_one])) == [(0, 1)]
    times = {once.id: TimeSpan(108.2, 109.1), again.id: TimeSpan(108.9, 109.9)}
    assert list(near_duplicates([once, again], times=times)) == []
    report = leak_report([once, again, elsewhere])
    assert report["near_duplicates"] == {"labeled": 0, "test": 0}
    assert report["leaks"]["labeled-test"]["near_duplicates"] == 1


def test_moments_are_compared_within_the_file_whose_times_they_are():
    parts = [timed_clip("a", "", 1.0, 3.0), timed_clip("b", "", 1.05, 3.05)]
    assert list(near_duplicates(parts)) == [(0, 1)]
    assert list(near_duplicates([replace(parts[0], path="w.mp4"), parts[1]])) == []
    # Dives of one event begin each at its own zero.
    dives = [
        replace(timed_clip(f"{dive}_{n}", "01", n, n + 1.0), path=f"01/{dive}")
        for dive in (1, 2)
        for n in range(2)
    ]
    assert list(near_duplicates(dives)) == []
    again = replace(dives[0], id="again", source="another name of the event")
    assert list(near_duplicates([*dives, again])) == [(0, 4)]
    # A cut file, and its stretch of the full video and of its routine's file.
    cut = gym_clip("one", 100, 8)
    full = replace(cut, id="full", path="videos/one________.mkv", start_s=108.0, end_s=110.0)
    assert list(near_duplicates([cut, full])) == [(0, 1)]
    assert list(near_duplicates([cut, replace(full, path=f"{cut.id[:27]}.mp4")])) == []
    # One whole file under two ids.
    whole = replace(gym_clip("one", 100, 8), path="x.mp4")
    whole = [whole, replace(whole, id="other")]
    assert list(near_duplicates(whole)) == [(0, 1)]
    times = dict.fromkeys([one.id for one in whole], TimeSpan(2219.0, 2221.0))
    assert list(near_duplicates(whole, times=times)) == [(0, 1)]


# Near enough to one another that many are above and many just below the limit.
moments = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.integers(9, 40)), max_size=25
)


@given(moments)
def test_the_sweep_finds_what_looking_at_every_pair_finds(drawn):
    clips = [timed_clip(str(i), s, float(a), float(a + n)) for i, (s, a, n) in enumerate(drawn)]
    found = [frozenset(pair) for pair in near_duplicates(clips)]
    assert len(found) == len(set(found))
    assert set(found) == oracles.same_moments([(s, a, a + n) for s, a, n in drawn])


@pytest.mark.parametrize("end_s", [1.0, 0.5, float("nan"), float("inf")])
def test_a_clip_that_ends_before_it_starts_is_named(end_s):
    bad = clip("bad", "a.mp4", source="s")
    with pytest.raises(SefarError, match=r"clip bad runs from 1.0 to"):
        list(near_duplicates([bad], times={"bad": TimeSpan(1.0, end_s)}))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.mp4").write_bytes(b"one film")
    (tmp_path / "a/2.mp4").write_bytes(b"another.")  # as many bytes
    return tmp_path


@pytest.mark.parametrize(
    ("one", "other"),
    [("a/1.mp4", "./a/1.mp4"), ("a/1.mp4", "a//1.mp4"), ("Kür/1.mp4", "Ku\u0308r/1.mp4")],
)
def test_two_spellings_are_one_file_without_a_look_at_the_disk(one, other):
    found = files_of([clip("x", one), clip("y", other), clip("z", "a/2.mp4")])
    assert found["x"] == found["y"] != found["z"]


@pytest.mark.parametrize("other", ["absolute", "link.mp4", "linked/1.mp4", "hard.mp4", "copy.mp4"])
def test_a_file_keeps_its_identity_under_every_name(root, other):
    (root / "link.mp4").symlink_to(root / "a/1.mp4")
    (root / "linked").symlink_to(root / "a")
    os.link(root / "a/1.mp4", root / "hard.mp4")
    (root / "copy.mp4").write_bytes(b"one film")
    path = str(root / "a/1.mp4") if other == "absolute" else other
    clips = [clip("x", "a/1.mp4"), clip("y", path, "test"), clip("z", "a/2.mp4", "test")]
    found = files_of(clips, root)
    assert found["x"] == found["y"] != found["z"]
    shared = overlap(clips[:1], clips[1:], video_root=root)
    assert (shared["near_duplicates"], shared["clips_of_shared_frames"]) == (1, 1)


def test_folders_are_clips_too_and_what_is_empty_or_missing_equals_nothing(root):
    (root / "frames").mkdir()
    (root / "frames/0001.jpg").write_bytes(b"picture")
    (root / "again").symlink_to(root / "frames")
    found = files_of([clip("x", "frames"), clip("y", "again"), clip("z", "a")], root)
    assert found["x"] == found["y"] != found["z"]
    for name in ("empty1.mp4", "empty2.mp4"):
        (root / name).touch()
    names = ("empty1.mp4", "empty2.mp4", "none1.mp4", "none2.mp4", "a")
    assert len(set(files_of([clip(name, name) for name in names], root).values())) == 5


def test_stretches_of_one_file_share_frames_where_they_overlap():
    train = [
        timed_clip("t1", "v", 0.0, 9.0),
        timed_clip("t2", "v", 1.0, 2.0),
        timed_clip("t3", "w", 1.0, 2.0),
    ]
    test = [
        replace(timed_clip("inside", "v", 5.0, 6.0), path="./v.mp4"),  # behind t2, within t1
        timed_clip("touching", "v", 9.0, 10.0),
        timed_clip("before", "w", 0.0, 1.0),
        clip("whole", "w.mp4"),
        timed_clip("elsewhere", "u", 5.0, 6.0),
    ]
    found = sharing_frames(train, test, files_of([*train, *test]))
    assert [one.id for one in found] == ["inside", "whole"]
    back = sharing_frames([test[3]], train, files_of([*train, *test]))
    assert [one.id for one in back] == ["t3"]


def test_a_file_and_frames_on_both_sides_are_named_with_their_clips(root):
    (root / "copy.mp4").write_bytes(b"one film")
    clips = [
        clip("x", "a/1.mp4"),
        clip("y", "copy.mp4", "test", label=1),
        clip("s", "a/2.mp4", start_s=0.0, end_s=2.0),
        clip("t", "./a/2.mp4", "test", start_s=1.0, end_s=3.0),
    ]
    assert manifest_lines(clips, root) == [
        "the same file: a/1.mp4, copy.mp4 (clip x, labeled, class 0, clip y, test, class 1)",
        "test clips of frames that training clips show: y, t",
    ]
    assert manifest_lines(clips[:1], root) == []


@pytest.mark.lists
@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "other", "found", "within"),
    [
        ("gym99", "gym288", (0, 40, 65, 265, 8521, 3417, 1228, 0), {"labeled": 13, "test": 6}),
        ("gym288", "gym99", (0, 113, 117, 623, 9646, 9353, 3145, 2), None),
    ],
)
def test_the_official_lists_leak_as_much_as_is_known_of_them(benchmark, other, found, within):
    train, test = benchmark_clips(benchmark)
    names = (
        "clips", "sources", "of_sources", "routines", "of_clips",
        "clips_of_shared_sources", "clips_of_shared_routines", "near_duplicates",
    )  # fmt: skip
    report = leak_report([*train, *test])
    leaks = report["leaks"]["labeled-test"]
    assert {name: leaks[name] for name in names} == dict(zip(names, found, strict=True))
    assert leaks["clips_of_shared_frames"] == 0
    assert within in (None, report["near_duplicates"])  # by whole seconds of the names
    # Each benchmark tests on clips that the other trains on.
    ids = {one.id for one in train}
    assert sum(one.id in ids for one in benchmark_clips(other)[1]) == 99


@pytest.mark.lists
@pytest.mark.slow
def test_exact_times_find_the_moments_that_gym99_shows_twice():
    clips = [one for side in benchmark_clips("gym99") for one in side]
    folder = finegym_folder() / "timestamps"
    times = read_timestamps(folder / "train99.csv") | read_timestamps(folder / "val99.csv")
    duplicates = list(near_duplicates(clips, times=times))
    for i, j in duplicates:
        assert clips[i].label == clips[j].label
        assert clips[i].id.split("_A_")[0] != clips[j].id.split("_A_")[0]
    splits = [{clips[i].split, clips[j].split} for i, j in duplicates]
    assert [splits.count({split}) for split in ("labeled", "test")] == [30, 12]
    assert len(duplicates) == 42
