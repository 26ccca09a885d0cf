"""Finds listed clips on disk, and reads data sets that are laid out as one folder a class.

Lists were written on other machines: `/root/hmdb51/videos/wave/a.avi` may be `wave/a.avi` beneath
the user's video root, or `Wave/a.avi`, or `a.avi`. Folders of the listed path may be missing on
disk; a folder that the list does not name is never entered, so that the clip of the same name in
another class's folder is not taken for the one that is missing (`resolve_paths`, `find_clips`).

A folder of one's own: `root/<class>/<video>`, with folders for unlabeled and test clips beside
(`read_folders`). Files with a suffix of VIDEO_SUFFIXES or RARE_SUFFIXES are clips, whatever the
case of its letters, and so is a folder of pictures without a video. Other files, such as notes and
thumbnails beside the videos, are counted and left out. Names that begin with a dot are hidden.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from qa_data.files import composed, first_few, folded
from qa_data.manifest import Clip
from sefar_core.data.datasets.records import ALIKE, UNWRITABLE, ListError, Listing, refuse_repeat
from sefar_core.data.pictures import is_picture

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)
RARE_SUFFIXES = frozenset(".3g2 .asf .divx .dv .f4v .m2v .mpe .mxf .qt".split())
"""Also of videos, but they stay in the ids of their clips."""


@dataclass(slots=True)
class Folder:
    """A folder of the disk: what it holds, by names made alike."""

    path: str
    """Relative to the video root, with a slash at its end; empty for the root."""
    parent: "Folder | None" = None
    files: dict[str, list[str]] = field(default_factory=dict)
    """Listed names of files, and of folders that are clips, made alike (see `folded`)."""
    folders: dict[str, list["Folder"]] = field(default_factory=dict)
    """Folders by their letters and digits (see `_loosely`)."""


Fit = tuple[str, list[Folder]]
"""Folders that a listed folder may mean, all equally good, behind their names as listed."""


def resolve_paths(clips: Sequence[Clip], video_root: Path) -> list[Clip]:
    """The clips with the paths of their files beneath the video root.

    Of the listed path, the longest end that exists beneath the root counts; then the path without
    others of its folders. Names count as they are written first, then without regard to case and,
    in folder names, to anything but letters and digits. An absolute path to a file outside the
    root stays as it is. A clip may also be a folder of jpg or png pictures.

    Raises:
        ListError: the root is not a folder or cannot be read, clips are missing (all are counted,
            the first ten named), two files fit one clip, or one file two clips of different paths.
    """
    present, missing = find_clips(clips, video_root)
    if missing:
        named = first_few([clip.path for clip in missing])
        raise ListError(
            f"{len(missing)} of {len(clips)} listed clips are not beneath the video root "
            f"{video_root}; it must hold the files in the folders that the list names, or without "
            f"these folders. Give another root, fetch the clips, or take them out of the list:"
            + "".join(f"\n  {one}" for one in named)
            + _elsewhere(missing[0].path, video_root)
        )
    return present


def find_clips(clips: Sequence[Clip], video_root: Path) -> tuple[list[Clip], list[Clip]]:
    """The clips whose files exist, placed as by `place`, and those whose files do not.

    Raises:
        ListError: the root is not a folder or cannot be read, two files fit one clip, or one file
            fits two clips of different paths.
    """
    root = os.path.abspath(video_root)
    tree = _walk(root, {name for clip in clips for name in _names(clip.path)})
    on_disk: dict[str, bool] = {}
    fits: dict[str, list[Fit]] = {}
    listed: dict[str, str] = {}
    present, missing = [], []
    for clip in clips:
        path = _absolute(clip.path, root, on_disk) or _beneath(clip.path, tree, fits)
        if path is None:
            missing.append(clip)
            continue
        if listed.setdefault(path, clip.path) != clip.path:
            raise ListError(
                f"{path} beneath the video root fits both {listed[path]} and {clip.path}; lay the "
                f"files out in the folders that the list names"
            )
        present.append(replace(clip, path=path))
    return present, missing


def _elsewhere(path: str, video_root: Path) -> str:
    """For an error: where beneath the root a file of the same name is, if anywhere."""
    folders = [_walk(os.path.abspath(video_root), _names(path))]
    while folders:
        folder = folders.pop()
        if folder.files:
            name = next(iter(folder.files.values()))[0]
            return (
                f"\n{folder.path}{name} has the name of the first, but is in a folder that the "
                f"list does not name"
            )
        folders += [child for children in folder.folders.values() for child in children]
    return ""


def id_of(path: str) -> str:
    """A clip's id from its path: composed, without a leading slash and the suffix of a video."""
    stem, suffix = os.path.splitext(composed(path))
    return (stem if suffix.lower() in VIDEO_SUFFIXES else composed(path)).lstrip("/")


def _absolute(path: str, root: str, on_disk: dict[str, bool]) -> str | None:
    """An absolute path to something that exists, relative if it is in the root; else none.

    Whether its folder exists is noted `on_disk`, so that foreign folders are looked up once.
    """
    if not path.startswith("/") or ".." in path.split("/"):
        return None
    above, _, name = path.rpartition("/")
    if above not in on_disk:
        on_disk[above] = os.path.isdir(above or "/")
    if not on_disk[above] or not name or not os.path.exists(path):
        return None
    return path.removeprefix(root.rstrip("/") + "/")


def _beneath(path: str, tree: Folder, fits: dict[str, list[Fit]]) -> str | None:
    """The path beneath the root that fits a listed one best, if any does.

    If none does, backslashes are read as slashes. Folders are looked up once and kept in `fits`.
    """
    for listed in dict.fromkeys((path, path.replace("\\", "/"))):
        above, _, name = listed.rpartition("/")
        if above not in fits:
            fits[above] = _fits(above, tree)
        for written, folders in fits[above]:
            found = [
                folder.path + file
                for folder in folders
                for file in folder.files.get(folded(name), ())
            ]
            same = [one for one in found if composed(one) == composed(written + name)]
            if len(same) == 1:
                return same[0]
            found = same or found
            if len(found) > 1:
                alike = ALIKE if len({*map(composed, found)}) < len(found) else ""
                raise ListError(
                    f"the list names {path}, which fits {len(found)} files beneath the video "
                    f"root: {', '.join(sorted(found))}{alike}; rename or delete all "
                    f"but one"
                )
            if found:
                return found[0]
    return None


def _fits(above: str, tree: Folder) -> list[Fit]:
    """Folders that a listed folder may mean: ends of its path, longest first; then other parts."""
    parts = [part for part in above.split("/") if part not in ("", ".")]
    by_kept: dict[tuple[int, ...], list[Folder]] = {}
    for kept, folder in _descend(tree, parts, ()):
        by_kept.setdefault(kept, []).append(folder)

    def rank(kept: tuple[int, ...]) -> tuple:
        is_end = kept == tuple(range(len(parts) - len(kept), len(parts)))
        return not is_end, -len(kept), kept

    return [
        ("".join(f"{parts[index]}/" for index in kept), by_kept[kept])
        for kept in sorted(by_kept, key=rank)
    ]


def _descend(
    folder: Folder, parts: Sequence[str], kept: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], Folder]]:
    """Folders reached by names among the parts, in their order, with the places of these names."""
    yield kept, folder
    for index in range(kept[-1] + 1 if kept else 0, len(parts)):
        for child in folder.folders.get(_loosely(parts[index]), ()):
            yield from _descend(child, parts, (*kept, index))


def _names(path: str) -> set[str]:
    """The last part of a listed path, made alike, backslashes being letters or slashes."""
    return {folded(path.rpartition("/")[2]), folded(re.split(r"[/\\]", path)[-1])}


def _loosely(name: str) -> str:
    """A folder's name without what renaming tools change: case, blanks, marks."""
    return re.sub(r"[\W_]+", "", folded(name)) or composed(name)


def _walk(root: str, listed: set[str]) -> Folder:
    """The tree beneath the root, each folder listed once, links followed (see `_fill`)."""
    if not os.path.isdir(root):
        raise ListError(f"the video root {root} is not a folder; give the folder of the videos")
    tree = Folder(path="")
    # Beside each folder the real ones on the way to it: a link back to one of them is a loop.
    queue: list[tuple[Folder, tuple[str, ...]]] = [(tree, (os.path.realpath(root),))]
    while queue:
        folder, way = queue.pop()
        try:
            with os.scandir(os.path.join(root, folder.path)) as entries:
                queue += _fill(folder, way, entries, listed)
        except OSError as cause:
            raise ListError(
                f"a folder beneath the video root cannot be read: {cause}; change its rights, or "
                f"take it out of the root"
            ) from cause
    return tree


def _fill(
    folder: Folder, way: tuple[str, ...], entries: Iterable[os.DirEntry], listed: set[str]
) -> list[tuple[Folder, tuple[str, ...]]]:
    """Enter what a folder holds, and return its folders with the ways to them.

    A folder that has the name of a listed clip and holds a picture is this clip; the rest of its
    pictures, of which a data set may have tens of millions, is not read.
    """
    below = []
    for entry in entries:
        name = entry.name
        if entry.is_dir():
            real = os.path.realpath(entry.path) if entry.is_symlink() else f"{way[-1]}/{name}"
            if real not in way:
                child = Folder(path=f"{folder.path}{name}/", parent=folder)
                folder.folders.setdefault(_loosely(name), []).append(child)
                below.append((child, (*way, real)))
        elif entry.is_file():
            own = folder.path[:-1].rpartition("/")[2]
            if is_picture(name) and folder.parent and folded(own) in listed:
                folder.parent.files.setdefault(folded(own), []).append(own)
                break
            if folded(name) in listed:
                folder.files.setdefault(folded(name), []).append(name)
    return below


TAKEN = VIDEO_SUFFIXES | RARE_SUFFIXES
NO_ENDING = "without ending"


def read_folders(
    root: Path, *, unlabeled: Path | None = None, test_root: Path | None = None
) -> Listing:
    """The videos of class folders: those of `root` as the pool, the others settled.

    The classes are the folders of `root` in alphabetical order. Clips are in their class's folder
    or deeper.

    Args:
        root: a folder with one folder a class.
        unlabeled: a folder of videos at any depth whose classes are not known; it may be in
            `root`, and is not a class then.
        test_root: a folder with one folder for each class that has test clips, named as in `root`;
            it may be in `root`, and is not a class then.

    Raises:
        ListError: a folder is missing, cannot be read or has no video, a video is outside the class
            folders, a folder of test clips has no class, a folder mixes pictures and folders, or a
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
                    f"{entry.path} is outside the class folders; put it in {parent}/<class>/"
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
            f"{folder} belongs to no class: {root} has no folder {folder.name!r}; rename or add one"
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
    """A clip without its class; its id is its path, relative to the root if it is there."""
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
    # A link to nothing counts: the search for the clip then reports it missing.
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
