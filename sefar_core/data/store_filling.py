"""How a frame store comes to be: clip after clip, by one process, gone on with after a stop.

While it grows it lies in a hidden folder, with a journal of the clips that are whole. A lock that
the system itself releases when its holder dies decides who decodes.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from qa_data.manifest import Clip
from sefar_core.data.on_disk import on_disk
from sefar_core.data.picture_shape import side_ratio_problem
from sefar_core.data.video import VideoReadError, clip_length, read_clip
from sefar_core.runs.folder import sync, writing

FORMAT = 3
Kind = Literal["raw", "jpeg"]
JPEG_QUALITY = 95


class StoredClip(NamedTuple):
    """A line of the journal."""

    id: str
    shape: list[int]
    length_s: float
    appears: list[float]
    """Fraction of the clip's length at which each frame appears."""
    sizes: list[int]
    """Bytes of each frame."""


def fill(
    clips: Sequence[Clip],
    video_root: Path,
    folder: Path,
    *,
    kind: Kind,
    short_side: int | None,
    workers: int,
) -> None:
    """Decode the clips into a folder that appears when it is whole; wait if another process does.

    Args:
        clips: all of the store.
        video_root: folder that their paths start from.
        folder: of the finished store; its name must tell its contents.
        kind: of the frames.
        short_side: larger frames are scaled down to it; none keeps their size.
        workers: decoding processes; 0 decodes in this one.

    Raises:
        VideoReadError: a clip cannot be decoded. What was decoded before it is kept.
        WriteError: the disk is full. What was decoded before is kept.
    """
    draft = folder.with_name(f".{folder.name}.part")
    lock_path = folder.with_name(f".{folder.name}.lock")
    with writing(lock_path, 0):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock_path.touch()
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "index.json").is_file():
            decode_rest(_PackedClips(clips, video_root, kind, short_side), draft, workers)
            write_index(draft, kind, folder)


def decode_rest(packed: "_PackedClips", draft: Path, workers: int) -> None:
    """Add the clips that the journal does not have, with a progress bar."""
    with writing(draft, 0):
        draft.mkdir(exist_ok=True)
        done = whole_clips(draft / "clips.jsonl", draft / "frames.bin")
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
        with writing(draft / "frames.bin", content.numel() * (len(todo) - number)):
            _append(draft, clip, content)


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
    """Add what a reader of the store needs, from the journal, and rename the draft to the store.

    Raises:
        WriteError: the disk is full. The frames are kept.
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
        self.clips, self.video_root, self.kind, self.short_side = (
            clips,
            video_root,
            kind,
            short_side,
        )

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, position: int) -> tuple[StoredClip, Tensor]:
        clip = self.clips[position]
        path, start_s, end_s = on_disk(self.video_root / clip.path), clip.start_s, clip.end_s
        frames, appears = read_clip(path, start_s=start_s, end_s=end_s, short_side=self.short_side)
        if problem := side_ratio_problem(frames.shape[2], frames.shape[1]):
            raise VideoReadError(f"{path} {problem}")
        length_s = clip_length(path, start_s=start_s, end_s=end_s)
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


def _append(draft: Path, clip: StoredClip, content: Tensor) -> None:
    # The journal last: a clip that it names is whole.
    with (draft / "frames.bin").open("ab") as pixels:
        pixels.write(content.numpy().data)
    with (draft / "clips.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(clip._asdict()) + "\n")
