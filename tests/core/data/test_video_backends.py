"""Every reader gives PyAV's frames on files that it can be trusted with, and refuses the others."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from sefar_core.data import video_backends
from sefar_core.data.video import VideoReadError, probe, read_fractions
from sefar_core.data.video_backends import COMMAND, READERS, Worker, choose_file_reader
from tests.oracles import videos as oracle
from tests.script_process import LIMIT_S

REAL = Path(os.environ.get("SEFAR_VIDEOS_DIR", "."))
real_videos = pytest.mark.skipif("SEFAR_VIDEOS_DIR" not in os.environ, reason="SEFAR_VIDEOS_DIR")
SOUND = [
    "decord_rot_0.mov",
    "decord_rot_90.mov",
    "decord_rot_180.mov",
    "decord_rot_270.mov",
    "mmaction2_demo_armwrestling.mp4",
    "mmaction2_part_0.mp4",
    "damaged/odd.mp4",
    "damaged/vfr.mp4",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return oracle.write_referring_clip(tmp_path_factory.mktemp("video") / "clip.mp4")


def choose(name: str):
    """The reader of that name; decord's process may take as long as it likes to begin."""
    if name == "torchcodec":
        pytest.importorskip("torchcodec")
        try:
            return choose_file_reader(name)
        except ValueError as cause:
            pytest.skip(str(cause))
    pytest.importorskip("decord")
    return partial(choose_file_reader(name), timeout_s=LIMIT_S)


def assert_same_frames(got, expected) -> None:
    """The same pictures but for the rounding of colors; a neighboring frame differs by more."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    assert (got.int() - expected.int()).abs().float().mean() < 3


@pytest.mark.parametrize("name", ["decord", "torchcodec"])
@pytest.mark.parametrize("span", [(None, None), (0.2, 0.9), (None, 0.5), (0.5, None)])
def test_readers_agree_frame_by_frame(clip, name, span):
    read = choose(name)
    fractions = [0.999, 0.0, 0.5, 0.5, *np.random.default_rng(0).random(10).tolist()]
    got = read(clip, fractions, start_s=span[0], end_s=span[1])
    expected = read_fractions(clip, fractions, start_s=span[0], end_s=span[1])
    assert_same_frames(got, expected)
    columns = [[oracle.column_of(frame) for frame in frames.numpy()] for frames in (got, expected)]
    assert columns[0] == pytest.approx(columns[1], abs=0.01)


@pytest.mark.parametrize("name", ["decord", "torchcodec"])
def test_readers_scale_alike_on_the_way(clip, name):
    got = choose(name)(clip, [0.1, 0.6], short_side=24)
    expected = read_fractions(clip, [0.1, 0.6], short_side=24)
    assert got.shape == expected.shape == (2, 24, 32, 3)
    # Scaled after the conversion to RGB, not before: sharp edges of color differ.
    assert (got.int() - expected.int()).abs().float().mean() < 6


@pytest.mark.parametrize("name", ["decord", "torchcodec"])
def test_readers_refuse_the_same_places(clip, name):
    read = choose(name)
    for places in ([], [-0.1], [1.1], [float("nan")]):
        with pytest.raises(ValueError, match="fractions must"):
            read(clip, places)
    with pytest.raises(ValueError, match="has no length"):
        read(clip, [0.5], start_s=0.5, end_s=0.5)
    with pytest.raises(VideoReadError, match=r"clip.mp4 ends after 1.000 s"):
        read(clip, [0.9], start_s=0.5, end_s=9.0)
    with pytest.raises(VideoReadError, match="does not exist"):
        read(clip.with_name("absent.mp4"), [0.5])


def test_decord_is_not_asked_for_a_file_that_it_misreads(tmp_path):
    source = oracle.write_video(tmp_path / "s.mp4", oracle.numbered_frames(40))
    cut = oracle.cut_without_encoding(source, tmp_path / "cut.mp4", first_shown=8)
    options = {"g": "12", "bf": "3", "sc_threshold": "0", "x264-params": "open-gop=1"}
    path = tmp_path / "open.mp4"
    opened = oracle.write_video(path, oracle.numbered_frames(40), options=options)
    for path, flag in [(cut, "edit_list"), (opened, "open_gop")]:
        with pytest.raises(VideoReadError, match=rf"(?s){path.name}.*{flag}.*data.reader to auto"):
            video_backends.read_decord(path, [0.5])


def test_decord_is_not_trusted_with_a_file_whose_first_picture_it_shows_otherwise(
    tmp_path, monkeypatch
):
    pytest.importorskip("decord")
    path = oracle.write_video(tmp_path / "clip.mp4", oracle.numbered_frames(30))
    video_backends.read_decord(path, [0.5])
    other = oracle.write_video(tmp_path / "other.mp4", 255 - oracle.numbered_frames(30))
    monkeypatch.setattr(video_backends, "read_in_order", lambda _, at: read_fractions(other, at))
    path.touch()
    with pytest.raises(VideoReadError, match="its first picture differs from PyAV's"):
        video_backends.read_decord(path, [0.5])


def child(code: str) -> Worker:
    return Worker([sys.executable, "-c", code])


def test_a_hung_reader_is_killed_and_the_error_names_file_and_mend():
    worker = child("import time; time.sleep(3600)")
    with pytest.raises(VideoReadError, match=r"hangs on frames 3 to 7 of .*x\.mp4.*reader to auto"):
        worker.read(Path("x.mp4"), [3, 7], 10, timeout_s=0.3)
    assert worker.process is None


def test_a_reader_that_dies_is_an_error_and_is_started_again():
    worker = child("import sys; sys.stdin.readline()")
    for _ in range(2):
        with pytest.raises(VideoReadError, match=r"died reading frames 0 to 0 of .*x\.mp4"):
            worker.read(Path("x.mp4"), [0], 10, timeout_s=LIMIT_S)


def test_one_reading_process_serves_clip_after_clip(clip):
    pytest.importorskip("decord")
    video_backends.read_decord(clip, [0.5], timeout_s=LIMIT_S)
    first = video_backends._worker_of(os.getpid()).process
    with pytest.raises(VideoReadError, match="decord cannot read"):
        video_backends._worker_of(os.getpid()).read(clip, [3], 31, timeout_s=LIMIT_S)
    video_backends.read_decord(clip, [0.1], timeout_s=LIMIT_S)
    assert video_backends._worker_of(os.getpid()).process is first


def test_what_decord_refuses_is_told_and_a_mistake_of_ours_is_not_passed_off_as_it(clip, tmp_path):
    pytest.importorskip("decord")
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:-300])
    worker = Worker(COMMAND)
    for path, number in [(noise, 0), (tmp_path / "absent.mp4", 0), (clip, 30), (cut, 29)]:
        with pytest.raises(VideoReadError, match=rf"decord cannot read .*{path.name}: \S"):
            worker.read(path, [number], 30, timeout_s=LIMIT_S)
    worker.stop()
    asked = subprocess.run(COMMAND, input=b'{"file": "x"}\n', capture_output=True, check=False)
    assert asked.stdout == b"" and b"TypeError" in asked.stderr


def test_decord_serves_a_loader_process_which_may_not_have_children_of_its_own(clip):
    pytest.importorskip("decord")
    asked = [[0.1, 0.6], [0.3, 0.9]]
    loader = DataLoader(
        asked,
        batch_size=None,
        num_workers=1,
        collate_fn=partial(video_backends.read_decord, clip, timeout_s=LIMIT_S),
    )
    for fractions, got in zip(asked, loader, strict=True):
        assert_same_frames(got, read_fractions(clip, fractions))


def test_a_missing_torchcodec_is_refused_with_its_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ValueError, match="install torchcodec.*or set data.reader to auto"):
        choose_file_reader("torchcodec")


def test_auto_is_pyav():
    assert choose_file_reader("auto") is READERS["auto"] is read_fractions
    assert READERS["torchcodec"] is video_backends.read_torchcodec


@real_videos
@pytest.mark.videos
@pytest.mark.parametrize("name", ["decord", "torchcodec"])
@pytest.mark.parametrize("file", SOUND)
def test_readers_agree_on_real_files(name, file):
    read, path = choose(name), REAL / file
    if name == "decord" and (flags := probe(path).flags):
        with pytest.raises(VideoReadError, match=f"it is marked {', '.join(flags)}"):
            read(path, [0.5])
        return
    for seed in range(3):
        fractions = np.random.default_rng(seed).random(8).tolist()
        assert_same_frames(read(path, fractions), read_fractions(path, fractions))


@real_videos
@pytest.mark.videos
@pytest.mark.parametrize("file", ["hang_55.mp4", "cut_copy.mp4", "opengop.mp4", "fast_trunc.mp4"])
def test_decord_is_kept_from_real_files_that_it_misreads(file):
    with pytest.raises(VideoReadError, match="cannot be trusted"):
        video_backends.read_decord(REAL / "damaged" / file, [0.9])


@real_videos
@pytest.mark.videos
@pytest.mark.parametrize(
    ("name", "words"),
    [("decord", "many_streams"), ("torchcodec", r"counts 390 frames.*, its packets 325")],
)
def test_a_reader_that_takes_another_of_two_video_streams_is_refused(name, words):
    with pytest.raises(VideoReadError, match=words):
        choose(name)(REAL / "torchcodec_nasa_13013.mp4", [0.5])


@real_videos
@pytest.mark.videos
def test_decord_really_hangs_on_a_real_file_and_is_stopped():
    pytest.importorskip("decord")
    worker = Worker(COMMAND)
    path = REAL / "damaged/hang_55.mp4"
    assert probe(path).num_frames == 39
    with pytest.raises(VideoReadError, match="hangs on frames 179 to 179"):
        # It counts as the header does, so that the count does not give it away.
        worker.read(path, [179], 180, timeout_s=2.0)
    assert worker.process is None
