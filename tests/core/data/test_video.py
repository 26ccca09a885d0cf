"""Frames by time equal those of a full decode in order.

Every kind of file is in test_numbered_videos.py and test_damage.py.
"""

from fractions import Fraction
from functools import partial

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
        ([0.5], (np.nan, None), ValueError, "has no length"),
        ([0.5], (0.0, np.inf), ValueError, "has no length"),
        ([0.9], (0.5, 9.0), VideoReadError, "ends after 1.000 s.*made from a longer video"),
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
