"""What is wrong with the videos of a manifest, all of it at once.

A fault is what stops training or shows it other pictures than the list means; an oddity (rotated,
uneven, cut without re-encoding, of an uncommon rate or size) is read right and only reported.

Packets show what is missing, empty, cut off or listed too long. Only decoding shows where a file
stops, which frames are missing and which are patched; nothing is converted to RGB for that, and a
stretch that several clips share is decoded once.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from math import inf
from pathlib import Path
from typing import NamedTuple

from av.video.frame import VideoFrame

from qa_data.files import on_disk
from qa_data.manifest import Clip
from sefar_core.data.decode import FIX as ANY_FIX
from sefar_core.data.decode import VideoReadError, upright_size, verified
from sefar_core.data.frame_index import ROUNDING_S, Timeline
from sefar_core.data.image_folder import FrameFolder
from sefar_core.data.packets import is_false_keyframe
from sefar_core.data.pictures import side_ratio_problem
from sefar_core.data.video import Frames, VideoInfo, info_of, on_frames, probe
from sefar_core.data.worker_pool import Heartbeat, WorkerFailure, run_isolated

FIX = "Fetch or cut the file again."
Span = tuple[float | None, float | None]
"""Where a clip starts and ends in its file, seconds; twice None for the whole file."""
WHOLE: Span = (None, None)
# Words of a VideoReadError, in the order in which they are searched.
KINDS = {
    "does not come out": "frames missing",
    "does not exist": "missing",
    "is empty": "empty",
    "no video stream": "no video stream",
    "cannot decode": "undecodable",
    "no frame": "undecodable",
    "": "unreadable",
}
COMMON_RATES = (24000 / 1001, 24, 25, 30000 / 1001, 30, 48, 50, 60000 / 1001, 60, 100, 120)
"""Frames a second that cameras and encoders write; half a hundredth off still counts as one."""
SMALL_SIDE = 64
"""Pixels. Less than this is enlarged several times over before a network sees it."""
COLUMNS = (
    "id", "path", "state", "num_frames", "fps", "width", "height", "rotation", "codec", "oddities",
    "faults",
)  # fmt: skip
MOST = 0.9
"""Share of the clips that have to be of one size for the others to be odd."""


class Fault(NamedTuple):
    """What makes a clip unfit."""

    kind: str
    """In a word or two, to count by."""
    words: str
    """Which file, what was found and, where there is one, the fix."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """One clip and what was found about it; a sound one has no faults."""

    clip: Clip
    info: VideoInfo | None
    """Of its file; None if it cannot be read."""
    faults: tuple[Fault, ...]
    oddities: tuple[str, ...] = ()
    """By name: those of `frame_index.oddities`, `oddities_of` and `with_odd_sizes`."""


def check_clips(
    clips: Sequence[Clip], video_root: Path, *, quick: bool, workers: int, patience_s: float = 120.0
) -> Generator[list[Health]]:
    """The health of every clip, file after file, as the files are done; each file is opened once.

    With `quick` only packets are read: damaged pictures inside an intact container go unseen. With
    0 `workers` this process works, which a file can then crash or hang. A file that gives no frame
    for `patience_s` seconds counts as hung.
    """
    by_path = sorted(clips, key=lambda clip: clip.path)
    files = [list(group) for _, group in groupby(by_path, key=lambda clip: clip.path)]
    check = partial(check_file, video_root=video_root, quick=quick)
    if workers == 0:
        yield from (check(file, lambda: None) for file in files)
        return
    report = run_isolated(check, files, workers=workers, patience_s=patience_s, preload=__name__)
    for file, found in report:
        if isinstance(found, WorkerFailure):
            words = f"{video_root / file[0].path}: {found.words}. {FIX}"
            yield _unfit(file, Fault(found.kind, words))
        else:
            yield found


def check_file(
    clips: Sequence[Clip], heartbeat: Heartbeat, *, video_root: Path, quick: bool
) -> list[Health]:
    """The health of the clips of one file, as in `check_clips`; a heartbeat for every frame."""
    path = on_disk(video_root / clips[0].path)
    spans = [(clip.start_s, clip.end_s) for clip in clips]
    try:
        info, by_span = (probe(path), {}) if quick else examined(path, spans, heartbeat)
    except VideoReadError as error:
        return _unfit(clips, named(path, error))
    report = []
    for clip in clips:
        decoded = by_span.get((clip.start_s, clip.end_s))
        faults = (*_of_packets(clip, path, info), *([decoded] if decoded else []))
        report.append(Health(clip=clip, info=info, faults=faults, oddities=oddities_of(info)))
    return report


def _unfit(clips: Sequence[Clip], fault: Fault) -> list[Health]:
    return [Health(clip=clip, info=None, faults=(fault,)) for clip in clips]


def named(path: Path, error: VideoReadError) -> Fault:
    """The fault that an error reports."""
    words = str(error).replace(ANY_FIX, FIX)
    without_path = words.replace(str(path), "")
    return Fault(next(kind for sign, kind in KINDS.items() if sign in without_path), words)


def examined(
    path: Path, spans: Iterable[Span], heartbeat: Callable[[], None]
) -> tuple[VideoInfo, dict[Span, Fault | None]]:
    """A file's probe, and what decoding finds in each stretch of it.

    What stretches have in common is decoded once; where that is damaged, each by itself.
    VideoReadError if no frame comes out of it.
    """
    found: dict[Span, Fault | None] = {}
    info: VideoInfo | None = None
    for joint, members in _joined(set(spans)):
        probed, fault = _fault(path, joint, heartbeat)
        info = probed or info
        for span in members:
            alone = fault is not None and len(members) > 1
            found[span] = _fault(path, span, heartbeat)[1] if alone else fault
    return info or probe(path), found


def _joined(spans: set[Span]) -> list[tuple[Span, list[Span]]]:
    """Stretches that cover the spans, one for those that overlap, each with its spans."""
    if WHOLE in spans:
        return [(WHOLE, list(spans))]
    joined: list[tuple[Span, list[Span]]] = []
    for span in sorted(spans, key=_bounds):
        start, end = _bounds(span)
        if joined and start < (joined[-1][0][1] or inf):
            (first, last), members = joined[-1]
            joined[-1] = ((first, max(last or inf, end)), [*members, span])
        else:
            joined.append(((start, end), [span]))
    return joined


def _bounds(span: Span) -> tuple[float, float]:
    start, end = span
    return start or 0.0, inf if end is None else end


def _fault(
    path: Path, span: Span, heartbeat: Callable[[], None]
) -> tuple[VideoInfo | None, Fault | None]:
    """The facts about a whole file, and what is wrong with a stretch of it."""
    start_s, end_s = span
    end_s = None if end_s == inf else end_s

    def decode(shown: Frames, start: float, end: float) -> tuple[VideoInfo | None, Fault | None]:
        if isinstance(shown, FrameFolder):
            for _ in shown.decode():
                heartbeat()
            return None, None
        first, fault = _decoded(path, shown, heartbeat)
        if first is None or span != WHOLE:
            return None, fault
        false = any(map(is_false_keyframe, shown.packets))
        return info_of(shown, first, false_keyframes=false), fault

    try:
        return on_frames(path, start_s, end_s, decode, heartbeat)
    except VideoReadError as error:
        return None, named(path, error)


def _decoded(
    path: Path, shown: Timeline, heartbeat: Callable[[], None]
) -> tuple[VideoFrame | None, Fault | None]:
    """The first frame, and which frames the decoder patches, or where the picture changes its size.

    Misnamed if others come out than the packets announced; VideoReadError if the decoder stops.
    """
    first: VideoFrame | None = None
    size = (0, 0)
    patched: list[int] = []
    for number, frame in enumerate(verified(path, shown)):
        other = upright_size(frame)
        if first is None:
            first, size = frame, other
        if size != other or first.width != frame.width:
            words = f"{path} changes from {size[0]} x {size[1]} to {other[0]} x {other[1]} pixels"
            return first, Fault("changing size", f"{words} at {_place(shown, number)}. {FIX}")
        if frame.is_corrupt:
            patched.append(number)
        heartbeat()
    if patched:
        count, place = len(patched), _place(shown, patched[0])
        words = f"{path} is damaged: the decoder patches {count} frames, first {place}. {FIX}"
        return first, Fault("patched", words)
    return first, None


def _place(shown: Timeline, number: int) -> str:
    at_s = shown.times_s[min(number, len(shown.times_s) - 1)]
    return f"frame {number} of {len(shown.times_s)} ({at_s:.3f} s)"


def oddities_of(info: VideoInfo) -> tuple[str, ...]:
    """What is uncommon about a file, by name; docs/damage.md says what each means."""
    uneven = "variable_rate" in info.flags
    tests = {
        "odd_rate": not uneven and all(abs(info.fps / rate - 1) > 0.005 for rate in COMMON_RATES),
        "odd_side": info.width % 2 == 1 or info.height % 2 == 1,
        "small": min(info.width, info.height) < SMALL_SIDE,
        "one_frame": info.num_frames == 1,
    }
    return info.flags + tuple(name for name, holds in tests.items() if holds)


def _of_packets(clip: Clip, path: Path, info: VideoInfo) -> Iterator[Fault]:
    """What is wrong with a clip by its file's packets."""
    held, listed = info.num_frames, clip.num_frames
    if "truncated" in info.flags:
        words = f"{path} is cut off: its header counts more frames than the {held} it holds"
        yield Fault("cut off", words)
    if _ends_early(clip, path, info):
        span = f"from {clip.start_s} s" if clip.end_s is None else f"to {clip.end_s} s"
        words = f"{path} ends after {info.end_s:.3f} s, but the clip is listed {span}"
        yield Fault("too short", words)
    if clip.start_s is None and listed not in (None, held):
        words = f"{path} holds {held} frames, but {listed} are listed"
        yield Fault("too short" if held < (listed or 0) else "too long", words)
    if problem := side_ratio_problem(info.width, info.height):
        yield Fault("too elongated", f"{path} {problem}")


def _ends_early(clip: Clip, path: Path, info: VideoInfo) -> bool:
    # Lists round times of videos by up to a frame; pictures are counted.
    last_s = info.end_s - info.times_s[-1]
    forgiven_s = 0.5 * last_s if path.is_dir() else last_s
    if clip.end_s is not None and clip.end_s > info.end_s + forgiven_s:
        return True
    return clip.start_s is not None and clip.start_s >= info.end_s - ROUNDING_S


def with_odd_sizes(report: Sequence[Health]) -> list[Health]:
    """The report with the oddity `other_size` for the few clips that are not as large as the rest.

    Where clips come in many sizes, none is odd.
    """
    sizes = Counter((h.info.width, h.info.height) for h in report if h.info)
    usual = [size for size, count in sizes.items() if count >= MOST * sizes.total()]
    return [
        replace(health, oddities=(*health.oddities, "other_size"))
        if usual and health.info and (health.info.width, health.info.height) not in usual
        else health
        for health in report
    ]


def with_probe(health: Health) -> Clip:
    """The clip with its probe columns filled in."""
    if health.info is None:
        return health.clip
    return replace(
        health.clip,
        num_frames=health.info.num_frames if health.clip.start_s is None else None,
        fps=round(health.info.fps, 4),
        rotation=health.info.rotation,
        flags=" ".join(health.oddities),
    )


def fault_lines(report: Iterable[Health]) -> list[str]:
    """Each fault with the clips that have it, in the order of the report."""
    clips: dict[str, list[str]] = {}
    for health in report:
        for fault in health.faults:
            clips.setdefault(fault.words, []).append(health.clip.id)
    return [f"{', '.join(ids)}: {words}" for words, ids in clips.items()]


def summary(report: Sequence[Health]) -> str:
    """How many clips have which fault and which oddity, as a table, and how many are sound."""
    faults = Counter(kind for h in report for kind in {fault.kind for fault in h.faults})
    oddities = Counter(name for health in report for name in health.oddities)
    lines = []
    for title, counts in (("broken:", faults), ("odd, but read right:", oddities)):
        counted = [f"  {count:7,}  {name}" for name, count in counts.most_common()]
        lines += [title, *counted] if counted else []
    broken = sum(1 for health in report if health.faults)
    files = len({health.clip.path for health in report})
    sound = len(report) - broken
    lines += [f"{len(report)} clips in {files} files: {sound} sound, {broken} broken"]
    return "\n".join(lines)


def report_table(report: Iterable[Health]) -> str:
    """CSV, one line a clip: what was found and every fault."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for health in report:
        found: list[object] = [""] * 6
        if info := health.info:
            found = [info.num_frames, round(info.fps, 4), info.width, info.height]
            found += [info.rotation, info.codec]
        state = "broken" if health.faults else "sound"
        words = "; ".join(fault.words for fault in health.faults)
        oddities = " ".join(health.oddities)
        table.writerow([health.clip.id, health.clip.path, state, *found, oddities, words])
    return text.getvalue()
