"""Sub-actions cut out of full videos into files of their own, by the ffmpeg program.

Each cut is encoded anew: a copied stream could begin at keyframes only, seconds away from the
annotated start. A cut is made under another name, measured, and only then given its own, so that
a file `<clip id>.mp4` is a whole clip. A ledger beside the files says of which seconds each is,
so that cutting goes on where it stopped and cuts again what was annotated anew.

The cuts are those of mmaction2 (tools/data/gym), made in one step instead of two.

Which seconds of its source video each trimmed clip holds, and how large its file is.

One row a clip, written when the file has its name: what is in the ledger is not cut again, unless
the annotation or the file has changed.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from qa_data.files import write_text
from qa_data.finegym import merge_times, read_elements, source_of, times_of_clips
from sefar_core.data.decode import VideoReadError, opened
from sefar_core.data.frame_index import MICROSECOND
from sefar_core.data.video import probe

LEDGER = "trimmed.csv"
HEADER = "id,start_s,end_s,bytes"


class TrimError(ValueError):
    """Cutting that cannot begin. The message says what is missing or wrong, and the mend."""


def read_ledger(path: Path) -> dict[str, str]:
    """The ledger's last row for each clip id; a last row without line end was never finished.

    Raises:
        TrimError: the file is not a ledger.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        text = ""
    header, *rows = text[: text.rfind("\n") + 1].splitlines() or [""]
    odd = next((row for row in rows if row.count(",") != HEADER.count(",")), None)
    if header != HEADER or odd is not None:
        raise TrimError(
            f"{path} is no ledger of cuts: found {odd or header!r:.80}, expected rows of {HEADER}; "
            f"delete it, and every clip that is there is measured instead"
        )
    return {row.partition(",")[0]: row for row in rows}


def write_ledger(path: Path, rows: Mapping[str, str]) -> None:
    """Write the ledger anew, all or nothing."""
    write_text(path, "".join(f"{row}\n" for row in (HEADER, *rows.values())))


def ledger_row(clip_id: str, start_s: float, end_s: float, size: int) -> str:
    """The row of a clip: its times in the source video, seconds, and its file's bytes."""
    return f"{clip_id},{start_s},{end_s},{size}"


CUT_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov")  # a jump into AVI or TS lands beside the start
LEAD_S = 1.0  # decoded before the start: frames right after a jump can lack what they refer to
TOLERANCE_FRAMES = 2
CUT_LIMIT_S = 600  # a cut takes seconds; a program that hangs on a damaged video is stopped


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One clip to be cut.

    Attributes:
        id: the clip's name; its file is `<id>.mp4`.
        source: the full video.
        start_s: where the clip begins in it, seconds.
        end_s: where it ends.
    """

    id: str
    source: Path
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a cut.

    Attributes:
        cut: as asked for.
        problem: why there is no clip; None if it is there and has the right length.
        made: the clip was cut in this run, not in one before.
        remark: what ffmpeg complained of without failing. Pictures damaged in the source look
            sound to a decoder once they are encoded anew, so that it is told here or never.
    """

    cut: Cut
    problem: str | None = None
    made: bool = False
    remark: str = ""


def plan_cuts(lists: Iterable[Path], annotations: Iterable[Path], video_root: Path) -> list[Cut]:
    """The clips of element lists, each once, in the order of their source videos.

    Args:
        lists: element lists of FineGym.
        annotations: annotation JSON or CSV of times.
        video_root: folder of the full videos. One that is missing fails its cuts, not this.

    Raises:
        AnnotationError: a list or annotation cannot be used.
        TrimError: see full_videos.
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
    """The ffmpeg program on the PATH.

    Raises:
        TrimError: there is none.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise TrimError(
            "there is no program 'ffmpeg' on the PATH; install it (apt install ffmpeg, conda "
            "install ffmpeg, brew install ffmpeg), or train from the full videos without cutting: "
            "make_splits.py finegym --videos full"
        )
    return program


def full_videos(folder: Path) -> dict[str, Path]:
    """The video files of a folder by their names without ending, such as `0LtLS9wROrk`.

    Raises:
        TrimError: there is no such folder, or two videos differ in their endings only.
    """
    if not folder.is_dir():
        raise TrimError(f"there is no folder {folder}; give the one with the full videos")
    videos: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in CUT_SUFFIXES:
            continue
        if path.stem in videos:
            raise TrimError(
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
    """Cut what is not there yet, several at a time; one outcome a cut, as they are done.

    Args:
        cuts: clips, each id once.
        out: folder of the clips and the ledger.
        program: ffmpeg.
        workers: cuts made at a time, each by one thread of ffmpeg.
        audio: copy the sound as well.

    Raises:
        TrimError: the ledger is damaged, or there are no workers.
    """
    if workers < 1:
        raise TrimError(f"workers must be at least 1, got {workers}")
    out.mkdir(parents=True, exist_ok=True)
    known = read_ledger(out / LEDGER)
    write_ledger(out / LEDGER, known)
    _remove_stale(out)
    with (
        tempfile.TemporaryDirectory(dir=out, prefix=".cutting-") as drafts,
        ThreadPoolExecutor(workers) as pool,
        (out / LEDGER).open("a", encoding="utf-8") as stream,
    ):
        jobs = [
            pool.submit(_made, cut, out, known.get(cut.id), Path(drafts), program, audio)
            for cut in cuts
        ]
        try:
            for job in as_completed(jobs):
                outcome = job.result()
                row = None if outcome.problem else _row(outcome.cut, out)
                if row is not None and row != known.get(outcome.cut.id):
                    stream.write(f"{row}\n")
                    stream.flush()
                yield outcome
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


def _row(cut: Cut, out: Path) -> str:
    return ledger_row(cut.id, cut.start_s, cut.end_s, os.path.getsize(out / f"{cut.id}.mp4"))


def _made(
    cut: Cut, out: Path, known: str | None, drafts: Path, program: str, audio: bool
) -> Outcome:
    path = out / f"{cut.id}.mp4"
    if path.is_file():
        if known == _row(cut, out):
            return Outcome(cut=cut)
        if known is None:  # another tool's file, perhaps: it is kept, or left to its owner
            odd = length_problem(path, cut)
            words = f"{path} is not in {LEDGER}, and {odd}; move it away, and the clip is cut"
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
    problem = f"ffmpeg: {said or 'failed without a word'}" if failed else length_problem(draft, cut)
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
