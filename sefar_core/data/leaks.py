"""What the splits share: clips, routines, source videos, and the same moment cut out twice.

A test clip of a training video shares athlete, camera and arena with training; one of a training
routine also shares the minute. Neither makes a test worthless, but its figure has to be read
with the share in mind.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from rich.table import Column, Table

from qa_data.annotations import Interval
from qa_data.manifest import SPLITS, Clip, by_split
from sefar_core.data.class_names import labels_of_one_name, names_of_one_label
from sefar_core.data.near_duplicates import near_duplicates, routine_of
from sefar_core.data.shared_files import Files, files_of, same_file_lines, sharing_frames


def compare(
    first: Sequence[Clip],
    second: Sequence[Clip],
    *,
    times: Mapping[str, Interval] | None = None,
    video_root: Path | None = None,
) -> dict[str, int]:
    """What two sets of clips share, such as two splits, or the lists of two benchmarks.

    Args:
        first: usually what is trained on.
        second: usually what is tested on.
        times: as for `near_duplicates`.
        video_root: as for `files_of`, which finds files of two names.

    Returns:
        `clips`, `sources` and `routines` that are in both; `of_clips`, `of_sources`, `of_routines`:
        how many the second has, and `of_first`: how many clips the first has;
        `clips_of_shared_sources`, `clips_of_shared_routines`: how many clips of the second these
        are; `clips_of_shared_frames`: how many clips of the second show frames of a file that clips
        of the first show; `without_source`, `of_first_without_source`: clips of the second and of
        the first whose source is not known, of which the counts of sources say nothing;
        `near_duplicates`: pairs, one of each set.
    """
    own = {clip.id for clip in first}
    both = [*first, *(clip for clip in second if clip.id not in own)]
    files = files_of(both, video_root)
    pairs = near_duplicates(both, times=times, files=files)
    across = sum((i < len(first)) != (j < len(first)) for i, j in pairs)
    return {**_shared(first, second, files), "near_duplicates": across}


def shared_lines(shared: Mapping[str, int]) -> list[str]:
    """What `compare` found of training clips (first) and others, in sentences."""
    known = shared["of_clips"] - shared["without_source"]
    lines = []
    if known:
        lines.append(
            f"{shared['clips_of_shared_sources']:,} of {known:,} clips "
            f"{'of known source ' if shared['without_source'] else ''}come from source videos "
            f"that training clips come from too"
        )
    if shared["without_source"]:
        lines.append(
            f"{shared['without_source']:,} of {shared['of_clips']:,} clips have no known source: "
            f"whether training clips share it cannot be told"
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
    times: Mapping[str, Interval] | None = None,
    video_root: Path | None = None,
) -> dict[str, dict]:
    """What each two splits share, as plain values.

    Args:
        clips: of all splits.
        classes: names of all classes by label; None: the classes that the clips show.
        times: as for `near_duplicates`.
        video_root: as for `files_of`, which finds files of two names.

    Returns:
        `leaks`: for each two splits, as in "labeled-test", what `compare` says; "training" is
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
            split: {label: classes[label] for label in sorted(classes.keys() - _labels(members))}
            for split, members in groups.items()
            if split in ("labeled", "val", "test")
        },
        "without_source": {split: _unknown(members) for split, members in groups.items()},
        "names_of_one_label": names_of_one_label(clips),
        "labels_of_one_name": labels_of_one_name(clips),
    }


def manifest_lines(clips: Sequence[Clip], video_root: Path) -> list[str]:
    """What is wrong with a manifest of sound videos: files, frames and names that stand twice."""
    files = files_of(clips, video_root)
    training = [clip for clip in clips if clip.split in ("labeled", "unlabeled")]
    lines = _first(same_file_lines(clips, files))
    for split in ("val", "test"):
        if shown := sharing_frames(training, by_split(clips, split), files):
            ids = _first([clip.id for clip in shown])
            lines.append(f"{split} clips of frames that training clips show: {', '.join(ids)}")
    names, labels = names_of_one_label(clips), labels_of_one_name(clips)
    return lines + conflict_lines({"names_of_one_label": names, "labels_of_one_name": labels})


def conflict_lines(report: Mapping[str, Mapping]) -> list[str]:
    """Labels of several names and names of several labels, as far as a report holds some."""
    names = [
        f"label {label} has several names: {', '.join(found)}"
        for label, found in report["names_of_one_label"].items()
    ]
    labels = [
        f"{name} is the name of several labels: {', '.join(map(str, found))}"
        for name, found in report["labels_of_one_name"].items()
    ]
    return [*_first(names), *_first(labels)]


def leak_tables(report: Mapping[str, Mapping]) -> list[Table]:
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
        told = "not told" if missing is None else f"{len(missing)}"
        if missing and split != "val":  # a part for tuning shows few classes
            told = f"{told}: {_first_names(missing)}"
        within.add_row(
            split,
            f"{pairs:,}",
            f"{report['without_source'][split]:,}",
            told,
        )
    if any(report["without_source"].values()):
        within.caption = "sources unknown: what clips of unknown source share cannot be told"
    return [shared, within]


def _source_cells(counts: Mapping[str, int]) -> tuple[str, str]:
    """Shared sources and clips of these; of unknown sources nothing is told."""
    known = counts["of_clips"] - counts["without_source"]
    if known == 0 or counts["of_first_without_source"] == counts["of_first"]:
        return "unknown", "unknown"
    return (
        f"{counts['sources']:,} of {counts['of_sources']:,}",
        f"{counts['clips_of_shared_sources']:,} of {known:,}",
    )


def _routine_cells(counts: Mapping[str, int]) -> tuple[str, str]:
    """Shared routines and clips of these, which only names of FineGym tell."""
    if counts["of_routines"] == 0:
        return "-", "-"
    return (
        f"{counts['routines']:,}",
        f"{counts['clips_of_shared_routines']:,} of {counts['of_clips']:,}",
    )


def _first_names(missing: Mapping[object, str]) -> str:
    return "; ".join(_first([f"{label} {name}" for label, name in missing.items()]))


def _first(names: list[str], *, most: int = 10) -> list[str]:
    """The first ones, and how many more there are."""
    return names[:most] + ([f"and {len(names) - most} more"] if len(names) > most else [])


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


def _labels(clips: Sequence[Clip]) -> set[int | None]:
    return {clip.label for clip in clips}


def _parts(group: str) -> tuple[str, ...]:
    """The splits of a group."""
    return ("labeled", "unlabeled") if group == "training" else (group,)


def _between(pairs: Counter[frozenset[str]], first: str, second: str) -> int:
    """Pairs with a clip of each of two groups."""
    return sum(
        pairs[key] for key in {frozenset((a, b)) for a in _parts(first) for b in _parts(second)}
    )
