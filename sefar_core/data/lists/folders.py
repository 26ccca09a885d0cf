"""A folder of one's own: `root/<class>/<video>`, with folders for unlabeled and test clips beside.

Files with a suffix of sefar_core.data.lists.places.VIDEO_SUFFIXES are clips, whatever the case of
its letters, and so is a folder of pictures without a video. Other files, such as notes and
thumbnails beside the videos, are no clips. Names that begin with a dot are hidden.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from qa_data.manifest import Clip
from sefar_core.data.lists.lines import UNWRITABLE, refuse_repeat
from sefar_core.data.lists.listing import ListError, Listing
from sefar_core.data.lists.places import VIDEO_SUFFIXES, id_of
from sefar_core.data.picture_folder import is_picture


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
    aside = {os.path.realpath(one) for one in (unlabeled, test_root) if one is not None}
    names = _class_names(root, aside)
    pool = [clip for name in names for clip in _class_clips(root, root, name, names, "labeled")]
    settled = []
    if unlabeled is not None:
        settled = [_clip(path, root, split="unlabeled") for path in _some(unlabeled)]
    if test_root is not None:
        settled += [
            clip
            for name in _class_names(test_root, aside - {os.path.realpath(test_root)})
            for clip in _class_clips(root, test_root, name, names, "test")
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
    return Listing(classes=dict(enumerate(map(_text, names))), pool=pool, settled=settled)


def _text(name: str) -> str:
    return name.replace("_", " ").strip() or name


def _class_names(parent: Path, aside: set[str]) -> list[str]:
    """Names of the class folders, in alphabetical order."""
    names = []
    for entry in _visible(str(parent)):
        if entry.is_dir() and os.path.realpath(entry.path) not in aside:
            names.append(entry.name)
        elif _suffix(entry.name) in VIDEO_SUFFIXES and not entry.is_dir():
            raise ListError(f"{entry.path} lies in no class's folder; put it in {parent}/<class>/")
    if not names:
        raise ListError(f"{parent} has no folder for a class; lay it out as <class>/<video>")
    return names


def _class_clips(root: Path, parent: Path, name: str, names: list[str], split: str) -> list[Clip]:
    if name not in names:
        raise ListError(
            f"{parent / name} is of no class: {root} has no folder {name!r}; rename or add one"
        )
    text, label = _text(name), names.index(name)
    return [
        replace(_clip(path, root, split=split), label=label, text=text)
        for path in _some(parent / name)
    ]


def _clip(path: str, root: Path, *, split: str) -> Clip:
    """A clip without its class; its id is its path, relative to the root if it lies there."""
    placed = os.path.abspath(path)
    below_root = placed.removeprefix(os.path.abspath(root).rstrip("/") + "/")
    return Clip(id=id_of(below_root), path=placed, split=split)


def _some(folder: Path) -> list[str]:
    """Paths of the clips of a folder, of which there must be one."""
    if not (paths := list(_clips(str(folder), ()))):
        raise ListError(
            f"{folder} has no video; add one ({', '.join(sorted(VIDEO_SUFFIXES))}, or a folder "
            f"of pictures), or take the folder away"
        )
    return paths


def _clips(folder: str, above: tuple[str, ...]) -> Iterator[str]:
    """Paths of the clips beneath a folder; `above` are the real paths of those on the way to it."""
    real = os.path.realpath(folder)
    if real in above:
        raise ListError(f"{folder} is a link to a folder above it; take it away")
    entries = _visible(folder)
    folders = [entry.path for entry in entries if entry.is_dir()]
    # A link to nothing counts: whoever looks for the clip then says that it is missing.
    files = [entry.path for entry in entries if not entry.is_dir()]
    videos = [path for path in files if _suffix(path) in VIDEO_SUFFIXES]
    if above and not videos and any(is_picture(os.path.basename(path)) for path in files):
        if folders:
            raise ListError(
                f"{folder} holds both pictures and folders, so that it is neither a clip nor a "
                f"folder of clips; move the one or the other"
            )
        yield folder
        return
    yield from videos
    for path in folders:
        yield from _clips(path, (*above, real))


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
