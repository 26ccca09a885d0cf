import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sefar_core.data.video import VideoInfo, VideoReadError
from sefar_core.data.worker_pool import WorkerFailure
from sefar_mllm.chat import safe_video
from sefar_mllm.chat.safe_video import (
    MAX_CPU_S,
    MAX_DECODER_BYTES,
    PATIENCE_S,
    VideoClip,
    read_frames,
    refuse_coding,
    refuse_unsuitable,
)
from tests.oracles import videos

MOMENTS = (0.1, 0.6)


def gray_video(path: Path, *, codec: str = "libx264", size: int = 32, count: int = 10) -> Path:
    """Gray frames, each 20 levels brighter than the one before, 25 a second."""
    grays = np.arange(count, dtype=np.uint8) * 20
    frames = np.broadcast_to(grays[:, None, None, None], (count, size, size, 3))
    return videos.write_video(path, np.ascontiguousarray(frames), fps=25, codec=codec)


def fail_if_decoded(monkeypatch, *functions):
    for name in functions:
        monkeypatch.setattr(safe_video, name, lambda *_, **__: pytest.fail("it was decoded"))


def test_a_suitable_video_gives_its_frames(tmp_path):
    path = gray_video(tmp_path / "clip.mp4")
    grays = read_frames(VideoClip(path=path), MOMENTS).float().mean(dim=(1, 2, 3))
    assert grays.tolist() == pytest.approx([20, 120], abs=4)
    part = VideoClip(path=path, start_s=0.2, end_s=0.4)
    assert read_frames(part, [0.1]).float().mean().item() == pytest.approx(100, abs=4)


@pytest.mark.parametrize(
    ("limit", "value", "part", "words"),
    [
        ("MAX_DURATION_S", 0.3, {}, "lasts 0 s and has 10 frames; a chat accepts up to 0 s"),
        ("MAX_DURATION_S", 0.1, {"start_s": 0.1, "end_s": 0.3}, "cut out the element first"),
        ("MAX_FRAMES", 9, {}, "and 9 frames: cut out the element first"),
        ("MAX_PIXELS", 1000, {}, "has 32 x 32 pixels; a chat accepts up to 1,000 in all"),
        ("MAX_BYTES", 100, {}, "bytes; a chat accepts up to 100: cut out the element first"),
        ("CODECS", ("vp8", "vp9"), {}, "encoded as h264; a chat accepts vp8, vp9: convert it"),
    ],
)
def test_videos_beyond_a_limit_are_refused(tmp_path, monkeypatch, limit, value, part, words):
    path = gray_video(tmp_path / "clip.mp4")
    refuse_unsuitable(VideoClip(path=path, **part))
    monkeypatch.setattr(safe_video, limit, value)
    with pytest.raises(VideoReadError, match=words):
        refuse_unsuitable(VideoClip(path=path, **part))


@pytest.mark.parametrize(
    ("width", "height", "codec", "words"),
    [
        (66, 4, "libx264", "has pictures of 66 x 4 "),
        (4, 66, "libx264", "has pictures of 4 x 66 "),
        (2100, 2100, "libx264", "has 2100 x 2100 pixels"),
        (32, 32, "ffv1", "is encoded as ffv1"),  # a format that only attackers use
    ],
)
def test_unsuitable_videos_are_refused_by_their_header(
    tmp_path, monkeypatch, width, height, codec, words
):
    frames = np.zeros((1, height, width, 3), np.uint8)
    path = videos.write_video(tmp_path / "clip.mkv", frames, codec=codec)
    fail_if_decoded(monkeypatch, "probe", "read_fractions")
    with pytest.raises(VideoReadError, match=words):
        read_frames(VideoClip(path=path), MOMENTS)


def test_usual_videos_are_accepted(tmp_path):
    for width, height in [(64, 4), (4, 64)]:
        frames = np.zeros((2, height, width, 3), np.uint8)
        refuse_unsuitable(VideoClip(path=videos.write_video(tmp_path / f"{width}.mp4", frames)))
    for decoder in ("libdav1d", "av1", "libaom-av1"):
        refuse_coding(Path("clip.mkv"), decoder)


@pytest.mark.parametrize(("height", "width"), [(4, 68), (2100, 2100)])
def test_frames_that_contradict_the_header_are_refused(tmp_path, monkeypatch, height, width):
    path = gray_video(tmp_path / "clip.mp4")
    other = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    monkeypatch.setattr(safe_video, "read_fractions", lambda *_, **__: other)
    with pytest.raises(VideoReadError, match=f"has .*{width} x {height} pixels"):
        read_frames(VideoClip(path=path), MOMENTS)


def test_folders_of_pictures_have_the_same_limits(tmp_path, monkeypatch):
    info = VideoInfo(
        num_frames=9000, times_s=(), duration_s=90.0, fps=100.0, width=8, height=8, rotation=0,
        codec="pictures", container="folder", flags=(),
    )  # fmt: skip
    monkeypatch.setattr(safe_video, "probe", lambda _: info)
    with pytest.raises(VideoReadError, match="has 9,000 frames"):
        refuse_unsuitable(VideoClip(path=tmp_path))


@pytest.mark.parametrize("name", ["gone.mp4", "x" * 5000, "a\0b", ""])
def test_names_without_a_file_are_refused(tmp_path, name):
    with pytest.raises(VideoReadError):
        read_frames(VideoClip(path=tmp_path / "inner" / name), MOMENTS)


@pytest.mark.parametrize(("start", "end"), [(2.0, 2.0), (3.0, 1.0), (None, 0.0), (-1.0, None)])
def test_a_part_without_length_is_refused(start, end):
    with pytest.raises(ValueError, match="has no length"):
        VideoClip(path=Path("clip.mp4"), start_s=start, end_s=end)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports a process's memory")
def test_a_decoder_limits_its_memory_and_its_work_for_every_video():
    code = f"""
import resource, time
from sefar_mllm.chat import safe_video
resource.setrlimit(resource.RLIMIT_AS, ({2**45}, {2**45}))
for safe_video.MAX_DECODER_BYTES in ({MAX_DECODER_BYTES}, {2**40}):
    safe_video.limit_memory()
    print(*resource.getrlimit(resource.RLIMIT_AS))
for safe_video.MAX_CPU_S in ({MAX_CPU_S}, 1):
    began = time.process_time()
    safe_video.limit_work()
    print(resource.getrlimit(resource.RLIMIT_CPU)[0] - began, flush=True)
while time.process_time() < began + 9: pass
print("never")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    first, again, usual, short = (line.split() for line in done.stdout.splitlines())
    assert MAX_DECODER_BYTES < int(first[0]) == int(first[1]) < MAX_DECODER_BYTES + 2**40
    assert again == first  # a lower limit stays
    assert 20 <= float(usual[0]) <= 21.1 and 1 <= float(short[0]) <= 2.1
    assert done.returncode == -signal.SIGXCPU
    assert (MAX_CPU_S, PATIENCE_S) == (20, 30)


def test_a_decoder_limits_itself_before_it_opens_a_video(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(safe_video, "limit_memory", lambda: done.append("memory"))
    monkeypatch.setattr(safe_video, "limit_work", lambda: done.append("work"))
    monkeypatch.setattr(safe_video, "refuse_unsuitable", lambda _: done.append("opened"))
    for _ in range(2):
        safe_video._confined(VideoClip(path=tmp_path / "gone"), lambda: None, moments=MOMENTS)
    assert done == ["memory", "work", "opened"] * 2


def test_a_video_that_takes_too_much_work_is_refused_with_the_fix(monkeypatch):
    lost = WorkerFailure("crashed", "the decoding process died (SIGXCPU)", signal.SIGXCPU)
    clip = VideoClip(path=Path("long.mp4"))
    monkeypatch.setattr(safe_video, "run_isolated", lambda *_, **__: [(clip, lost)])
    ((_, refusal),) = safe_video.read_frames_apart([clip], MOMENTS)
    assert "long.mp4 takes more than 20 s of work to decode; scale it down" in str(refusal)
