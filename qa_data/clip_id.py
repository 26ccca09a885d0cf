"""FineGym's clip ids: source video, routine and sub-action, with their times in whole seconds.

The id is a name, not a measurement: the annotations have the same times to the millisecond.
"""

import re
from dataclasses import dataclass

# YouTube ids may hold "_" and "-" themselves, so that the id is cut by length.
SOURCE_LENGTH = 11
SOURCE = re.compile(rf"[A-Za-z0-9_-]{{{SOURCE_LENGTH}}}")
EVENT_KEY = re.compile(r"E_([0-9]{6,9})_([0-9]{6,9})")
SEGMENT_KEY = re.compile(r"A_([0-9]{4,9})_([0-9]{4,9})")
CLIP_ID = re.compile(f"({SOURCE.pattern})_{EVENT_KEY.pattern}_{SEGMENT_KEY.pattern}")

# A time lies up to 2 s above the two floors that name it; 1 s more is left to either side.
NAME_SLACK_S = (-1.0, 3.0)


@dataclass(frozen=True)
class ClipId:
    """What a clip's name says, in whole seconds; `start` and `end` count from `event_start`."""

    source: str
    event_start: int
    event_end: int
    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> "ClipId":
        """Read `<source>_E_<6 digits>_<6 digits>_A_<4 digits>_<4 digits>`.

        Raises:
            ValueError: the text is not of that form.
        """
        match = CLIP_ID.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r:.90} is no FineGym clip id; expected one such as "
                f"'A0xAXXysHUo_E_002184_002237_A_0035_0036'"
            )
        return cls(match[1], *map(int, match.groups()[1:]))

    def fits(self, start_s: float, end_s: float) -> bool:
        """Whether a clip of these times, seconds in the source video, can have this name."""
        low, high = NAME_SLACK_S
        return (
            low <= start_s - self.event_start - self.start < high
            and low <= end_s - self.event_start - self.end < high
        )

    def __str__(self) -> str:
        event = f"E_{self.event_start:06d}_{self.event_end:06d}"
        return f"{self.source}_{event}_A_{self.start:04d}_{self.end:04d}"


def source_of(clip_id: str) -> str:
    """The source video in a FineGym clip id."""
    return clip_id[:SOURCE_LENGTH]


def event_of(clip_id: str) -> str:
    """Source video and routine (one athlete's turn on one apparatus) in a FineGym clip id."""
    return clip_id.rsplit("_A_", 1)[0]
