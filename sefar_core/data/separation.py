"""Training pool and test clips: as the data set lists them, or without a source video in common.

Official lists may share most of their source videos: of Gym288's 9,646 test clips, 9,353 come from
a training video. What is learned of that video's athletes and arena then counts as skill.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from qa_data.manifest import Clip
from sefar_core.data.sources import (
    SplitError,
    apart_from,
    cut_both_sides,
    named,
    one_source_classes,
    unit_of,
)

TestCut = Literal["by_source", "official", "official_disjoint"]
OneSided = Literal["refuse", "keep", "leave_out"]
Sides = tuple[list[Clip], list[Clip]]


def separate_test(
    pool: Sequence[Clip],
    test: Sequence[Clip],
    *,
    how: TestCut = "by_source",
    rate: float = 0.2,
    one_sided: OneSided = "refuse",
    seed: int = 0,
) -> Sides:
    """Training pool and test clips of a data set, cut as `how` says.

    `official` leaves both as they are listed. `official_disjoint` keeps the test clips and leaves
    out the training clips of their source videos. `by_source` cuts all clips anew by source
    video, the test split as large as it was; lists that share no source video, or whose sources
    are not known, stand as they are. A data set without test clips gets them by `by_source`: by
    source video where it is known, clip by clip where not, of every class the same share as far
    as the sources allow.

    Args:
        pool: the data set's training clips, with labels.
        test: its test clips, with labels; may be empty.
        how: the variant.
        rate: share of the clips for test if there are no test clips, in [0, 1); 0 makes none.
        one_sided: what becomes of classes that cannot have clips on both sides: an error names
            them (refuse); they stay on the one side, after a new cut in training (keep); all
            their clips are left out (leave_out).
        seed: of a new cut.

    Returns:
        Both, in the order pool, test, with the splits `labeled` and `test`.

    Raises:
        SplitError: a clip lacks a label, or stands in both lists; a class (of `leave_out`: every
            class) cannot be on both sides; or a variant needs test clips and there are none.
    """
    _refuse_unfit(pool, test)
    if not test and how != "by_source":
        raise SplitError(f"test_cut={how!r} needs test clips, and there are none; take 'by_source'")
    disjoint = apart_from(pool, test)
    if how == "official_disjoint":
        gone = _labels(pool) - _labels(disjoint)
        why = "lose their last training clip, since test has clips of all their source videos"
        return _settle((disjoint, list(test)), gone, why, one_sided, [*pool, *test])
    if how == "official" or not pool or (rate == 0 and not test):
        return list(pool), list(test)
    if test and len(disjoint) == len(pool):
        return list(pool), list(test)
    return _cut_anew([*pool, *test], len(test) / (len(pool) + len(test)) or rate, one_sided, seed)


def _cut_anew(clips: Sequence[Clip], rate: float, one_sided: OneSided, seed: int) -> Sides:
    """Both sides of a cut by source video."""
    single = one_source_classes(clips)
    if one_sided == "leave_out":
        clips = [clip for clip in clips if clip.label not in single]
    if not clips:
        raise SplitError(
            "each class has all its clips from one source video: with one_sided='leave_out' none "
            "is left. Take test_cut='official' or test_rate=0, or give sources only where clips do "
            "share a video."
        )
    cut = cut_both_sides(clips, rate, random.Random(f"{seed} test"))
    outside = [replace(clip, split="labeled") for clip in clips if unit_of(clip) not in cut]
    inside = [replace(clip, split="test") for clip in clips if unit_of(clip) in cut]
    lacking = _labels(outside) ^ _labels(inside)
    if lacking & single:  # which stand in the way of others
        why, lacking = "have all their clips from one source video", lacking & single
    else:
        why = "share so few source videos that no cut was found for them"
    return _settle((outside, inside), lacking, why, one_sided, clips)


def _settle(
    sides: Sides, lacking: set[int], why: str, one_sided: OneSided, clips: Sequence[Clip]
) -> Sides:
    """Both sides, after the classes that one of them lacks are kept, left out or refused."""
    pool, test = sides
    if one_sided == "keep" or not lacking:
        return pool, test
    if one_sided == "leave_out":
        pool, test = ([clip for clip in side if clip.label not in lacking] for side in sides)
        return pool, test
    raise SplitError(
        f"training and test cannot both have every class without sharing source videos: "
        f"{len(lacking)} classes {why}: {named(lacking, clips)}. Take one_sided='keep' "
        f"(they stay on one side), one_sided='leave_out' (they are in neither), or "
        f"test_cut='official'."
    )


def _labels(clips: Sequence[Clip]) -> set[int]:
    return {clip.label for clip in clips if clip.label is not None}


def _refuse_unfit(pool: Sequence[Clip], test: Sequence[Clip]) -> None:
    if unknown := [clip.id for clip in [*pool, *test] if clip.label is None]:
        raise SplitError(
            f"{len(unknown)} training or test clips have no label, first {unknown[0]}; clips "
            f"without a label can only be unlabeled ones: is it the right list?"
        )
    refuse_shared(pool, test)


def refuse_shared(pool: Sequence[Clip], settled: Sequence[Clip]) -> None:
    """Raise SplitError if a clip stands in the training list and in another."""
    if shared := sorted({clip.id for clip in pool} & {clip.id for clip in settled}):
        raise SplitError(
            f"{len(shared)} clips stand in the training list and in another list, first "
            f"{shared[0]}; take both lists of one benchmark, or delete them from one"
        )
