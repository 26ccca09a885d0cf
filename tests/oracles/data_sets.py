"""Small data sets, laid out in a folder as their publishers and docs name their files.

Each function writes lists and empty videos beneath `home` and returns what is true of every clip
that the lists name. Nothing of it is read with the package.
"""

import json
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from tests.oracles.finegym_lists import category_list

PICTURES_A_SECOND = 25  # what a folder of pictures, which tells no rate, counts as


@dataclass(frozen=True)
class Laid:
    """A clip as it was laid out."""

    listed: str
    """What its list is: pool, labeled, unlabeled or test."""
    path: str
    """Beneath the video root, as it is spelled on the disk."""
    label: int | None = None
    """From 0; None where nobody knows it."""
    text: str = ""
    source: str = ""
    event: str = ""
    """Apparatus, where it is one of FineGym's."""
    span: tuple[float, float] | None = None
    """First and last second in the file, where the file is not the clip."""
    there: bool = True
    """Whether the file exists."""


@dataclass(frozen=True)
class Element:
    """A class of FineGym: its set, its apparatus, its text, and its label in what is made."""

    set_id: int
    event: str
    text: str
    label: int | None


GYM99 = (
    Element(1, "VT", "round-off, flic-flac with 0.5 turn on", 0),
    Element(21, "FX", "stag jump", 1),
    Element(33, "BB", "salto backward tucked", 2),
    Element(35, "BB", "salto backward tucked", 3),
    Element(41, "UB", "kip", 4),
)
OPPOSED = (
    Element(1, "VT", "handspring forward on, salto off", 0),
    Element(1, "VT", "handspring backward on, salto off", 1),
    Element(1, "VT", "round-off", None),
    Element(41, "UB", "stalder backward to handstand", 2),
    Element(41, "UB", "stalder forward to handstand", 3),
    Element(43, "UB", "transition flight from high bar to low bar", 4),
    Element(43, "UB", "transition flight from low bar to high bar", 5),
)


def trimmed_finegym(home: Path) -> list[Laid]:
    """A file for each clip; three of the five test videos are training videos, too."""
    _write_categories(home / "gym99_categories.txt", GYM99)
    laid = []
    for name, listed, sources in (
        ("gym99_train_element_v1.1.txt", "pool", range(20)),
        ("gym99_val_element.txt", "test", range(17, 22)),
    ):
        found = [(clip, e) for s in sources for clip, e in _clips_of(s, GYM99, listed == "test")]
        _write(home / name, "".join(f"{clip} {GYM99.index(e)}\n" for clip, e in found))
        laid += [_trimmed(clip, e, listed) for clip, e in found]
    return _made(home / "videos", laid)


def full_finegym(home: Path) -> list[Laid]:
    """Whole videos with an annotation: vaults in three stages, and routines without sub-actions."""
    _write_categories(home / "gym288_categories.txt", OPPOSED)
    laid, annotation = [], {}
    for name, listed, sources in (
        ("gym288_train_element_v1.1.txt", "pool", range(20)),
        ("gym288_val_element.txt", "test", range(17, 22)),
    ):
        lines = []
        for number in sources:
            events = annotation.setdefault(_source(number), {})
            events["E_009000_009010"] = {"event": 4, "segments": None, "timestamps": [[9e3, 9010]]}
            for clip, element in _clips_of(number, OPPOSED, listed == "test"):
                lines.append(f"{clip} {OPPOSED.index(element)}")
                span = _annotate(events, clip, element)
                if element.label is not None:
                    laid.append(_trimmed(clip, element, listed, span))
        _write(home / name, "\n".join(lines))
    _write(home / "finegym_annotation_info_v1.1.json", json.dumps(annotation))
    return _made(home / "full_videos", laid)


def public_lists(home: Path) -> list[Laid]:
    """Paths of another machine, CRLF, commas, a misspelled file name, no last line end."""
    _write_categories(home / "gym99_categories.txt", GYM99)
    lists = home / "SeFAR/lists/all99_5"
    laid = []
    for names, listed, sources, part, end in (
        (("train.csv",), "labeled", range(2), ",", "\r\n"),
        (("unlabe.csv",), "unlabeled", range(2, 6), " ", "\r\n"),
        (("val.csv", "test.csv"), "test", range(5, 8), " ", "\n"),
    ):
        found = [(clip, e) for s in sources for clip, e in _clips_of(s, GYM99, listed == "test")]
        for name in names:
            lines = [f"/root/video/{clip}.mp4{part}{GYM99.index(e)}" for clip, e in found]
            _write(lists / name, end.join(lines))
        laid += [_trimmed(clip, e, listed) for clip, e in found]
    return _made(home / "videos", laid)


def finediving(home: Path) -> list[Laid]:
    """Folders of pictures whose steps are the clips; the dives of another event are not requested.

    Four kinds of steps, numbered in alphabetical order.
    """
    labels = {"2.5 Soms.Pike": 0, "Back": 1, "Entry": 2, "Forward": 3}
    annotation, splits, laid = {}, {"train": [], "test": []}, []
    for folder in ("FINAWorldCup2021_Men10m_final", "FINAWorldCup2021_Women3m_final"):
        for number in range(1, 13):
            steps = [("Back" if number % 2 else "Forward", 2), ("2.5 Soms.Pike", 3), ("Entry", 1)]
            types = [place for place, (_, count) in enumerate(steps) for _ in range(count)]
            annotation[folder, number] = {
                "action_type": "205B",
                "frames_labels": np.array(types, dtype=float),
                "sub-action_types": {place: name for place, (name, _) in enumerate(steps)},
            }
            listed = "test" if number > 9 else "pool"
            splits["test" if number > 9 else "train"].append((folder, number))
            for frame in range(len(types)):
                _write(home / f"FINADiving_MTL_256s/{folder}/{number}/{frame + 1:05d}.jpg", "")
            start = 0
            for name, count in steps if "10m" in folder else []:
                span = (start / PICTURES_A_SECOND, (start + count) / PICTURES_A_SECOND)
                start += count
                path = f"{folder}/{number}"
                laid.append(Laid(listed, path, labels[name], name, folder, span=span))
    (home / "FineDiving_fine-grained_annotation.pkl").write_bytes(pickle.dumps(annotation))
    for name, dives in splits.items():
        (home / f"{name}_split.pkl").write_bytes(pickle.dumps(dives))
    return laid


def diving48(home: Path) -> list[Laid]:
    """Four classes, one of them without a clip; two test videos are training videos, too."""
    words = [["Back", "15som"], ["Forward", "25som"], ["Inward", "15som"], ["Reverse", "Dive"]]
    live = (0, 1, 3)
    _write(home / "Diving48_vocab.json", json.dumps(words))
    laid = []
    for part, listed, sources in (("train", "pool", range(30)), ("test", "test", range(28, 36))):
        entries = []
        for source, label in product((f"-m_q{number}" for number in sources), live):
            name = f"{source}_{label + 10 * (listed == 'test'):05d}"
            entries.append({"vid_name": name, "label": label, "start_frame": 0, "end_frame": 48})
            laid.append(Laid(listed, f"{name}.mp4", label, ", ".join(words[label]), source))
        _write(home / f"Diving48_V2_{part}.json", json.dumps(entries))
    return _made(home / "rgb", laid)


def ucf101(home: Path) -> list[Laid]:
    """CRLF lists that spell the class HandStandPushups, whose folder is HandstandPushups."""
    names = ("ApplyEyeMakeup", "HandStandPushups", "YoYo")
    lists, laid = home / "ucfTrainTestlist", []
    _write(lists / "classInd.txt", "".join(f"{k} {name}\r\n" for k, name in enumerate(names, 1)))
    for part, listed, groups in (("train", "pool", range(8, 18)), ("test", "test", range(1, 4))):
        lines = []
        for (label, name), group, take in product(enumerate(names), groups, range(1, 5)):
            source = f"v_{name}_g{group:02d}"
            file = f"{source}_c{take:02d}.avi"
            lines.append(f"{name}/{file}" + (f" {label + 1}" if listed == "pool" else ""))
            path = f"{name.replace('HandStand', 'Handstand')}/{file}"
            text = ("Apply Eye Makeup", "Hand Stand Pushups", "Yo Yo")[label]
            laid.append(Laid(listed, path, label, text, source))
        _write(lists / f"{part}list01.txt", "\r\n".join(lines))
    return _made(home / "UCF-101", laid)


def hmdb51(home: Path) -> list[Laid]:
    """Two classes of the same films, a second fold beside the first, and unused clips."""
    laid = []
    for label, name in enumerate(("draw_sword", "wave")):
        lines = []
        for film, take in product(range(15), range(2)):
            purpose = 2 if film < 3 else 0 if film < 5 else 1
            file = f"Film_{film}_{name}_f_nm_np1_le_bad_{take}.avi"
            lines.append(f"{file} {purpose} ")
            if purpose:
                listed, text = "test" if purpose == 2 else "pool", name.replace("_", " ")
                laid.append(Laid(listed, f"{name}/{file}", label, text, f"Film_{film}"))
        lists = home / "testTrainMulti_7030_splits"
        _write(lists / f"{name}_test_split1.txt", "\r\n".join(lines))
        _write(lists / f"{name}_test_split2.txt", "another_fold.avi 1\n")
    return _made(home / "hmdb51", laid)


def ssv2(home: Path) -> list[Laid]:
    """Templates with brackets; labels in another order than the alphabet's, listed backward."""
    templates = ("Pushing [something] from left to right", "Holding [something]", "Dropping [it]")
    texts = [template.replace("[", "").replace("]", "") for template in templates]
    numbers = [(text, str(k)) for k, text in enumerate(texts)]
    _write(home / "labels.json", json.dumps(dict(reversed(numbers))))
    laid = []
    for part, listed, ids in (("train", "pool", range(90)), ("validation", "test", range(90, 99))):
        entries = [
            {"id": str(one), "label": "a cup", "template": templates[one % 3]} for one in ids
        ]
        _write(home / f"{part}.json", json.dumps(entries))
        laid += [Laid(listed, f"{one}.webm", one % 3, texts[one % 3]) for one in ids]
    return _made(home / "20bn-something-something-v2", laid)


def kinetics(home: Path) -> list[Laid]:
    """A class folder with an underscore for a blank, and every seventh video gone from YouTube."""
    names, laid = ("abseiling", "arm wrestling", "zumba"), []
    for part, listed, numbers in (("train", "pool", range(60)), ("val", "test", range(60, 75))):
        rows = ["label,youtube_id,time_start,time_end,split"]
        for number in numbers:
            label, source = number % 3, f"-{number:03d}_abcdef"
            rows.append(f"{names[label]},{source},{number},{number + 10},{part}")
            folder = f"{part}/{names[label].replace(' ', '_')}"
            path = f"{folder}/{source}_{number:06d}_{number + 10:06d}.mp4"
            there = number % 7 > 0
            laid.append(Laid(listed, path, label, names[label], source, there=there))
        _write(home / f"{part}.csv", "\n".join(rows))
    return _made(home / "k400", laid)


def folders(home: Path) -> list[Laid]:
    """Class folders with equal file names, folders in them, and what is no video beside."""
    places = [f"{number}.mp4" for number in range(4)] + ["deep/5.MKV", "session 2/1.mp4"]
    names = ("back_walkover", "kip", "split jump")
    laid = [
        Laid("pool", f"classes/{name}/{place}", label, name.replace("_", " "))
        for (label, name), place in product(enumerate(names), places)
    ]
    laid += [Laid("unlabeled", f"more/{place}") for place in (*places, "a/b/c.avi")]
    for path in ("classes/kip/notes.txt", "classes/kip/.hidden.mp4", "more/thumbnail.jpg"):
        _write(home / "mine" / path, "")
    return _made(home / "mine", laid)


def _trimmed(
    clip: str, element: Element, listed: str, span: tuple[float, float] | None = None
) -> Laid:
    """A clip of FineGym: a file of its own, or a span of its source video."""
    path = f"{clip[:11] if span else clip}.mp4"
    return Laid(listed, path, element.label, element.text, clip[:11], element.event, span)


def _source(number: int) -> str:
    """An id of YouTube's length that looks like a boundary of FineGym's ids."""
    return f"ab_E_0-_{number:03d}"


def _clips_of(number: int, elements: Sequence[Element], later: bool) -> list[tuple[str, Element]]:
    """A clip of each element in a video, each in a routine of its own."""
    begin = 8 if later else 4
    return [
        (
            f"{_source(number)}_E_{100 * k:06d}_{100 * k + 40:06d}_A_{begin:04d}_{begin + 2:04d}",
            element,
        )
        for k, element in enumerate(elements, 1)
    ]


def _annotate(events: dict, clip: str, element: Element) -> tuple[float, float]:
    """Enter a clip's times, to fractions of the seconds in its name; those in its video."""
    routine, segment = clip[12:27], clip[28:]
    start, begin = int(routine[2:8]) + 0.25, int(segment[2:6]) + 0.5
    stages = [[begin, begin + 1], [begin + 1, begin + 1.5], [begin + 1.5, begin + 2.25]]
    event = events.setdefault(
        routine,
        {"event": element.set_id // 10 or 1, "timestamps": [[start, start + 40.5]], "segments": {}},
    )
    if element.event != "VT":
        stages = [[begin, begin + 2.25]]
    event["segments"][segment] = {"stages": len(stages), "timestamps": stages}
    return start + begin, start + begin + 2.25


def _write_categories(path: Path, elements: Sequence[Element]) -> None:
    rows = ((label, e.set_id, e.event, e.text) for label, e in enumerate(elements))
    _write(path, category_list(rows))


def _made(root: Path, laid: Iterable[Laid]) -> list[Laid]:
    """The clips, after an empty file was written for each that is to be there."""
    laid = list(laid)
    for clip in laid:
        if clip.there:
            _write(root / clip.path, "")
    return laid


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


BY_COMMAND = {
    "finegym": trimmed_finegym,
    "finegym gym_new": full_finegym,
    "public": public_lists,
    "finediving": finediving,
    "diving48": diving48,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "ssv2": ssv2,
    "kinetics": kinetics,
    "folders": folders,
}
"""What to lay out for a command of docs/datasets.md, by its data set and part."""
