"""The doctor names every broken clip at once, and writes only what it is asked to."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qa_data.manifest import Clip, read_manifest, write_manifest
from sefar_core.data.health import check_clips
from tests.oracles import videos as oracle

ROOT = Path(__file__).parents[2]


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
    command = [sys.executable, "scripts/check_videos.py", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )


def faults(folder: Path, *, quick: bool, workers: int = 0) -> dict[str, tuple[str, ...]]:
    clips = read_manifest(folder / "manifest.csv")
    files = check_clips(clips, folder / "videos", quick=quick, workers=workers)
    return {health.clip.id: health.faults for file in files for health in file}


def test_every_fault_is_named_with_its_cause(folder):
    found = faults(folder, quick=False)
    causes = {
        "empty": "is empty",
        "missing": "does not exist",
        "long": "ends after 0.400 s, but the clip is listed to 3.0 s",
        "counted": "holds 12 frames, but 65 are listed",
        "damaged": "frames were read before that",
        "cut_off": "is cut off",
    }
    assert {name for name, words in found.items() if words} == set(causes)
    for name, cause in causes.items():
        assert cause in found[name][0]


def test_a_quick_check_reads_no_pictures_and_says_less(folder):
    found = faults(folder, quick=True)
    broken = {name for name, words in found.items() if words}
    assert broken == {"empty", "missing", "long", "counted", "cut_off"}


def test_several_processes_find_what_one_finds(folder):
    assert faults(folder, quick=False, workers=2) == faults(folder, quick=False)


def test_the_script_reports_all_and_fails(folder, tmp_path):
    done = run(
        folder, "--workers", "0", "--table", tmp_path / "t.csv", "--write-clean", tmp_path / "m.csv"
    )
    assert done.returncode == 1, done.stderr
    for name in ("empty", "missing", "long", "counted", "damaged", "cut_off"):
        assert f"\n{name}: " in f"\n{done.stdout}"
    assert "9 clips: 3 sound, 6 broken" in done.stdout
    assert "1 clips: variable_rate" in done.stdout
    clean = read_manifest(tmp_path / "m.csv")
    assert [clip.id for clip in clean] == ["sound", "part", "uneven"]
    assert (clean[0].num_frames, clean[0].fps, clean[0].rotation) == (12, 30.0, 0)
    assert clean[2].flags == "variable_rate"
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 10


def test_the_script_writes_nothing_unasked_and_passes_a_sound_set(folder, tmp_path):
    clips = [clip for clip in read_manifest(folder / "manifest.csv") if clip.id == "sound"]
    (tmp_path / "videos").symlink_to(folder / "videos")
    write_manifest(clips, tmp_path / "manifest.csv")
    done = run(tmp_path, "--workers", "0", "--quick")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.csv", "videos"]


def test_a_missing_manifest_is_named(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("check_videos: no manifest at")
