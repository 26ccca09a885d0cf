"""Clips as training and evaluation items: which frames, cropped how, as lists of element tensors.

Every draw is a function of (seed, epoch, clip id, view) alone. The key of an item is (epoch,
position of its clip), so the same item can be made again by itself, and the number of loader
processes changes nothing. Source of views and moments: SeFAR (arXiv:2501.01245);
docs/paper_map.md, rows 1 and 2.
"""

import hashlib
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from qa_data.files import on_disk
from qa_data.manifest import Clip
from sefar_core.data.decode import refuse_elongated
from sefar_core.data.transforms import Augmentation, Pixels, Placement, normalized_crop, squares
from sefar_core.data.video import read_fractions
from sefar_core.sampling import Moments, Sampling

CLIP_FRAME_AXIS = 1  # of (channel, frame, height, width), a clip without its batch axis
FrameSampler = Callable[[torch.Generator], Moments]
Reader = Callable[[Clip, Sequence[float]], Tensor]
"""The frames of a clip at fractions of its length: `read_from_folder` bound to a folder, or
`FrameCache.read`."""


def seeded(*parts: object) -> torch.Generator:
    """A generator whose state is a hash of `parts`, the same in every process and on every run."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


class LabeledItem(NamedTuple):
    """One view of a clip: squares of whole colors, (frame, height, width, color), one tensor an
    element. `transforms.to_network` makes of them what a network takes, where they are wanted."""

    elements: list[Tensor]
    label: Tensor
    clip_id: str | list[str]
    """One of a clip, a list in a batch."""


class UnlabeledItem(NamedTuple):
    """What the teacher sees of a clip and what the student sees of it, both as in `LabeledItem`."""

    weak: list[Tensor]
    strong: list[Tensor]
    clip_id: str | list[str]


def read_from_folder(
    clip: Clip,
    fractions: Sequence[float],
    *,
    root: Path,
    short_side: int | None = None,
    read: Callable[..., Tensor] = read_fractions,
) -> Tensor:
    """The frames of a clip at fractions of its length, in [0, 1], decoded from its file under
    `root`.

    Larger frames are scaled down to `short_side`; `read` is one of `video_backends.READERS`.
    VideoReadError if the file is unreadable, ends too early, or its pictures are too elongated.
    """
    path, start_s, end_s = on_disk(root / clip.path), clip.start_s, clip.end_s
    frames = read(path, fractions, start_s=start_s, end_s=end_s, short_side=short_side)
    refuse_elongated(path, frames.shape[2], frames.shape[1])
    return frames


class LabeledClips(Dataset[LabeledItem]):
    """Clips with their class, each seen once, scaled, cropped and flipped at random.

    `sample` draws the moments of the elements, `augment` their places; `crop_size` is the side of
    the squares in pixels. ValueError for no clip, or one without a label.
    """

    stream = "LabeledClips"  # seeds the order of its batches: never follows the name of the class

    def __init__(
        self,
        clips: Sequence[Clip],
        read: Reader,
        *,
        sample: FrameSampler,
        augment: Augmentation,
        crop_size: int,
        seed: int,
    ):
        self.clips = list(clips)
        self.labels = known_labels(self.clips)
        self.read, self.sample, self.augment = read, sample, augment
        self.crop_size, self.seed = crop_size, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> LabeledItem:
        epoch, position = key
        clip = self.clips[position]
        generator = seeded(self.seed, epoch, clip.id, "labeled")
        moments = self.sample(generator)
        placements = self.augment.draw(len(moments), generator)
        frames = frames_of(self.read, clip, moments)
        elements = _squares(frames, placements, self.crop_size)
        return LabeledItem(elements, self.labels[position], clip.id)


def independent_moments(
    sample: FrameSampler, weak: torch.Generator, strong: torch.Generator
) -> tuple[Moments, Moments]:
    """Teacher and student sample moments of their own, as in the public code."""
    return sample(weak), sample(strong)


def shared_moments(
    sample: FrameSampler, weak: torch.Generator, strong: torch.Generator
) -> tuple[Moments, Moments]:
    """The student sees the moments that the teacher saw."""
    moments = sample(weak)
    return moments, moments


MOMENTS = {"independent": independent_moments, "shared": shared_moments}


class TwoViews(NamedTuple):
    """How the weak view (the teacher's) and the strong view (the student's) of a clip are drawn."""

    sample: FrameSampler
    moments: Callable[..., tuple[Moments, Moments]]
    weak: Augmentation
    strong: Augmentation


class UnlabeledClips(Dataset[UnlabeledItem]):
    """Clips seen twice; both views come from one pass over the file.

    What makes the strong view strong (perturbing time, mixing) happens on the batch, in training.
    Labels are not used; `crop_size` is the side of the squares in pixels. ValueError for no clip.
    """

    stream = "UnlabeledClips"  # see LabeledClips.stream

    def __init__(
        self, clips: Sequence[Clip], read: Reader, *, views: TwoViews, crop_size: int, seed: int
    ):
        self.clips = _at_least_one(clips)
        self.read, self.views, self.crop_size, self.seed = read, views, crop_size, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> UnlabeledItem:
        epoch, position = key
        clip, views = self.clips[position], self.views
        weak_draws = seeded(self.seed, epoch, clip.id, "weak")
        strong_draws = seeded(self.seed, epoch, clip.id, "strong")
        weak, strong = views.moments(views.sample, weak_draws, strong_draws)
        frames = frames_of(self.read, clip, weak + strong)
        weak_places = views.weak.draw(len(weak), weak_draws)
        strong_places = views.strong.draw(len(strong), strong_draws)
        return UnlabeledItem(
            _squares(frames[: len(weak)], weak_places, self.crop_size),
            _squares(frames[len(weak) :], strong_places, self.crop_size),
            clip.id,
        )


def view_moments(sampling: Sampling, sizes: Sequence[int], num_views: int) -> list[Moments]:
    """Moments of evaluation: view v of V is (v + 0.5) / V of the way into every segment.

    `sampling` is the one that the network was trained with, `sizes` the frames of each element.
    """
    return [sampling.center(sizes, (view + 0.5) / num_views) for view in range(num_views)]


def frames_of(read: Reader, clip: Clip, moments: Moments) -> list[Tensor]:
    """The frames of each element, all read in one go."""
    lengths = [len(element) for element in moments]
    return list(read(clip, torch.cat(moments).tolist()).split(lengths))


def _squares(
    frames: Sequence[Tensor], placements: Sequence[Placement], crop_size: int
) -> list[Tensor]:
    """The elements of a clip as whole colors."""
    return [
        squares(element, placement, crop_size)
        for element, placement in zip(frames, placements, strict=True)
    ]


def normalized_crops(
    frames: Sequence[Tensor], placements: Sequence[Placement], pixels: Pixels
) -> list[Tensor]:
    """The elements of a clip as a network takes them; neighbors that share a placement are cut out
    in one go."""
    elements: list[Tensor] = []
    for placement, group in groupby(zip(frames, placements, strict=True), key=itemgetter(1)):
        together = [element for element, _ in group]
        seen = normalized_crop(torch.cat(together), placement, pixels)
        elements += seen.split([len(element) for element in together], dim=CLIP_FRAME_AXIS)
    return elements


def _at_least_one(clips: Sequence[Clip]) -> list[Clip]:
    if not clips:
        raise ValueError("the list of clips is empty; is the split named right in the manifest?")
    return list(clips)


def known_labels(clips: Sequence[Clip]) -> Tensor:
    """The label of every clip; ValueError for no clip, or one without a label."""
    labels = [clip.label for clip in _at_least_one(clips)]
    if None in labels:
        clip = clips[labels.index(None)]
        raise ValueError(f"clip {clip.id} of split {clip.split} has no label; give it one")
    return torch.tensor(labels)
