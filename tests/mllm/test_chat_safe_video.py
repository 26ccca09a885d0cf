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


def brightening_clip(
    path: Path, *, codec: str = "libx264", size: int = 32, count: int = 10
) -> Path:
    """Gray frames, each 20 levels brighter than the one before, 25 a second."""
    grays = np.arange(count, dtype=np.uint8) * 20
    frames = np.broadcast_to(grays[:, None, None, None], (count, size, size, 3))
    return videos.write_video(path, np.ascontiguousarray(frames), fps=25, codec=codec)


def test_a_suitable_video_gives_its_frames(tmp_path):
    path = brightening_clip(tmp_path / "clip.mp4")
    shades = read_frames(VideoClip(path=path), MOMENTS).float().mean(dim=(1, 2, 3))
    assert shades.tolist() == pytest.approx([20, 120], abs=4)
    stretch = VideoClip(path=path, start_s=0.2, end_s=0.4)
    assert read_frames(stretch, [0.1]).float().mean().item() == pytest.approx(100, abs=4)


@pytest.mark.parametrize(
    ("limit", "value", "stretch", "said"),
    [
        ("MAX_DURATION_S", 0.3, {}, "lasts 0 s and has 10 frames; a chat accepts up to 0 s"),
        ("MAX_DURATION_S", 0.1, {"start_s": 0.1, "end_s": 0.3}, "cut out the element first"),
        ("MAX_FRAMES", 9, {}, "and 9 frames: cut out the element first"),
        ("MAX_PIXELS", 1000, {}, "has 32 x 32 pixels; a chat accepts up to 1,000 in all"),
        ("MAX_BYTES", 100, {}, "bytes; a chat accepts up to 100: cut out the element first"),
        (
            "CODECS",
            ("vp8", "vp9"),
            {},
            "is encoded as h264; a chat accepts vp8, vp9: convert it first",
        ),
    ],
)
def test_what_is_larger_than_a_chat_accepts_is_refused(
    tmp_path, monkeypatch, limit, value, stretch, said
):
    path = brightening_clip(tmp_path / "clip.mp4")
    refuse_unsuitable(VideoClip(path=path, **stretch))
    monkeypatch.setattr(safe_video, limit, value)
    with pytest.raises(VideoReadError, match=said):
        refuse_unsuitable(VideoClip(path=path, **stretch))


def test_pictures_that_scaling_would_blow_up_are_refused_by_their_header(tmp_path, monkeypatch):
    for width, height in [(64, 4), (4, 64)]:
        frames = np.zeros((2, height, width, 3), np.uint8)
        refuse_unsuitable(VideoClip(path=videos.write_video(tmp_path / f"{width}.mp4", frames)))
    monkeypatch.setattr(safe_video, "read_fractions", lambda *_, **__: pytest.fail("decoded"))
    for width, height in [(66, 4), (4, 66)]:
        path = videos.write_video(tmp_path / "bomb.mp4", np.zeros((2, height, width, 3), np.uint8))
        with pytest.raises(VideoReadError, match=f"bomb.mp4 has pictures of {width} x {height} "):
            read_frames(VideoClip(path=path), MOMENTS)


@pytest.mark.parametrize(("height", "width"), [(4, 68), (2100, 2100)])
def test_pictures_that_are_other_than_the_header_says_are_refused(
    tmp_path, monkeypatch, height, width
):
    path = brightening_clip(tmp_path / "clip.mp4")
    other = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    monkeypatch.setattr(safe_video, "read_fractions", lambda *_, **__: other)
    with pytest.raises(VideoReadError, match=f"has .*{width} x {height} pixels"):
        read_frames(VideoClip(path=path), MOMENTS)


def test_a_format_that_only_attackers_use_is_never_decoded(tmp_path, monkeypatch):
    path = brightening_clip(tmp_path / "clip.mkv", codec="ffv1")
    monkeypatch.setattr(safe_video, "probe", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(VideoReadError, match="is encoded as ffv1"):
        read_frames(VideoClip(path=path), MOMENTS)


def test_av1_is_known_by_the_names_of_its_decoders():
    for decoder in ("libdav1d", "av1", "libaom-av1"):
        refuse_coding(Path("clip.mkv"), decoder)


def test_folders_of_pictures_have_the_same_limits(tmp_path, monkeypatch):
    info = VideoInfo(
        num_frames=9000, times_s=(), duration_s=90.0, fps=100.0, width=8, height=8, rotation=0,
        codec="pictures", container="folder", flags=(),
    )  # fmt: skip
    monkeypatch.setattr(safe_video, "probe", lambda _: info)
    with pytest.raises(VideoReadError, match="has 9,000 frames"):
        refuse_unsuitable(VideoClip(path=tmp_path))


@pytest.mark.parametrize("name", ["gone.mp4", "x" * 5000, "a\0b", ""])
def test_names_of_nothing_are_refused(tmp_path, name):
    with pytest.raises(VideoReadError):
        read_frames(VideoClip(path=tmp_path / "inner" / name), MOMENTS)


@pytest.mark.parametrize(("start", "end"), [(2.0, 2.0), (3.0, 1.0), (None, 0.0), (-1.0, None)])
def test_a_stretch_has_a_length(start, end):
    with pytest.raises(ValueError, match="has no length"):
        VideoClip(path=Path("clip.mp4"), start_s=start, end_s=end)


def test_a_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    path = brightening_clip(tmp_path / "bomb.mp4", size=2100, count=1)
    for decode in ("probe", "read_fractions"):
        monkeypatch.setattr(safe_video, decode, lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(VideoReadError, match="has 2100 x 2100 pixels"):
        read_frames(VideoClip(path=path), MOMENTS)


def limited(code: str) -> subprocess.CompletedProcess:
    """A process of its own that limits itself."""
    head = "import resource, time\nfrom sefar_mllm.chat import safe_video as g\n"
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory is taken")
def test_a_limit_of_memory_that_is_there_already_is_lowered_and_never_raised():
    done = limited(
        f"resource.setrlimit(resource.RLIMIT_AS, ({2**45}, {2**45}))\n"
        "g.limit_memory()\nprint(*resource.getrlimit(resource.RLIMIT_AS))\n"
        f"g.MAX_DECODER_BYTES = {2**40}\n"
        "g.limit_memory()\nprint(*resource.getrlimit(resource.RLIMIT_AS))\n"
    )
    first, again = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    assert MAX_DECODER_BYTES < first[0] == first[1] < MAX_DECODER_BYTES + 2**40, done.stderr
    assert again == first


def test_every_video_gets_its_seconds_of_work_anew_and_no_more():
    assert (MAX_CPU_S, PATIENCE_S) == (20, 30)
    done = limited(
        "g.limit_work()\nbegan = time.process_time()\n"
        "while time.process_time() < began + 1: pass\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU)[0] - began)\n"
        "g.MAX_CPU_S = 1\ng.limit_work()\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU)[0] - began, flush=True)\n"
        "while time.process_time() < began + 9: pass\nprint('never')\n"
    )
    first, second = map(float, done.stdout.split())
    assert 20 <= first <= 21 and 2 <= second <= 3.1
    assert done.returncode == -signal.SIGXCPU


def test_a_guarded_process_limits_itself_before_every_video(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(safe_video, "limit_memory", lambda: done.append("memory"))
    monkeypatch.setattr(safe_video, "limit_work", lambda: done.append("work"))
    monkeypatch.setattr(safe_video, "refuse_unsuitable", lambda _: done.append("opened"))
    for _ in range(2):
        safe_video._confined(VideoClip(path=tmp_path / "gone"), lambda: None, moments=MOMENTS)
    assert done == ["memory", "work", "opened"] * 2


def test_a_video_that_takes_too_much_work_says_so_and_how_to_fix_it(monkeypatch):
    lost = WorkerFailure("crashed", "the decoding process died (SIGXCPU)", signal.SIGXCPU)
    video_clip = VideoClip(path=Path("long.mp4"))
    monkeypatch.setattr(safe_video, "run_isolated", lambda *_, **__: [(video_clip, lost)])
    ((_, refusal),) = safe_video.read_frames_apart([video_clip], MOMENTS)
    assert "long.mp4 takes more than 20 s of work to decode; scale it down" in str(refusal)
