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
from sefar_core.data.video import VideoReadError, clip_length, probe, read_clip, read_fractions
from tests.frames_at import frames_at
from tests.oracles import videos as oracle
from tests.oracles.numbered_cases import even, in_pieces
from tests.oracles.numbered_table import BY_NAME, NTSC
from tests.oracles.numbered_videos import read_numbers


def assert_begins_at_its_own_times(path: Path) -> None:
    """Each of 40 pictures begins the stretch that begins when it does."""
    info = probe(path)
    assert info.num_frames == 40
    ends = [*info.times_s[1:], info.end_s]
    for place, start_s in enumerate(info.times_s):
        last = min(place + 8, 39)
        frames = read_clip(path, start_s=start_s, end_s=ends[last]).frames
        assert read_numbers(frames) == list(range(place, last + 1)), start_s


SLOW = pytest.mark.slow


@pytest.mark.parametrize("suffix", ["mkv", pytest.param("flv", marks=SLOW), "mp4", "ts"])
@pytest.mark.parametrize(
    "rate", [NTSC, *(pytest.param(r, marks=SLOW) for r in (30, Fraction(24_000, 1001), 60))]
)
def test_a_stretch_that_begins_where_a_picture_does_begins_with_it(tmp_path, suffix, rate):
    case = even(f"h264-b.{suffix}", rate=rate, numbers=range(40))
    case.make(path := tmp_path / case.name)
    assert_begins_at_its_own_times(path)


def written_at(path: Path, stamps_ms: list[int], name: str = "h264.mkv") -> Path:
    """Numbered pictures, each packet with the timestamp given, in milliseconds."""
    source = path.with_name(f"source-{name}")
    even(name, numbers=range(len(stamps_ms))).make(source)
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
    assert_begins_at_its_own_times(path)


@pytest.mark.parametrize(
    ("stamps_ms", "is_even"),
    [
        ([0, 1, 2, 3, 40, 41, 42, 80, 120, 160], False),  # nearer than the stated rate
        ([0] * 12, True),  # equal times are none
        ([80 * (n // 2) for n in range(12)], True),
    ],
)
def test_pictures_stay_apart_whatever_their_times(tmp_path, stamps_ms, is_even):
    frames, places, _ = read_clip(written_at(tmp_path / "equal.mkv", stamps_ms))
    assert read_numbers(frames) == list(range(len(stamps_ms)))
    assert is_even == (np.diff(places) == pytest.approx(1 / 12, abs=1e-3))


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_joined_recordings_of_one_group_each_follow_one_another(tmp_path, suffix):
    path = tmp_path / f"joined.{suffix}"
    in_pieces(f"h264-b.{suffix}", 40, 40, options={"g": "250"}).make(path)
    assert read_numbers(read_clip(path).frames) == list(range(80))
    assert probe(path).end_s == pytest.approx(3.2, abs=0.01)
    assert read_numbers(frames_at(path, [0.58, 1.58, 1.62, 3.18])) == [14, 39, 40, 79]
    for start_s, first in ((0.58, 14), (1.6, 40), (2.42, 60)):
        assert read_numbers(read_fractions(path, [0.0], start_s=start_s, end_s=3.2)) == [first]
    assert clip_length(path, start_s=1.6) == pytest.approx(1.6, abs=0.01)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_times_of_decoding_in_place_of_display_are_seen_through(tmp_path, suffix):
    stamps = [40 * number for number in range(48)]
    path = written_at(tmp_path / f"decoding.{suffix}", stamps, "mpeg4-b.mp4")
    for place in (0, 1, 2, 20):
        got = read_fractions(path, [0.0], start_s=place / 25, end_s=(place + 1) / 25)
        assert read_numbers(got) == [place]
    with pytest.raises(VideoReadError, match="cannot be trusted"):
        video_backends.read_decord(path, [0.5])


@pytest.mark.parametrize("start_s", [1.0, 1.5, 100.0, 1e18])
def test_a_clip_that_starts_behind_the_end_is_refused_and_named(clip, start_s):
    for read in (read_clip, clip_length):
        with pytest.raises(VideoReadError, match=r"clip.mp4 ends after 1.000 s"):
            read(clip, start_s=start_s)
    listed = [Clip(id="late", path=clip.name, split="unlabeled", start_s=start_s)]
    for quick in (False, True):
        (health,) = check_file(listed, lambda: None, video_root=clip.parent, quick=quick)
        assert "too short" in {fault.kind for fault in health.faults}


@pytest.mark.parametrize("span", [(0.2, None), (None, 0.9), (0.0, None)])
def test_damage_is_named_for_clips_with_an_open_end(tmp_path, span):
    path = oracle.write_noise(tmp_path / "a.mp4", options={"g": "30"})
    oracle.overwrite_packet(path, 20)
    listed = [Clip(id="a", path="a.mp4", split="unlabeled", start_s=span[0], end_s=span[1])]
    (health,) = check_file(listed, lambda: None, video_root=tmp_path, quick=False)
    assert [fault.kind for fault in health.faults] == ["undecodable"]


def test_before_the_first_picture_appears_it_is_the_first(made):
    case = BY_NAME["h264-b-late.mp4"]
    frames, places, _ = read_clip(made(case.name), start_s=0.0, end_s=case.times_s[0] / 2)
    assert read_numbers(frames) == [case.numbers[0]] and places == [pytest.approx(2.0)]


def test_pictures_of_any_pixel_format_are_compared_before_a_jump(tmp_path):
    case = even("mjpeg.mkv", pix_fmt="yuvj422p")
    case.make(path := tmp_path / case.name)
    assert read_numbers(read_fractions(path, [0.0], start_s=1.0, end_s=1.5)) == [25]
