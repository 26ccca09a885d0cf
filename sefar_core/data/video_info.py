"""What is known of a video before its frames are wanted."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What the packets and the first picture of a file tell.

    Attributes:
        num_frames: frames that are shown, which can be fewer than the file's header says.
        times_s: when each appears, seconds from the file's beginning, as players count.
        duration_s: from the first frame's appearance to the last one's end.
        fps: shown frames per second, on average.
        width: pixels, upright.
        height: pixels, upright.
        rotation: degrees counterclockwise that turn the stored picture upright: 0, 90, 180, 270.
        codec: the decoder's name.
        container: FFmpeg's name of the file's format.
        flags: what readers that trust the header stumble over; see `timeline.oddities`.
    """

    num_frames: int
    times_s: tuple[float, ...]
    duration_s: float
    fps: float
    width: int
    height: int
    rotation: int
    codec: str
    container: str
    flags: tuple[str, ...]

    @property
    def end_s(self) -> float:
        """When the last frame disappears, seconds from the file's beginning."""
        return self.times_s[0] + self.duration_s
