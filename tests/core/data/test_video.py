"""Frames by time equal those of a full decode in order, for files made here and for real ones."""

import os
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sefar_core.data import frame_index
from sefar_core.data.decode import opened
from sefar_core.data.video import VideoReadError, probe, read_clip, read_fractions
from tests.frames_at import frames_at
from tests.oracles import videos as oracle

REAL = Path(os.environ.get("SEFAR_VIDEOS_DIR", "."))
real_videos = pytest.mark.skipif("SEFAR_VIDEOS_DIR" not in os.environ, reason="SEFAR_VIDEOS_DIR")

WHOLE_FILES = [
    "decord_flipping_a_pancake.mkv",
    "decord_unordered.mov",
    "decord_rot_0.mov",
    "decord_rot_90.mov",
    "decord_rot_180.mov",
    "decord_rot_270.mov",
    "mmaction2_demo_armwrestling.mp4",
    "mmaction2_part_0.mp4",
    "mmaction2_test.avi",
    "torchcodec_av1_video.mkv",
    "torchcodec_h265_video.mp4",
    "torchcodec_nasa_13013.mp4",
    "damaged/cut_copy.mp4",
    "damaged/hang_55.mp4",
    "damaged/odd.mp4",
    "damaged/one.mp4",
    "damaged/opengop.mp4",
    "damaged/ts.ts",
    "damaged/vfr.mp4",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return oracle.write_referring_clip(tmp_path_factory.mktemp("video") / "clip.mp4")


def fractions_of(seed: int, count: int = 12) -> list[float]:
    return np.random.default_rng(seed).random(count).tolist()


def test_a_fraction_names_the_frame_at_that_part_of_the_count(clip):
    fractions = [0.0, 0.999, 0.5, 0.5, *fractions_of(0)]
    whole = oracle.decode_in_order(clip)
    got = read_fractions(clip, fractions).numpy()
    np.testing.assert_array_equal(got, whole[[int(f * 30) for f in fractions]])


def test_a_fraction_that_rounded_up_to_one_is_the_last_frame(clip):
    np.testing.assert_array_equal(
        read_fractions(clip, [1.0])[0].numpy(), oracle.decode_in_order(clip)[-1]
    )


def test_every_frame_is_shown_at_its_own_moment(clip):
    whole = oracle.decode_in_order(clip)
    got = frames_at(clip, [number / 30 for number in range(30)])
    np.testing.assert_array_equal(got.numpy(), whole)


def test_an_uneven_video_shows_each_frame_until_the_next(tmp_path):
    frames = oracle.numbered_frames(5)
    path = oracle.write_video(tmp_path / "uneven.mp4", frames, times_ms=[0, 40, 240, 280, 400])
    whole = oracle.decode_in_order(path)
    got = frames_at(path, [0.0, 0.039, 0.04, 0.2, 0.239, 0.241, 0.279, 0.399, 0.401])
    np.testing.assert_array_equal(got.numpy(), whole[[0, 0, 1, 1, 1, 2, 2, 3, 4]])
    assert "variable_rate" in probe(path).flags


@pytest.mark.parametrize("fps", [25, 30, 50, 60])
def test_sources_of_any_rate_are_seen_at_the_same_moments(tmp_path, fps):
    # The column crosses the picture once in 1.2 s, whatever the rate.
    num_frames = round(1.2 * fps)
    frames = oracle.numbered_frames(num_frames, width=240)
    path = oracle.write_video(tmp_path / "motion.mp4", frames, fps=fps)
    fractions = [(k + 0.5) / 8 for k in range(8)]
    got = read_fractions(path, fractions)
    for fraction, frame in zip(fractions, got.numpy(), strict=True):
        at = oracle.column_of(frame) - 2 / 240
        assert fraction - 1 / num_frames - 0.01 < at < fraction + 0.01


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("gop", ["open", "closed"])
def test_a_stretch_of_a_long_file_equals_the_full_decode(tmp_path, suffix, gop):
    flags = {"g": "12", "bf": "3", "sc_threshold": "0", "x264-params": f"open-gop={gop == 'open'}"}
    if suffix == "avi":
        flags["bf"] = "0"  # AVI has no timestamps to reorder by
    path = tmp_path / f"long.{suffix}"
    oracle.write_video(path, oracle.numbered_frames(90), fps=25, options=flags)
    whole = oracle.decode_in_order(path)
    assert len(whole) == 90
    for start, end in [(0, 90), (0, 7), (11, 13), (12, 24), (23, 60), (47, 49), (80, 90)]:
        fractions = fractions_of(start)
        got = read_fractions(path, fractions, start_s=start / 25, end_s=end / 25)
        expected = [start + int(f * (end - start)) for f in fractions]
        np.testing.assert_array_equal(got.numpy(), whole[expected])


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_a_stretch_of_an_older_codec_equals_the_full_decode(tmp_path, suffix, codec):
    path = tmp_path / f"long.{suffix}"
    frames = oracle.numbered_frames(60)
    oracle.write_video(path, frames, fps=25, codec=codec, options={"g": "12", "bf": "2"})
    whole = oracle.decode_in_order(path)
    for start, end in [(0, 7), (11, 13), (22, 40), (24, 26), (50, 60)]:
        fractions = fractions_of(start)
        got = read_fractions(path, fractions, start_s=start / 25, end_s=end / 25)
        expected = [start + int(f * (end - start)) for f in fractions]
        np.testing.assert_array_equal(got.numpy(), whole[expected])


def test_a_clip_cut_without_encoding_begins_where_it_is_shown(tmp_path):
    options = {"g": "20", "bf": "3", "sc_threshold": "0"}
    source = oracle.write_video(tmp_path / "s.mp4", oracle.numbered_frames(40), options=options)
    path = oracle.cut_without_encoding(source, tmp_path / "cut.mp4", first_shown=8)
    whole = oracle.decode_in_order(source)[8:]
    info = probe(path)
    assert (info.num_frames, info.times_s[0]) == (32, 0.0)
    assert "edit_list" in info.flags and "truncated" not in info.flags
    np.testing.assert_array_equal(read_clip(path)[0].numpy(), whole)
    fractions = fractions_of(1)
    part = read_fractions(path, fractions, start_s=5 / 30, end_s=25 / 30)
    np.testing.assert_array_equal(part.numpy(), whole[[5 + int(f * 20) for f in fractions]])


def test_a_stretch_decodes_little_more_than_it_needs(tmp_path):
    path = tmp_path / "long.mp4"
    oracle.write_video(path, oracle.numbered_frames(200), fps=25, options={"g": "10", "bf": "2"})
    with opened(path) as (container, stream):
        shown = frame_index.stretch(container, stream, 100 / 25, 110 / 25)
        assert shown is not None
        decoded = frame_index.decoded(shown.packets, stream)
        assert sum(1 for _ in decoded) == len(shown.times_s) <= 30


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


def test_the_picture_is_turned_as_the_file_asks(tmp_path):
    upright = oracle.numbered_frames(3)
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "10"})
        stream.height, stream.width = 64, 48
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(90)
        for pixels in upright:
            stored = np.ascontiguousarray(np.rot90(pixels, -1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode())
    got = read_fractions(path, [0.0]).numpy()[0].astype(int)
    assert got.shape == (48, 64, 3)
    assert abs(got - upright[0]).mean() < 12
    info = probe(path)
    assert (info.width, info.height, info.rotation) == (64, 48, 90)
    assert "rotated" in info.flags


def test_an_outline_says_what_the_whole_says_and_keeps_nothing_to_decode(clip):
    with opened(clip) as (container, stream):
        whole = frame_index.whole(container, stream)
    with opened(clip) as (container, stream):
        outline = frame_index.whole(container, stream, keep=False)
    assert len(whole.packets) == 30 and outline.packets == []
    np.testing.assert_array_equal(outline.times_s, whole.times_s)
    assert outline.marks == whole.marks and outline.end_s == whole.end_s


def test_a_probe_tells_length_times_and_size(tmp_path):
    rate = Fraction(30000, 1001)
    path = oracle.write_video(tmp_path / "ntsc.mp4", oracle.numbered_frames(7), fps=rate)
    info = probe(path)
    assert (info.num_frames, info.width, info.height, info.rotation) == (7, 64, 48, 0)
    assert info.fps == pytest.approx(29.97, abs=0.001)
    assert info.duration_s == pytest.approx(7 * 1.001 / 30)
    assert info.times_s == pytest.approx([k * 1.001 / 30 for k in range(7)])
    assert (info.codec, info.flags) == ("h264", ())


def test_a_moment_after_the_end_is_refused(clip):
    with pytest.raises(VideoReadError, match=r"clip.mp4 ends after 1.000 s.*1.500 s"):
        frames_at(clip, [0.1, 1.5])
    with pytest.raises(VideoReadError, match="made from a longer video"):
        read_fractions(clip, [0.9], start_s=0.5, end_s=9.0)
    with pytest.raises(VideoReadError, match="made from a longer video"):
        read_fractions(clip, [0.1], start_s=70.0, end_s=71.0)


def test_a_clip_listed_a_frame_too_long_still_ends_on_the_last_frame(clip):
    last = oracle.decode_in_order(clip)[-1]
    got = read_fractions(clip, [0.999], start_s=0.5, end_s=1.02)
    np.testing.assert_array_equal(got[0].numpy(), last)


@pytest.mark.parametrize("places", [[], [-0.1], [1.1], [float("nan")]])
def test_places_outside_the_clip_are_refused(clip, places):
    with pytest.raises(ValueError, match="fractions must"):
        read_fractions(clip, places)


def test_a_clip_without_length_is_refused(clip):
    with pytest.raises(ValueError, match="has no length"):
        read_fractions(clip, [0.5], start_s=0.5, end_s=0.5)


def write_text(path: Path) -> None:
    path.write_text("not a video")


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("write", "cause"),
    [
        (lambda path: None, "does not exist"),
        (Path.touch, "empty"),
        (Path.mkdir, "not a file"),
        (write_text, "cannot read .* as a video"),
        (write_sound, "no video stream"),
    ],
)
def test_what_is_no_video_is_refused_with_its_name_and_cause(tmp_path, write, cause):
    path = tmp_path / "broken.mp4"
    write(path)
    for read in (probe, lambda path: read_fractions(path, [0.5])):
        with pytest.raises(VideoReadError, match=rf"(?s)broken\.mp4.*{cause}|{cause}") as refusal:
            read(path)
        assert "broken.mp4" in str(refusal.value)


def test_a_file_cut_off_in_its_middle_gives_its_good_frames_and_names_the_bad_one(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    path = oracle.write_video(tmp_path / "cut.mp4", noise, options={"bf": "0"})
    whole = oracle.decode_in_order(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "truncated" in probe(path).flags
    good = frames_at(path, [number / 30 for number in range(10)])
    np.testing.assert_array_equal(good.numpy(), whole[:10])
    with pytest.raises(VideoReadError, match=r"cut.mp4.*\d+ of 1\d frames were read before that"):
        read_clip(path)


def spent_s(work) -> float:
    """Least CPU time of five calls."""
    spans = []
    for _ in range(5):
        start = time.process_time()
        work()
        spans.append(time.process_time() - start)
    return min(spans)


def test_a_tiny_clip_takes_no_longer_than_a_few_plain_decodings(tmp_path):
    path = oracle.write_video(
        tmp_path / "tiny.mp4", oracle.numbered_frames(30, height=72, width=72)
    )
    fractions = [(k + 0.5) / 8 for k in range(8)]
    # A generous bound, in what this machine needs: the figure itself is in benchmarks.
    plain_s = spent_s(lambda: oracle.decode_in_order(path))
    assert spent_s(lambda: read_fractions(path, fractions)) < 3 * plain_s


@real_videos
@pytest.mark.videos
@pytest.mark.parametrize("name", WHOLE_FILES)
def test_real_files_equal_a_full_decode_in_order(name):
    path = REAL / name
    whole = oracle.decode_in_order(path)
    frames, appears, _ = read_clip(path)
    np.testing.assert_array_equal(frames.numpy(), whole)
    info = probe(path)
    assert info.num_frames == len(whole) == len(appears)
    moments = np.random.default_rng(0).random(9)
    got = read_fractions(path, moments.tolist())
    shown = [max(k for k, at in enumerate(appears) if at <= f + 1e-9) for f in moments]
    np.testing.assert_array_equal(got.numpy(), whole[shown])
    for start, end in [(0.1, 0.5), (0.3, 0.9), (0.55, 0.6), (0.9, 1.0)]:
        start_s, end_s = start * info.duration_s, end * info.duration_s
        got = read_fractions(path, moments.tolist(), start_s=start_s, end_s=end_s)
        at_s = start_s + moments * (end_s - start_s)
        shown = [max(k for k, t in enumerate(info.times_s) if t <= at + 1e-6) for at in at_s]
        np.testing.assert_array_equal(got.numpy(), whole[shown])


@real_videos
@pytest.mark.videos
@pytest.mark.parametrize(("name", "num_frames"), [("cut_copy", 32), ("hang_55", 39), ("one", 1)])
def test_the_true_number_of_frames_is_told_where_the_header_lies(name, num_frames):
    info = probe(REAL / f"damaged/{name}.mp4")
    assert info.num_frames == num_frames
    assert "truncated" not in info.flags


@real_videos
@pytest.mark.videos
@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("damaged/cut_copy.mp4", "edit_list"),
        ("damaged/fast_trunc.mp4", "truncated"),
        ("damaged/opengop.mp4", "open_gop"),
        ("damaged/vfr.mp4", "variable_rate"),
        ("decord_rot_90.mov", "rotated"),
    ],
)
def test_oddities_are_flagged_without_decoding(name, flag):
    assert flag in probe(REAL / name).flags


@real_videos
@pytest.mark.videos
@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_rotated_files_look_as_decord_shows_them(angle):
    decord = pytest.importorskip("decord")
    path = REAL / f"decord_rot_{angle}.mov"
    expected = decord.VideoReader(str(path), num_threads=1).get_batch([0, 1, 2]).asnumpy()
    got = read_clip(path).frames
    assert got.shape == expected.shape
    # Color conversions differ in rounding; a wrong turn differs by tens.
    assert abs(got.numpy().astype(int) - expected.astype(int)).mean() < 3


@real_videos
@pytest.mark.videos
@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("damaged/zero.mp4", "is empty"),
        ("damaged/text.mp4", "Invalid data"),
        ("damaged/audio_only.mp4", "no video stream"),
        ("damaged/fast_trunc.mp4", "32 of 35 frames"),
        ("damaged/dropped.mp4", "lists 55 frames, but frame 50"),
        ("decord_corrupted.mp4", "28 of 50 frames"),
    ],
)
def test_damaged_files_are_refused_with_their_cause(name, cause):
    with pytest.raises(VideoReadError, match=cause):
        read_clip(REAL / name)
