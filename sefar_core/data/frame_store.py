"""Small clips decoded once, into one file of frames that training then reads in place of videos.

For sets of short, small clips, decoding costs more than the network. The store holds every frame of
every clip, so moments are drawn as freely as from the videos. It is mapped into memory: loader
processes share it, and it may be larger than memory.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from qa_data.manifest import Clip
from sefar_core.data.timeline import ROUNDING_S
from sefar_core.data.video import read_clip

FORMAT = 1


class FrameStoreError(Exception):
    """A folder that cannot be used as a frame store. The message says why and what to do."""


class FrameStore:
    """Decoded clips in a folder that `open_frame_store` has filled.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self._shapes: dict[str, list[int]] = index["shapes"]
        sizes = np.array([np.prod(shape) for shape in self._shapes.values()])
        lengths = np.array([shape[0] for shape in self._shapes.values()])
        self._offsets = dict(zip(self._shapes, np.cumsum(sizes) - sizes, strict=True))
        self._first = dict(zip(self._shapes, np.cumsum(lengths) - lengths, strict=True))
        self._map()

    def read(
        self, clip: Clip, fractions: Sequence[float]
    ) -> UInt8[Tensor, "frame height width channel"]:
        """The frames of a clip at fractions of its length, as `video.read_fractions` gives them.

        Raises:
            FrameStoreError: the clip is not in the store.
        """
        shape = self._shapes.get(clip.id)
        if shape is None:
            raise FrameStoreError(
                f"clip {clip.id} is not in {self.folder}, which holds {len(self._shapes)} others; "
                f"open the store with all clips of the run"
            )
        first, offset = self._first[clip.id], self._offsets[clip.id]
        appears = self._appears[first : first + shape[0]]
        numbers = np.searchsorted(appears, np.asarray(fractions) + ROUNDING_S, side="right") - 1
        frames = self._pixels[offset : offset + int(np.prod(shape))].reshape(shape)
        return torch.from_numpy(frames[numbers])

    def _map(self) -> None:
        # As a plain array, whose slices are cheaper than those of a memmap.
        self._pixels = np.asarray(np.memmap(self.folder / "frames.bin", np.uint8, mode="r"))
        self._appears = np.load(self.folder / "appears.npy")

    def __getstate__(self) -> dict:
        # A mapped array would be copied whole into every process that is spawned.
        return {k: v for k, v in self.__dict__.items() if k not in ("_pixels", "_appears")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._map()


def open_frame_store(
    clips: Sequence[Clip],
    video_root: Path,
    folder: Path,
    *,
    short_side: int | None = None,
    workers: int = 0,
) -> FrameStore:
    """The store of these clips; decoded with a progress bar unless `folder` holds just that.

    Args:
        clips: all that will be read.
        video_root: folder that their paths start from.
        folder: of the store. What a store of other clips left there is replaced.
        short_side: pixels that the frames' shorter side is scaled to; None keeps their size.
        workers: decoding processes; 0 decodes in this one.

    Raises:
        VideoReadError: a clip cannot be decoded. Nothing is left behind.
        FrameStoreError: the folder holds something else than a store.
        ValueError: no clip.
    """
    if not clips:
        raise ValueError("a frame store needs at least one clip; is the manifest's split empty?")
    key = _key(clips, video_root, short_side)
    if _key_of(folder) == key:
        return FrameStore(folder)
    if folder.exists() and not (folder / "index.json").is_file() and any(folder.iterdir()):
        raise FrameStoreError(f"{folder} holds other files; name an empty or absent folder")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    draft.mkdir(parents=True)
    try:
        _decode_into(draft, _WholeClips(clips, video_root, short_side), key, workers)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return FrameStore(folder)


class _WholeClips(Dataset):
    def __init__(self, clips: Sequence[Clip], video_root: Path, short_side: int | None):
        self.clips, self.video_root, self.short_side = clips, video_root, short_side

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, position: int) -> tuple[str, Tensor, list[float]]:
        clip = self.clips[position]
        frames, appears = read_clip(
            self.video_root / clip.path,
            start_s=clip.start_s,
            end_s=clip.end_s,
            short_side=self.short_side,
        )
        return clip.id, frames, appears


def _decode_into(folder: Path, clips: _WholeClips, key: str, workers: int) -> None:
    # A generator of its own, so that decoding leaves the global random state alone.
    generator = torch.Generator().manual_seed(0)
    decoded: Iterator = iter(
        DataLoader(clips, batch_size=None, num_workers=workers, generator=generator)
    )
    shapes: dict[str, list[int]] = {}
    appears: list[float] = []
    with (folder / "frames.bin").open("wb") as pixels:
        for clip_id, frames, places in tqdm(decoded, total=len(clips), desc="decode", unit="clip"):
            shapes[clip_id] = list(frames.shape)
            appears += places
            pixels.write(frames.contiguous().numpy().data)
    np.save(folder / "appears.npy", np.array(appears))
    index = {"format": FORMAT, "key": key, "shapes": shapes}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


def _key(clips: Sequence[Clip], video_root: Path, short_side: int | None) -> str:
    """Changes with the clips, their files and the size of the frames."""
    digest = hashlib.blake2b(repr((FORMAT, short_side)).encode(), digest_size=16)
    for clip in clips:
        path = video_root / clip.path
        found = path.stat() if path.is_file() else None
        stamp = (found.st_size, found.st_mtime_ns) if found else None
        digest.update(repr((clip.id, clip.path, clip.start_s, clip.end_s, stamp)).encode())
    return digest.hexdigest()


def _key_of(folder: Path) -> str | None:
    index = folder / "index.json"
    return json.loads(index.read_text(encoding="utf-8"))["key"] if index.is_file() else None
