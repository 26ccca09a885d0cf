"""A folder of numbered pictures is read as the video that they were taken from."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from qa_data.manifest import Clip
from sefar_core.data import video_backends
from sefar_core.data.check_videos import Health, check_clips
from sefar_core.data.dataset import read_from_folder
from sefar_core.data.frame_cache import CacheConfig, open_frame_cache
from sefar_core.data.image_folder import FrameFolder, open_folder
from sefar_core.data.pictures import NOMINAL_FPS, side_ratio_problem
from sefar_core.data.video import VideoReadError, clip_length, probe, read_clip, read_fractions
from tests.frames_at import frames_at
from tests.oracles import numbered_videos as numbered
from tests.oracles import videos as oracle

NUM_FRAMES = 30


def write_pictures(
    folder: Path, frames: np.ndarray | int, *, first: int = 0, name: str = "{:05d}.png"
) -> Path:
    """Numbered pictures; of a count, numbered frames."""
    folder.mkdir(parents=True)
    frames = oracle.numbered_frames(frames) if isinstance(frames, int) else frames
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
    return write_pictures(video.parent / "event" / "3", oracle.decode_in_order(video), first=489)


def clips_of(folder: Path) -> tuple[list[Clip], Path]:
    """The whole folder and a step of it as clips, and their root."""
    path = f"{folder.parent.name}/{folder.name}"
    whole = Clip(id="whole", path=path, split="labeled", label=0)
    return [whole, replace(whole, id="step", start_s=0.4, end_s=0.8)], folder.parents[1]


def checked(clip: Clip, root: Path, *, quick: bool = False) -> Health:
    ((health,),) = check_clips([clip], root, quick=quick, workers=0)
    return health


SPANS = [(None, None), (0.4, None), (None, 0.8), (0.4, 0.8), (0.41, 0.79), (0.0, 1.21), (1.16, 1.2)]


@pytest.mark.parametrize("span", SPANS)
def test_pictures_of_a_video_give_the_frames_of_the_video(folder, video, span):
    part = dict(zip(("start_s", "end_s"), span, strict=True))
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


def test_every_picture_is_shown_at_its_own_moment_and_scaled_as_frames_are(folder, video):
    moments = [number / NOMINAL_FPS for number in range(NUM_FRAMES)]
    expected = oracle.decode_in_order(video)
    np.testing.assert_array_equal(frames_at(folder, moments).numpy(), expected)
    held = [moment + 0.9 / NOMINAL_FPS for moment in reversed(moments)]
    np.testing.assert_array_equal(frames_at(folder, held).numpy(), expected[::-1])
    info, of_video = probe(folder), probe(video)
    other = replace(of_video, codec="png", container=info.container, times_s=())
    assert replace(info, times_s=()) == other
    assert info.times_s == pytest.approx(of_video.times_s)
    small, like_video = (
        read_fractions(path, [0.0, 0.4], short_side=24) for path in (folder, video)
    )
    assert small.shape == like_video.shape
    # A video's colors are scaled before they are put together, a PNG's after.
    assert (small.float() - like_video.float()).abs().mean() < 4
    assert read_fractions(folder, [0.0], short_side=480).shape[1:3] == (48, 64)


def test_numbers_count_as_numbers_and_only_the_pictures_asked_for_are_opened(tmp_path):
    folder = write_pictures(tmp_path / "clip", 4, first=8, name="img_{}.PNG")
    (folder / ".img_8.png").write_bytes(b"left by a file browser")
    (folder / "notes.txt").write_text("no picture")
    np.testing.assert_array_equal(read_clip(folder)[0].numpy(), oracle.numbered_frames(4))
    (folder / "img_10.PNG").write_bytes(b"no picture")
    assert read_fractions(folder, [0.0, 0.3, 0.9]).shape[0] == 3
    with pytest.raises(VideoReadError, match="img_10.PNG"):
        read_fractions(folder, [0.5])


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


@pytest.mark.parametrize("suffix", FINE)
@pytest.mark.parametrize("exif", ORIENTATIONS)
def test_each_of_the_eight_orientations_is_applied(tmp_path, exif, suffix):
    expected = write_oriented(tmp_path / f"7{suffix}", 37, exif)
    (frame,) = read_clip(tmp_path).frames.numpy()
    assert numbered.read_number(frame) == 37
    assert abs(frame.astype(int) - expected).mean() < 2
    info = probe(tmp_path)
    assert (info.height, info.width) == expected.shape[:2]
    assert (info.rotation, info.flags) == ORIENTATIONS[exif]
    assert info.codec == {".jpg": "jpeg", ".png": "png"}[suffix]
    small = read_fractions(tmp_path, [0.0], short_side=32)[0].numpy()
    assert small.shape[:2] == (expected.shape[0] // 2, expected.shape[1] // 2)
    assert numbered.read_number(small) == 37
    for quick in (False, True):
        clip = Clip(id="clip", path=tmp_path.name, split="unlabeled")
        health = checked(clip, tmp_path.parent, quick=quick)
        assert not health.faults and set(ORIENTATIONS[exif][1]) <= set(health.oddities)


def test_pictures_of_one_folder_may_be_stored_in_different_orientations(tmp_path):
    for number, exif in enumerate(ORIENTATIONS):
        write_oriented(tmp_path / f"{number}.jpg", number, exif)
    assert numbered.read_numbers(read_clip(tmp_path).frames) == list(range(8))


def no_pictures(folder: Path) -> None:
    for path in folder.iterdir():
        path.rename(path.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda folder: (folder / "00003.png").unlink(),
            r"lacks 1 of its pictures: after 00002.png number 3 should",
        ),
        (
            lambda folder: (folder / "3.png").touch(),
            r"two pictures numbered 3, 00003.png and 3.png",
        ),
        (lambda folder: (folder / "cover.jpg").touch(), r"cover.jpg is not a numbered picture"),
        (lambda folder: (folder / "flow_00009.png").touch(), r"two series of pictures"),
        (no_pictures, r"holds no pictures"),
    ],
)
def test_a_folder_whose_order_is_not_sure_is_refused(tmp_path, damage, words):
    folder = write_pictures(tmp_path / "clip", 6)
    damage(folder)
    for ask in (probe, read_clip, clip_length, partial(frames_at, timestamps_s=[0.0])):
        with pytest.raises(VideoReadError, match=words):
            ask(folder)


@pytest.mark.parametrize("content", ["half", b"", b"<html>not found</html>"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_damaged_picture_is_named(tmp_path, content, suffix):
    folder = write_pictures(tmp_path / "event/1", 5, name="{:05d}." + suffix)
    broken = folder / f"00002.{suffix}"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    for ask in (read_clip, partial(read_fractions, fractions=[0.5])):
        with pytest.raises(VideoReadError, match=broken.name):
            ask(folder)
    (whole_clip, _), root = clips_of(folder)
    assert broken.name in str(checked(whole_clip, root).faults)


def test_damaged_bytes_give_an_error_or_a_picture(tmp_path):
    packed = cv2.imencode(".jpg", oracle.numbered_frames(1)[0][..., ::-1])[1].tobytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        content = bytearray(packed)
        for place in generator.integers(2, len(content), 4).tolist():
            content[place] ^= int(generator.integers(1, 256))
        (tmp_path / "0.jpg").write_bytes(content)
        try:
            assert read_fractions(tmp_path, [0.0]).dtype == torch.uint8
        except VideoReadError:
            refused += 1
    assert refused > 20


def test_what_a_folder_does_not_have_is_refused(folder, tmp_path):
    with pytest.raises(VideoReadError, match=r"ends after 1\.2"):
        read_fractions(folder, [0.99], start_s=1.0, end_s=2.0)
    with pytest.raises(VideoReadError, match=r"ends after 1\.2"):
        read_clip(folder, start_s=4.0, end_s=5.0)
    with pytest.raises(ValueError, match="has no length"):
        clip_length(folder, start_s=2.0, end_s=1.0)
    with pytest.raises(VideoReadError, match="folder of pictures.*data.reader to auto"):
        video_backends.read_decord(folder, [0.5])
    (whole, _), root = clips_of(folder)
    health = checked(replace(whole, num_frames=NUM_FRAMES + 1), root, quick=True)
    assert "holds 30 frames, but 31 are listed" in str(health.faults)
    mixed = write_pictures(tmp_path / "clip", 3)
    assert cv2.imwrite(str(mixed / "00003.png"), np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(VideoReadError, match=r"00000.png has 64x48 pixels, 00003.png 48x64"):
        read_clip(mixed)


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_a_frame_cache_keeps_folders_as_it_keeps_videos(folder, tmp_path, kind):
    clips, root = clips_of(folder)
    cache = open_frame_cache(clips, root, CacheConfig(tmp_path, kind, None))
    fractions = np.random.default_rng(3).random(9).tolist()
    for clip in clips:
        got = cache.read(clip, fractions).float()
        expected = read_from_folder(clip, fractions, root=root).float()
        assert (got - expected).abs().mean() < (0.01 if kind == "raw" else 3)
        assert checked(clip, root).faults == ()


def test_another_picture_makes_another_frame_cache(tmp_path):
    folder = write_pictures(tmp_path / "root/event/1", 3)
    (whole, _), root = clips_of(folder)
    config = CacheConfig(tmp_path / "cache")
    assert open_frame_cache([whole], root, config).read(whole, [0.0]).any()
    (folder / "00002.png").unlink()
    open_frame_cache([whole], root, config)
    assert len(list((tmp_path / "cache").glob("raw-*"))) == 2


def test_steps_in_whole_pictures_divide_a_dive(tmp_path):
    folder = FrameFolder(path=tmp_path, names=[str(number) for number in range(300)])
    for start in range(0, 300, 3):
        for stop in range(start + 1, 301, 7):
            step = folder.stretch(start / NOMINAL_FPS, stop / NOMINAL_FPS)
            assert step.names == folder.names[start:stop]
            moments = np.array([start, stop - 1e-3]) / NOMINAL_FPS
            assert step.numbers_at(moments).tolist() == [0, stop - start - 1]


NAMES = st.text("0189._-aé ", min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))


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


SIDES = {(16, 1): True, (1, 16): True, (1, 1): True, (1600, 100): True, (17, 1): False}
SIDES |= {(1, 17): False, (30000, 1): False, (1601, 100): False}


def test_pictures_too_elongated_to_be_scaled_are_refused_wherever_frames_are_read(tmp_path):
    for (width, height), allowed in SIDES.items():
        words = side_ratio_problem(width, height)
        named = f"{width} x {height} pixels; one side may be at most 16 times"
        assert words is None if allowed else named in words
    frames = np.zeros((3, 4, 68, 3), np.uint8)
    oracle.write_video(tmp_path / "film.mp4", frames)
    write_pictures(tmp_path / "pictures", frames)
    for path in ("film.mp4", "pictures"):
        clip = Clip(id=path, path=path, split="unlabeled")
        words = rf"{tmp_path}/{path}.* has pictures of 68 x 4"
        with pytest.raises(VideoReadError, match=words):
            read_from_folder(clip, [0.1, 0.6], root=tmp_path)
        with pytest.raises(VideoReadError, match=words):
            open_frame_cache([clip], tmp_path, CacheConfig(tmp_path / "cache"))
        for quick in (True, False):
            assert "68 x 4 pixels" in checked(clip, tmp_path, quick=quick).faults[0].words
