"""Clips decoded once, into one file of frames that training then reads instead of videos.

Decoding costs more than all else that a loader does. The cache holds every frame of every clip, so
frames are drawn as freely as from the videos. `raw` frames are exact and large (a second of 320x256
at 25 frames takes 6 MB), `jpeg` ones (quality 95) a tenth of that and slightly slower to read. The
file is mapped into memory: loader processes share it, and it may be larger than memory.

Where frames are scaled down on the way (`CacheConfig.short_side`), training that needs a larger
short side enlarges them again: at 256 and the published range of 256 to 320 px the squares are as
large as from the videos and up to a fifth less sharp.

A cache is filled clip after clip by one process, and filling resumes after a stop. While it grows
it is a hidden folder with a journal of the clips that are whole. A lock that the system itself
releases when its holder dies decides who decodes.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from qa_data.files import SefarError, on_disk, sync, writing
from qa_data.manifest import Clip
from sefar_core.data.decode import refuse_elongated
from sefar_core.data.frame_index import ROUNDING_S
from sefar_core.data.video import read_clip

FORMAT = 3
Kind = Literal["raw", "jpeg"]
JPEG_QUALITY = 95


class CacheConfig(NamedTuple):
    """Where and how decoded frames are kept."""

    folder: Path
    """Gets one folder for each set of clips, named by what is in it."""
    kind: Kind = "raw"
    short_side: int | None = None
    """Pixels that the shorter side of larger frames is scaled down to; None keeps their size."""


class FrameCache:
    """Decoded clips in a folder that `open_frame_cache` has filled."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            index = json.loads((folder / "index.json").read_bytes())
            self._kind: Kind = index["kind"]
            self._shapes: dict[str, list[int]] = index["shapes"]
            self._lengths_s: dict[str, float] = index["lengths_s"]
        except (ValueError, KeyError, TypeError) as cause:
            raise SefarError(
                f"{folder / 'index.json'} is damaged ({cause!r}); delete {folder}: it is filled "
                f"again"
            ) from cause
        lengths = np.array([shape[0] for shape in self._shapes.values()])
        self._first = dict(zip(self._shapes, np.cumsum(lengths) - lengths, strict=True))
        self._map()

    def read(
        self, clip: Clip, fractions: Sequence[float]
    ) -> UInt8[Tensor, "frame height width channel"]:
        """The frames of a clip at fractions of its length, as `video.read_fractions` gives them;
        SefarError if the clip is not in the cache.
        """
        shape = self._shapes.get(clip.id)
        if shape is None:
            raise SefarError(
                f"clip {clip.id} is not in {self.folder}, which holds {len(self._shapes)} others; "
                f"open the cache with all clips of the run"
            )
        first = int(self._first[clip.id])
        appears = self._appears[first : first + shape[0]]
        requested = np.asarray(fractions) + ROUNDING_S / self._lengths_s[clip.id]
        numbers = np.searchsorted(appears, requested, side="right") - 1
        if self._kind == "raw":
            start = self._bounds[first]
            frames = self._bytes[start : start + int(np.prod(shape))].reshape(shape)
            return torch.from_numpy(frames[numbers])
        wanted, places = np.unique(numbers, return_inverse=True)
        frames = np.empty((len(wanted), *shape[1:]), np.uint8)
        for number, frame in zip((first + wanted).tolist(), frames, strict=True):
            packed = self._bytes[self._bounds[number] : self._bounds[number + 1]]
            blue_first = cv2.imdecode(packed, cv2.IMREAD_COLOR)
            if blue_first is None:
                raise SefarError(
                    f"frame {number} of {self.folder} is damaged; delete the folder to decode it "
                    f"again"
                )
            cv2.cvtColor(blue_first, cv2.COLOR_BGR2RGB, dst=frame)
        return torch.from_numpy(frames[places])

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


def open_frame_cache(
    clips: Sequence[Clip], video_root: Path, config: CacheConfig, *, workers: int = 0
) -> FrameCache:
    """The cache of these clips, decoded with a progress bar unless it is there.

    The processes of a run may all call this: one decodes, the others wait until its file is whole.
    If it is stopped, the next one resumes behind the last whole clip. Caches of other clips, files
    or sizes are beside this one. With 0 `workers` this process decodes. ValueError for no clip;
    VideoReadError if a clip cannot be decoded, WriteError if the disk is full: what was decoded
    before is kept.
    """
    if not clips:
        raise ValueError("a frame cache needs at least one clip; is the manifest's split empty?")
    folder = config.folder / f"{config.kind}-{_key(clips, video_root, config)}"
    if not (folder / "index.json").is_file():
        fill(folder, _PackedClips(clips, video_root, config.kind, config.short_side), workers)
    return FrameCache(folder)


def _key(clips: Sequence[Clip], video_root: Path, config: CacheConfig) -> str:
    """Changes with the clips, their files, and the size and kind of the frames; with a folder's
    pictures that come, go or are renamed, not with one that is written over in place.
    """
    contents = (FORMAT, config.kind, config.short_side)
    digest = hashlib.blake2b(repr(contents).encode(), digest_size=8)
    for clip in clips:
        path = on_disk(video_root / clip.path)
        found = path.stat() if path.exists() else None
        stamp = (found.st_size, found.st_mtime_ns) if found else None
        digest.update(repr((clip.id, clip.path, clip.start_s, clip.end_s, stamp)).encode())
    return digest.hexdigest()


class StoredClip(NamedTuple):
    """A line of the journal."""

    id: str
    shape: list[int]
    length_s: float
    appears: list[float]
    """Fraction of the clip's length at which each frame appears."""
    sizes: list[int]
    """Bytes of each frame."""


def fill(folder: Path, packed: "_PackedClips", workers: int) -> None:
    """Decode clips into a folder that appears when it is whole; wait if another process does.
    VideoReadError for a clip that cannot be read; WriteError if the disk is full.
    """
    draft = folder.with_name(f".{folder.name}.part")
    lock_path = folder.with_name(f".{folder.name}.lock")
    with writing(lock_path, 0):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock_path.touch()
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "index.json").is_file():
            decode_rest(packed, draft, workers)
            write_index(draft, packed.kind, folder)


def decode_rest(packed: "_PackedClips", draft: Path, workers: int) -> None:
    """Add the clips that the journal does not have, with a progress bar."""
    journal, frames = draft / "clips.jsonl", draft / "frames.bin"
    with writing(draft, 0):
        draft.mkdir(exist_ok=True)
        done = whole_clips(journal, frames)
    ids = {clip.id for clip in done}
    todo = [place for place, clip in enumerate(packed.clips) if clip.id not in ids]
    # A generator of its own, so that decoding leaves the global random state alone.
    generator = torch.Generator().manual_seed(0)
    loader: Iterator = iter(
        DataLoader(packed, batch_size=None, sampler=todo, num_workers=workers, generator=generator)
    )
    bar = tqdm(loader, initial=len(done), total=len(packed), desc="decode", unit="clip")
    for number, (clip, content) in enumerate(bar):
        # As if the clips to come were as large as this one.
        with writing(frames, content.numel() * (len(todo) - number)):
            with frames.open("ab") as pixels:
                pixels.write(content.numpy().data)
            # The journal last: a clip that it names is whole.
            with journal.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(clip._asdict()) + "\n")


def whole_clips(journal: Path, frames: Path) -> list[StoredClip]:
    """The clips that an earlier process has written whole; what is behind them is cut off."""
    clips: list[StoredClip] = []
    end, line_end = 0, 0
    written = frames.stat().st_size if frames.exists() else 0
    for line in journal.read_bytes().splitlines(keepends=True) if journal.exists() else ():
        clip = StoredClip(**json.loads(line)) if line.endswith(b"\n") else None
        if clip is None or end + sum(clip.sizes) > written:
            break
        clips.append(clip)
        end += sum(clip.sizes)
        line_end += len(line)
    for path, size in ((journal, line_end), (frames, end)):
        path.touch()
        os.truncate(path, size)
    return clips


def write_index(draft: Path, kind: Kind, folder: Path) -> None:
    """Add what a reader of the cache needs, from the journal, and rename the draft to the cache.
    WriteError if the disk is full.
    """
    clips = whole_clips(draft / "clips.jsonl", draft / "frames.bin")
    sizes = [size for clip in clips for size in clip.sizes]
    places = {
        "bounds.npy": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        "appears.npy": np.array([place for clip in clips for place in clip.appears]),
    }
    index = {
        "format": FORMAT,
        "kind": kind,
        "shapes": {clip.id: clip.shape for clip in clips},
        "lengths_s": {clip.id: clip.length_s for clip in clips},
    }
    text = json.dumps(index)
    with writing(folder, len(text) + sum(array.nbytes for array in places.values())):
        for name, array in places.items():
            np.save(draft / name, array)
        (draft / "index.json").write_text(text, encoding="utf-8")
        for name in ("frames.bin", *places, "index.json"):
            sync(draft / name)
        sync(draft)
        os.replace(draft, folder)
        sync(folder.parent)
        # Not before: without it all would be decoded again.
        (folder / "clips.jsonl").unlink()


class _PackedClips(Dataset):
    """Each clip whole, as the bytes of its frames."""

    def __init__(self, clips: Sequence[Clip], video_root: Path, kind: Kind, short_side: int | None):
        self.clips, self.video_root = clips, video_root
        self.kind, self.short_side = kind, short_side

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, position: int) -> tuple[StoredClip, Tensor]:
        clip = self.clips[position]
        path = on_disk(self.video_root / clip.path)
        span = {"start_s": clip.start_s, "end_s": clip.end_s}
        frames, appears, length_s = read_clip(path, **span, short_side=self.short_side)
        refuse_elongated(path, frames.shape[2], frames.shape[1])
        pictures = frames.numpy()
        packed = [_compress(p) if self.kind == "jpeg" else p.reshape(-1) for p in pictures]
        sizes = [len(picture) for picture in packed]
        entry = StoredClip(clip.id, list(frames.shape), length_s, appears, sizes)
        return entry, torch.from_numpy(np.concatenate(packed))


def _compress(picture: np.ndarray) -> np.ndarray:
    blue_first = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, packed = cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError(f"cannot compress a picture of shape {picture.shape} as JPEG")
    return packed.reshape(-1)
