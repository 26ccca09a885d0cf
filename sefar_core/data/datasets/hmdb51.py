"""HMDB51: one list a class and fold, with the use of each of the class's clips.

Files (testTrainMulti_7030_splits): `<class>_test_split<fold>.txt`, lines
`<file> 0|1|2`: 1 is training, 2 test, and 0 neither.
"""

import re
from pathlib import Path
from typing import Literal

from qa_data.manifest import Clip, by_split, without_label
from sefar_core.data.datasets.find_files import id_of
from sefar_core.data.datasets.records import ListError, Listing, read_list_lines, refuse_repeat

CLIP_LINE = re.compile(r"([^/\\]*[^/\\\s])\s+([012])")
SPLIT_OF = {"0": "unlabeled", "1": "labeled", "2": "test"}
# Body part, camera motion, people, viewpoint, quality, number.
ATTRIBUTES = re.compile(r"_[a-z]+_[a-z]+_np[0-9]+_[a-z]+_[a-z]+_[0-9]+$")


def read_hmdb51(
    lists: Path,
    *,
    fold: Literal[1, 2, 3] = 1,
    unused: Literal["left_out", "unlabeled"] = "left_out",
) -> Listing:
    """HMDB51's official lists: the training clips as the pool, the test clips settled.

    The classes are numbered in alphabetical order. A clip's source is the film in its file name,
    or the clip itself where the name does not hold it.

    Args:
        lists: folder of the official lists (testTrainMulti_7030_splits).
        fold: which of the three official divisions.
        unused: what becomes of the clips that the fold uses neither for training nor for test:
            they are left out, or are unlabeled clips. Many of the latter come from films that test
            clips come from too.

    Raises:
        ListError: the folder has no list of the fold, a line does not follow the format, a clip
            is listed twice, or a class has no training clip.
    """
    ending = f"_test_split{fold}.txt"
    paths = {path.name.removesuffix(ending): path for path in lists.glob(f"?*{ending}")}
    if not paths:
        raise ListError(
            f"there is no <class>{ending} in {lists}; give the folder of the official lists "
            f"(testTrainMulti_7030_splits)"
        )
    classes = sorted(paths)
    seen: dict[str, str] = {}
    clips = [
        clip
        for label, name in enumerate(classes)
        for clip in _read_class(paths[name], label, name, seen)
    ]
    spare = by_split(clips, "unlabeled") if unused == "unlabeled" else []
    return Listing(
        classes={label: name.replace("_", " ") for label, name in enumerate(classes)},
        pool=by_split(clips, "labeled"),
        settled=spare + by_split(clips, "test"),
    )


def film_of(stem: str, name: str) -> str:
    """The film that a clip was cut from: the name before its class, or before its attributes.

    `Fast_Film` for the file `Fast_Film_draw_sword_f_nm_np1_le_bad_2` of the class `draw_sword`;
    nothing if the name is not of this form.
    """
    match = ATTRIBUTES.search(stem)
    return stem[: match.start()].removesuffix(f"_{name}") if match else ""


def _read_class(path: Path, label: int, name: str, seen: dict[str, str]) -> list[Clip]:
    clips = []
    for where, line in read_list_lines(path):
        match = CLIP_LINE.fullmatch(line)
        if match is None:
            raise ListError(
                f"{where}: found {line!r}; expected a file name, a blank, and 1 (training), "
                f"2 (test) or 0 (neither)"
            )
        file, purpose = match.groups()
        refuse_repeat(seen, id_of(f"{name}/{file}"), where)
        clip = Clip(
            id=id_of(f"{name}/{file}"),
            path=f"{name}/{file}",
            label=label,
            text=name.replace("_", " "),
            source=film_of(id_of(file), name) or id_of(f"{name}/{file}"),
            split=SPLIT_OF[purpose],
        )
        clips.append(without_label(clip) if clip.split == "unlabeled" else clip)
    if not by_split(clips, "labeled"):
        raise ListError(f"{path} has no training clip (a line that ends in 1); fetch it again")
    return clips
