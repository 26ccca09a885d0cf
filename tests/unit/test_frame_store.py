"""A store gives the frames that the videos give, is made once, and is never half made."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qa_data.manifest import Clip
from sefar_core.data.dataset import read_from_folder
from sefar_core.data.frame_store import FrameStore, FrameStoreError, open_frame_store
from sefar_core.data.video import VideoReadError
from tests.oracles import videos as oracle


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "videos"
    root.mkdir()
    oracle.write_video(root / "a.mp4", oracle.numbered_frames(11))
    oracle.write_video(root / "b.mp4", oracle.numbered_frames(8, height=64, width=40), fps=25)
    times_ms = [0, 40, 240, 280, 400]
    oracle.write_video(root / "c.mp4", oracle.numbered_frames(5), times_ms=times_ms)
    return root


CLIPS = [
    Clip(id="even", path="a.mp4", split="unlabeled"),
    Clip(id="upright", path="b.mp4", label=2, split="labeled"),
    Clip(id="uneven", path="c.mp4", split="unlabeled"),
    Clip(id="part", path="a.mp4", start_s=0.1, end_s=0.25, split="unlabeled"),
]


@pytest.mark.parametrize("short_side", [None, 24])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_store_gives_the_frames_of_the_videos(root, tmp_path, short_side, workers):
    store = open_frame_store(
        CLIPS, root, tmp_path / "store", short_side=short_side, workers=workers
    )
    fractions = [0.0, 1.0, 0.5, *np.random.default_rng(0).random(20).tolist()]
    for clip in CLIPS:
        expected = read_from_folder(clip, fractions, root=root, short_side=short_side)
        assert torch.equal(store.read(clip, fractions), expected)


def test_a_store_is_not_made_twice_for_the_same_files(root, tmp_path):
    open_frame_store(CLIPS, root, tmp_path / "store")
    made = (tmp_path / "store" / "frames.bin").stat().st_mtime_ns
    open_frame_store([replace(clip, label=None) for clip in CLIPS], root, tmp_path / "store")
    assert (tmp_path / "store" / "frames.bin").stat().st_mtime_ns == made


@pytest.mark.parametrize("change", ["clips", "size", "file"])
def test_a_store_is_made_again_when_anything_that_shows_has_changed(root, tmp_path, change):
    store = tmp_path / "store"
    open_frame_store(CLIPS, root, store)
    clips = CLIPS[:2] if change == "clips" else CLIPS
    if change == "file":
        oracle.write_video(root / "b.mp4", oracle.numbered_frames(9, height=64, width=40))
    short_side = 20 if change == "size" else None
    got = open_frame_store(clips, root, store, short_side=short_side).read(CLIPS[1], [0.99])
    expected = read_from_folder(CLIPS[1], [0.99], root=root, short_side=short_side)
    assert torch.equal(got, expected)


def test_a_broken_video_leaves_nothing_behind(root, tmp_path):
    (root / "b.mp4").write_bytes(b"")
    with pytest.raises(VideoReadError, match="b.mp4 is empty"):
        open_frame_store(CLIPS, root, tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["videos"]


def test_a_folder_of_something_else_is_left_alone(root, tmp_path):
    with pytest.raises(FrameStoreError, match="holds other files"):
        open_frame_store(CLIPS, root, root)
    assert (root / "a.mp4").is_file()


def test_an_unknown_clip_is_refused_by_name(root, tmp_path):
    store = open_frame_store(CLIPS[:2], root, tmp_path / "store")
    with pytest.raises(FrameStoreError, match="clip part is not in"):
        store.read(CLIPS[3], [0.5])
    with pytest.raises(ValueError, match="at least one clip"):
        open_frame_store([], root, tmp_path / "other")


def test_a_store_travels_to_another_process_without_its_frames(root, tmp_path):
    store = open_frame_store(CLIPS, root, tmp_path / "store")
    packed = pickle.dumps(store)
    assert len(packed) < 5000 < (tmp_path / "store" / "frames.bin").stat().st_size
    again: FrameStore = pickle.loads(packed)
    assert torch.equal(again.read(CLIPS[0], [0.3]), store.read(CLIPS[0], [0.3]))
