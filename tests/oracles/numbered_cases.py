"""A numbered video file to be made, with what it shows and when, and the ways to build one.

The expected numbers and times come from how a file is made, never from a reader. The name of a
file says how it is encoded: `h264-open-late.mkv` as `h264-open` in CODECS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from tests.oracles.numbered_changes import Change
from tests.oracles.numbered_videos import RATE, TICK_S, Options, add_film, remux, video_frame, write

COUNT = 48
H264 = {"preset": "veryfast", "crf": "24", "g": "12", "sc_threshold": "0", "bf": "0"}
REORDER = {"bf": "3"}
MPEG4 = {"g": "12", "bf": "2", "qscale": "3"}
VP8 = {"g": "20", "deadline": "realtime", "cpu-used": "4"}
VP9 = VP8 | {"cpu-used": "6", "b": "100k"}


def hevc(parameters: str) -> Options:
    """Options of libx265: a keyframe every 12 pictures, and what is given."""
    fixed = "log-level=none:keyint=12:min-keyint=12:scenecut=0:pools=none:frame-threads=1"
    return {"preset": "ultrafast", "x265-params": f"{fixed}:{parameters}"}


CODECS: dict[str, tuple[str, Options]] = {
    "h264": ("libx264", H264),
    "h264-b": ("libx264", H264 | REORDER),
    "h264-open": ("libx264", H264 | REORDER | {"x264-params": "open-gop=1"}),
    "h264-refresh": ("libx264", H264 | {"x264-params": "intra-refresh=1:keyint=20"}),
    "hevc": ("libx265", hevc("open-gop=0:bframes=3")),
    "hevc-open": ("libx265", hevc("open-gop=1:bframes=3")),
    "hevc-radl": ("libx265", hevc("open-gop=0:bframes=3:radl=2")),
    "vp8": ("libvpx", VP8),
    "vp9": ("libvpx-vp9", VP9),
    # Long enough for alternate references: pictures that are decoded ahead and never shown.
    "vp9-ahead": ("libvpx-vp9", VP9 | {"g": "100", "lag-in-frames": "16", "auto-alt-ref": "1"}),
    "av1": ("libsvtav1", {"preset": "12", "g": "20"}),
    "mpeg4": ("mpeg4", MPEG4 | {"bf": "0"}),
    "mpeg4-b": ("mpeg4", MPEG4),
    "mpeg4-packed": ("mpeg4", MPEG4 | {"bf": "1"}),
    "mpeg1-b": ("mpeg1video", MPEG4),
    "mpeg2": ("mpeg2video", MPEG4),
    "mpeg2-closed": ("mpeg2video", MPEG4 | {"flags": "+cgop", "sc_threshold": "1000000000"}),
    "mpeg2-b-interlaced": ("mpeg2video", MPEG4 | {"flags": "+ildct+ilme"}),
    "prores": ("prores_ks", {}),
    "flv1": ("flv", {}),
    **{name: (name, {}) for name in ("mjpeg", "ffv1", "h263", "wmv2", "rv20", "gif")},
}
"""Encoder and options by the beginning of a file's name; the longest that fits counts."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A numbered video and what a reader owes.

    Attributes:
        name: of the file, with its ending.
        make: writes it.
        numbers: of the pictures that are shown, in order.
        times_s: when each appears, seconds from the container's start.
        end_s: when the last one disappears; None where the file leaves it open.
        slack_s: how far the container rounds times.
        refused: why it cannot be read as a whole; empty where it has to be.
        may_refuse: it has no times, and so is refused or read at the stream's rate.
    """

    name: str
    make: Callable[[Path], object]
    numbers: tuple[int, ...]
    times_s: tuple[float, ...]
    end_s: float | None
    slack_s: float = 0.0
    refused: str = ""
    may_refuse: bool = False

    def expected_at(self, moment_s: float) -> int:
        """Number of the picture shown at a moment, from the first one's appearance on."""
        return self.numbers[np.searchsorted(self.times_s, moment_s + 1e-6, side="right") - 1]

    def is_sure(self, moment_s: float) -> bool:
        """Whether rounding leaves no doubt about what is shown at a moment."""
        return not self.slack_s or abs(np.subtract(self.times_s, moment_s)).min() > self.slack_s


def even(name: str, options: Options | None = None, **how: Any) -> Case:
    """Pictures 0 to 47, or the `numbers` in `how`, evenly, from the start on.

    Args:
        name: of the file; how it begins says how it is encoded.
        options: of the encoder, besides.
        how: see `numbered_videos.write`; `slack_s`, `may_refuse` and `refused` are the case's.
    """
    codec, fixed = CODECS[max(filter(name.startswith, CODECS), key=len)]
    numbers = tuple(how.pop("numbers", range(COUNT)))
    rate = Fraction(how.get("rate", RATE))
    facts = {key: how.pop(key) for key in ("slack_s", "may_refuse", "refused") if key in how}
    return Case(
        name=name,
        make=lambda path: write(path, codec, numbers, {**fixed, **(options or {})}, **how),
        numbers=numbers,
        times_s=tuple(float(place / rate) for place in range(len(numbers))),
        end_s=float(len(numbers) / rate),
        **facts,
    )


def each(names: str, options: Options | None = None, **how: Any) -> list[Case]:
    """As `even`, a case for each of the names."""
    return [even(name, options, **how) for name in names.split()]


def late(name: str, sound: str, delay_s: Fraction | int = 0, *, begins: int = 1) -> Case:
    """The first picture appears at `begins`, and the sound at `delay_s` before 0."""
    case = even(name, begins=begins, sound=sound, slack_s=0.002)
    return delayed(case, float(begins + delay_s))


def delayed(case: Case, delay_s: float) -> Case:
    """The case with every picture so much later."""
    end_s = None if case.end_s is None else delay_s + case.end_s
    return replace(case, times_s=tuple(delay_s + time for time in case.times_s), end_s=end_s)


def uneven(names: str, gaps: Sequence[int], **how: Any) -> list[Case]:
    """Pictures with the given units of TICK_S between them, in a file of each name."""
    ticks = [0, *np.cumsum(gaps, dtype=int).tolist()]
    times_s = tuple(float(tick * TICK_S) for tick in ticks)
    cases = each(names, numbers=range(len(ticks)), ticks=ticks, **how)
    return [replace(case, times_s=times_s, end_s=None) for case in cases]


def remuxed(name: str, change: Change, of: str = "", *, muxer: Options | None = None) -> Case:
    """The packets of another file, changed, in a container of their own.

    Args:
        name: of the file.
        change: of the packets.
        of: name of the other file; without one it is encoded and contained as this one.
        muxer: options of the container.
    """
    source = even(of or name)

    def make(path: Path) -> None:
        first = path.with_name(f"source-of-{path.name}{Path(source.name).suffix}")
        source.make(first)
        remux(first, path, change, muxer=muxer)
        first.unlink()

    return replace(source, name=name, make=make)


def patched(source: Case, patch: Callable[[bytes], bytes], **facts: Any) -> Case:
    """A case whose bytes are changed."""

    def make(path: Path) -> None:
        source.make(path)
        path.write_bytes(patch(path.read_bytes()))

    return replace(source, make=make, **facts)


def joined(name: str, *parts: Case, **facts: Any) -> Case:
    """The bytes of files behind one another; pictures continue where those before end."""

    def make(path: Path) -> None:
        contents = []
        for part in parts:
            part.make(path)
            contents.append(path.read_bytes())
        path.write_bytes(b"".join(contents))

    case = replace(parts[0], name=name, make=make)
    for part in parts[1:]:
        later = delayed(part, case.end_s or 0.0)
        numbers, times_s = case.numbers + later.numbers, case.times_s + later.times_s
        case = replace(case, numbers=numbers, times_s=times_s, end_s=later.end_s)
    return replace(case, **facts)


def in_pieces(name: str, *counts: int, options: Options | None = None, **how: Any) -> Case:
    """Files of so many pictures behind one another, the numbers going on, the times not."""
    ends = np.cumsum(counts).tolist()
    pieces = [
        even(name, options, numbers=range(end - count, end), **how)
        for end, count in zip(ends, counts, strict=True)
    ]
    return joined(name, *pieces)


def part_of(case: Case, first: int, stop: int | None = None, *, begins_s: float = 0.0) -> Case:
    """The pictures `first` to `stop` of a case, the first of them at `begins_s`."""
    part = replace(case, numbers=case.numbers[first:stop], times_s=case.times_s[first:stop])
    end_s = part.times_s[-1] + 1 / RATE
    return delayed(replace(part, end_s=end_s), begins_s - part.times_s[0])


def films(name: str, *, cover: bool) -> Case:
    """The film is the second video stream and the default one; the first is a cover of one picture,
    or another film of larger pictures.
    """
    film = even("mpeg4.mkv")

    def make(path: Path) -> None:
        with av.open(str(path), "w") as output:
            other = add_film(output, "mjpeg", {}, {"size": (192, 128), "pix_fmt": "yuvj420p"})
            stream = add_film(output, "mpeg4", {}, {})
            other.disposition = Disposition.attached_pic if cover else Disposition(0)
            stream.disposition = Disposition.default
            for number in film.numbers:
                if number == 0 or not cover:
                    output.mux(other.encode(video_frame(255 - number, other)))
                output.mux(stream.encode(video_frame(number, stream)))
            output.mux(other.encode())
            output.mux(stream.encode())

    return replace(film, name=name, make=make)
