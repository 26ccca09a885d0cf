"""A folder of numbered pictures is read as the video that they were taken from."""

import io
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from qa_data.manifest import Clip
from sefar_core.data import video_backends
from sefar_core.data.check_videos import check_clips
from sefar_core.data.dataset import read_from_folder
from sefar_core.data.frame_cache import CacheConfig, open_frame_cache
from sefar_core.data.image_folder import FrameFolder, open_folder
from sefar_core.data.pictures import NOMINAL_FPS
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

NUM_FRAMES = 30


def write_pictures(
    folder: Path, frames: np.ndarray, *, first: int = 489, name: str = "{:05d}.png"
) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, first):
        assert cv2.imwrite(str(folder / name.format(number)), frame[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    frames = oracle.numbered_frames(NUM_FRAMES)
    return oracle.write_video(path, frames, fps=NOMINAL_FPS, options={"bf": "3"})


@pytest.fixture(scope="module")
def folder(video) -> Path:
    return write_pictures(video.parent / "event" / "3", oracle.decode_in_order(video))


SPANS = [(None, None), (0.4, None), (None, 0.8), (0.4, 0.8), (0.41, 0.79), (0.0, 1.21), (1.16, 1.2)]


@pytest.mark.parametrize("span", SPANS)
def test_pictures_of_a_video_give_the_frames_of_the_video(folder, video, span):
    start_s, end_s = span
    part = {"start_s": start_s, "end_s": end_s}
    fractions = [0.0, 0.999, 0.5, 0.5, *np.random.default_rng(7).random(12).tolist()]
    got = read_fractions(folder, fractions, **part)
    assert torch.equal(got, read_fractions(video, fractions, **part))
    (frames, places, length_s), (expected, expected_places, expected_s) = (
        read_clip(path, **part) for path in (folder, video)
    )
    assert torch.equal(frames, expected)
    assert places == pytest.approx(expected_places)
    assert clip_length(folder, **part) == length_s == pytest.approx(expected_s)
    assert clip_length(video, **part) == expected_s


def test_every_picture_is_shown_at_its_own_moment(folder, video):
    moments = [number / NOMINAL_FPS for number in range(NUM_FRAMES)]
    expected = oracle.decode_in_order(video)
    np.testing.assert_array_equal(frames_at(folder, moments).numpy(), expected)
    held = [moment + 0.9 / NOMINAL_FPS for moment in reversed(moments)]
    np.testing.assert_array_equal(frames_at(folder, held).numpy(), expected[::-1])


def test_probing_tells_what_it_tells_of_the_video(folder, video):
    info, of_video = probe(folder), probe(video)
    other = replace(of_video, codec=info.codec, container=info.container, times_s=())
    assert replace(info, times_s=()) == other
    assert info.times_s == pytest.approx(of_video.times_s)
    assert info.codec == "png"


@pytest.mark.parametrize(("start_s", "end_s", "count"), [(0.4, 0.8, 10), (0.0, 0.04, 1)])
def test_a_step_has_the_pictures_of_its_numbers(folder, video, start_s, end_s, count):
    first = round(start_s * NOMINAL_FPS)
    frames = read_clip(folder, start_s=start_s, end_s=end_s).frames
    expected = oracle.decode_in_order(video)[first : first + count]
    np.testing.assert_array_equal(frames.numpy(), expected)


def test_pictures_are_scaled_as_frames_are(folder, video):
    small = read_fractions(folder, [0.0, 0.4], short_side=24)
    like_video = read_fractions(video, [0.0, 0.4], short_side=24)
    assert small.shape == like_video.shape
    # A video's colors are scaled before they are put together, a PNG's after.
    assert (small.float() - like_video.float()).abs().mean() < 4
    assert read_fractions(folder, [0.0], short_side=480).shape[1:3] == (48, 64)


def test_jpeg_pictures_have_the_colors_that_another_decoder_gives(tmp_path):
    frames = oracle.numbered_frames(3)
    folder = write_pictures(tmp_path / "clip", frames, name="img_{:08d}.JPG", first=0)
    got = frames_at(folder, [0.0, 0.04, 0.08]).numpy()
    paths = sorted(folder.iterdir())
    expected = np.stack([cv2.imread(str(path))[..., ::-1] for path in paths]).astype(int)
    assert abs(got - expected).mean() < 3
    assert probe(folder).codec == "jpeg"


def test_numbers_count_as_numbers_however_they_are_written(tmp_path):
    frames = oracle.numbered_frames(4)
    folder = write_pictures(tmp_path / "clip", frames, first=8, name="{}.png")
    (folder / ".8.png").write_bytes(b"left by a file browser")
    (folder / "notes.txt").write_text("no picture")
    np.testing.assert_array_equal(read_clip(folder)[0].numpy(), frames)


def test_only_the_pictures_asked_for_are_opened(tmp_path):
    folder = write_pictures(tmp_path / "clip", oracle.numbered_frames(4), first=0)
    (folder / "00002.png").write_bytes(b"no picture")
    assert read_fractions(folder, [0.0, 0.3, 0.9]).shape[0] == 3
    with pytest.raises(VideoReadError, match="00002.png"):
        read_fractions(folder, [0.5])


def test_an_orientation_that_turns_a_picture_is_applied(tmp_path):
    frame = oracle.numbered_frames(1)[0]
    folder = tmp_path / "clip"
    folder.mkdir()
    packed = cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes()
    # One entry, orientation 6: turned clockwise by a quarter.
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    marker = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (folder / "1.jpg").write_bytes(packed[:2] + marker + packed[2:])
    got = read_fractions(folder, [0.0])[0].numpy().astype(int)
    assert abs(got - np.rot90(frame, -1)).mean() < 12
    info = probe(folder)
    assert (info.width, info.height, info.rotation, info.flags) == (48, 64, 270, ("rotated",))


ORIENTATIONS = {
    1: (0, ()),
    2: (0, ("mirrored",)),
    3: (180, ("rotated",)),
    4: (180, ("rotated", "mirrored")),
    5: (270, ("rotated", "mirrored")),
    6: (270, ("rotated",)),
    7: (90, ("rotated", "mirrored")),
    8: (90, ("rotated",)),
}
"""By EXIF number: degrees counterclockwise before the columns are reversed, and flags."""


FINE = {".jpg": {"quality": 95, "subsampling": 0}, ".png": {}}


def write_oriented(path: Path, number: int, exif: int) -> np.ndarray:
    """A numbered picture stored in an orientation; gives it back as Pillow shows it."""
    tags = Image.Exif()
    tags[0x0112] = exif
    stored = np.ascontiguousarray(numbered.stored(numbered.numbered(number), exif))
    Image.fromarray(stored).save(path, exif=tags, **FINE[path.suffix])
    with Image.open(path) as picture:
        return np.asarray(ImageOps.exif_transpose(picture)).astype(int)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("exif", ORIENTATIONS)
def test_each_of_the_eight_orientations_is_applied(tmp_path, exif, suffix):
    expected = write_oriented(tmp_path / f"7{suffix}", 37, exif)
    frames = read_clip(tmp_path).frames
    assert numbered.read_number(frames[0].numpy()) == 37
    assert abs(frames[0].numpy().astype(int) - expected).mean() < 2
    info = probe(tmp_path)
    assert (info.height, info.width) == expected.shape[:2]
    assert (info.rotation, info.flags) == ORIENTATIONS[exif]
    small = read_fractions(tmp_path, [0.0], short_side=32)[0].numpy()
    assert small.shape[:2] == (expected.shape[0] // 2, expected.shape[1] // 2)
    assert numbered.read_number(small) == 37


def test_pictures_of_one_folder_may_be_stored_in_different_orientations(tmp_path):
    for number, exif in enumerate(ORIENTATIONS):
        write_oriented(tmp_path / f"{number}.jpg", number, exif)
    found = [numbered.read_number(frame) for frame in read_clip(tmp_path)[0].numpy()]
    assert found == list(range(len(ORIENTATIONS)))


def test_a_mirrored_picture_is_sound_for_the_check_and_named(tmp_path):
    write_oriented(tmp_path / "0.jpg", 1, 2)
    clip = Clip(id="clip", path=tmp_path.name, split="unlabeled")
    for quick in (False, True):
        ((health,),) = check_clips([clip], tmp_path.parent, quick=quick, workers=0)
        assert (health.faults, "mirrored" in health.oddities) == ((), True)


def drop(folder: Path) -> None:
    (folder / "00003.png").unlink()


def twice(folder: Path) -> None:
    (folder / "3.png").write_bytes((folder / "00003.png").read_bytes())


def unnumbered(folder: Path) -> None:
    (folder / "cover.jpg").write_bytes(b"")


def second_series(folder: Path) -> None:
    (folder / "flow_00009.png").write_bytes(b"")


def no_pictures(folder: Path) -> None:
    for path in folder.iterdir():
        path.rename(path.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop, r"lacks 1 of its pictures: after 00002.png number 3 should"),
        (twice, r"two pictures numbered 3, 00003.png and 3.png"),
        (unnumbered, r"cover.jpg is not a numbered picture"),
        (second_series, r"two series of pictures"),
        (no_pictures, r"holds no pictures"),
    ],
)
def test_a_folder_whose_order_is_not_sure_is_refused(tmp_path, damage, words):
    folder = write_pictures(tmp_path / "clip", oracle.numbered_frames(6), first=0)
    damage(folder)
    for ask in (probe, read_clip, clip_length, partial(frames_at, timestamps_s=[0.0])):
        with pytest.raises(VideoReadError, match=words):
            ask(folder)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def nothing(content: bytes) -> bytes:
    return b""


def text(content: bytes) -> bytes:
    return b"<html>not found</html>"


@pytest.mark.parametrize("damage", [half, nothing, text])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_damaged_picture_is_named(tmp_path, damage, suffix):
    frames = oracle.numbered_frames(5)
    folder = write_pictures(tmp_path / "clip", frames, first=0, name="{:05d}." + suffix)
    broken = folder / f"00002.{suffix}"
    broken.write_bytes(damage(broken.read_bytes()))
    for ask in (read_clip, partial(read_fractions, fractions=[0.5])):
        with pytest.raises(VideoReadError, match=f"00002.{suffix}"):
            ask(folder)


def test_pictures_of_different_sizes_are_refused(tmp_path):
    folder = write_pictures(tmp_path / "clip", oracle.numbered_frames(3), first=0)
    assert cv2.imwrite(str(folder / "00003.png"), np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(VideoReadError, match=r"00000.png has 64x48 pixels, 00003.png 48x64"):
        read_clip(folder)


def test_a_step_beyond_the_last_picture_is_refused(folder):
    with pytest.raises(VideoReadError, match=r"ends after 1\.2"):
        read_fractions(folder, [0.99], start_s=1.0, end_s=2.0)
    with pytest.raises(VideoReadError, match=r"ends after 1\.2"):
        read_clip(folder, start_s=4.0, end_s=5.0)
    with pytest.raises(ValueError, match="has no length"):
        clip_length(folder, start_s=2.0, end_s=1.0)


def clips_of(folder: Path) -> tuple[list[Clip], Path]:
    path = f"{folder.parent.name}/{folder.name}"
    whole = Clip(id="whole", path=path, split="labeled", label=0)
    step = replace(whole, id="step", start_s=0.4, end_s=0.8)
    return [whole, step], folder.parents[1]


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_a_frame_cache_keeps_folders_as_it_keeps_videos(folder, tmp_path, kind):
    clips, root = clips_of(folder)
    cache = open_frame_cache(clips, root, CacheConfig(tmp_path, kind, None))
    fractions = np.random.default_rng(3).random(9).tolist()
    for clip in clips:
        got = cache.read(clip, fractions).float()
        expected = read_from_folder(clip, fractions, root=root).float()
        assert (got - expected).abs().mean() < (0.01 if kind == "raw" else 3)


def test_another_picture_makes_another_frame_cache(tmp_path):
    folder = write_pictures(tmp_path / "root/event/1", oracle.numbered_frames(3), first=0)
    clips, root = clips_of(folder)
    whole = clips[:1]
    assert (
        open_frame_cache(whole, root, CacheConfig(tmp_path / "store")).read(whole[0], [0.0]).any()
    )
    (folder / "00002.png").unlink()
    open_frame_cache(whole, root, CacheConfig(tmp_path / "store"))
    assert len(list((tmp_path / "store").glob("raw-*"))) == 2


def test_the_check_reads_folders(folder, tmp_path):
    clips, root = clips_of(folder)
    (healthy,) = check_clips(clips, root, quick=False, workers=0)
    assert [health.faults for health in healthy] == [(), ()]
    assert healthy[0].info.num_frames == NUM_FRAMES
    longer = replace(clips[0], num_frames=NUM_FRAMES + 1)
    ((health,),) = check_clips([longer], root, quick=True, workers=0)
    assert "holds 30 frames, but 31 are listed" in str(health.faults)


def test_the_check_names_a_damaged_picture(tmp_path):
    folder = write_pictures(tmp_path / "event/1", oracle.numbered_frames(5), first=0)
    (folder / "00003.png").write_bytes(b"")
    clips, root = clips_of(folder)
    ((health,),) = check_clips(clips[:1], root, quick=False, workers=0)
    assert "00003.png" in str(health.faults)


def test_a_reader_of_files_points_to_the_one_that_reads_folders(folder):
    with pytest.raises(VideoReadError, match="folder of pictures.*data.reader to auto"):
        video_backends.read_decord(folder, [0.5])


def test_damaged_bytes_give_an_error_or_a_picture(tmp_path):
    packed = cv2.imencode(".jpg", oracle.numbered_frames(1)[0][..., ::-1])[1].tobytes()
    generator = np.random.default_rng(0)
    folder = tmp_path / "clip"
    folder.mkdir()
    refused = 0
    for _ in range(60):
        content = bytearray(packed)
        for place in generator.integers(2, len(content), 4).tolist():
            content[place] ^= int(generator.integers(1, 256))
        (folder / "0.jpg").write_bytes(content)
        try:
            assert read_fractions(folder, [0.0]).dtype == torch.uint8
        except VideoReadError:
            refused += 1
    assert refused > 20


def test_an_animated_gif_is_still_a_video(tmp_path):
    content = io.BytesIO()
    with av.open(content, "w", format="gif") as output:
        stream = output.add_stream("gif", rate=10, width=64, height=48)
        stream.pix_fmt = "rgb8"
        for frame in oracle.numbered_frames(3):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="rgb8")
            output.mux(stream.encode(picture))
        output.mux(stream.encode())
    path = tmp_path / "clip.gif"
    path.write_bytes(content.getvalue())
    assert probe(path).num_frames == 3


def test_steps_in_whole_pictures_divide_a_dive(tmp_path):
    folder = FrameFolder(path=tmp_path, names=[str(number) for number in range(300)])
    for start in range(300):
        for stop in range(start + 1, 301, 7):
            step = folder.stretch(start / NOMINAL_FPS, stop / NOMINAL_FPS)
            assert step.names == folder.names[start:stop]
            moments = np.array([start, stop - 1e-3]) / NOMINAL_FPS
            assert step.numbers_at(moments).tolist() == [0, stop - start - 1]


NAMES = st.text("0189._-aé ", min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, st.sampled_from([".jpg", ".PNG", ".jpeg", "", ".txt"]))))
def test_any_names_are_put_in_order_or_refused(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    for name, suffix in names:
        (folder / f"{name}{suffix}").touch()
    try:
        found = open_folder(folder).names
    except VideoReadError as refused:
        assert str(folder) in str(refused)
    else:
        digits = [re.findall("[0-9]+", name)[-1] for name in found]
        numbers = [int(number) for number in digits]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
