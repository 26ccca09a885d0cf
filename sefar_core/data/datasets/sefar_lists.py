"""The lists released with the SeFAR and SVFormer code, as they are.

A folder holds `train.csv` (the labeled clips), `unlabel.csv` (in one folder `unlabe.csv`),
`val.csv` and `test.csv` (mostly the same file twice). A line is `<path> <label>`, separated by a
blank or a comma; paths are those of the authors' machine (see sefar_core.data.datasets.find_files).

Format: the lists in the released SeFAR repository; its own loader takes the blank only.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qa_data.files import folded
from qa_data.finegym import CLIP_ID, source_of
from qa_data.manifest import Clip
from qa_data.taxonomy import TaxonomyError, read_categories
from sefar_core.data.datasets.find_files import id_of
from sefar_core.data.datasets.finegym import part_of
from sefar_core.data.datasets.hmdb51 import film_of
from sefar_core.data.datasets.kinetics import youtube_id_of
from sefar_core.data.datasets.records import ListError, Listing, read_list_lines, refuse_repeat
from sefar_core.data.datasets.ucf101 import group_of, in_words

LINE = re.compile(r"(.*[^ ,\t])[ ,\t]+([0-9]{1,6})")
YOUTUBE_NAME = re.compile(r"([A-Za-z0-9_-]{11})(?:\.[a-z0-9]{2,4})?")
UNLABELED_LINE = re.compile(r"(.*?[^ ,\t])(?:[ ,\t]+-?[0-9]+)?")


@dataclass(frozen=True)
class Entry:
    """A line of a list: its place, path and label, and the split of its list."""

    where: str
    path: str
    label: int | None
    split: str


ClassName = tuple[str, str | None]
"""A class's name, and its apparatus if it is one of FineGym's."""


def read_sefar_lists(
    folder: Path, *, class_names: Path | None = None, part: str | None = None
) -> Listing:
    """The lists released with SeFAR and SVFormer: all clips settled, nothing left to draw.

    The labels in `unlabel.csv` are dropped. Where `val.csv` and `test.csv` list the same, or there
    is one of them, they are the test split; where they differ, they are what they are called.
    Source videos are known for FineGym, UCF101, HMDB51 and Kinetics, by their file names. In lists
    with clips named in Kinetics' manner, names of a YouTube id alone are Kinetics' too, as those of
    SVFormer's validation clips are.

    Args:
        folder: one folder of lists, such as all99_5.
        class_names: a text file with the name of one class a line, in the order of the labels, or
            a category file of FineGym. Without it, a class has the name of its clips'
            folder, or, where they are not sorted into folders, its number.
        part: of FineGym's category file, as `finegym.read_finegym` takes it, if the labels count
            the classes of this part only, as those of the lists UB_10 (UB) and FX_S1_10 (FX-S1) do.

    Raises:
        ListError: a list is missing or has a line that does not follow the format, a clip is
            listed twice, or the labels do not fit the class names or, without these, have gaps.
    """
    entries = [entry for path, split in _lists(folder) for entry in _read_entries(path, split)]
    if class_names is None:
        classes = _named_by_folders(folder, entries)
    else:
        classes = _read_names(class_names, part)
        _refuse_other_count(entries, classes, class_names)
    seen: dict[str, str] = {}
    clips = [_clip(entry, classes, seen) for entry in entries]
    if any(youtube_id_of(_parts(entry.path)[1]) for entry in entries):
        clips = [replace(clip, source=clip.source or _bare_youtube_id(clip)) for clip in clips]
    return Listing(classes={label: text for label, (text, _) in classes.items()}, settled=clips)


def _lists(folder: Path) -> list[tuple[Path, str]]:
    """The lists of a folder, each with the split that it is."""
    unlabeled = [folder / name for name in ("unlabel.csv", "unlabe.csv")]
    evaluated = [folder / name for name in ("val.csv", "test.csv")]
    for either in (unlabeled, evaluated):
        if not any(path.exists() for path in either):
            raise ListError(
                f"{folder} has neither {either[0].name} nor {either[1].name}; a folder of the "
                f"public lists has train.csv, unlabel.csv, val.csv and test.csv: put the missing "
                f"list there"
            )
    val, test = evaluated
    last = [(val, "val"), (test, "test")] if _differ(val, test) else [(_either(val, test), "test")]
    if _differ(*unlabeled):
        raise ListError(f"{folder} has unlabel.csv and unlabe.csv, which differ; delete one")
    return [(folder / "train.csv", "labeled"), (_either(*unlabeled), "unlabeled"), *last]


def _either(first: Path, second: Path) -> Path:
    return first if first.exists() else second


def _differ(first: Path, second: Path) -> bool:
    """Whether both lists exist and differ in more than where their lines end."""
    if not (first.exists() and second.exists()):
        return False
    lines, others = ([line for _, line in read_list_lines(path)] for path in (first, second))
    return lines != others


def _read_entries(path: Path, split: str) -> list[Entry]:
    hidden = split == "unlabeled"
    entries = []
    for where, line in read_list_lines(path):
        match = (UNLABELED_LINE if hidden else LINE).fullmatch(line)
        if match is None or not _parts(match[1])[1]:
            raise ListError(
                f"{where}: found {line!r:.200}; expected the path of a file, a blank or a comma, "
                f"and a label from 0 upward"
            )
        entries.append(Entry(where, match[1], None if hidden else int(match[2]), split))
    return entries


def _read_names(path: Path, part: str | None) -> dict[int, ClassName]:
    lines = read_list_lines(path)
    if part is None and re.match("[CG]label:", lines[0][1]) is None:
        return {label: (line, None) for label, (_, line) in enumerate(lines)}
    try:
        known = read_categories(path)
    except TaxonomyError as cause:
        raise ListError(str(cause)) from cause
    classes = part_of(known, part or "all").values()
    return {one.label: (one.text, one.event) for one in classes}


def _refuse_other_count(
    entries: Sequence[Entry], classes: dict[int, ClassName], path: Path
) -> None:
    largest = max(entries, key=lambda entry: -1 if entry.label is None else entry.label)
    if largest.label != len(classes) - 1:
        raise ListError(
            f"{largest.where}: label {largest.label} is the largest of the lists, but {path} names "
            f"{len(classes)} classes, 0 to {len(classes) - 1}; take the names of these lists, in "
            f"the order of their labels (for a part of FineGym's classes, see --part)"
        )


def _named_by_folders(folder: Path, entries: Sequence[Entry]) -> dict[int, ClassName]:
    """Each class named after the one folder that its clips are in, or else by its number."""
    folders: dict[int, dict[str, str]] = defaultdict(dict)
    for entry in entries:
        if entry.label is not None:
            name = _parts(entry.path)[0]
            folders[entry.label].setdefault(folded(name), name)
    if gaps := sorted(set(range(len(folders))) - folders.keys()):
        raise ListError(
            f"the lists of {folder} have {len(folders)} labels up to {max(folders)}, but none of "
            f"their labeled or test clips has label {gaps[0]}; fix the labels, or give the names "
            f"of all classes with --class-names"
        )
    distinct = {key for names in folders.values() for key in names} - {""}
    if len(distinct) == len(folders) and all(len(names) == 1 for names in folders.values()):
        only = {label: next(iter(names.values())) for label, names in sorted(folders.items())}
        return {label: (in_words(name), None) for label, name in only.items()}
    return {label: (f"class {label}", None) for label in sorted(folders)}


def _clip(entry: Entry, classes: dict[int, ClassName], seen: dict[str, str]) -> Clip:
    clip_id, source = _id_and_source(entry.path)
    refuse_repeat(seen, clip_id, entry.where)
    text, event = (None, None) if entry.label is None else classes[entry.label]
    return Clip(
        id=clip_id,
        path=entry.path,
        label=entry.label,
        text=text,
        event=event,
        source=source,
        split=entry.split,
    )


def _id_and_source(path: str) -> tuple[str, str]:
    """A clip's id, short where data sets name their files in a known manner, and its source."""
    above, stem = _parts(path)
    if CLIP_ID.fullmatch(stem):
        return stem, source_of(stem)
    if source := youtube_id_of(stem):
        return stem, source
    if source := group_of(stem) or film_of(stem, above):
        return f"{above}/{stem}".lstrip("/"), source
    return id_of(path.replace("\\", "/")), ""


def _bare_youtube_id(clip: Clip) -> str:
    """The YouTube video that a clip is named for, with or without two suffixes; else nothing."""
    match = YOUTUBE_NAME.fullmatch(_parts(clip.path)[1])
    return match[1] if match else ""


def _parts(path: str) -> tuple[str, str]:
    """The folder that a file is in, and the file's name without the suffix of a video."""
    parts = path.replace("\\", "/").split("/")
    return (parts[-2] if len(parts) > 1 else ""), id_of(parts[-1])
