"""Lists of data sets, read slowly, and what every reader owes whatever text it is given."""

from itertools import combinations

import pytest

from qa_data.manifest import SPLITS, read_manifest, write_manifest
from sefar_core.data.datasets.records import ListError

GYM = "abc-_fghijk_E_000010_000020_A_0001_0002"
SEFAR = {
    "train.csv": f"/root/video/{GYM}.mp4 1\n",
    "unlabel.csv": f"/root/video/{GYM.replace('abc', 'abd')}.mp4 0\n",
    "val.csv": f"/root/video/{GYM.replace('abc', 'abe')}.mp4 0",
    "test.csv": f"/root/video/{GYM.replace('abc', 'abe')}.mp4 0",
}
"""Lists in the form of the public SeFAR lists."""


def read_or_refused(read, folder):
    """The listing that `read()` gives, checked; or none if it names a file of `folder` as wrong."""
    try:
        listing = read()
    except ListError as error:
        assert str(folder) in str(error)
        return None
    clips = listing.pool + listing.settled
    assert list(listing.classes) == list(range(len(listing.classes)))
    assert all(clip.split == "labeled" for clip in listing.pool)
    assert all(clip.split in SPLITS for clip in listing.settled)
    for clip in clips:
        if clip.split == "unlabeled":
            assert clip.label is clip.text is clip.event is None
        else:
            assert clip.label in listing.classes
            assert clip.text == listing.classes[clip.label]
    if all(".." not in clip.path.replace("\\", "/").split("/") for clip in clips):
        write_manifest(clips, folder / "manifest.csv")
        assert read_manifest(folder / "manifest.csv") == clips
    return listing


def refuses(read, *parts):
    """That `read()` is refused with all of these parts in the message."""
    with pytest.raises(ListError) as caught:
        read()
    for part in parts:
        assert str(part) in str(caught.value)


def lies_at(listed, files):
    """Where a listed file lies among the files of a disk, all of whose names are lower case.

    Every choice of its folders is tried: first the ends of the path, longest first, then the
    others, longest first.
    """
    *folders, name = [part.lower() for part in listed.split("/") if part]
    ends = [tuple(folders[start:]) for start in range(len(folders) + 1)]
    others = [
        choice
        for size in range(len(folders), 0, -1)
        for choice in combinations(folders, size)
        if choice not in ends
    ]
    for choice in ends + others:
        if (path := "/".join([*choice, name])) in files:
            return path
    return None
