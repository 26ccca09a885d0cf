"""UCF101: its class list and the train and test lists of its three folds.

Files (UCF101TrainTestSplits-RecognitionTask): `classInd.txt` (`1 ApplyEyeMakeup`),
`trainlist01.txt` (`ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1`) and `testlist01.txt` (the same
without the number).
"""

import re
from pathlib import Path
from typing import Literal

from qa_data.files import folded
from qa_data.manifest import Clip
from sefar_core.data.datasets.find_files import id_of
from sefar_core.data.datasets.records import ListError, Listing, read_list_lines, refuse_repeat

CLASS_LINE = re.compile(r"([0-9]{1,6})\s+(\w+)")
CLIP_LINE = re.compile(r"(([^/\\]+)[/\\][^/\\]+?)(?:\s+([0-9]{1,6}))?")
GROUP = re.compile(r"(?:.*[/\\])?(v_\w+_g[0-9]+)_c[0-9]+")
WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def read_ucf101(lists: Path, *, fold: Literal[1, 2, 3] = 1) -> Listing:
    """UCF101's official lists: the training clips as the pool, the test clips settled.

    Clips whose names share `v_<class>_g<group>` were cut from one video, which is their source.

    Args:
        lists: folder of the official lists (ucfTrainTestlist).
        fold: which of the three official divisions.

    Raises:
        ListError: a list is missing or has a line that does not follow its format, the class
            numbers have gaps, a clip has no class or two, or a clip is listed twice.
    """
    names = _read_classes(lists / "classInd.txt")
    seen: dict[str, str] = {}
    train, test = (
        _read_clips(lists / f"{part}list{fold:02d}.txt", names, split, seen)
        for part, split in (("train", "labeled"), ("test", "test"))
    )
    return Listing(classes=dict(enumerate(map(in_words, names))), pool=train, settled=test)


def in_words(name: str) -> str:
    """A class's name as it is spoken: `ApplyEyeMakeup` and `apply_eye_makeup` in three words."""
    return WORD_START.sub(" ", name.replace("_", " ")).strip() or name


def group_of(clip_id: str) -> str:
    """The video that a clip was cut from, if it is named in UCF101's manner; else nothing."""
    match = GROUP.fullmatch(clip_id)
    return match[1] if match else ""


def _read_classes(path: Path) -> list[str]:
    names: list[str] = []
    for where, line in read_list_lines(path):
        match = CLASS_LINE.fullmatch(line)
        if match is None or int(match[1]) != len(names) + 1 or match[2] in names:
            raise ListError(
                f"{where}: found {line!r}; expected the number {len(names) + 1}, a blank and the "
                f"name of a class that no line before it has: number the classes 1, 2, 3, ..."
            )
        names.append(match[2])
    return names


def _read_clips(path: Path, names: list[str], split: str, seen: dict[str, str]) -> list[Clip]:
    # Some copies write HandstandPushups where the class list has HandStandPushups.
    label_of = {folded(name): label for label, name in enumerate(names)}
    clips = []
    for where, line in read_list_lines(path):
        match = CLIP_LINE.fullmatch(line)
        label = label_of.get(folded(match[2])) if match else None
        if match is None or label is None or (match[3] and int(match[3]) != label + 1):
            raise ListError(
                f"{where}: found {line!r}; expected <class>/<file>, in a training list with the "
                f"number of that class, both as in classInd.txt"
            )
        clip_id = id_of(match[1].replace("\\", "/"))
        refuse_repeat(seen, clip_id, where)
        clips.append(
            Clip(
                id=clip_id,
                path=match[1],
                label=label,
                text=in_words(names[label]),
                source=group_of(clip_id),
                split=split,
            )
        )
    return clips
