"""FineGym from the files of its users: whole, by apparatus, by set, and Gym-New."""

import pytest

from qa_data.taxonomy import ElementClass, read_categories
from sefar_core.data.datasets.finegym import gym_new_labels, names_of, part_of, read_finegym
from sefar_core.data.datasets.records import ListError
from tests.finegym import finegym_folder
from tests.oracles import finegym_lists as oracle
from tests.oracles.finegym_lists import Routine

# (label, set, apparatus, text): invented, but of FineGym's manner.
ROWS = [
    (0, 1, "VT", "handspring on, salto off"),
    (1, 24, "FX", "salto forward stretched with 4 twist"),
    (2, 24, "FX", "salto forward tucked"),
    (3, 25, "FX", "salto backward stretched with 4 twist"),
    (4, 25, "FX", "salto backward tucked"),
    (5, 21, "FX", "stag jump "),
    (6, 33, "BB", "stag jump"),
    (7, 35, "BB", "stag jump"),
    (8, 41, "UB", "giant circle backward with 0.5 turn to handstand"),
    (9, 41, "UB", "moon circle forward"),
    (10, 41, "UB", "giant circle forward with 0.5 turn to handstand"),
    (11, 41, "UB", "moon circle backward"),
    (12, 43, "UB", "flight from high bar to low bar"),
    (13, 43, "UB", "flight from low bar to high bar"),
]
VAULT = [(0.04, 3.2), (3.2, 4.49), (4.49, 6.57)]
TRAIN = [
    Routine("-a_E_0_A_0x", 1, 2681.88, 2688.48, [(VAULT, 0)]),
    Routine("0LtLS9wROrk", 4, 2407.32, 2435.28, [([(3.45, 5.64)], 8), ([(6.0, 7.5)], 13)]),
    Routine("0LtLS9wROrk", 4, 3000.5, 3010.0, []),
    Routine("floor-_____", 2, 10.0, 90.0, [([(k, k + 1.5)], k) for k in (1, 2, 3, 4, 5)]),
    Routine("beam_______", 3, 10.0, 90.0, [([(k, k + 1.5)], k) for k in (6, 7)]),
]
TEST = [
    Routine("bars_______", 4, 0.25, 90.0, [([(k, k + 0.9)], k) for k in (9, 10, 11, 12, 13)]),
    Routine("test-floor_", 2, 0.25, 90.0, [([(k, k + 0.9)], k) for k in (3, 5)]),
]

# What the public lists hold: part -> (benchmark, clips of the pool, test clips, classes, and what
# its labels are less than Gym99's).
PUBLISHED = {
    "all": (99, 1316 + 25004, 8521, 99, 0),
    "UB": (99, 959 + 8635, 2814, 25, 74),
    "FX": (99, 540 + 4868, 2226, 35, 6),
    "VT": (99, 108 + 972, 446, 6, 0),
    "UB-S1": (99, 496 + 4468, 1471, 15, 74),
    "FX-S1": (99, 189 + 1703, 777, 11, 6),
    "gym_new": (288, 325 + 6183, 1998, 40, None),
}
# Gym288's labels in the order of Gym-New's.
GYM_NEW = [
    *(106, 117, 107, 118, 108, 122, 109, 123, 208, 216, 209, 217, 211, 225, 212, 222, 213, 223),
    *(234, 236, 237, 244, 239, 243, 241, 246, 248, 250, 249, 251, 254, 255, 257, 259, 258, 260),
    *(271, 272, 277, 278),
]


@pytest.fixture
def files(tmp_path):
    return oracle.write_files(tmp_path, ROWS, TRAIN, TEST)


def read(files, **options):
    return read_finegym(
        files["gym_categories.txt"],
        files["gym_train_element_v1.1.txt"],
        files["gym_val_element.txt"],
        **options,
    )


@pytest.mark.parametrize(
    "names", [("finegym_annotation_info_v1.1.json",), ("train.csv", "val.csv")]
)
def test_full_videos_are_read_at_the_annotated_milliseconds(files, names):
    listing = read(files, videos="full", annotations=tuple(files[name] for name in names))
    got = [(clip.id, clip.label, clip.start_s, clip.end_s) for clip in listing.pool]
    assert got == oracle.clips(TRAIN)
    assert got[0][2:] == (2681.92, 2688.45)  # a vault spans its three stages
    assert {clip.path for clip in listing.settled} == {"bars_______.mp4", "test-floor_.mp4"}
    assert listing.times == {}
    # Beside trimmed clips the annotations tell their times to the report alone.
    trimmed = read(files, annotations=tuple(files[name] for name in names))
    assert {clip.start_s for clip in trimmed.pool + trimmed.settled} == {None}
    clips = listing.pool + listing.settled
    assert trimmed.times == {clip.id: (clip.start_s, clip.end_s) for clip in clips}


@pytest.mark.parametrize(
    ("part", "old"),
    [
        ("VT", [0]),
        ("UB", [8, 9, 10, 11, 12, 13]),
        ("UB-S1", [8, 9, 10, 11]),
        ("FX-S1", [5]),
        ("24", [1, 2]),
        ("gym_new", [1, 3, 9, 11, 12, 13]),
    ],
)
def test_a_part_is_numbered_in_the_order_of_its_old_labels(files, part, old):
    classes = part_of(read_categories(files["gym_categories.txt"]), part)
    assert {before: one.label for before, one in classes.items()} == {
        label: number for number, label in enumerate(old)
    }
    if part in ("UB", "gym_new"):
        listing = read(files, part=part)
        assert list(listing.classes) == list(range(len(old)))
        for clips, routines in ((listing.pool, TRAIN), (listing.settled, TEST)):
            assert [(clip.id, clip.label) for clip in clips] == [
                (name, old.index(label))
                for name, label, _, _ in oracle.clips(routines)
                if label in old
            ]


def test_a_class_with_two_opposites_or_none_makes_no_gym_new():
    def classes(*texts):
        return [ElementClass(n, 24 + n % 2, n, "FX", text) for n, text in enumerate(texts)]

    with pytest.raises(ListError, match="no two classes .* are opposites"):
        gym_new_labels(classes("roll forward", "roll"))
    both = classes("roll forward", "roll backward")
    with pytest.raises(ListError, match="class 0 has two opposites"):
        gym_new_labels([*both, ElementClass(2, 24, 2, "FX", "roll backward")])


def test_names_tell_apart_what_reads_alike(files):
    names = read(files).classes
    assert [names[label] for label in (0, 5, 6, 7)] == [
        "handspring on, salto off",
        "(FX) stag jump",
        "(BB, set 33) stag jump",
        "(BB, set 35) stag jump",
    ]
    twins = [ElementClass(n, 33, 7 + n, "BB", "twin") for n in range(2)]
    assert names_of(twins)[1] == "(BB, set 33, Gym530 class 8) twin"
    assert {clip.text for clip in read(files, part="21").pool} == {"stag jump"}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"part": "ub"}, "has no class of part 'ub'; .*BB, FX, UB, VT and the sets 1, 21"),
        ({"videos": "full"}, "'full', but there are no annotations"),
        ({"part": "VT"}, "gym_val_element.txt has no clip of the part's 1 classes"),
    ],
)
def test_what_cannot_be_read_is_refused(files, options, found):
    with pytest.raises(ListError, match=found):
        read(files, **options)
    with files["gym_val_element.txt"].open("a") as stream:
        stream.write("bars________E_000000_000090_A_0070_0071 14\n")
    with pytest.raises(ListError, match="gym_val_element.txt has label 14, .* ends at 13"):
        read(files)


def test_annotations_of_two_versions_are_refused(files, tmp_path):
    other = tmp_path / "v1.0.csv"
    other.write_text(oracle.timestamp_csv(TRAIN).replace("2681.92", "2681.64"), encoding="utf-8")
    both = (files["train.csv"], files["val.csv"], other)
    with pytest.raises(ListError, match="v1.0.csv: clip -a_E_.* 2681.64 .* but from 2681.92"):
        read(files, videos="full", annotations=both)
    same = (files["finegym_annotation_info_v1.1.json"], *both[:2])
    assert len(read(files, videos="full", annotations=same).pool) == len(oracle.clips(TRAIN))


def real(benchmark, **options):
    folder = finegym_folder()
    return read_finegym(
        folder / f"gym{benchmark}_categories.txt",
        folder / f"gym{benchmark}_train_element_v1.1.txt",
        folder / f"gym{benchmark}_val_element.txt",
        **options,
    )


@pytest.mark.slow
@pytest.mark.lists
def test_the_real_lists_hold_as_many_clips_as_the_public_ones():
    whole = {clip.id: clip.label for clip in real(99).pool}
    for part, (benchmark, pool, test, classes, first) in PUBLISHED.items():
        listing = real(benchmark, part=part)
        sizes = (len(listing.pool), len(listing.settled), len(set(listing.classes.values())))
        assert sizes == (pool, test, classes), part
        if first is not None:
            assert {whole[clip.id] - clip.label for clip in listing.pool} == {first}, part


@pytest.mark.lists
def test_the_rule_gives_the_published_gym_new_in_its_order():
    classes = read_categories(finegym_folder() / "gym288_categories.txt")
    assert gym_new_labels(classes.values()) == {old: new for new, old in enumerate(GYM_NEW)}
    listing = real(288, part="gym_new")
    assert listing.classes[37] == "transition flight from low bar to high bar"
    assert sum(clip.label == 37 for clip in listing.settled) == 471
