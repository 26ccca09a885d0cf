"""What is wrong with the videos of a manifest, all of it at once.

A fault is what stops training or shows it another frame than the list means; an oddity (rotated,
uneven, cut without re-encoding) is read right and only told.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

from qa_data.manifest import Clip
from sefar_core.data.video import VideoInfo, VideoReadError, count_decoded, probe

Test = Callable[[Clip, Path, VideoInfo], str | None]


@dataclass(frozen=True, kw_only=True)
class Health:
    """One clip and what was found about it.

    Attributes:
        clip: as listed.
        info: what its file's packets tell; None if they cannot be read.
        faults: in words, empty for a sound clip.
    """

    clip: Clip
    info: VideoInfo | None
    faults: tuple[str, ...]


def check_clips(
    clips: Sequence[Clip], video_root: Path, *, quick: bool, workers: int
) -> Iterator[list[Health]]:
    """The health of every clip, file after file, as the files are done.

    Args:
        clips: of a manifest.
        video_root: folder that their paths start from.
        quick: read packets only. Damaged pictures inside an intact container go unseen.
        workers: processes; 0 works in this one.
    """
    by_path = sorted(clips, key=lambda clip: clip.path)
    files = [list(group) for _, group in groupby(by_path, key=lambda clip: clip.path)]
    check = partial(check_file, video_root=video_root, quick=quick)
    if workers == 0:
        yield from map(check, files)
        return
    # Started afresh, not forked: the caller's threads cannot leave a lock held in the copies.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(check, files, chunksize=4)


def check_file(clips: Sequence[Clip], *, video_root: Path, quick: bool) -> list[Health]:
    """The health of the clips that lie in one file."""
    path = video_root / clips[0].path
    try:
        info = probe(path)
    except VideoReadError as fault:
        return [Health(clip=clip, info=None, faults=(str(fault),)) for clip in clips]
    tests: list[Test] = [_is_cut_off, _ends_early, _has_other_length]
    if not quick:
        tests.append(_decodes)
    return [Health(clip=clip, info=info, faults=_faults(tests, clip, path, info)) for clip in clips]


def with_probe(health: Health) -> Clip:
    """The clip with its probe columns filled in."""
    if health.info is None:
        return health.clip
    info = health.info
    return replace(
        health.clip,
        num_frames=info.num_frames if health.clip.start_s is None else None,
        fps=round(info.fps, 4),
        rotation=info.rotation,
        flags=" ".join(info.flags),
    )


def report_table(report: Iterable[Health]) -> str:
    """CSV, one line a clip: what was found and every fault."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        [
            "id",
            "path",
            "num_frames",
            "fps",
            "width",
            "height",
            "rotation",
            "codec",
            "flags",
            "fault",
        ]
    )
    for health in report:
        info = health.info
        found: list[object] = [""] * 7
        if info is not None:
            found = [info.num_frames, round(info.fps, 4), info.width, info.height]
            found += [info.rotation, info.codec, " ".join(info.flags)]
        table.writerow([health.clip.id, health.clip.path, *found, "; ".join(health.faults)])
    return text.getvalue()


def _faults(tests: Sequence[Test], clip: Clip, path: Path, info: VideoInfo) -> tuple[str, ...]:
    found = [test(clip, path, info) for test in tests]
    return tuple(fault for fault in found if fault)


def _is_cut_off(clip: Clip, path: Path, info: VideoInfo) -> str | None:
    if "truncated" not in info.flags:
        return None
    return f"{path} is cut off: its header counts more frames than the {info.num_frames} it holds"


def _ends_early(clip: Clip, path: Path, info: VideoInfo) -> str | None:
    if clip.end_s is None or clip.end_s <= info.duration_s + 1 / info.fps:
        return None
    return f"{path} ends after {info.duration_s:.3f} s, but the clip is listed to {clip.end_s} s"


def _has_other_length(clip: Clip, path: Path, info: VideoInfo) -> str | None:
    if clip.start_s is not None or clip.num_frames in (None, info.num_frames):
        return None
    return f"{path} holds {info.num_frames} frames, but {clip.num_frames} are listed"


def _decodes(clip: Clip, path: Path, info: VideoInfo) -> str | None:
    try:
        decoded, listed = count_decoded(path, start_s=clip.start_s, end_s=clip.end_s)
    except VideoReadError as fault:
        return str(fault)
    if decoded == listed:
        return None
    return f"{path} lists {listed} frames, but {decoded} come out of the decoder"
