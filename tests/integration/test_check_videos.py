"""The check names every broken clip at once, and writes only what an option names."""

import re
import subprocess
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

from qa_data.manifest import Clip, read_manifest, write_manifest
from sefar_core.data import check_videos
from sefar_core.data.check_videos import check_clips
from sefar_core.data.worker_pool import run_isolated
from tests.oracles import videos as oracle
from tests.oracles.poison import passing_hours, poisoned_check, poisoned_square
from tests.script_process import call_script, interrupted_script

POISON = "tests.oracles.poison"


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Nine clips, six of them broken, each in its own way."""
    folder = tmp_path_factory.mktemp("set")
    root = folder / "videos"
    root.mkdir()
    oracle.write_video(root / "sound.mp4", oracle.numbered_frames(12))
    oracle.write_video(root / "uneven.mp4", oracle.numbered_frames(3), times_ms=[0, 40, 240])
    (root / "empty.mp4").touch()
    damaged = root / "damaged.mp4"
    oracle.write_video(damaged, noise(), options={"bf": "0", "g": "40"})
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = b"\xff" * 2000
    damaged.write_bytes(data)
    cut_off = root / "cut_off.mp4"
    oracle.write_video(cut_off, noise())
    cut_off.write_bytes(cut_off.read_bytes()[: cut_off.stat().st_size // 2])
    clips = [
        Clip(id="sound", path="sound.mp4", label=0, split="labeled"),
        Clip(id="part", path="sound.mp4", start_s=0.1, end_s=0.3, split="unlabeled"),
        Clip(id="uneven", path="uneven.mp4", split="unlabeled"),
        Clip(id="empty", path="empty.mp4", split="unlabeled"),
        Clip(id="missing", path="missing.mp4", split="unlabeled"),
        Clip(id="long", path="sound.mp4", start_s=0.1, end_s=3.0, split="unlabeled"),
        Clip(id="counted", path="sound.mp4", label=0, split="test", num_frames=65),
        Clip(id="damaged", path="damaged.mp4", split="unlabeled"),
        Clip(id="cut_off", path="cut_off.mp4", split="unlabeled"),
    ]
    write_manifest(clips, folder / "manifest.csv")
    return folder


def run(folder: Path, *options: str) -> subprocess.CompletedProcess:
    arguments = ["--manifest", folder / "manifest.csv", "--video-root", folder / "videos", *options]
    return call_script("check_videos.py", *arguments)


def faults(folder: Path, *, quick: bool, workers: int = 0) -> dict[str, tuple]:
    clips = read_manifest(folder / "manifest.csv")
    files = check_clips(clips, folder / "videos", quick=quick, workers=workers)
    return {found.clip.id: found.faults for file in files for found in file}


def test_every_fault_is_named_with_its_cause_and_quickly_all_but_damaged_pictures(folder):
    found = faults(folder, quick=False)
    causes = {
        "empty": "is empty",
        "missing": "does not exist",
        "long": "ends after 0.400 s, but the clip is listed to 3.0 s",
        "counted": "holds 12 frames, but 65 are listed",
        "damaged": "20 of 40 frames were read before that",
        "cut_off": "is cut off",
    }
    assert {name for name, words in found.items() if words} == set(causes)
    for name, cause in causes.items():
        assert cause in found[name][0].words
    assert faults(folder, quick=False, workers=2) == found
    quick = {name for name, words in faults(folder, quick=True).items() if words}
    assert quick == set(causes) - {"damaged"}


def test_a_file_that_kills_the_decoder_is_one_fault_among_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(check_videos, "check_file", poisoned_check)
    oracle.write_video(tmp_path / "sound.mp4", oracle.numbered_frames(3))
    clips = [
        Clip(id=n, path=n, split="unlabeled")
        for n in ("sound.mp4", "exit.mp4", "hang.mp4", "missing.mp4")
    ]
    let_a_day_pass, found = passing_hours(monkeypatch), {}
    for file in check_clips(clips, tmp_path, quick=False, workers=2, patience_s=3600.0):
        found[file[0].clip.path] = file[0].faults
        if len(found) == len(clips) - 1:
            let_a_day_pass()
    assert found["sound.mp4"] == ()
    assert [fault.kind for fault in found["missing.mp4"]] == ["missing"]
    (crash,) = found["exit.mp4"]
    assert crash.kind == "crashed" and "exit.mp4: the decoding process died" in crash.words
    (hang,) = found["hang.mp4"]
    assert hang.kind == "hung" and "made no progress for 3600 s" in hang.words


def test_no_process_stays_behind_when_the_check_is_left():
    before = set(active_children())
    tasks = [str(number) for number in range(50)]
    found = run_isolated(poisoned_square, tasks, workers=2, patience_s=60.0, preload=POISON)
    next(found)
    assert len(set(active_children()) - before) == 2
    found.close()
    assert set(active_children()) <= before


def test_the_script_reports_all_and_fails(folder, tmp_path):
    outputs = ["--table", tmp_path / "t.csv", "--write-clean", tmp_path / "m.csv"]
    done = run(folder, "--workers", "0", *outputs)
    assert done.returncode == 1, done.stderr
    for name in ("empty", "missing", "long", "counted", "damaged", "cut_off"):
        assert f"\n{name}: " in f"\n{done.stdout}"
    assert done.stdout.endswith("9 clips in 6 files: 3 sound, 6 broken\n")
    printed = {kind: int(count) for count, kind in re.findall(r"(?m)^ +(\d+)  (.*)$", done.stdout)}
    assert printed["missing"] == printed["empty"] == printed["cut off"] == 1
    assert printed["too short"] == printed["undecodable"] == 2
    assert printed["variable_rate"] == 1
    clean = read_manifest(tmp_path / "m.csv")
    assert [clip.id for clip in clean] == ["sound", "part", "uneven"]
    assert (clean[0].num_frames, clean[0].fps, clean[0].rotation) == (12, 30.0, 0)
    assert clean[2].flags == "variable_rate small"
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert len(lines) == 10
    assert lines[1] == "sound,sound.mp4,sound,12,30.0,64,48,0,h264,small,"


def test_the_script_writes_nothing_unasked_and_no_manifest_of_nothing(folder, tmp_path):
    clips = {clip.id: clip for clip in read_manifest(folder / "manifest.csv")}
    (tmp_path / "videos").symlink_to(folder / "videos")
    write_manifest([clips["sound"]], tmp_path / "manifest.csv")
    assert run(tmp_path, "--workers", "2", "--quick").returncode == 0
    write_manifest([clips["missing"]], tmp_path / "manifest.csv")
    done = run(tmp_path, "--workers", "0", "--write-clean", tmp_path / "clean.csv")
    assert done.returncode == 1
    assert "is not written: no clip is sound" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.csv", "videos"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--write-clean", "{}/videos/../manifest.csv"], "must be different files"),
        (["--table", "{0}/a.csv", "--write-clean", "{0}/a.csv"], "must be different files"),
        (["--video-root", "{}/nowhere"], "there is no folder"),
    ],
)
def test_a_check_that_cannot_be_made_is_told_by_its_exit_code(folder, options, reason):
    before = (folder / "manifest.csv").read_bytes()
    done = run(folder, *(option.format(folder) for option in options))
    assert done.returncode == 2
    assert reason in done.stderr
    assert (folder / "manifest.csv").read_bytes() == before


@pytest.mark.slow
def test_ctrl_c_tells_what_was_found_and_writes_nothing(tmp_path):
    (tmp_path / "videos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 96, 128, 3), dtype=np.uint8)
    video = oracle.write_video(tmp_path / "noise.mp4", noise)
    clips = [Clip(id=str(n), path=f"{n}.mp4", split="unlabeled") for n in range(2000)]
    for clip in clips:
        (tmp_path / "videos" / clip.path).hardlink_to(video)
    write_manifest(clips, tmp_path / "manifest.csv")
    places = ["--manifest", tmp_path / "manifest.csv", "--video-root", tmp_path / "videos"]
    options = ["--workers", "2", "--table", tmp_path / "t.csv"]
    done = interrupted_script("check_videos.py", *places, *options, at=r" [1-9]\d*/2000")
    assert done.returncode == 130
    assert re.search(r"stopped after \d+ of 2000 clips", done.stderr)
    assert "Traceback" not in done.stderr
    assert re.search(r"(\d+) clips in \1 files: \1 sound, 0 broken", done.stdout)
    assert not (tmp_path / "t.csv").exists()
