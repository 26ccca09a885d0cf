"""What the splits share: clips, routines, source videos, and the same moment cut out twice.

A test clip of a training video shares athlete, camera and arena with training; one of a training
routine also shares the minute. Neither makes a test worthless, but its figure has to be read
with the share in mind.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from rich.table import Column, Table

from qa_data.annotations import Interval
from qa_data.manifest import SPLITS, Clip, by_split
from sefar_core.data.near_duplicates import near_duplicates, routine_of


def compare(
    first: Sequence[Clip], second: Sequence[Clip], *, times: Mapping[str, Interval] | None = None
) -> dict[str, int]:
    """What two sets of clips share, such as two splits, or the lists of two benchmarks.

    Args:
        first: usually what is trained on.
        second: usually what is tested on.
        times: as for `near_duplicates`.

    Returns:
        `clips`, `sources` and `routines` that are in both; `of_clips`, `of_sources`: how many the
        second has; `clips_of_shared_sources`, `clips_of_shared_routines`: how many clips of the
        second these are; `near_duplicates`: pairs, one of each set.
    """
    own = {clip.id for clip in first}
    both = [*first, *(clip for clip in second if clip.id not in own)]
    pairs = near_duplicates(both, times=times)
    across = sum((i < len(first)) != (j < len(first)) for i, j in pairs)
    return {**_shared(first, second), "near_duplicates": across}


def leak_report(
    clips: Sequence[Clip],
    *,
    classes: Mapping[int, str] | None = None,
    times: Mapping[str, Interval] | None = None,
) -> dict[str, dict]:
    """What each two splits share, as plain values.

    Args:
        clips: of all splits.
        classes: names of all classes by label; None: the classes that the clips show.
        times: as for `near_duplicates`.

    Returns:
        `leaks`: for each two splits, as in "labeled-test", what `compare` says; "training" is
        labeled and unlabeled together. `near_duplicates`: pairs within each split.
        `missing_classes`: names by label of the classes that a split has no clip of.
        `without_source`: clips of each split of which no source video is known.
    """
    groups = {split: by_split(clips, split) for split in SPLITS}
    groups = {split: members for split, members in groups.items() if members}
    pairs = Counter(
        frozenset((clips[i].split, clips[j].split)) for i, j in near_duplicates(clips, times=times)
    )
    if "labeled" in groups and "unlabeled" in groups:
        groups = {"training": groups["labeled"] + groups["unlabeled"], **groups}
    leaks = {
        f"{a}-{b}": {**_shared(groups[a], groups[b]), "near_duplicates": _between(pairs, a, b)}
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
        "without_source": {
            split: sum(not clip.source for clip in members) for split, members in groups.items()
        },
    }


def leak_tables(report: Mapping[str, Mapping]) -> list[Table]:
    """The report (of `leak_report`, or a splits.json that holds it) as tables to print."""
    shared = Table(
        Column("splits", no_wrap=True), "clips", "source videos", "clips of these", "routines",
        "clips of these", "near-duplicates",
        title="what two splits share (of the second's clips and videos)",
    )  # fmt: skip
    for pair, counts in report["leaks"].items():
        shared.add_row(
            pair,
            f"{counts['clips']:,}",
            f"{counts['sources']:,} of {counts['of_sources']:,}",
            f"{counts['clips_of_shared_sources']:,} of {counts['of_clips']:,}",
            f"{counts['routines']:,}",
            f"{counts['clips_of_shared_routines']:,} of {counts['of_clips']:,}",
            f"{counts['near_duplicates']:,}",
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


def _first_names(missing: Mapping[object, str], *, most: int = 10) -> str:
    names = [f"{label} {name}" for label, name in missing.items()]
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return "; ".join(names[:most] + more)


def _shared(first: Sequence[Clip], second: Sequence[Clip]) -> dict[str, int]:
    sources = _sources(first) & _sources(second)
    routines = {routine_of(clip) for clip in first} & {routine_of(clip) for clip in second}
    routines -= {None}
    return {
        "clips": len({clip.id for clip in first} & {clip.id for clip in second}),
        "sources": len(sources),
        "routines": len(routines),
        "of_clips": len(second),
        "of_sources": len(_sources(second)),
        "clips_of_shared_sources": sum(clip.source in sources for clip in second),
        "clips_of_shared_routines": sum(routine_of(clip) in routines for clip in second),
    }


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
