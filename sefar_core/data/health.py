"""What is wrong with the videos of a manifest, all of it at once.

A fault is what stops training or shows it other pictures than the list means; an oddity (rotated,
uneven, cut without re-encoding, of an uncommon rate or size) is read right and only told.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from qa_data.manifest import Clip
from sefar_core.data.decoded_faults import MEND, Fault, examined, named
from sefar_core.data.on_disk import on_disk
from sefar_core.data.picture_shape import side_ratio_problem
from sefar_core.data.timeline import ROUNDING_S
from sefar_core.data.video import VideoInfo, VideoReadError, probe
from sefar_core.data.watched import Beat, Lost, watched

COMMON_RATES = (24000 / 1001, 24, 25, 30000 / 1001, 30, 48, 50, 60000 / 1001, 60, 100, 120)
"""Frames a second that cameras and encoders write; half a hundredth off still counts as one."""
SMALL_SIDE = 64
"""Pixels. Less than this is enlarged several times over before a network sees it."""

Test = Callable[[Clip, Path, VideoInfo], Fault | None]


@dataclass(frozen=True, kw_only=True)
class Health:
    """One clip and what was found about it.

    Attributes:
        clip: as listed.
        info: what its file's packets tell; None if they cannot be read.
        faults: empty for a sound clip.
        oddities: by name: those of `timeline.oddities`, of `oddities_of` and of
            `health_report.with_odd_sizes`.
    """

    clip: Clip
    info: VideoInfo | None
    faults: tuple[Fault, ...]
    oddities: tuple[str, ...] = ()


def check_clips(
    clips: Sequence[Clip],
    video_root: Path,
    *,
    quick: bool,
    workers: int,
    patience_s: float = 120.0,
) -> Generator[list[Health]]:
    """The health of every clip, file after file, as the files are done; each file is opened once.

    Args:
        clips: of a manifest.
        video_root: folder that their paths start from.
        quick: read packets only. Damaged pictures inside an intact container go unseen.
        workers: processes; 0 works in this one, which a file can then crash or hang.
        patience_s: a file that gives no frame for so many seconds counts as hung.
    """
    by_path = sorted(clips, key=lambda clip: clip.path)
    files = [list(group) for _, group in groupby(by_path, key=lambda clip: clip.path)]
    check = partial(check_file, video_root=video_root, quick=quick)
    if workers == 0:
        yield from (check(file, lambda: None) for file in files)
        return
    report = watched(check, files, workers=workers, patience_s=patience_s, preload=__name__)
    for file, found in report:
        if isinstance(found, Lost):
            words = f"{video_root / file[0].path}: {found.words}. {MEND}"
            yield _unfit(file, Fault(found.kind, words))
        else:
            yield found


def check_file(clips: Sequence[Clip], beat: Beat, *, video_root: Path, quick: bool) -> list[Health]:
    """The health of the clips that lie in one file.

    Args:
        clips: with the same path.
        beat: called for every frame.
        video_root: folder that the path starts from.
        quick: read packets only.
    """
    path = on_disk(video_root / clips[0].path)
    spans = [(clip.start_s, clip.end_s) for clip in clips]
    try:
        info, by_span = (probe(path), {}) if quick else examined(path, spans, beat)
    except VideoReadError as error:
        return _unfit(clips, named(path, error))
    tests: list[Test] = [_is_cut_off, _ends_early, _has_other_length, _is_too_elongated]
    report = []
    for clip in clips:
        found = [test(clip, path, info) for test in tests]
        found.append(by_span.get((clip.start_s, clip.end_s)))
        faults = tuple(fault for fault in found if fault)
        report.append(Health(clip=clip, info=info, faults=faults, oddities=oddities_of(info)))
    return report


def oddities_of(info: VideoInfo) -> tuple[str, ...]:
    """What is uncommon about a file, by name: the flags of its probe, and

    - `odd_rate`: even, but at a rate that no camera or encoder writes unasked;
    - `odd_side`: a width or height that is no multiple of 2;
    - `small`: a side of fewer pixels than SMALL_SIDE;
    - `one_frame`: a still picture.
    """
    uneven = "variable_rate" in info.flags
    tests = {
        "odd_rate": not uneven and all(abs(info.fps / rate - 1) > 0.005 for rate in COMMON_RATES),
        "odd_side": info.width % 2 == 1 or info.height % 2 == 1,
        "small": min(info.width, info.height) < SMALL_SIDE,
        "one_frame": info.num_frames == 1,
    }
    return info.flags + tuple(name for name, holds in tests.items() if holds)


def _unfit(clips: Sequence[Clip], fault: Fault) -> list[Health]:
    return [Health(clip=clip, info=None, faults=(fault,)) for clip in clips]


def _is_cut_off(clip: Clip, path: Path, info: VideoInfo) -> Fault | None:
    if "truncated" not in info.flags:
        return None
    words = f"{path} is cut off: its header counts more frames than the {info.num_frames} it holds"
    return Fault("cut off", words)


def _ends_early(clip: Clip, path: Path, info: VideoInfo) -> Fault | None:
    # Lists round times of videos by up to a frame; pictures are counted.
    last_s = info.end_s - info.times_s[-1]
    forgiven_s = 0.5 * last_s if path.is_dir() else last_s
    early = clip.end_s is not None and clip.end_s > info.end_s + forgiven_s
    if not early and (clip.start_s is None or clip.start_s < info.end_s - ROUNDING_S):
        return None
    listed = f"from {clip.start_s} s" if clip.end_s is None else f"to {clip.end_s} s"
    words = f"{path} ends after {info.end_s:.3f} s, but the clip is listed {listed}"
    return Fault("too short", words)


def _has_other_length(clip: Clip, path: Path, info: VideoInfo) -> Fault | None:
    listed = clip.num_frames
    if clip.start_s is not None or listed is None or listed == info.num_frames:
        return None
    words = f"{path} holds {info.num_frames} frames, but {listed} are listed"
    return Fault("too short" if info.num_frames < listed else "too long", words)


def _is_too_elongated(clip: Clip, path: Path, info: VideoInfo) -> Fault | None:
    problem = side_ratio_problem(info.width, info.height)
    return Fault("too elongated", f"{path} {problem}") if problem else None
