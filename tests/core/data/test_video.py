"""Frames by time equal those of a full decode in order; sources of any rate show the same moments.

Every kind of file is in test_numbered_videos.py and test_damage.py.
"""

from fractions import Fraction
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from sefar_core.data.video import VideoReadError, probe, read_clip, read_fractions
from tests.frames_at import frames_at
from tests.oracles import videos as oracle


def test_a_fraction_names_the_frame_at_that_part_of_the_count(clip):
    fractions = [0.0, 0.999, 0.5, 0.5, *np.random.default_rng(0).random(12).tolist()]
    whole = oracle.decode_in_order(clip)
    got = read_fractions(clip, [*fractions, 1.0]).numpy()  # 1.0: rounded up
    np.testing.assert_array_equal(got, whole[[*(int(f * 30) for f in fractions), 29]])
    np.testing.assert_array_equal(frames_at(clip, [n / 30 for n in range(30)]).numpy(), whole)
    # A clip that is listed a frame too long still ends on the last frame.
    got = read_fractions(clip, [0.999], start_s=0.5, end_s=1.02)
    np.testing.assert_array_equal(got[0].numpy(), whole[-1])


def test_an_uneven_video_shows_each_frame_until_the_next(tmp_path):
    frames = oracle.numbered_frames(5)
    path = oracle.write_video(tmp_path / "uneven.mp4", frames, times_ms=[0, 40, 240, 280, 400])
    got = frames_at(path, [0.0, 0.039, 0.04, 0.2, 0.239, 0.241, 0.279, 0.399, 0.401])
    expected = oracle.decode_in_order(path)[[0, 0, 1, 1, 1, 2, 2, 3, 4]]
    np.testing.assert_array_equal(got.numpy(), expected)


def test_a_clip_cut_without_encoding_begins_where_it_is_shown(tmp_path):
    options = {"g": "20", "bf": "3", "sc_threshold": "0"}
    source = oracle.write_video(tmp_path / "s.mp4", oracle.numbered_frames(40), options=options)
    path = oracle.cut_without_encoding(source, tmp_path / "cut.mp4", first_shown=8)
    whole = oracle.decode_in_order(source)[8:]
    info = probe(path)
    assert (info.num_frames, info.times_s[0]) == (32, 0.0)
    assert "edit_list" in info.flags and "truncated" not in info.flags
    np.testing.assert_array_equal(read_clip(path)[0].numpy(), whole)
    fractions = np.random.default_rng(1).random(12).tolist()
    part = read_fractions(path, fractions, start_s=5 / 30, end_s=25 / 30)
    np.testing.assert_array_equal(part.numpy(), whole[[5 + int(f * 20) for f in fractions]])


def test_a_whole_clip_comes_with_the_times_of_its_frames(clip):
    frames, appears, _ = read_clip(clip)
    np.testing.assert_array_equal(frames.numpy(), oracle.decode_in_order(clip))
    assert appears == pytest.approx([number / 30 for number in range(30)])
    part, appears, _ = read_clip(clip, start_s=10 / 30, end_s=20 / 30)
    np.testing.assert_array_equal(part.numpy(), frames[10:20].numpy())
    assert appears == pytest.approx([number / 10 for number in range(10)])


def test_scaling_on_the_way_keeps_shape_and_picture(clip):
    small = read_fractions(clip, [0.1, 0.6], short_side=24)
    assert small.shape == (2, 24, 32, 3)
    large = read_fractions(clip, [0.1, 0.6]).float()
    by_hand = large.reshape(2, 24, 2, 32, 2, 3).mean(dim=(2, 4))
    assert (small.float() - by_hand).abs().mean() < 6


def test_a_probe_tells_length_times_and_size(tmp_path):
    rate = Fraction(30000, 1001)
    path = oracle.write_video(tmp_path / "ntsc.mp4", oracle.numbered_frames(7), fps=rate)
    info = probe(path)
    assert (info.num_frames, info.width, info.height, info.rotation) == (7, 64, 48, 0)
    assert info.fps == pytest.approx(29.97, abs=0.001)
    assert info.duration_s == pytest.approx(7 * 1.001 / 30)
    assert info.times_s == pytest.approx([k * 1.001 / 30 for k in range(7)])
    assert (info.codec, info.flags) == ("h264", ())


@pytest.mark.parametrize(
    ("fractions", "span", "error", "words"),
    [
        *((places, (), ValueError, "fractions must") for places in ([], [-0.1], [1.1], [np.nan])),
        ([0.5], (0.5, 0.5), ValueError, "has no length"),
        ([0.5], (np.inf, None), ValueError, "has no length"),
        ([0.5], (np.nan, None), ValueError, "has no length"),
        ([0.5], (0.0, np.inf), ValueError, "has no length"),
        ([0.9], (0.5, 9.0), VideoReadError, "ends after 1.000 s.*made from a longer video"),
        ([0.1], (70.0, 71.0), VideoReadError, "ends after 1.000 s.*made from a longer video"),
    ],
)
def test_places_that_a_clip_does_not_have_are_refused(clip, fractions, span, error, words):
    with pytest.raises(error, match=words):
        read_fractions(clip, fractions, **dict(zip(("start_s", "end_s"), span, strict=False)))


def test_a_folder_without_pictures_and_a_moment_after_the_end_are_refused(clip, tmp_path):
    (tmp_path / "broken.mp4").mkdir()
    for read in (probe, partial(read_fractions, fractions=[0.5])):
        with pytest.raises(VideoReadError, match=r"broken\.mp4 is not a file but a folder"):
            read(tmp_path / "broken.mp4")
    with pytest.raises(VideoReadError, match=r"clip.mp4 ends after 1.000 s.*1.500 s"):
        frames_at(clip, [0.1, 1.5])


def test_a_file_cut_off_in_its_middle_gives_its_good_frames_and_names_the_bad_one(tmp_path):
    path = oracle.write_noise(tmp_path / "cut.mp4")
    whole = oracle.decode_in_order(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    good = frames_at(path, [number / 30 for number in range(10)])
    np.testing.assert_array_equal(good.numpy(), whole[:10])
    with pytest.raises(VideoReadError, match=r"cut.mp4.*\d+ of 1\d frames were read before that"):
        read_clip(path)


RATES = (25, 30, 50, 60)
LENGTH_S = 2.4
SIDE = 120
BLUR_S = 1.5 / SIDE * LENGTH_S
"""Whole pixels and lossy coding move the mark, which crosses the picture once, a little."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rates")
    for fps in RATES:
        frames = oracle.numbered_frames(round(LENGTH_S * fps), height=SIDE, width=SIDE)
        oracle.write_video(folder / f"{fps}.mp4", frames, fps=fps, options={"g": "12", "bf": "2"})
    return folder


def moments_seen(frames) -> np.ndarray:
    """Seconds at which the mark, 4 pixels wide, is where it is seen."""
    rows = np.asarray(frames)[:, 3 * SIDE // 4, :, 2].astype(float)
    bright = rows > rows.max(axis=1, keepdims=True) / 2
    left = (bright * np.arange(SIDE)).sum(axis=1) / bright.sum(axis=1) - 1.5
    return left / SIDE * LENGTH_S


@pytest.mark.parametrize("span", [(None, None), (0.4, 1.6)])
def test_fractions_show_the_same_moments_at_any_rate(folder, span):
    start_s, end_s = span
    fractions = np.random.default_rng(1).random(16)
    moments = (start_s or 0.0) + fractions * ((end_s or LENGTH_S) - (start_s or 0.0))
    by_rate = []
    for fps in RATES:
        path = folder / f"{fps}.mp4"
        got = read_fractions(path, fractions.tolist(), start_s=start_s, end_s=end_s)
        by_rate.append(moments_seen(got))
        for seen in (by_rate[-1], moments_seen(frames_at(path, moments.tolist()))):
            late = moments - seen
            assert -BLUR_S <= late.min() and late.max() <= 1 / fps + BLUR_S
    for one, other in combinations(by_rate, 2):
        # Of the slowest source a frame is shown so long.
        assert abs(one - other).max() <= 1 / min(RATES) + BLUR_S
