"""Clips cut out of full videos: right to the frame, several at a time, resumed, and measured.

The program `ffmpeg` is replaced here: ours does with PyAV what the command says, so that the
same real files are cut on machines that have no ffmpeg.
"""

import os
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qa_data.files import SefarError
from sefar_core.data.trim import Cut, ffmpeg_command, find_ffmpeg, full_videos, plan_cuts, trim
from tests.oracles import finegym_lists as lists
from tests.oracles import videos as oracle
from tests.oracles.finegym_lists import Routine
from tests.script_process import call_script

FPS = 30
NUM_FRAMES = 120

STAND_IN = """
    import os, sys, time
    from fractions import Fraction
    import av

    began = time.monotonic()
    together = int(os.environ.get("STAND_IN_TOGETHER", "1"))
    here = f"{__file__}.{together}"
    with open(here, "a") as file:
        file.write(".")
    while os.path.getsize(here) < together and time.monotonic() < began + 60:
        time.sleep(0.01)  # for as many as may run at the same time
    arguments = sys.argv[1:]
    source = arguments[arguments.index("-i") + 1]
    before, after = arguments[: arguments.index("-i")], arguments[arguments.index("-i") :]

    def number(options, name):
        return float(options[options.index(name) + 1])

    start = number(before, "-ss") + number(after, "-ss")
    end = start + number(after, "-t")
    try:
        with av.open(source) as full, av.open(arguments[-1], "w", format="mp4") as clip:
            given = full.streams.video[0]
            made = clip.add_stream("libx264", rate=given.average_rate, options={"crf": "12"})
            made.width, made.height, made.pix_fmt = given.width, given.height, "yuv420p"
            kept = 0
            for frame in full.decode(given):
                if start - 1e-6 <= frame.time < end - 1e-6:
                    frame = frame.reformat(format="yuv420p")
                    frame.pts, frame.time_base = kept, 1 / given.average_rate
                    kept += 1
                    clip.mux(made.encode(frame))
            clip.mux(made.encode())
    except av.FFmpegError as fault:
        print("first a warning", file=sys.stderr)
        print(f"{source}: {fault}", file=sys.stderr)
        sys.exit(1)
    if "refused" in source:
        print("No space left on device", file=sys.stderr)
        sys.exit(1)
    if "noisy" in source:
        print("error while decoding MB 3 4", file=sys.stderr)
    time.sleep(0.2)
    with open(__file__ + ".log", "a") as log:
        log.write(f"{began} {time.monotonic()} {arguments[-1].rpartition('/')[2]}\\n")
"""

ROUTINES = [
    Routine("front__-___", 2, 0.0, 3.9, [([(0.0, 0.5)], 0), ([(1.1, 1.9)], 1)]),
    Routine("vault______", 1, 1.0, 3.9, [([(0.2, 0.4), (0.4, 0.9), (0.9, 1.2)], 2)]),
    Routine("noisy______", 3, 0.5, 3.9, [([(0.5, 1.0)], 1)]),
]
SHORT = ("too-short__.mp4", "refused____.mp4")
BROKEN = [
    Routine("text_______", 4, 0.0, 3.9, [([(1.0, 2.0)], 0)]),
    Routine("missing____", 4, 0.0, 3.9, [([(1.0, 2.0)], 0), ([(2.0, 2.5)], 0)]),
    Routine("too-short__", 4, 0.0, 9.9, [([(3.5, 5.0)], 0)]),
    Routine("refused____", 4, 0.0, 3.9, [([(0.5, 1.0)], 0)]),
]


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    """Full videos: three sound ones, one too short, one that is not a video."""
    folder = tmp_path_factory.mktemp("full")
    frames = oracle.numbered_frames(NUM_FRAMES, width=4 * NUM_FRAMES)
    for name in ("front__-___.mp4", "vault______.mkv", "noisy______.mp4", *SHORT):
        oracle.write_video(folder / name, frames, fps=FPS, options={"g": "250", "bf": "2"})
    (folder / "text_______.mp4").write_text("not found on this server")
    (folder / "front__-___.info.json").write_text("{}")
    return folder


@pytest.fixture
def program(tmp_path) -> str:
    """A replacement for ffmpeg, in a folder of its own."""
    path = tmp_path / "bin" / "ffmpeg"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(STAND_IN)}")
    path.chmod(0o755)
    return str(path)


def calls(program) -> list[tuple[float, float, str]]:
    """Begin, end and clip of every cut that it made."""
    log = Path(f"{program}.log")
    rows = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(float(began), float(ended), name) for began, ended, name in rows]


def planned(folder: Path, routines: list[Routine], full: Path) -> list[Cut]:
    files = lists.write_files(folder, [], routines, [])
    found = plan_cuts([files["gym_train_element_v1.1.txt"]], [files["train.csv"]], full)
    assert [(one.id, one.start_s, one.end_s) for one in found] == sorted(
        (clip_id, start, end) for clip_id, _, start, end in lists.clips(routines)
    )
    return found


def frame_numbers(path: Path) -> list[int]:
    """Numbers of the source's frames in a clip, by their bright columns."""
    return [
        round(float(np.flatnonzero(frame[frame.shape[0] * 3 // 4, :, 2] > 128).min()) / 4)
        for frame in oracle.decode_in_order(path)
    ]


def expected(cut: Cut) -> list[int]:
    return [k for k in range(NUM_FRAMES) if cut.start_s - 1e-6 <= k / FPS < cut.end_s - 1e-6]


@pytest.fixture
def script(tmp_path, full, program, monkeypatch):
    """A function that runs the script on the lists in `tmp_path`, with or without ffmpeg."""

    def run(*, ffmpeg: bool):
        # Nothing else is on the PATH: a machine's own ffmpeg must not step in.
        monkeypatch.setenv("PATH", str(Path(program).parent if ffmpeg else tmp_path))
        return call_script(
            "trim_finegym.py", "--video-root", full, "--out", tmp_path / "clips", "--workers", 2,
            "--lists", tmp_path / "gym_train_element_v1.1.txt",
            "--annotations", tmp_path / "finegym_annotation_info_v1.1.json",
        )  # fmt: skip

    return run


def test_the_script_cuts_what_it_can_and_names_all_that_it_cannot(tmp_path, full, script):
    planned(tmp_path, [*ROUTINES, *BROKEN], full)
    done = script(ffmpeg=True)
    assert done.returncode == 1, done.stderr
    printed = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert printed.pop("noisy_______E_000000_000003_A_0000_0001") == (
        "cut, but ffmpeg said: error while decoding MB 3 4"
    )
    assert printed.pop("9 clips") == "4 cut, 0 kept, 5 failed"
    assert {name[:7]: printed[name].partition(": ")[0] for name in printed} == {
        "text___": f"cannot read {full}/text_______.mp4 as a video",
        "refused": "ffmpeg",
        "missing": f"there is no source video {full}/missing____.mp4",
        "too-sho": "the file lasts 0.500 s in 15 frames, but the clip is annotated for 1.500 s "
        "(3.5 to 5.0 s)",
    }
    assert "Invalid data found" in printed["text________E_000000_000003_A_0001_0002"]
    assert "fix what is named above" in done.stderr

    clips = tmp_path / "clips"
    sound = planned(tmp_path, ROUTINES, full)
    assert sorted(path.name for path in clips.iterdir()) == sorted(f"{cut.id}.mp4" for cut in sound)
    for cut in sound:
        assert frame_numbers(clips / f"{cut.id}.mp4") == expected(cut)


def test_without_ffmpeg_the_script_names_the_program(tmp_path, full, program, script, monkeypatch):
    planned(tmp_path, ROUTINES, full)
    done = script(ffmpeg=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no program 'ffmpeg' on the PATH; install")
    assert not (tmp_path / "clips").exists()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{Path(program).parent}")
    assert find_ffmpeg() == program


def test_cuts_are_made_at_the_same_time_but_no_more_than_asked_for(
    tmp_path, full, program, monkeypatch
):
    cuts = planned(tmp_path, ROUTINES, full)
    for workers in (1, 2):
        monkeypatch.setenv("STAND_IN_TOGETHER", str(workers))
        outcomes = list(trim(cuts, tmp_path / f"{workers}", program=program, workers=workers))
        assert all(outcome.made for outcome in outcomes)
        spans = calls(program)[-len(cuts) :]
        together = [sum(a < end and began < b for a, b, _ in spans) for began, end, _ in spans]
        at_starts = [sum(a <= began < b for a, b, _ in spans) for began, _, _ in spans]
        assert max(at_starts) <= workers
        assert (max(together) > 1) == (workers == 2)


def test_what_was_cut_and_measured_is_not_cut_again(tmp_path, full, program):
    cuts = planned(tmp_path, ROUTINES, full)
    out = tmp_path / "clips"

    def recut(cuts=cuts):
        before = len(calls(program))
        outcomes = list(trim(cuts, out, program=program, workers=2))
        assert [outcome.problem for outcome in outcomes] == [None] * len(cuts)
        names = [name for _, _, name in calls(program)[before:]]
        assert sorted(f"{one.cut.id}.mp4" for one in outcomes if one.made) == sorted(names)
        return sorted(name[:5] for name in names)

    assert recut() == ["front", "front", "noisy", "vault"]
    assert recut() == []
    assert recut([replace(cut, source=tmp_path / "no.mp4") for cut in cuts]) == []  # sources gone
    next(out.glob("vault*")).unlink()
    assert recut() == ["vault"]
    for cut in cuts:
        assert frame_numbers(out / f"{cut.id}.mp4") == expected(cut)


def test_a_file_of_another_length_is_named_and_left_alone(tmp_path, full, program):
    cuts = planned(tmp_path, ROUTINES, full)
    out = tmp_path / "clips"
    out.mkdir()
    longer, other = (out / f"{cut.id}.mp4" for cut in cuts[-2:])
    longer.write_bytes((full / "front__-___.mp4").read_bytes())
    other.write_bytes(b"no video")
    kept = longer.read_bytes()
    outcomes = [one for one in trim(cuts, out, program=program, workers=2) if one.problem]
    assert [one.cut for one in sorted(outcomes, key=lambda one: one.cut.id)] == cuts[-2:]
    for one in outcomes:
        assert one.problem.startswith(f"{out / one.cut.id}.mp4 is there already, and the file ")
        assert one.problem.endswith("; move it away, and the clip is cut")
    assert (longer.read_bytes(), other.read_bytes()) == (kept, b"no video")
    longer.rename(tmp_path / "kept.mp4")
    outcomes = list(trim(cuts, out, program=program, workers=2))
    assert [one.cut.id for one in outcomes if one.made] == [longer.stem]
    assert frame_numbers(longer) == expected(cuts[-2])


def test_drafts_of_a_killed_run_are_deleted_and_nothing_else(tmp_path):
    out = tmp_path / "clips"
    names = (".cutting-abcd_123", ".cutting-running1", ".cutting-", "mine")
    for name in names:
        (out / name).mkdir(parents=True)
        (out / name / "x.mp4").write_text("half")
    (out / ".cutting-linked12").symlink_to(out / "mine")
    for name in set(names) - {".cutting-running1"}:
        os.utime(out / name, (0, 0))
    os.utime(out / ".cutting-linked12", (0, 0), follow_symlinks=False)
    assert list(trim([], out, program="ffmpeg", workers=1)) == []
    left = {path.name for path in out.iterdir()}
    assert left == {*names, ".cutting-linked12"} - {names[0]}
    assert (out / "mine" / "x.mp4").exists()


def test_a_run_that_is_stopped_leaves_whole_clips_and_goes_on(tmp_path, full, program):
    cuts = planned(tmp_path, ROUTINES, full)
    out = tmp_path / "clips"
    running = trim(cuts, out, program=program, workers=1)
    first = next(running)
    running.close()
    assert first.made
    left = {path.stem for path in out.glob("*.mp4")}
    assert first.cut.id in left and len(left) < len(cuts)
    assert not list(out.glob(".cutting-*"))
    outcomes = list(trim(cuts, out, program=program, workers=2))
    assert {outcome.cut.id for outcome in outcomes if outcome.made} == (
        {cut.id for cut in cuts} - left
    )


def test_a_program_that_hangs_is_stopped(tmp_path, full, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexec sleep 3600\n")
    program.chmod(0o755)
    monkeypatch.setattr("sefar_core.data.trim.CUT_LIMIT_S", 0.2)
    cuts = planned(tmp_path, ROUTINES[1:2], full)
    (outcome,) = trim(cuts, tmp_path / "out", program=str(program), workers=1)
    assert outcome.problem == "ffmpeg: not done after 0.2 s"
    with pytest.raises(SefarError, match="workers must be at least 1, got 0"):
        list(trim([], tmp_path, program="ffmpeg", workers=0))


def test_the_full_videos_are_found_whatever_their_endings(tmp_path, full):
    found = full_videos(full)
    assert {path.name for path in found.values()} >= {"vault______.mkv", "front__-___.mp4"}
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.f137.mp4").touch()  # a picture stream not merged yet
    (tmp_path / "b.mp4.part").touch()
    assert full_videos(tmp_path).keys() == {"a", "a.f137"}
    (tmp_path / "a.webm").touch()
    with pytest.raises(SefarError, match=r"holds a.mp4 and a.webm; keep the one"):
        full_videos(tmp_path)
    with pytest.raises(SefarError, match="no folder .*absent"):
        full_videos(tmp_path / "absent")


@pytest.mark.parametrize(
    ("start_s", "jump", "lead"), [(0.4, "0.000", "0.400"), (9.0, "8.000", "1.000")]
)
def test_the_command_jumps_ahead_of_the_start_and_encodes_anew(start_s, jump, lead):
    cut = Cut(id="x", source=Path("full.mp4"), start_s=start_s, end_s=start_s + 1.25)
    words = " ".join(ffmpeg_command("ffmpeg", cut, Path("x.mp4"), audio=False))
    assert f" -ss {jump} -i file:full.mp4 -ss {lead} -t 1.250 " in words and " -map 0:0 " in words
    assert "libx264" in words and "copy" not in words and words.endswith(" file:x.mp4")
    sounding = " ".join(ffmpeg_command("ffmpeg", cut, Path("x.mp4"), audio=True, film=2))
    assert " -map 0:2 " in sounding and " -c:a copy " in sounding
    assert " 0:a:0? " in sounding  # the question mark: a silent video is no failure
    # ffmpeg counts from sound that begins before 0, reading does not.
    earlier = ffmpeg_command("ffmpeg", cut, Path("x.mp4"), audio=False, later_s=0.5)
    assert float(earlier[earlier.index("-i") - 1]) == pytest.approx(float(jump) + 0.5)


def test_a_clip_listed_twice_is_cut_once(tmp_path, full):
    files = lists.write_files(tmp_path, [], ROUTINES, ROUTINES[:1])
    two = [files["gym_train_element_v1.1.txt"], files["gym_val_element.txt"]]
    assert len(plan_cuts(two, [files["train.csv"], files["val.csv"]], full)) == 4
