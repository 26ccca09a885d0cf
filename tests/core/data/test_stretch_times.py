"""A stretch shows what the whole file shows at those times, also where containers round times, join
recordings, or hold false times.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from qa_data.manifest import Clip
from sefar_core.data import video_backends
from sefar_core.data.check_videos import check_file
from sefar_core.data.video import (
    VideoReadError,
    clip_length,
    probe,
    read_clip,
    read_fractions,
)
from tests.frames_at import frames_at
from tests.oracles import numbered_videos as numbered
from tests.oracles import videos as oracle
from tests.oracles.numbered_cases import even, joined
from tests.oracles.numbered_table import MPEG4, OFFSETS, REORDERED

NTSC = Fraction(30_000, 1001)


def numbers_of(frames) -> list[int]:
    return [numbered.read_number(frame) for frame in np.asarray(frames)]


def assert_begins_at_its_own_times(path: Path, numbers) -> None:
    info = probe(path)
    assert info.num_frames == len(numbers)
    ends = [*info.times_s[1:], info.end_s]
    for place, start_s in enumerate(info.times_s):
        last = min(place + 8, len(numbers) - 1)
        frames = read_clip(path, start_s=start_s, end_s=ends[last]).frames
        assert numbers_of(frames) == list(numbers[place : last + 1]), start_s


@pytest.mark.parametrize("suffix", ["mkv", "flv", "mp4", "ts"])
@pytest.mark.parametrize("rate", [NTSC, 30, Fraction(24_000, 1001), 60])
def test_a_stretch_that_begins_where_a_picture_does_begins_with_it(tmp_path, suffix, rate):
    case = even(f"clip.{suffix}", "libx264", REORDERED, rate=rate, numbers=range(40))
    path = tmp_path / case.name
    case.make(path)
    assert_begins_at_its_own_times(path, case.numbers)


def written_at(path: Path, stamps_ms: list[int]) -> Path:
    """Numbered pictures without reordering, each with the timestamp given, in milliseconds."""
    source = path.with_suffix(".source.mkv")
    even("a.mkv", "libx264", REORDERED | {"bf": "0"}, numbers=range(len(stamps_ms))).make(source)
    with av.open(str(source)) as whole, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(whole.streams.video[0])
        packets = [packet for packet in whole.demux(video=0) if packet.size]
        for packet, stamp in zip(packets, stamps_ms, strict=True):
            packet.pts = packet.dts = stamp
            packet.time_base, packet.stream = Fraction(1, 1000), copy
            output.mux(packet)
    return path


def test_a_gap_elsewhere_in_the_file_moves_no_picture_of_a_stretch(tmp_path):
    places = [*range(20), *range(25, 45)]
    path = written_at(tmp_path / "gap.mkv", [round(1000 * place / NTSC) for place in places])
    assert "variable_rate" in probe(path).flags
    assert_begins_at_its_own_times(path, range(40))


def test_pictures_nearer_to_one_another_than_the_stated_rate_stay_apart(tmp_path):
    path = written_at(tmp_path / "fast.mkv", [0, 1, 2, 3, 40, 41, 42, 80, 120, 160])
    assert numbers_of(read_clip(path)[0]) == list(range(10))


@pytest.mark.parametrize("stamps_ms", [[0] * 12, [80 * (n // 2) for n in range(12)]])
def test_equal_timestamps_are_no_times_and_pictures_follow_at_the_stated_rate(tmp_path, stamps_ms):
    path = written_at(tmp_path / "equal.mkv", stamps_ms)
    frames, places, _ = read_clip(path)
    assert numbers_of(frames) == list(range(12))
    assert np.diff(places) == pytest.approx(1 / 12, abs=1e-3)


def test_joined_recordings_of_one_group_each_follow_one_another(tmp_path):
    one_group = REORDERED | {"g": "250"}
    pieces = [
        even(f"{name}.ts", "libx264", one_group, numbers=range(first, first + 40))
        for name, first in (("a", 0), ("b", 40))
    ]
    path = tmp_path / "joined.ts"
    joined("joined.ts", *pieces).make(path)
    assert probe(path).end_s == pytest.approx(3.2, abs=1e-3)
    assert numbers_of(frames_at(path, [0.58, 1.58, 1.62, 3.18])) == [14, 39, 40, 79]
    for start_s, first in ((0.58, 14), (1.6, 40), (2.42, 60)):
        assert numbers_of(read_fractions(path, [0.0], start_s=start_s, end_s=3.2)) == [first]
    assert clip_length(path, start_s=1.6) == pytest.approx(1.6, abs=1e-3)


def test_joined_matroska_files_follow_one_another(tmp_path):
    content = b""
    for first in (0, 40):
        piece = even("a.mkv", "libx264", REORDERED, numbers=range(first, first + 40))
        piece.make(tmp_path / "a.mkv")
        content += (tmp_path / "a.mkv").read_bytes()
        (tmp_path / "a.mkv").unlink()
    path = tmp_path / "joined.mkv"
    path.write_bytes(content)
    assert numbers_of(read_clip(path)[0]) == list(range(80))
    assert probe(path).end_s == pytest.approx(3.2, abs=0.01)
    assert numbers_of(frames_at(path, [1.0, 2.02, 3.1])) == [25, 50, 77]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_times_of_decoding_in_place_of_display_are_seen_through_in_short_stretches(
    tmp_path, suffix
):
    source = tmp_path / "source.mp4"
    even("source.mp4", "mpeg4", MPEG4).make(source)
    path = tmp_path / f"decoding.{suffix}"
    with av.open(str(source)) as whole, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(whole.streams.video[0])
        for number, packet in enumerate(p for p in whole.demux(video=0) if p.size):
            packet.pts = packet.dts = 40 * number
            packet.time_base, packet.stream = Fraction(1, 1000), copy
            output.mux(packet)
    for place in (0, 1, 2, 20):
        got = read_fractions(path, [0.0], start_s=place / 25, end_s=(place + 1) / 25)
        assert numbers_of(got) == [place]
    with pytest.raises(VideoReadError, match="cannot be trusted"):
        video_backends.read_decord(path, [0.5])


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return oracle.write_referring_clip(tmp_path_factory.mktemp("stretch") / "clip.mp4")


@pytest.mark.parametrize("start_s", [1.0, 1.5, 100.0, 1e18])
def test_a_clip_that_starts_behind_the_end_is_refused_and_named(clip, start_s):
    for read in (read_clip, clip_length):
        with pytest.raises(VideoReadError, match=r"clip.mp4 ends after 1.000 s"):
            read(clip, start_s=start_s)
    listed = [Clip(id="late", path=clip.name, split="unlabeled", start_s=start_s)]
    for quick in (False, True):
        (health,) = check_file(listed, lambda: None, video_root=clip.parent, quick=quick)
        assert "too short" in {fault.kind for fault in health.faults}


@pytest.mark.parametrize(
    "bounds", [(float("inf"), None), (float("nan"), None), (0.0, float("inf"))]
)
def test_bounds_that_are_no_moments_are_refused(clip, bounds):
    with pytest.raises(ValueError, match="has no length"):
        read_fractions(clip, [0.5], start_s=bounds[0], end_s=bounds[1])


@pytest.mark.parametrize("span", [(0.2, None), (None, 0.9), (0.0, None)])
def test_damage_is_named_for_clips_with_an_open_end(tmp_path, span):
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    path = oracle.write_video(tmp_path / "a.mp4", noise, options={"bf": "0", "g": "30"})
    with av.open(str(path)) as container:
        place, size = [(p.pos, p.size) for p in container.demux(video=0) if p.size][20]
    content = bytearray(path.read_bytes())
    content[place : place + size] = b"\xff" * size
    path.write_bytes(content)
    start_s, end_s = span
    listed = [Clip(id="a", path="a.mp4", split="unlabeled", start_s=start_s, end_s=end_s)]
    (health,) = check_file(listed, lambda: None, video_root=tmp_path, quick=False)
    assert [fault.kind for fault in health.faults] == ["undecodable"]


def test_before_the_first_picture_appears_it_is_the_first(tmp_path):
    case = next(case for case in OFFSETS if case.times_s[0] > 0.3)
    path = tmp_path / case.name
    case.make(path)
    frames, places, _ = read_clip(path, start_s=0.0, end_s=case.times_s[0] / 2)
    assert numbers_of(frames) == [case.numbers[0]] and places == [pytest.approx(2.0)]


def test_pictures_of_any_pixel_format_are_compared_before_a_jump(tmp_path):
    case = even("jpeg.mkv", "mjpeg", {}, pix_fmt="yuvj422p")
    path = tmp_path / case.name
    case.make(path)
    assert numbers_of(read_fractions(path, [0.0], start_s=1.0, end_s=1.5)) == [case.numbers[25]]


@pytest.mark.parametrize(
    "content", [b"#EXTM3U\n#EXTINF:1,\nclip.mp4\n", b"ffconcat version 1.0\nfile clip.mp4\n"]
)
def test_a_list_of_other_files_is_no_video(tmp_path, clip, content):
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    path = tmp_path / "list.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoReadError, match=r"list\.mp4 is a list of other files"):
        read_clip(path)
