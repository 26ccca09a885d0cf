"""Sub-actions cut out of full videos into files of their own, by the ffmpeg program.

Each cut is encoded anew: a copied stream could begin at keyframes only, seconds away from the
annotated start. A cut is made under another name, its length is checked, and only then is it named
`<clip id>.mp4`, so that a file of that name is a whole clip and is not cut again.

The cuts are those of mmaction2 (tools/data/gym), made in one step instead of two.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from qa_data.files import SefarError
from qa_data.finegym import merge_times, read_elements, source_of, times_of_clips
from sefar_core.data.decode import VideoReadError, opened
from sefar_core.data.frame_index import MICROSECOND
from sefar_core.data.video import probe

CUT_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov")  # a jump into AVI or TS lands beside the start
LEAD_S = 1.0  # decoded before the start: frames right after a jump can lack what they refer to
TOLERANCE_FRAMES = 2
CUT_LIMIT_S = 600  # a cut takes seconds; a program that hangs on a damaged video is stopped


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One clip to be cut out of a full video, between two times in seconds."""

    id: str
    """The clip's name; its file is `<id>.mp4`."""
    source: Path
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a cut."""

    cut: Cut
    problem: str | None = None
    """Why there is no clip; None if it is there and has the right length."""
    made: bool = False
    """The clip was cut in this run, not in one before."""
    remark: str = ""
    """What ffmpeg complained of without failing. Pictures damaged in the source appear sound to a
    decoder once they are encoded anew, so it is reported here or never."""


def plan_cuts(lists: Iterable[Path], annotations: Iterable[Path], video_root: Path) -> list[Cut]:
    """The clips of FineGym's element lists, each once, in the order of their source videos.

    Times are in JSON or CSV annotations. A full video that is missing fails its cuts, not this.
    AnnotationError if a list or annotation cannot be used; SefarError as in `full_videos`.
    """
    videos = full_videos(video_root)
    clip_ids = sorted({clip_id for path in lists for clip_id, _ in read_elements(path)})
    intervals = times_of_clips(clip_ids, merge_times(annotations))
    paths = {source: video_root / f"{source}.mp4" for source in map(source_of, clip_ids)} | videos
    return [
        Cut(id=clip_id, source=paths[source_of(clip_id)], start_s=start, end_s=end)
        for clip_id, (start, end) in intervals.items()
    ]


def find_ffmpeg() -> str:
    """The ffmpeg program on the PATH; SefarError if there is none."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise SefarError(
            "there is no program 'ffmpeg' on the PATH; install it (apt install ffmpeg, conda "
            "install ffmpeg, brew install ffmpeg), or train from the full videos without cutting: "
            "make_splits.py finegym --videos full"
        )
    return program


def full_videos(folder: Path) -> dict[str, Path]:
    """The video files of a folder by their names without ending, such as `0LtLS9wROrk`; SefarError
    where there is no folder, or two videos differ in their endings only.
    """
    if not folder.is_dir():
        raise SefarError(f"there is no folder {folder}; give the one with the full videos")
    videos: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in CUT_SUFFIXES:
            continue
        if path.stem in videos:
            raise SefarError(
                f"{folder} holds {videos[path.stem].name} and {path.name}; keep the one to cut from"
            )
        videos[path.stem] = path
    return videos


def ffmpeg_command(
    program: str, cut: Cut, path: Path, *, audio: bool, film: int = 0, later_s: float = 0.0
) -> list[str]:
    """The command that cuts one clip, of the stream with the index `film`, into `path`.

    ffmpeg's times begin `later_s` before ours: sound that is not played can begin before 0.

    The first `-ss` jumps close to the start; the second, since the pictures are encoded anew,
    drops all frames up to the start itself. Sound is copied, and so begins with a whole packet.
    """
    lead_s = min(LEAD_S, cut.start_s)
    sound = ["-map", "0:a:0?", "-c:a", "copy"] if audio else []
    return [
        *(program, "-nostdin", "-hide_banner", "-loglevel", "error", "-y", "-threads", "1"),
        *("-ss", f"{cut.start_s + later_s - lead_s:.3f}", "-i", f"file:{cut.source}"),
        *("-ss", f"{lead_s:.3f}", "-t", f"{cut.end_s - cut.start_s:.3f}"),
        *("-map", f"0:{film}", *sound, "-c:v", "libx264", "-threads", "1", "-pix_fmt", "yuv420p"),
        *("-movflags", "+faststart", "-f", "mp4", f"file:{path}"),
    ]


def trim(
    cuts: Sequence[Cut], out: Path, *, program: str, workers: int, audio: bool = False
) -> Iterator[Outcome]:
    """Cut what is not there yet into a folder; one outcome a cut, as they are done.

    `workers` cuts (SefarError for fewer than 1) are made at a time, each by one thread of ffmpeg;
    `audio` copies the sound.
    """
    if workers < 1:
        raise SefarError(f"workers must be at least 1, got {workers}")
    out.mkdir(parents=True, exist_ok=True)
    _remove_stale(out)
    with (
        tempfile.TemporaryDirectory(dir=out, prefix=".cutting-") as drafts,
        ThreadPoolExecutor(workers) as pool,
    ):
        jobs = [pool.submit(_made, cut, out, Path(drafts), program, audio) for cut in cuts]
        try:
            yield from (job.result() for job in as_completed(jobs))
        finally:
            pool.shutdown(cancel_futures=True)


def length_problem(path: Path, cut: Cut) -> str | None:
    """What is wrong with the length of a clip's file; None if it is within two frames."""
    try:
        info = probe(path)
    except VideoReadError as fault:
        return f"the file cannot be read: {fault}"
    wanted = cut.end_s - cut.start_s
    if abs(info.duration_s - wanted) <= TOLERANCE_FRAMES / info.fps:
        return None
    return (
        f"the file lasts {info.duration_s:.3f} s in {info.num_frames} frames, but the clip is "
        f"annotated for {wanted:.3f} s ({cut.start_s} to {cut.end_s} s)"
    )


def _made(cut: Cut, out: Path, drafts: Path, program: str, audio: bool) -> Outcome:
    path = out / f"{cut.id}.mp4"
    if path.is_file():
        odd = length_problem(path, cut)
        words = f"{path} is there already, and {odd}; move it away, and the clip is cut"
        return Outcome(cut=cut, problem=odd and words)
    if not cut.source.is_file():
        return Outcome(cut=cut, problem=f"there is no source video {cut.source}")
    draft = drafts / path.name
    try:
        with opened(cut.source) as (container, stream):
            film, later_s = stream.index, max(0.0, -(container.start_time or 0) * MICROSECOND)
    except VideoReadError as fault:
        return Outcome(cut=cut, problem=str(fault))
    command = ffmpeg_command(program, cut, draft, audio=audio, film=film, later_s=later_s)
    failed, said = _run(command)
    problem = f"ffmpeg: {said or 'failed silently'}" if failed else length_problem(draft, cut)
    if problem is None:
        os.replace(draft, path)
        return Outcome(cut=cut, made=True, remark=said)
    draft.unlink(missing_ok=True)
    return Outcome(cut=cut, problem=problem)


def _remove_stale(out: Path) -> None:
    """Delete the drafts of runs that were killed: while one cuts, its folder changes."""
    for drafts in out.glob(".cutting-????????"):
        untouched_s = time.time() - drafts.lstat().st_mtime
        if drafts.is_dir() and not drafts.is_symlink() and untouched_s > 2 * CUT_LIMIT_S:
            shutil.rmtree(drafts)


def _run(command: Sequence[str]) -> tuple[bool, str]:
    """Whether a command failed, and the last line of what it said."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CUT_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return True, f"not done after {CUT_LIMIT_S} s"
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return done.returncode != 0, said[-1] if said else ""
