"""Which clips are cut from one file, whatever the file is called, and which of them share frames.

One file can have two names: two spellings of its path, a link, or a copy. Copies are found by size
first, and by their bytes only where sizes are equal.
"""

import hashlib
import os
import posixpath
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from qa_data.manifest import Clip
from qa_data.text_file import composed
from sefar_core.data.on_disk import on_disk

Files = Mapping[str, str]
"""File of each clip by the clip's id; clips of one file have the same."""


def files_of(clips: Iterable[Clip], video_root: Path | None = None) -> Files:
    """The file of each clip, the same for all names that a file has.

    Args:
        clips: any.
        video_root: folder of the videos. None: no file is looked at, and paths are compared by
            their spelling alone, `a/./b.mp4` being `a/b.mp4`.
    """
    if video_root is None:
        return {clip.id: composed(posixpath.normpath(clip.path)) for clip in clips}
    root = os.path.abspath(video_root)
    real = {path: os.path.realpath(on_disk(Path(root, path))) for path in {c.path for c in clips}}
    first_of = _first_of_equals(sorted(set(real.values())))
    return {clip.id: first_of.get(real[clip.path], real[clip.path]) for clip in clips}


def sharing_frames(first: Sequence[Clip], second: Sequence[Clip], files: Files) -> list[Clip]:
    """Clips of the second that show frames which clips of the first show, in their order.

    A clip without times is its whole file. Touching clips, one of which ends where the other
    begins, share no frame.

    Args:
        first: usually what is trained on.
        second: usually what is tested on.
        files: of the clips of both.
    """
    both = {files[clip.id] for clip in second}
    stretches: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for clip in first:
        if files[clip.id] in both:
            stretches[files[clip.id]].append(_stretch(clip))
    shown = {file: _sorted(found) for file, found in stretches.items()}
    return [clip for clip in second if _meets(_stretch(clip), *shown.get(files[clip.id], ([], [])))]


def same_file_lines(clips: Iterable[Clip], files: Files) -> list[str]:
    """Each file that is several clips as a whole: its names, and the clips with their splits."""
    whole: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.start_s is None:
            whole[files[clip.id]].append(clip)
    return [
        f"the same file: {', '.join(sorted({clip.path for clip in found}))} ("
        + ", ".join(f"clip {clip.id}, {_told(clip)}" for clip in found)
        + ")"
        for found in whole.values()
        if len(found) > 1
    ]


def _told(clip: Clip) -> str:
    return clip.split if clip.label is None else f"{clip.split}, class {clip.label}"


def _stretch(clip: Clip) -> tuple[float, float]:
    if clip.start_s is None or clip.end_s is None:
        return 0.0, float("inf")
    return clip.start_s, clip.end_s


def _sorted(stretches: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """The starts, ascending, and the latest end of all stretches up to each."""
    starts, ends = zip(*sorted(stretches), strict=True)
    return list(starts), list(accumulate(ends, max))


def _meets(stretch: tuple[float, float], starts: Sequence[float], latest: Sequence[float]) -> bool:
    start, end = stretch
    begun = bisect_left(starts, end)
    return begun > 0 and latest[begun - 1] > start


def _first_of_equals(paths: Iterable[str]) -> dict[str, str]:
    """For each file that has equals before it, the first of them; empty files equal none."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in paths:
        if os.path.isfile(path):
            by_size[os.path.getsize(path)].append(path)
    first_of: dict[str, str] = {}
    for size, alike in by_size.items():
        if size and len(alike) > 1:
            first: dict[str, str] = {}
            for path in alike:
                first_of[path] = first.setdefault(_digest(path), path)
    return first_of


def _digest(path: str) -> str:
    """Of the file's bytes; of an unreadable file its path, which equals no other."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except PermissionError:
        return path
