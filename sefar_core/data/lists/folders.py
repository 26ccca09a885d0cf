"""A folder of one's own: `root/<class>/<video>`, with folders for unlabeled and test clips beside.

Files with a suffix of sefar_core.data.lists.places.VIDEO_SUFFIXES or RARE_SUFFIXES are clips,
whatever the case of its letters, and so is a folder of pictures without a video. Other files, such
as notes and thumbnails beside the videos, are no clips and are counted. Names that begin with a dot
are hidden.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from qa_data.manifest import Clip
from qa_data.text_file import composed
from sefar_core.data.lists.lines import ALIKE, UNWRITABLE, refuse_repeat
from sefar_core.data.lists.listing import ListError, Listing
from sefar_core.data.lists.places import RARE_SUFFIXES, VIDEO_SUFFIXES, id_of
from sefar_core.data.picture_folder import is_picture

TAKEN = VIDEO_SUFFIXES | RARE_SUFFIXES
NO_ENDING = "without ending"


def read_folders(
    root: Path, *, unlabeled: Path | None = None, test_root: Path | None = None
) -> Listing:
    """The videos of class folders: those of `root` as the pool, the others settled.

    The classes are the folders of `root` in alphabetical order. Clips lie in their class's folder
    or deeper.

    Args:
        root: a folder with one folder a class.
        unlabeled: a folder of videos at any depth whose classes are not known; it may lie in
            `root`, and is no class then.
        test_root: a folder with one folder for each class that has test clips, named as in `root`;
            it may lie in `root`, and is no class then.

    Raises:
        ListError: a folder is missing, cannot be read or has no video, a video lies in no class's
            folder, a folder of test clips has no class, a folder mixes pictures and folders, or a
            clip is found twice.
    """
    others: Counter[str] = Counter()
    aside = {os.path.realpath(one) for one in (unlabeled, test_root) if one is not None}
    names = _class_names(root, aside, others)
    pool = [
        clip
        for label, name in enumerate(names)
        for clip in _class_clips(root, root / name, label, "labeled", others)
    ]
    settled = []
    if unlabeled is not None:
        settled = [_clip(path, root, split="unlabeled") for path in _some(unlabeled, others)]
    if test_root is not None:
        settled += [
            clip
            for name in _class_names(test_root, aside - {os.path.realpath(test_root)}, others)
            for clip in _class_clips(
                root, test_root / name, _label_of(root, test_root / name, names), "test", others
            )
        ]
    ids: dict[str, str] = {}
    files: dict[str, str] = {}
    for clip in pool + settled:
        refuse_repeat(ids, clip.id, clip.path)
        first = files.setdefault(os.path.realpath(clip.path), clip.path)
        if first != clip.path:
            raise ListError(
                f"{clip.path} is the same file as {first}, through a link; delete the link, for a "
                f"clip has one class and one split"
            )
    return Listing(
        classes=dict(enumerate(map(_text, names))),
        pool=pool,
        settled=settled,
        other_files=dict(sorted(others.items())),
    )


def _text(name: str) -> str:
    return composed(name).replace("_", " ").strip() or name


def _class_names(parent: Path, aside: set[str], others: Counter[str]) -> list[str]:
    """Names of the class folders, in alphabetical order."""
    names: list[str] = []
    for entry in _visible(str(parent)):
        if not entry.is_dir():
            if _suffix(entry.name) in TAKEN:
                raise ListError(
                    f"{entry.path} lies in no class's folder; put it in {parent}/<class>/"
                )
            others[_suffix(entry.name) or NO_ENDING] += 1
        elif os.path.realpath(entry.path) not in aside:
            names.append(entry.name)
    if not names:
        raise ListError(f"{parent} has no folder for a class; lay it out as <class>/<video>")
    for name, following in pairwise(sorted(names, key=composed)):
        if composed(name) == composed(following):
            raise ListError(f"{parent} has two folders called {name}{ALIKE}; join them")
    return names


def _label_of(root: Path, folder: Path, names: Sequence[str]) -> int:
    """The class of a folder of test clips."""
    known = [composed(name) for name in names]
    if composed(folder.name) not in known:
        raise ListError(
            f"{folder} is of no class: {root} has no folder {folder.name!r}; rename or add one"
        )
    return known.index(composed(folder.name))


def _class_clips(
    root: Path, folder: Path, label: int, split: str, others: Counter[str]
) -> list[Clip]:
    return [
        replace(_clip(path, root, split=split), label=label, text=_text(folder.name))
        for path in _some(folder, others)
    ]


def _clip(path: str, root: Path, *, split: str) -> Clip:
    """A clip without its class; its id is its path, relative to the root if it lies there."""
    placed = os.path.abspath(path)
    below_root = placed.removeprefix(os.path.abspath(root).rstrip("/") + "/")
    return Clip(id=id_of(below_root), path=placed, split=split)


def _some(folder: Path, others: Counter[str]) -> list[str]:
    """Paths of the clips of a folder, of which there must be one; other files are counted."""
    if not (paths := list(_clips(str(folder), (), others))):
        raise ListError(
            f"{folder} has no video; add one ({', '.join(sorted(TAKEN))}, or a folder "
            f"of pictures), or take the folder away"
        )
    return paths


def _clips(folder: str, above: tuple[str, ...], others: Counter[str]) -> Iterator[str]:
    """Paths of the clips beneath a folder; `above` are the real paths of those on the way to it."""
    real = os.path.realpath(folder)
    if real in above:
        raise ListError(f"{folder} is a link to a folder above it; take it away")
    entries = _visible(folder)
    folders = [entry.path for entry in entries if entry.is_dir()]
    # A link to nothing counts: whoever looks for the clip then says that it is missing.
    files = [entry.path for entry in entries if not entry.is_dir()]
    videos = [path for path in files if _suffix(path) in TAKEN]
    pictures = [path for path in files if is_picture(os.path.basename(path))]
    is_clip = bool(above and pictures and not videos)
    rest = {*files} - {*videos, *(pictures if is_clip else ())}
    others.update(_suffix(path) or NO_ENDING for path in rest)
    if is_clip:
        if folders:
            raise ListError(
                f"{folder} holds both pictures and folders, so that it is neither a clip nor a "
                f"folder of clips; move the one or the other"
            )
        yield folder
        return
    yield from videos
    for path in folders:
        yield from _clips(path, (*above, real), others)


def _visible(folder: str) -> list[os.DirEntry]:
    """What a folder holds and does not hide, by name."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(
                (entry for entry in entries if not entry.name.startswith(".")),
                key=lambda entry: entry.name,
            )
    except OSError as cause:
        raise ListError(f"cannot read the folder {folder}: {cause.strerror}") from cause
    for entry in found:
        if UNWRITABLE.search(entry.name):
            raise ListError(
                f"{folder} holds {entry.name!r}, a name that no list can hold; rename it"
            )
    return found


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()
