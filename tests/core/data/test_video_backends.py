"""Every reader gives PyAV's frames on files that it can be trusted with, and refuses the others."""

import os
from concurrent import futures
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
import tyro
from torch.utils.data import DataLoader

from sefar_core.config import DataConfig
from sefar_core.data import video_backends
from sefar_core.data.video import VideoReadError, probe, read_fractions
from sefar_core.data.video_backends import READERS, choose_file_reader
from sefar_core.data.worker_pool import DecordRequest
from tests.oracles import videos as oracle
from tests.oracles.poison import passing_hours, poisoned_numbers
from tests.script_process import LIMIT_S

REAL = Path(os.environ.get("SEFAR_VIDEOS_DIR", "."))
real_videos = pytest.mark.skipif("SEFAR_VIDEOS_DIR" not in os.environ, reason="SEFAR_VIDEOS_DIR")
FILES = [
    "decord_rot_0.mov",
    "decord_rot_90.mov",
    "mmaction2_demo_armwrestling.mp4",
    "mmaction2_part_0.mp4",
    "torchcodec_nasa_13013.mp4",
    "damaged/odd.mp4",
    "damaged/vfr.mp4",
    "damaged/hang_55.mp4",
    "damaged/cut_copy.mp4",
    "damaged/opengop.mp4",
    "damaged/fast_trunc.mp4",
]


@pytest.fixture(scope="module")
def decord():
    """The reader; its process may take as long as it likes to begin."""
    pytest.importorskip("decord")
    return partial(choose_file_reader("decord"), timeout_s=LIMIT_S)


def assert_same_frames(got, expected) -> None:
    """The same pictures but for the rounding of colors; a neighboring frame differs by more."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    assert (got.int() - expected.int()).abs().float().mean() < 3


@pytest.mark.parametrize("span", [(None, None), (0.2, 0.9), (None, 0.5), (0.5, None)])
def test_readers_agree_frame_by_frame(clip, decord, span):
    fractions = [0.999, 0.0, 0.5, 0.5, *np.random.default_rng(0).random(10).tolist()]
    got = decord(clip, fractions, start_s=span[0], end_s=span[1])
    expected = read_fractions(clip, fractions, start_s=span[0], end_s=span[1])
    assert_same_frames(got, expected)
    columns = [[oracle.column_of(frame) for frame in frames.numpy()] for frames in (got, expected)]
    assert columns[0] == pytest.approx(columns[1], abs=0.01)
    small, expected = (read(clip, [0.1, 0.6], short_side=24) for read in (decord, read_fractions))
    assert small.shape == expected.shape == (2, 24, 32, 3)
    # Scaled after the conversion to RGB, not before: sharp edges of color differ.
    assert (small.int() - expected.int()).abs().float().mean() < 6


def test_readers_refuse_the_same_places(clip, decord):
    for places in ([], [-0.1], [1.1], [float("nan")]):
        with pytest.raises(ValueError, match="fractions must"):
            decord(clip, places)
    with pytest.raises(ValueError, match="has no length"):
        decord(clip, [0.5], start_s=0.5, end_s=0.5)
    with pytest.raises(VideoReadError, match=r"clip.mp4 ends after 1.000 s"):
        decord(clip, [0.9], start_s=0.5, end_s=9.0)
    with pytest.raises(VideoReadError, match="does not exist"):
        decord(clip.with_name("absent.mp4"), [0.5])


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("h264-cut-17.mp4", "edit_list"),
        ("h264-open.mp4", "open_gop"),
        ("film-second.mp4", "many_streams"),
        ("turned-2.mp4", "mirrored"),
    ],
)
def test_decord_is_not_asked_for_a_file_that_it_misreads(made, name, flag):
    with pytest.raises(VideoReadError, match=rf"(?s){name}.*{flag}.*data.reader to auto"):
        video_backends.read_decord(made(name), [0.5])


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


def frames_of(path: Path, *numbers: int, num_frames: int = 30, timeout_s: float = LIMIT_S):
    return video_backends.ask_decord(DecordRequest(str(path), list(numbers), num_frames), timeout_s)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exit", r"died reading frames 3 to 7 of exit\..*data.reader to auto"),
        ("half then hang", r"hangs on frames 3 to 7 of half then hang: no answer within"),
        ("half then exit", r"died reading frames 3 to 7 of half then exit\."),
    ],
)
def test_a_reader_that_hangs_or_dies_is_killed_named_and_started_again(name, words, monkeypatch):
    monkeypatch.setattr(video_backends, "read_by_decord", poisoned_numbers)
    video_backends._worker_of.cache_clear()
    let_a_day_pass = passing_hours(monkeypatch)
    frames_of(Path("sound"), 3, 7)
    first = video_backends._worker_of(os.getpid()).process
    if name.endswith("hang"):
        Timer(1.0, let_a_day_pass).start()
    with pytest.raises(VideoReadError, match=words):
        frames_of(Path(name), 3, 7, timeout_s=3600.0)
    assert not first.is_alive()
    assert frames_of(Path("sound"), 3, 7).shape == (2, 2, 2, 3)
    video_backends._worker_of(os.getpid()).stop()
    video_backends._worker_of.cache_clear()


def test_a_reader_that_never_gets_ready_is_killed(tmp_path, monkeypatch):
    """Only in the process of its own is the import of what it needs slow."""
    (tmp_path / "sleeper.py").write_text(
        "import multiprocessing, time\n"
        "if multiprocessing.current_process().name != 'MainProcess':\n"
        "    time.sleep(3600)\n"
        "def work(request, heartbeat): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(video_backends, "read_by_decord", import_module("sleeper").work)
    video_backends._worker_of.cache_clear()
    first = video_backends._worker_of(os.getpid()).process
    with pytest.raises(VideoReadError, match="hangs on frames 3 to 7 .*: no answer within 1 s"):
        frames_of(Path("sound"), 3, 7, timeout_s=1.0)
    assert not first.is_alive()


def test_one_reading_process_serves_clip_after_clip(clip, decord):
    decord(clip, [0.5])
    first = video_backends._worker_of(os.getpid()).process
    with pytest.raises(VideoReadError, match="decord cannot read"):
        frames_of(clip, 3, num_frames=31)
    decord(clip, [0.1])
    assert video_backends._worker_of(os.getpid()).process is first


def test_the_answer_to_an_interrupted_request_is_not_taken_for_the_next_one(
    clip, decord, monkeypatch
):
    def interrupt(exchanges, timeout_s):
        raise KeyboardInterrupt

    decord(clip, [0.5])
    monkeypatch.setattr(futures, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        frames_of(clip, 29)
    monkeypatch.undo()
    assert_same_frames(decord(clip, [0.1]), read_fractions(clip, [0.1]))


def test_what_decord_refuses_is_reported(clip, decord, tmp_path):
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:-300])
    for path, number in [(noise, 0), (tmp_path / "absent.mp4", 0), (clip, 30), (cut, 29)]:
        with pytest.raises(VideoReadError, match=rf"decord cannot read .*{path.name}: \S"):
            frames_of(path, number)
    with pytest.raises(VideoReadError, match="decord died"):  # a mistake of ours is no refusal
        frames_of(clip, None)  # type: ignore[arg-type]


def test_decord_serves_a_loader_process_which_may_not_have_children_of_its_own(clip):
    pytest.importorskip("decord")
    requests = [[0.1, 0.6], [0.3, 0.9]]
    loader = DataLoader(
        requests,
        batch_size=None,
        num_workers=1,
        collate_fn=partial(video_backends.read_decord, clip, timeout_s=LIMIT_S),
    )
    for fractions, got in zip(requests, loader, strict=True):
        assert_same_frames(got, read_fractions(clip, fractions))


def test_the_readers_are_known_by_name_and_auto_is_pyav(capsys):
    assert choose_file_reader("auto") is READERS["auto"] is read_fractions
    with pytest.raises(SystemExit):
        tyro.cli(DataConfig, args=["--reader", "torchcodec"])
    words = capsys.readouterr().err
    assert all(name in words for name in ("torchcodec", "auto", "decord"))


@real_videos
@pytest.mark.videos
@pytest.mark.parametrize("file", FILES)
def test_readers_agree_on_real_files_and_those_that_decord_misreads_are_refused(decord, file):
    path = REAL / file
    if flags := probe(path).flags:
        with pytest.raises(VideoReadError, match=f"cannot be trusted.*marked {', '.join(flags)}"):
            decord(path, [0.5])
        return
    for seed in range(3):
        fractions = np.random.default_rng(seed).random(8).tolist()
        assert_same_frames(decord(path, fractions), read_fractions(path, fractions))


@real_videos
@pytest.mark.videos
def test_decord_really_hangs_on_a_real_file_and_is_stopped(decord):
    path = REAL / "damaged/hang_55.mp4"
    assert probe(path).num_frames == 39
    first = video_backends._worker_of(os.getpid()).process
    with pytest.raises(VideoReadError, match="hangs on frames 179 to 179"):
        # It counts as the header does, so that the count does not give it away.
        frames_of(path, 179, num_frames=180, timeout_s=2.0)
    assert not first.is_alive()
