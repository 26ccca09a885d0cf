"""Times of pictures from what packets say, and from what came out of the decoder."""

import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from sefar_core.data import frame_index
from sefar_core.data.decode import film_stream, opened, orientation_of, upright
from sefar_core.data.frame_index import Timeline
from sefar_core.data.packets import is_false_keyframe
from sefar_core.data.video import VideoReadError, probe, read_fractions
from tests.oracles import numbered_videos as numbered
from tests.oracles import videos as oracle
from tests.oracles.numbered_table import CASES

FPS = 25
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def announced(tmp_path_factory) -> Timeline:
    path = tmp_path_factory.mktemp("timeline") / "clip.mp4"
    oracle.write_video(path, oracle.numbered_frames(20), fps=FPS, options={"bf": "2"})
    with opened(path) as (container, stream):
        shown = frame_index.whole(container, stream)
        yield replace(shown, packets=[])


def test_all_pictures_that_came_out_keep_their_announced_times(announced):
    out_of_order = announced.stamps[::-1].tolist()
    found = frame_index.settled(announced, out_of_order)
    np.testing.assert_array_equal(found.times_s, announced.times_s)
    assert found.stamps is None


def test_a_lost_picture_is_told_from_one_that_shares_its_moment(announced):
    stamps = announced.stamps.tolist()
    assert frame_index.settled(announced, stamps[:9] + stamps[10:]) is None
    assert frame_index.settled(announced, stamps[:-1]) is None
    hidden = announced.marks[5]._replace(pts=stamps[9] + 1)
    with_hidden = replace(
        announced,
        marks=[*announced.marks, hidden],
        times_s=np.append(announced.times_s, announced.end_s),
    )
    found = frame_index.settled(with_hidden, stamps)
    np.testing.assert_allclose(found.times_s, np.arange(20) / FPS)
    assert found.end_s == pytest.approx(20 / FPS)


def test_pictures_before_the_first_one_announced_come_first(announced):
    later = replace(
        announced, times_s=announced.times_s[3:], stamps=announced.stamps[3:], packets=[]
    )
    found = frame_index.settled(later, announced.stamps.tolist())
    np.testing.assert_allclose(found.times_s, np.arange(20) / FPS)


def test_pictures_without_times_that_are_fewer_than_announced_are_lost(announced):
    assert frame_index.settled(announced, [None] * 19) is None
    assert frame_index.settled(announced, []) is None


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("vp8-hidden.webm", {"hidden_frames"}),
        ("h264-b.avi", {"no_display_times"}),
        ("h264-bare.mp4", {"no_display_times"}),
        ("h264-b-joined.ts", {"times_jump_back"}),
        ("h264-refresh.mkv", {"false_keyframes"}),
        ("h264-all-keys.mkv", {"false_keyframes"}),
        ("hevc-all-keys.mkv", {"false_keyframes"}),
        ("mpeg4-false-keys.mkv", {"false_keyframes", "open_gop"}),
        ("h264-b-no-stss.mp4", {"false_keyframes"}),
        ("h264-b-late.ts", {"late_start"}),
        ("film-second.mkv", {"many_streams"}),
        ("h264-b-end-30.mp4", {"edit_list"}),
        ("h264-aspect.mp4", {"pixels_not_square"}),
        ("turned-2.mp4", {"mirrored"}),
        ("turned-5.mp4", {"mirrored", "rotated"}),
        ("h264-open.mkv", {"open_gop"}),
        ("mpeg2-closed.ts", set()),
        ("h264-b.mp4", set()),
    ],
)
def test_a_probe_names_what_is_odd_and_nothing_else(tmp_path, name, flags):
    path = tmp_path / name
    BY_NAME[name].make(path)
    assert set(probe(path).flags) == flags


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("h264-open.ts", True),
        ("h264-open.mp4", True),
        ("h264-refresh.ts", False),
        ("hevc-open.ts", True),
        ("mpeg2-b.ts", True),
    ],
)
def test_later_keyframes_are_believed_by_their_bytes(tmp_path, name, clean):
    path = tmp_path / name
    BY_NAME[name].make(path)
    with av.open(str(path)) as container:
        keys = [packet for packet in container.demux(video=0) if packet.is_keyframe][1:]
        assert keys and all(is_false_keyframe(packet) is not clean for packet in keys)


def test_a_frame_is_not_kept_in_memory_by_having_been_looked_at(tmp_path):
    path = oracle.write_video(tmp_path / "clip.mp4", oracle.numbered_frames(2))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        held = sys.getrefcount(frame)
        orientation_of(frame)
        assert sys.getrefcount(frame) == held


@pytest.mark.parametrize("exif", range(1, 9))
def test_the_display_matrix_is_undone_for_every_orientation(tmp_path, exif):
    case = BY_NAME[f"turned-{exif}.mp4"]
    path = tmp_path / case.name
    case.make(path)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        picture = upright(frame.to_ndarray(format="rgb24"), *orientation_of(frame))
    assert numbered.read_number(picture) == case.numbers[0]


def test_the_film_is_the_default_stream_and_never_a_cover(tmp_path):
    for name in ("cover-first.mkv", "cover.mp4", "film-second.mkv", "film-second.mp4"):
        case, path = BY_NAME[name], Path(tmp_path / name)
        case.make(path)
        with av.open(str(path)) as container:
            film = film_stream(container)
            shown = [f for p in container.demux(film) for f in p.decode()]
        numbers = [numbered.read_number(f.to_ndarray(format="rgb24")) for f in shown]
        assert numbers == list(case.numbers)


def test_a_file_cut_off_shows_nothing_behind_its_end(tmp_path):
    case = BY_NAME["h264-b-half.mp4"]
    path = tmp_path / case.name
    case.make(path)
    end_s = probe(path).end_s
    for start_s in (end_s - 0.1, end_s):
        with pytest.raises(VideoReadError, match="ends after"):
            read_fractions(path, [0.99], start_s=start_s, end_s=end_s + 0.02)


def test_leading_pictures_of_a_file_count_from_its_first_reading(tmp_path):
    case = BY_NAME["hevc-radl-from-key.mkv"]
    path = tmp_path / case.name
    case.make(path)
    got = read_fractions(path, [0.0], start_s=case.end_s - 0.03, end_s=case.end_s)
    assert numbered.read_number(got[0].numpy()) == case.numbers[-1]
