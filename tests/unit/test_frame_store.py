"""A store gives the frames that the videos give, is made once, and is never half made."""

import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qa_data.manifest import Clip
from sefar_core.data import store_filling
from sefar_core.data.dataset import read_from_folder
from sefar_core.data.frame_store import FrameStore, FrameStoreError, Storage, open_frame_store
from sefar_core.data.video import VideoReadError, read_clip
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


def raw(tmp_path: Path, short_side: int | None = None) -> Storage:
    return Storage(tmp_path / "store", "raw", short_side)


@pytest.mark.parametrize("short_side", [None, 24])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_store_gives_the_frames_of_the_videos(root, tmp_path, short_side, workers):
    store = open_frame_store(CLIPS, root, raw(tmp_path, short_side), workers=workers)
    fractions = [0.0, 1.0, 0.5, *np.random.default_rng(0).random(20).tolist()]
    for clip in CLIPS:
        expected = read_from_folder(clip, fractions, root=root, short_side=short_side)
        assert torch.equal(store.read(clip, fractions), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_compressed_frames_are_nearly_those_of_the_videos(root, tmp_path, workers):
    store = open_frame_store(CLIPS, root, Storage(tmp_path / "s", "jpeg", 40), workers=workers)
    fractions = [0.0, 1.0, 0.5, 0.5, *np.random.default_rng(0).random(20).tolist()]
    for clip in CLIPS:
        got = store.read(clip, fractions)
        expected = read_from_folder(clip, fractions, root=root, short_side=40)
        assert got.shape == expected.shape
        # Colors are stored at half the size; another frame, or red for blue, differs by tens.
        assert (got.int() - expected.int()).abs().float().mean() < 5
        brightness = [frames.float().mean(dim=-1) for frames in (got, expected)]
        assert (brightness[0] - brightness[1]).abs().mean() < 3


def test_frames_are_never_enlarged(root, tmp_path):
    store = open_frame_store(CLIPS, root, raw(tmp_path, 256))
    assert store.read(CLIPS[1], [0.5]).shape == (1, 64, 40, 3)


def stores(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "store").iterdir() if path.is_dir())


def test_a_store_is_not_made_twice_for_the_same_files(root, tmp_path):
    open_frame_store(CLIPS, root, raw(tmp_path))
    (folder,) = stores(tmp_path)
    made = (folder / "frames.bin").stat().st_mtime_ns
    open_frame_store([replace(clip, label=None) for clip in CLIPS], root, raw(tmp_path))
    assert stores(tmp_path) == [folder]
    assert (folder / "frames.bin").stat().st_mtime_ns == made


@pytest.mark.parametrize("change", ["clips", "size", "file"])
def test_another_store_is_made_beside_it_when_anything_that_shows_differs(root, tmp_path, change):
    open_frame_store(CLIPS, root, raw(tmp_path))
    clips = CLIPS[:2] if change == "clips" else CLIPS
    if change == "file":
        oracle.write_video(root / "b.mp4", oracle.numbered_frames(9, height=64, width=40))
    short_side = 20 if change == "size" else None
    got = open_frame_store(clips, root, raw(tmp_path, short_side)).read(CLIPS[1], [0.99])
    expected = read_from_folder(CLIPS[1], [0.99], root=root, short_side=short_side)
    assert torch.equal(got, expected)
    assert len(stores(tmp_path)) == 2


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_a_stopped_filling_goes_on_behind_its_last_whole_clip(root, tmp_path, kind, monkeypatch):
    storage = Storage(tmp_path / "store", kind)
    sound = (root / "c.mp4").read_bytes()
    stamp = (root / "c.mp4").stat()
    (root / "c.mp4").write_bytes(bytes(len(sound)))
    os.utime(root / "c.mp4", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(VideoReadError, match="c.mp4"):
        open_frame_store(CLIPS, root, storage)
    (draft,) = stores(tmp_path)
    assert draft.name.startswith(".")  # a half one is never taken for a store
    with (draft / "frames.bin").open("ab") as file:
        file.write(b"half a clip")
    with (draft / "clips.jsonl").open("a") as file:
        file.write('{"id": "half')
    (root / "c.mp4").write_bytes(sound)
    os.utime(root / "c.mp4", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    decoded: list[Path] = []

    def counting(path: Path, **where):
        decoded.append(path)
        return read_clip(path, **where)

    monkeypatch.setattr(store_filling, "read_clip", counting)
    store = open_frame_store(CLIPS, root, storage)
    assert [path.name for path in decoded] == ["c.mp4", "a.mp4"]  # uneven and part, the last two
    fresh = open_frame_store(CLIPS, root, Storage(tmp_path / "fresh", kind))
    fractions = np.random.default_rng(0).random(9).tolist()
    for clip in CLIPS:
        assert torch.equal(store.read(clip, fractions), fresh.read(clip, fractions))
    assert [path.name for path in stores(tmp_path)] == [store.folder.name]


def test_of_several_that_ask_one_decodes_and_the_others_wait(root, tmp_path, monkeypatch):
    decoded: list[str] = []

    def slowly(path: Path, **where):
        decoded.append(path.name)
        time.sleep(0.05)
        return read_clip(path, **where)

    monkeypatch.setattr(store_filling, "read_clip", slowly)
    # The lock is of the open file, so threads stand for processes.
    with ThreadPoolExecutor(3) as ranks:
        asked = [ranks.submit(open_frame_store, CLIPS, root, raw(tmp_path)) for _ in range(3)]
        opened = [future.result() for future in asked]
    assert len(decoded) == len(CLIPS)
    (folder,) = stores(tmp_path)
    assert {store.folder for store in opened} == {folder}


def test_an_unknown_clip_is_refused_by_name(root, tmp_path):
    store = open_frame_store(CLIPS[:2], root, raw(tmp_path))
    with pytest.raises(FrameStoreError, match="clip part is not in"):
        store.read(CLIPS[3], [0.5])
    with pytest.raises(ValueError, match="at least one clip"):
        open_frame_store([], root, raw(tmp_path))


def test_a_damaged_picture_is_refused_with_its_mend(root, tmp_path):
    store = open_frame_store(CLIPS, root, Storage(tmp_path / "store", "jpeg"))
    file = store.folder / "frames.bin"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(FrameStoreError, match="frame 0 of .* damaged; delete the folder"):
        FrameStore(store.folder).read(CLIPS[0], [0.0])


def test_a_store_travels_to_another_process_without_its_frames(root, tmp_path):
    store = open_frame_store(CLIPS, root, raw(tmp_path))
    packed = pickle.dumps(store)
    assert len(packed) < 5000 < (store.folder / "frames.bin").stat().st_size
    again: FrameStore = pickle.loads(packed)
    assert torch.equal(again.read(CLIPS[0], [0.3]), store.read(CLIPS[0], [0.3]))
