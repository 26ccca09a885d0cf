"""Clips decoded once, into one file of frames that training then reads in place of videos.

Decoding costs more than all else that a loader does. The store holds every frame of every clip, so
moments are drawn as freely as from the videos. `raw` frames are exact and large (a second of
320x256 at 25 frames takes 6 MB), `jpeg` ones (quality 95) a tenth of that and a little dearer to
read. The file is mapped into memory: loader processes share it, and it may be larger than memory.

Where frames are scaled down on the way (`Storage.short_side`), training that asks for a larger
short side enlarges them again: at 256 and the published range of 256 to 320 px the squares are as
large as from the videos and up to a fifth less sharp.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from qa_data.manifest import Clip
from sefar_core.data.on_disk import on_disk
from sefar_core.data.store_filling import FORMAT, Kind, fill
from sefar_core.data.timeline import ROUNDING_S


class FrameStoreError(Exception):
    """A clip or a folder that a frame store cannot serve. The message says why and what to do."""


class Storage(NamedTuple):
    """Where and how decoded frames are kept.

    Attributes:
        folder: gets one folder for each set of clips, named by what is in it.
        kind: as they are, or compressed.
        short_side: larger frames are scaled down so that their shorter side has this many pixels;
            none keeps their size.
    """

    folder: Path
    kind: Kind = "raw"
    short_side: int | None = None


class FrameStore:
    """Decoded clips in a folder that `open_frame_store` has filled.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            index = json.loads((folder / "index.json").read_bytes())
            self._kind: Kind = index["kind"]
            self._shapes: dict[str, list[int]] = index["shapes"]
            self._lengths_s: dict[str, float] = index["lengths_s"]
        except (ValueError, KeyError, TypeError) as cause:
            raise FrameStoreError(
                f"{folder / 'index.json'} is damaged ({cause!r}); delete {folder}: it is filled "
                f"again"
            ) from cause
        lengths = np.array([shape[0] for shape in self._shapes.values()])
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
        first = int(self._first[clip.id])
        appears = self._appears[first : first + shape[0]]
        asked = np.asarray(fractions) + ROUNDING_S / self._lengths_s[clip.id]
        numbers = np.searchsorted(appears, asked, side="right") - 1
        if self._kind == "raw":
            start = self._bounds[first]
            frames = self._bytes[start : start + int(np.prod(shape))].reshape(shape)
            return torch.from_numpy(frames[numbers])
        wanted, places = np.unique(numbers, return_inverse=True)
        frames = np.empty((len(wanted), *shape[1:]), np.uint8)
        for number, frame in zip(wanted.tolist(), frames, strict=True):
            self._decompress(first + number, frame)
        return torch.from_numpy(frames[places])

    def _decompress(self, number: int, frame: np.ndarray) -> None:
        packed = self._bytes[self._bounds[number] : self._bounds[number + 1]]
        blue_first = cv2.imdecode(packed, cv2.IMREAD_COLOR)
        if blue_first is None:
            raise FrameStoreError(
                f"frame {number} of {self.folder} is damaged; delete the folder to decode it again"
            )
        cv2.cvtColor(blue_first, cv2.COLOR_BGR2RGB, dst=frame)

    def _map(self) -> None:
        # As a plain array, whose slices are cheaper than those of a memmap.
        self._bytes = np.asarray(np.memmap(self.folder / "frames.bin", np.uint8, mode="r"))
        self._appears = np.load(self.folder / "appears.npy")
        self._bounds = np.load(self.folder / "bounds.npy")

    def __getstate__(self) -> dict:
        # A mapped array would be copied whole into every process that is spawned.
        mapped = ("_bytes", "_appears", "_bounds")
        return {name: value for name, value in self.__dict__.items() if name not in mapped}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._map()


def open_frame_store(
    clips: Sequence[Clip], video_root: Path, storage: Storage, *, workers: int = 0
) -> FrameStore:
    """The store of these clips, decoded with a progress bar unless it is there.

    The processes of a run may all call this: one decodes, the others wait until its file is whole.
    If it is stopped, the next one goes on behind the last whole clip.

    Args:
        clips: all that will be read.
        video_root: folder that their paths start from.
        storage: where and how. Stores of other clips, files or sizes lie beside this one.
        workers: decoding processes; 0 decodes in this one.

    Raises:
        VideoReadError: a clip cannot be decoded. What was decoded before it is kept.
        WriteError: the disk is full. What was decoded before is kept.
        ValueError: no clip.
    """
    if not clips:
        raise ValueError("a frame store needs at least one clip; is the manifest's split empty?")
    folder = storage.folder / f"{storage.kind}-{_key(clips, video_root, storage)}"
    if not (folder / "index.json").is_file():
        fill(
            clips,
            video_root,
            folder,
            kind=storage.kind,
            short_side=storage.short_side,
            workers=workers,
        )
    return FrameStore(folder)


def _key(clips: Sequence[Clip], video_root: Path, storage: Storage) -> str:
    """Changes with the clips, their files, and the size and kind of the frames.

    Of a folder of pictures, with the files that come, go or are renamed; not with one that is
    written over in place.
    """
    contents = (FORMAT, storage.kind, storage.short_side)
    digest = hashlib.blake2b(repr(contents).encode(), digest_size=8)
    for clip in clips:
        path = on_disk(video_root / clip.path)
        found = path.stat() if path.exists() else None
        stamp = (found.st_size, found.st_mtime_ns) if found else None
        digest.update(repr((clip.id, clip.path, clip.start_s, clip.end_s, stamp)).encode())
    return digest.hexdigest()
