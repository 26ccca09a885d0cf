"""Times of pictures from what packets say, and from what came out of the decoder."""

import sys
from dataclasses import replace

import av
import numpy as np
import pytest

from sefar_core.data import frame_index
from sefar_core.data.decode import opened, orientation_of
from sefar_core.data.frame_index import Timeline
from sefar_core.data.video import VideoReadError, probe, read_fractions
from tests.oracles.numbered_table import BY_NAME
from tests.oracles.numbered_videos import read_numbers

FPS = 25


@pytest.fixture
def announced(made) -> Timeline:
    """48 pictures, as their packets announce them."""
    with opened(made("h264-b.mp4")) as (container, stream):
        yield replace(frame_index.whole(container, stream), packets=[])


def test_what_came_out_is_told_from_what_was_lost(announced):
    stamps = announced.stamps.tolist()
    found = frame_index.settled(announced, stamps[::-1])
    np.testing.assert_array_equal(found.times_s, announced.times_s)
    assert found.stamps is None
    without_times = [[None] * 47, []]
    for lost in (stamps[:9] + stamps[10:], stamps[:-1], *without_times):
        assert frame_index.settled(announced, lost) is None
    # One that shares its moment with another is not lost.
    hidden = announced.marks[5]._replace(pts=stamps[9] + 1)
    longer = np.append(announced.times_s, announced.end_s)
    found = frame_index.settled(
        replace(announced, marks=[*announced.marks, hidden], times_s=longer), stamps
    )
    np.testing.assert_allclose(found.times_s, np.arange(48) / FPS)
    assert found.end_s == pytest.approx(48 / FPS)
    # Pictures before the first one announced come first.
    later = replace(announced, times_s=announced.times_s[3:], stamps=announced.stamps[3:])
    found = frame_index.settled(later, stamps)
    np.testing.assert_allclose(found.times_s, np.arange(48) / FPS)


FLAGS = {
    "vp8-hidden.webm": "hidden_frames",
    "h264-b.avi": "no_display_times",
    "h264-bare.mp4": "no_display_times",
    "h264-b-joined.ts": "times_jump_back",
    "h264-refresh.mkv": "false_keyframes",
    "h264-refresh.ts": "false_keyframes",
    "h264-all-keys.mkv": "false_keyframes",
    "hevc-all-keys.mkv": "false_keyframes",
    "mpeg4-false-keys.mkv": "false_keyframes open_gop",
    "h264-b-no-stss.mp4": "false_keyframes",
    "h264-b-late.ts": "late_start",
    "film-second.mkv": "many_streams",
    "h264-b-end-30.mp4": "edit_list",
    "h264-b-cut-17.mp4": "edit_list",
    "h264-aspect.mp4": "pixels_not_square",
    "turned-2.mp4": "mirrored",
    "turned-5.mp4": "mirrored rotated",
    "turned-8.mp4": "rotated",
    "h264-b-uneven.mp4": "variable_rate",
    "h264-b-half.mp4": "truncated corrupt variable_rate",
    "h264-open.mkv": "open_gop",
    "h264-open.ts": "open_gop",
    "hevc-open.ts": "open_gop",
    "mpeg2-closed.ts": "",
    "h264-b.mp4": "",
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_probe_names_what_is_odd_and_nothing_else(made, name):
    assert set(probe(made(name)).flags) == set(FLAGS[name].split())


def test_a_frame_is_not_kept_in_memory_by_having_been_looked_at(made):
    with av.open(str(made("h264.mp4"))) as container:
        frame = next(container.decode(video=0))
        held = sys.getrefcount(frame)
        orientation_of(frame)
        assert sys.getrefcount(frame) == held


def test_a_file_cut_off_shows_nothing_behind_its_end(made):
    path = made("h264-b-half.mp4")
    end_s = probe(path).end_s
    for start_s in (end_s - 0.1, end_s):
        with pytest.raises(VideoReadError, match="ends after"):
            read_fractions(path, [0.99], start_s=start_s, end_s=end_s + 0.02)


def test_leading_pictures_of_a_file_count_from_its_first_reading(tmp_path):
    case = BY_NAME["hevc-radl-from-key.mkv"]
    case.make(path := tmp_path / case.name)
    got = read_fractions(path, [0.0], start_s=case.end_s - 0.03, end_s=case.end_s)
    assert read_numbers(got) == [case.numbers[-1]]


def test_an_outline_says_what_the_whole_says_and_keeps_nothing_to_decode(made):
    found = []
    for keep in (True, False):
        with opened(made("h264-b.mp4")) as (container, stream):
            found.append(frame_index.whole(container, stream, keep=keep))
    whole, outline = found
    assert len(whole.packets) == 48 and outline.packets == []
    np.testing.assert_array_equal(outline.times_s, whole.times_s)
    assert outline.marks == whole.marks and outline.end_s == whole.end_s
