"""A cache gives the frames that the videos give, is made once, and is never half made."""

import errno
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from qa_data.files import SefarError, WriteError
from qa_data.manifest import Clip
from sefar_core.data import frame_cache
from sefar_core.data.dataset import read_from_folder
from sefar_core.data.frame_cache import CacheConfig, FrameCache, open_frame_cache
from sefar_core.data.video import VideoReadError, probe, read_clip
from tests.oracles import videos as oracle
from tests.oracles.full_disk import files_of_at_most


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "videos"
    root.mkdir()
    oracle.write_video(root / "a.mp4", oracle.numbered_frames(11))
    oracle.write_video(root / "b.mp4", oracle.numbered_frames(8, height=64, width=40), fps=25)
    times_ms = [0, 40, 240, 280, 400]
    oracle.write_video(root / "c.mp4", oracle.numbered_frames(5), times_ms=times_ms)
    return root


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The files that are decoded, not too fast, in this process."""
    names: list[str] = []

    def noted(path: Path, **where):
        names.append(path.name)
        time.sleep(0.01)
        return read_clip(path, **where)

    monkeypatch.setattr(frame_cache, "read_clip", noted)
    return names


CLIPS = [
    Clip(id="even", path="a.mp4", split="unlabeled"),
    Clip(id="upright", path="b.mp4", label=2, split="labeled"),
    Clip(id="uneven", path="c.mp4", split="unlabeled"),
    Clip(id="part", path="a.mp4", start_s=0.1, end_s=0.25, split="unlabeled"),
]


def raw(tmp_path: Path, short_side: int | None = None) -> CacheConfig:
    return CacheConfig(tmp_path / "cache", "raw", short_side)


FRACTIONS = [0.0, 1.0, 0.5, 0.5, *np.random.default_rng(0).random(20).tolist()]


@pytest.mark.parametrize(
    ("kind", "short_side", "workers"),
    [("raw", None, 0), ("raw", 24, 1), ("jpeg", 40, 0), ("jpeg", 40, 1)],
)
def test_a_cache_gives_the_frames_of_the_videos(root, tmp_path, kind, short_side, workers):
    config = CacheConfig(tmp_path / "cache", kind, short_side)
    cache = open_frame_cache(CLIPS, root, config, workers=workers)
    packed = pickle.dumps(cache)  # to another process, without its frames
    assert len(packed) < 5000 < (cache.folder / "frames.bin").stat().st_size
    for clip in CLIPS:
        got = pickle.loads(packed).read(clip, FRACTIONS)
        assert torch.equal(got, cache.read(clip, FRACTIONS))
        expected = read_from_folder(clip, FRACTIONS, root=root, short_side=short_side)
        if kind == "raw":
            assert torch.equal(got, expected)
        assert got.shape == expected.shape
        # Colors are stored at half the size; another frame, or red for blue, differs by tens.
        assert (got.int() - expected.int()).abs().float().mean() < 5
        brightness = [frames.float().mean(dim=-1) for frames in (got, expected)]
        assert (brightness[0] - brightness[1]).abs().mean() < 3


def test_a_moment_just_before_a_frame_of_a_long_clip_shows_the_frame_before_it(root, tmp_path):
    times_ms = [6000 * number for number in range(11)]
    path = oracle.write_video(root / "long.mp4", oracle.numbered_frames(11), times_ms=times_ms)
    long = Clip(id="long", path="long.mp4", split="unlabeled")
    part = replace(long, id="part", start_s=12.0, end_s=54.0)
    cache = open_frame_cache([long, part], root, raw(tmp_path))
    frames, whole_s = oracle.decode_in_order(path), probe(path).duration_s
    for clip, length_s, border_s, shown in [(long, whole_s, 42, 7), (part, 42, 36, 8)]:
        moments_s = [border_s - 30e-6, border_s - 0.5e-6, border_s]
        fractions = [moment / length_s for moment in moments_s]
        got = cache.read(clip, fractions)
        np.testing.assert_array_equal(got.numpy(), frames[[shown - 1, shown, shown]])
        assert torch.equal(got, read_from_folder(clip, fractions, root=root))


def caches(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").iterdir() if path.is_dir())


def test_a_cache_is_not_made_twice_for_the_same_files(root, tmp_path):
    open_frame_cache(CLIPS, root, raw(tmp_path))
    (folder,) = caches(tmp_path)
    made = (folder / "frames.bin").stat().st_mtime_ns
    open_frame_cache([replace(clip, label=None) for clip in CLIPS], root, raw(tmp_path))
    assert caches(tmp_path) == [folder]
    assert (folder / "frames.bin").stat().st_mtime_ns == made


@pytest.mark.parametrize("change", ["clips", "size", "file"])
def test_another_cache_is_made_beside_it_when_anything_that_shows_differs(root, tmp_path, change):
    open_frame_cache(CLIPS, root, raw(tmp_path))
    clips = CLIPS[:2] if change == "clips" else CLIPS
    if change == "file":
        oracle.write_video(root / "b.mp4", oracle.numbered_frames(9, height=64, width=40))
    for short_side in (20,) if change == "size" else (None, 256):  # never enlarged
        got = open_frame_cache(clips, root, raw(tmp_path, short_side)).read(CLIPS[1], [0.99])
        expected = read_from_folder(CLIPS[1], [0.99], root=root, short_side=short_side)
        assert torch.equal(got, expected)
    assert len(caches(tmp_path)) == (2 if change == "size" else 3)


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_a_stopped_filling_goes_on_behind_its_last_whole_clip(root, tmp_path, kind, decoded):
    storage = CacheConfig(tmp_path / "cache", kind)
    sound = (root / "c.mp4").read_bytes()
    stamp = (root / "c.mp4").stat()
    (root / "c.mp4").write_bytes(bytes(len(sound)))
    os.utime(root / "c.mp4", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(VideoReadError, match="c.mp4"):
        open_frame_cache(CLIPS, root, storage)
    (draft,) = caches(tmp_path)
    assert draft.name.startswith(".")  # a half one is never taken for a cache
    if lost := kind == "jpeg":  # the last frames of the last clip did not reach the disk
        os.truncate(draft / "frames.bin", (draft / "frames.bin").stat().st_size - 1)
    else:
        with (draft / "frames.bin").open("ab") as file:
            file.write(b"half a clip")
    with (draft / "clips.jsonl").open("a") as file:
        file.write('{"id": "half')
    (root / "c.mp4").write_bytes(sound)
    os.utime(root / "c.mp4", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    decoded.clear()
    cache = open_frame_cache(CLIPS, root, storage)
    assert decoded == ["b.mp4"] * lost + ["c.mp4", "a.mp4"]  # uneven and part are the last two
    fresh = open_frame_cache(CLIPS, root, CacheConfig(tmp_path / "fresh", kind))
    fractions = np.random.default_rng(0).random(9).tolist()
    for clip in CLIPS:
        assert torch.equal(cache.read(clip, fractions), fresh.read(clip, fractions))
    assert [path.name for path in caches(tmp_path)] == [cache.folder.name]


def test_a_full_disk_is_an_error_in_one_line_and_what_is_whole_is_kept(root, tmp_path, decoded):
    storage, frame = raw(tmp_path), 48 * 64 * 3
    first = 11 * frame
    words = rf"cannot write .*frames\.bin: .*File too large; it needs {3 * 8 * 64 * 40 * 3:,} bytes"
    with files_of_at_most(first + 100), pytest.raises(WriteError, match=words):
        open_frame_cache(CLIPS, root, storage)
    (draft,) = caches(tmp_path)
    assert (draft / "frames.bin").stat().st_size >= first
    decoded.clear()
    cache = open_frame_cache(CLIPS, root, storage)
    assert len(decoded) == 3
    assert torch.equal(cache.read(CLIPS[1], [0.4]), read_from_folder(CLIPS[1], [0.4], root=root))


def test_an_index_that_cannot_be_written_leaves_all_frames_for_the_next_time(
    root, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
        with pytest.raises(WriteError, match=r"cannot write .*No space left.* are free"):
            open_frame_cache(CLIPS, root, raw(tmp_path))
    monkeypatch.delattr(frame_cache, "read_clip")
    cache = open_frame_cache(CLIPS, root, raw(tmp_path))
    assert torch.equal(cache.read(CLIPS[0], [0.4]), read_from_folder(CLIPS[0], [0.4], root=root))


def test_all_is_on_the_disk_before_the_cache_has_its_name(root, tmp_path, monkeypatch):
    synced: list[tuple[str, bool]] = []

    def noted(path: Path) -> None:
        synced.append((path.name, any(not p.name.startswith(".") for p in caches(tmp_path))))

    monkeypatch.setattr(frame_cache, "sync", noted)
    cache = open_frame_cache(CLIPS, root, raw(tmp_path))
    before = [name for name, named in synced if not named]
    files = {path.name for path in cache.folder.iterdir()}
    assert set(before[:-1]) == files and before[-1] == f".{cache.folder.name}.part"
    assert [name for name, named in synced if named] == ["cache"]


def test_of_several_that_ask_one_decodes_and_the_others_wait(root, tmp_path, decoded):
    # The lock is of the open file, so threads replace processes.
    with ThreadPoolExecutor(3) as ranks:
        opening = [ranks.submit(open_frame_cache, CLIPS, root, raw(tmp_path)) for _ in range(3)]
        opened = [future.result() for future in opening]
    assert len(decoded) == len(CLIPS)
    (folder,) = caches(tmp_path)
    assert {cache.folder for cache in opened} == {folder}


def test_what_a_cache_cannot_give_is_refused_with_the_fix(root, tmp_path):
    cache = open_frame_cache(CLIPS[:2], root, CacheConfig(tmp_path / "cache", "jpeg"))
    with pytest.raises(SefarError, match="clip part is not in"):
        cache.read(CLIPS[3], [0.5])
    with pytest.raises(ValueError, match="at least one clip"):
        open_frame_cache([], root, raw(tmp_path))
    file = cache.folder / "frames.bin"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(SefarError, match="frame 0 of .* damaged; delete the folder"):
        FrameCache(cache.folder).read(CLIPS[0], [0.0])
    for text in ("", '{"kind": "raw"}', "[]"):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(SefarError, match=r"index\.json is damaged .*delete .*filled again"):
            FrameCache(tmp_path)
    (tmp_path / "file").write_text("in the place of the folder")
    with pytest.raises(WriteError, match=r"cannot write .*file.*"):
        open_frame_cache(CLIPS, root, CacheConfig(tmp_path / "file"))
