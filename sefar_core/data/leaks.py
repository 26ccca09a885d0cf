"""What splits share: clips, routines, source videos, files, and the same moment cut out twice.

A test clip of a training video shares athlete, camera and arena with training; one of a training
routine also shares the minute. Neither makes a test worthless, but its figure has to be read
with the share in mind.

Files: one file can have two names, by two spellings of its path, a link, or a copy. Copies are
found by size first, and by their bytes only where sizes are equal (`files_of`).

Near-duplicates: FineGym's annotators cut some routines out of their broadcast twice, with the same
elements in both. The clips have different names and all but the same frames (`near_duplicates`).
"""

import math
import os
import posixpath
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, combinations
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from rich.table import Column, Table

from qa_data.files import SefarError, composed, file_hash, first_few, on_disk
from qa_data.finegym import CLIP_ID, ClipId, TimeSpan, event_of
from qa_data.manifest import SPLITS, Clip, by_split
from sefar_core.data.class_names import class_conflicts, conflict_lines

Files = Mapping[str, str]
"""File of each clip by the clip's id; clips of one file have the same."""


def files_of(clips: Iterable[Clip], video_root: Path | None = None) -> Files:
    """The file of each clip, the same for all names that a file has.

    Without the folder of the videos no file is opened, and paths are compared by their spelling
    alone, `a/./b.mp4` being `a/b.mp4`.
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
    lines = []
    for found in whole.values():
        paths = ", ".join(sorted({clip.path for clip in found}))
        classes = ["" if clip.label is None else f", class {clip.label}" for clip in found]
        named = [f"clip {c.id}, {c.split}{label}" for c, label in zip(found, classes, strict=True)]
        if len(found) > 1:
            lines.append(f"the same file: {paths} ({', '.join(named)})")
    return lines


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
        return file_hash(Path(path))
    except PermissionError:
        return path


SAME_MOMENT = 0.9
"""Intersection over union in time, above which two clips of a recording are near-duplicates."""


class Recording(NamedTuple):
    """A file or a source video, by its path or name; it has one beginning."""

    kind: Literal["file", "source"]
    name: str


class Moment(NamedTuple):
    """When a clip is shown in its recording; `place` is its number among the clips."""

    start_s: float
    end_s: float
    place: int


def near_duplicates(
    clips: Sequence[Clip],
    *,
    times: Mapping[str, TimeSpan] | None = None,
    files: Files | None = None,
) -> Iterator[tuple[int, int]]:
    """Pairs of clips that show one moment of one recording: IoU in time above SAME_MOMENT.

    The recording is what a clip's times count in: its file if the clip has times of its own,
    else its source video. Several files can come from one source, such as all dives of an
    event, each with a beginning of its own.

    Where neither the clips nor `times` hold begin and end of a clip, the whole seconds in a
    FineGym clip id are used; they find fewer (19 of 42 pairs in Gym99). Clips that are whole
    files are near-duplicates if they are one file. Takes O(n log n + pairs) time.

    `times` hold begin and end in the source, by clip id, for clips that are files of their own.
    Without `files` (see `files_of`) paths are compared by their spelling.

    Yields:
        Numbers of two clips, the one that begins first before the other.

    Raises:
        SefarError: a clip does not end after it starts.
    """
    if files is None:
        files = files_of(clips)
    yield from _whole_twice(clips, files)
    bands: dict[tuple[Recording, int], list[Moment]] = defaultdict(list)
    for place, clip in enumerate(clips):
        found = _interval(clip, times or {})
        recording = _recording(clip, files)
        if found and recording:
            bands[recording, _band(found)].append(Moment(*found, place))
    for (recording, band), members in bands.items():
        longer = bands.get((recording, band + 1), [])
        own = {moment.place for moment in members}
        for one, other in _same_moments(sorted(members + longer)):
            pair = clips[one.place], clips[other.place]
            whole = pair[0].start_s is None and pair[1].start_s is None  # found by `_whole_twice`
            one_file = whole and files[pair[0].id] == files[pair[1].id]
            if (one.place in own or other.place in own) and not one_file:
                yield one.place, other.place


def routine_of(clip: Clip) -> str | None:
    """Source video and routine (one athlete's turn on one apparatus) of a FineGym clip."""
    return event_of(clip.id) if CLIP_ID.fullmatch(clip.id) else None


def _whole_twice(clips: Sequence[Clip], files: Files) -> Iterator[tuple[int, int]]:
    """Pairs of clips that are one whole file each, the same."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, clip in enumerate(clips):
        if clip.start_s is None:
            places[files[clip.id]].append(place)
    for found in places.values():
        yield from combinations(found, 2)


def _recording(clip: Clip, files: Files) -> Recording | None:
    """What the clip's times count in; a file named for its source is that source."""
    if clip.start_s is not None and composed(PurePosixPath(clip.path).stem) != clip.source:
        return Recording("file", files[clip.id])
    return Recording("source", clip.source) if clip.source else None


def _interval(clip: Clip, times: Mapping[str, TimeSpan]) -> TimeSpan | None:
    """The clip's time in its recording, exact if known, else in whole seconds, else none."""
    if clip.start_s is not None and clip.end_s is not None:
        found = TimeSpan(clip.start_s, clip.end_s)
    elif clip.id in times:
        found = times[clip.id]
    elif CLIP_ID.fullmatch(clip.id):
        parts = ClipId.parse(clip.id)
        found = TimeSpan(parts.event_start + parts.start, parts.event_start + parts.end + 1)
    else:
        return None
    if not 0 <= found.start_s < found.end_s < math.inf:
        raise SefarError(
            f"clip {clip.id} runs from {found.start_s} to {found.end_s} s; it must end "
            f"after it starts: correct its times, or take it out of the list"
        )
    return found


def _band(found: TimeSpan) -> int:
    """Lengths in one band, or in two neighboring ones, are those that near-duplicates can have."""
    return math.floor(math.log(found.end_s - found.start_s) / -math.log(SAME_MOMENT))


def _same_moments(moments: Sequence[Moment]) -> Iterator[tuple[Moment, Moment]]:
    """Pairs above SAME_MOMENT, of moments in order of their start."""
    for number, one in enumerate(moments):
        latest = one.start_s + (1 - SAME_MOMENT) * (one.end_s - one.start_s)
        later = number + 1
        while later < len(moments) and moments[later].start_s <= latest:
            other = moments[later]
            later += 1
            overlap = min(one.end_s, other.end_s) - other.start_s
            union = max(one.end_s, other.end_s) - one.start_s
            if overlap > SAME_MOMENT * union:
                yield one, other


def overlap(
    first: Sequence[Clip],
    second: Sequence[Clip],
    *,
    video_root: Path | None = None,
) -> dict[str, int]:
    """What two sets of clips share, such as two splits, or the lists of two benchmarks; the first
    is usually what is trained on. `video_root` as for `files_of`.

    Returns:
        `clips`, `sources` and `routines` that are in both; `of_clips`, `of_sources`, `of_routines`:
        how many the second has, and `of_first`: how many clips the first has;
        `clips_of_shared_sources`, `clips_of_shared_routines`: how many clips of the second these
        are; `clips_of_shared_frames`: how many clips of the second show frames of a file that clips
        of the first show; `without_source`, `of_first_without_source`: clips of the second and of
        the first whose source is not known, which the counts of sources leave out;
        `near_duplicates`: pairs, one of each set.
    """
    own = {clip.id for clip in first}
    both = [*first, *(clip for clip in second if clip.id not in own)]
    files = files_of(both, video_root)
    pairs = near_duplicates(both, files=files)
    across = sum((i < len(first)) != (j < len(first)) for i, j in pairs)
    return {**_shared(first, second, files), "near_duplicates": across}


def overlap_lines(shared: Mapping[str, int]) -> list[str]:
    """What `overlap` found between training clips (first) and others, in sentences."""
    known = shared["of_clips"] - shared["without_source"]
    lines = []
    if known:
        which = "clips of known source" if shared["without_source"] else "clips"
        lines.append(
            f"{shared['clips_of_shared_sources']:,} of {known:,} {which} come from source videos "
            f"that training clips come from too"
        )
    if shared["without_source"]:
        lines.append(
            f"{shared['without_source']:,} of {shared['of_clips']:,} clips have no known source: "
            f"whether training clips share it is unknown"
        )
    if known and shared["of_first_without_source"]:
        lines.append(
            f"{shared['of_first_without_source']:,} training clips have no known source; they may "
            f"share more"
        )
    if shared["clips_of_shared_frames"]:
        lines.append(
            f"{shared['clips_of_shared_frames']:,} of {shared['of_clips']:,} clips show frames of "
            f"files that training clips show too: leave them out"
        )
    return lines


def leak_report(
    clips: Sequence[Clip],
    *,
    classes: Mapping[int, str] | None = None,
    times: Mapping[str, TimeSpan] | None = None,
    video_root: Path | None = None,
) -> dict[str, dict]:
    """What each two splits share, as plain values.

    Without `classes` (names by label) the classes are those that the clips show. `times` and
    `video_root` as for `overlap`.

    Returns:
        `leaks`: for each two splits, as in "labeled-test", what `overlap` counts; "training" is
        labeled and unlabeled together. `near_duplicates`: pairs within each split.
        `missing_classes`: names by label of the classes that a split has no clip of.
        `without_source`: clips of each split of which no source video is known.
        `names_of_one_label`, `labels_of_one_name`: labels of several names, and names of several
        labels, with these.
    """
    files = files_of(clips, video_root)
    groups = {split: by_split(clips, split) for split in SPLITS}
    groups = {split: members for split, members in groups.items() if members}
    pairs = Counter(
        frozenset((clips[i].split, clips[j].split))
        for i, j in near_duplicates(clips, times=times, files=files)
    )
    if "labeled" in groups and "unlabeled" in groups:
        groups = {"training": groups["labeled"] + groups["unlabeled"], **groups}
    leaks = {
        f"{a}-{b}": {
            **_shared(groups[a], groups[b], files),
            "near_duplicates": _between(pairs, a, b),
        }
        for a, b in combinations(groups, 2)
        if not (a == "training" and b in _parts(a))
    }
    if classes is None:
        classes = {clip.label: clip.text or "" for clip in clips if clip.label is not None}
    return {
        "leaks": leaks,
        "near_duplicates": {name: _between(pairs, name, name) for name in groups},
        "missing_classes": {
            split: {n: classes[n] for n in sorted(classes.keys() - {c.label for c in members})}
            for split, members in groups.items()
            if split in ("labeled", "val", "test")
        },
        "without_source": {split: _unknown(members) for split, members in groups.items()},
        **class_conflicts(clips),
    }


def manifest_lines(clips: Sequence[Clip], video_root: Path) -> list[str]:
    """What is wrong with a manifest of sound videos: repeated files, frames and names."""
    files = files_of(clips, video_root)
    training = [clip for clip in clips if clip.split in ("labeled", "unlabeled")]
    lines = first_few(same_file_lines(clips, files))
    for split in ("val", "test"):
        if shown := sharing_frames(training, by_split(clips, split), files):
            ids = first_few([clip.id for clip in shown])
            lines.append(f"{split} clips of frames that training clips show: {', '.join(ids)}")
    return lines + conflict_lines(class_conflicts(clips))


def leak_tables(report: Mapping[str, Any]) -> list[Table]:
    """The report (of `leak_report`, or a splits.json that holds it) as tables to print."""
    shared = Table(
        Column("splits", no_wrap=True), "clips", "source videos", "clips of these", "routines",
        "clips of these", "near-duplicates", "clips of same frames",
        title="what two splits share (of the second's clips and videos)",
    )  # fmt: skip
    for pair, counts in report["leaks"].items():
        shared.add_row(
            pair,
            f"{counts['clips']:,}",
            *_source_cells(counts),
            *_routine_cells(counts),
            f"{counts['near_duplicates']:,}",
            f"{counts['clips_of_shared_frames']:,} of {counts['of_clips']:,}",
        )
    within = Table(
        Column("split", no_wrap=True), "near-duplicates", "clips of unknown source",
        "classes without a clip",
        title="within each split",
    )  # fmt: skip
    for split, pairs in report["near_duplicates"].items():
        missing = report["missing_classes"].get(split)
        absent = "not known" if missing is None else f"{len(missing)}"
        if missing and split != "val":  # a part for tuning shows few classes
            named = first_few([f"{label} {name}" for label, name in missing.items()])
            absent = f"{absent}: {'; '.join(named)}"
        within.add_row(split, f"{pairs:,}", f"{report['without_source'][split]:,}", absent)
    if any(report["without_source"].values()):
        within.caption = "sources unknown: what clips of unknown source share is unknown"
    return [shared, within]


def _source_cells(counts: Mapping[str, int]) -> tuple[str, str]:
    """Shared sources and clips of these; unknown where sources are."""
    known = counts["of_clips"] - counts["without_source"]
    if known == 0 or counts["of_first_without_source"] == counts["of_first"]:
        return "unknown", "unknown"
    return (
        f"{counts['sources']:,} of {counts['of_sources']:,}",
        f"{counts['clips_of_shared_sources']:,} of {known:,}",
    )


def _routine_cells(counts: Mapping[str, int]) -> tuple[str, str]:
    """Shared routines and clips of these, which only FineGym's names hold."""
    if counts["of_routines"] == 0:
        return "-", "-"
    return (
        f"{counts['routines']:,}",
        f"{counts['clips_of_shared_routines']:,} of {counts['of_clips']:,}",
    )


def _shared(first: Sequence[Clip], second: Sequence[Clip], files: Files) -> dict[str, int]:
    sources = _sources(first) & _sources(second)
    routines = {routine_of(clip) for clip in first} & {routine_of(clip) for clip in second}
    routines -= {None}
    return {
        "clips": len({clip.id for clip in first} & {clip.id for clip in second}),
        "sources": len(sources),
        "routines": len(routines),
        "of_clips": len(second),
        "of_sources": len(_sources(second)),
        "of_routines": len({routine_of(clip) for clip in second} - {None}),
        "clips_of_shared_sources": sum(clip.source in sources for clip in second),
        "clips_of_shared_routines": sum(routine_of(clip) in routines for clip in second),
        "clips_of_shared_frames": len(sharing_frames(first, second, files)),
        "without_source": _unknown(second),
        "of_first": len(first),
        "of_first_without_source": _unknown(first),
    }


def _unknown(clips: Sequence[Clip]) -> int:
    """How many clips have no known source."""
    return sum(not clip.source for clip in clips)


def _sources(clips: Sequence[Clip]) -> set[str]:
    """The known ones."""
    return {clip.source for clip in clips} - {""}


def _parts(group: str) -> tuple[str, ...]:
    """The splits of a group."""
    return ("labeled", "unlabeled") if group == "training" else (group,)


def _between(pairs: Counter[frozenset[str]], first: str, second: str) -> int:
    """Pairs with a clip of each of two groups."""
    return sum(
        pairs[key] for key in {frozenset((a, b)) for a in _parts(first) for b in _parts(second)}
    )
