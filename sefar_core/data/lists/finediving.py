"""FineDiving: dives as folders of pictures, whole or cut into the steps of the annotation.

Two labels are known of a dive: its action type (`5253b`) and, of each picture, the type of the
step that it belongs to (`Back`, `1.5 Twists`, `2.5 Soms.Pike`, `Entry`). The lists come as pickles,
which are read as plain data only, or as the JSON lists derived from them. The same dives give the
same clips from both.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from qa_data.manifest import Clip
from sefar_core.data.lists.finediving_dives import (
    Dive,
    Key,
    Level,
    json_dives,
    key_of,
    pickled_dive,
)
from sefar_core.data.lists.lines import refuse_repeat
from sefar_core.data.lists.listing import ListError, Listing
from sefar_core.data.lists.plain_pickle import read_plain_pickle
from sefar_core.data.picture_folder import NOMINAL_FPS


def read_finediving(
    annotations: Path,
    train: Path,
    test: Path,
    *,
    level: Level = "sub_action",
    event: str = "",
    action: str = "",
) -> Listing:
    """The clips of FineDiving from its pickles.

    Args:
        annotations: FineDiving_fine-grained_annotation.pkl; for action types also the coarse or
            the aqa one.
        train: train_split.pkl.
        test: test_split.pkl.
        level: what a clip and its class are: a whole dive and its action type, or a step of one
            and its sub-action type.
        event: only dives in whose folder this regular expression is found, such as 10m.
        action: only dives whose action type is this regular expression as a whole, such as 5253b.
            Neither expression minds upper and lower case.

    Returns:
        The pool and the settled test clips, as the split files list them; each dive is a folder
        `<event>/<number>` beneath the video root. Classes are those that the clips have, by name.

    Raises:
        ListError: a file is missing or not of this form, asks for more than plain data, lists a
            dive twice or one without annotation; or no dive is left.
    """
    wanted = _wanted(event, action)
    found = read_plain_pickle(annotations)
    if not isinstance(found, dict) or not found:
        raise ListError(
            f"{annotations} holds no dict of dives; give an annotation .pkl of FineDiving"
        )
    seen: dict[str, str] = {}
    dives: list[list[Dive]] = []
    for path in (train, test):
        dives.append([])
        for where, key in _split(path):
            refuse_repeat(seen, f"{key[0]}__{key[1]}", where)
            if key not in found:
                raise ListError(f"{where}: found the dive {key}, which {annotations} lacks")
            dives[-1].append(pickled_dive(f"{annotations}, dive {key}", key, found[key], level))
    return _listing(*dives, level=level, wanted=wanted)


def read_finediving_json(
    train: Path,
    val: Path,
    test: Path,
    *,
    level: Level = "sub_action",
    event: str = "",
    action: str = "",
) -> Listing:
    """The clips of FineDiving from its public JSON lists; as `read_finediving` gives them.

    Args:
        train: train.json.
        val: val.json. It was cut from the official training dives and goes back to them.
        test: test.json.
        level: what a clip and its class are: a whole dive and its action type, or a step of one
            and its sub-action type.
        event: only dives in whose folder this regular expression is found, such as 10m.
        action: only dives whose action type is this regular expression as a whole, such as 5253b.

    Returns:
        The pool and the settled test clips.

    Raises:
        ListError: a file is missing or not of this form, a dive is listed twice, or none is left.
    """
    wanted = _wanted(event, action)
    seen: dict[str, str] = {}
    pool, settled = (
        [dive for path in paths for dive in _json_split(path, level, seen)]
        for paths in ((train, val), (test,))
    )
    return _listing(pool, settled, level=level, wanted=wanted)


def _split(path: Path) -> Iterator[tuple[str, Key]]:
    """The dives of a split file, each with its place in it."""
    entries = read_plain_pickle(path)
    if not isinstance(entries, list | tuple) or not entries:
        raise ListError(f"{path} holds no list of dives; give train_split.pkl or test_split.pkl")
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        yield where, key_of(where, entry)


def _json_split(path: Path, level: Level, seen: dict[str, str]) -> Iterator[Dive]:
    for dive in json_dives(path, level):
        refuse_repeat(seen, dive.id, dive.where)
        yield dive


def _wanted(event: str, action: str) -> Callable[[Dive], bool]:
    """Whether a dive is one of the wanted events and action types."""
    patterns = []
    for name, text in (("event", event), ("action", action)):
        try:
            patterns.append(re.compile(text, re.IGNORECASE))
        except re.error as cause:
            raise ListError(
                f"{name} is {text!r}, which is no regular expression ({cause}); 10m finds what "
                f"contains 10m, and a dot stands for any letter"
            ) from None
    folder, action_type = patterns

    def wanted(dive: Dive) -> bool:
        whole = not action or action_type.fullmatch(dive.action_type)
        return bool(whole and folder.search(dive.folder))

    return wanted


def _listing(
    pool: Sequence[Dive],
    settled: Sequence[Dive],
    *,
    level: Level,
    wanted: Callable[[Dive], bool],
) -> Listing:
    clips = [
        clip
        for split, dives in (("labeled", pool), ("test", settled))
        for dive in filter(wanted, dives)
        for clip in (_steps(dive, split) if level == "sub_action" else [_whole(dive, split)])
    ]
    if not clips:
        raise ListError(
            f"none of {len(pool) + len(settled)} dives is of the wanted event and action; dives "
            f"look like {(*pool, *settled)[0].folder} with action type "
            f"{(*pool, *settled)[0].action_type}"
        )
    names = sorted({str(clip.text) for clip in clips})
    label_of = {name: label for label, name in enumerate(names)}
    clips = [replace(clip, label=label_of[str(clip.text)]) for clip in clips]
    return Listing(
        classes=dict(enumerate(names)),
        pool=[clip for clip in clips if clip.split == "labeled"],
        settled=[clip for clip in clips if clip.split == "test"],
    )


def _whole(dive: Dive, split: str) -> Clip:
    return Clip(
        id=dive.id,
        path=dive.path,
        text=dive.action_type,
        source=dive.folder,
        split=split,
        num_frames=dive.num_frames,
    )


def _steps(dive: Dive, split: str) -> Iterator[Clip]:
    for number, step in enumerate(dive.steps):
        yield Clip(
            id=f"{dive.id}_{number}",
            path=dive.path,
            start_s=step.start / NOMINAL_FPS,
            end_s=step.stop / NOMINAL_FPS,
            text=step.name,
            source=dive.folder,
            split=split,
        )
