"""What the files of a data set say: its classes, its clips, and which of them have their split.

Every reader of this folder gives a Listing; scripts/make_splits.py cuts its pool and writes the
manifest. A reader opens lists and folders, never a video.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from qa_data.annotations import Interval
from qa_data.manifest import Clip


class ListError(ValueError):
    """A list that cannot be used. The message names file, line, what was found, the mend."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A data set before labels are drawn.

    Attributes:
        classes: names of all classes by label, from 0 without gaps.
        pool: training clips with known labels, of split `labeled`, which are cut further.
        settled: clips that have their split for good, such as the official test clips, clips that
            never had a label, or the parts of a published draw.
        times: when clips begin and end in their source video, by id, where their files do not
            tell it.
        other_files: how many files of each ending lie among the clips of one's own folders and are
            none.
    """

    classes: dict[int, str]
    pool: list[Clip] = field(default_factory=list)
    settled: list[Clip] = field(default_factory=list)
    times: Mapping[str, Interval] = field(default_factory=dict)
    other_files: Mapping[str, int] = field(default_factory=dict)
